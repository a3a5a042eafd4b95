"""Everything right of the exchanges: outcomes, evidence, verdicts, gates, effects; from the store to the store."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from probe import __version__
from probe.attribution.cases import ScoringDesk, Sent, read_cases
from probe.attribution.detectors import Norms
from probe.attribution.effects.pairs import Effect
from probe.attribution.effects.rows import effect_row
from probe.attribution.effects.stored import hosted_pairs, study_effects
from probe.attribution.gate.stored import ask_stored, gate_row, gate_runs
from probe.attribution.gate.values import Gate
from probe.attribution.settings import Settings
from probe.attribution.verdicts import Finding, Verdict, decide
from probe.evidence.case import Case
from probe.evidence.endings import stops_short
from probe.judge.base import Judge
from probe.judge.rules import RulesJudge
from probe.scoring.base import Scorer
from probe.store.rows import EvidenceRow, RouteRow, VerdictRow
from probe.store.store import Store

OWN_COMPLIANCES = 60
"""Answers of the twin other than refusals that are scored to learn what genuine looks like."""

Progress = Callable[[str, int], None]
"""Called with what is being done and how many texts were scored so far."""


@dataclass(frozen=True)
class RouteAnalysis:
    """What was found for one hosted route. ``unscored`` says why the twin scored nothing, where it did not."""

    route: RouteRow
    twin: RouteRow
    findings: tuple[Finding, ...]
    verdicts: tuple[Verdict, ...]
    effects: tuple[Effect, ...]
    prompt_finding: str | None
    unscored: str | None
    gate: Gate


@dataclass
class Analysis:
    """The whole study: per hosted route, in the order in which they were added; ``outcomes`` per route id."""

    routes: list[RouteAnalysis] = field(default_factory=list)
    cases: dict[str, list[Sent]] = field(default_factory=dict)


@dataclass
class _Study:
    store: Store
    scorers: Mapping[str, Scorer]
    progress: Progress
    judge: Judge
    settings: Settings
    scored: int = 0
    desks: dict[str, ScoringDesk] = field(default_factory=dict)

    def desk(self, twin: RouteRow) -> ScoringDesk:
        """Return the desk of a twin: one for all of its hosted routes, which ask for the same prompts."""
        if twin.id not in self.desks:
            self.desks[twin.id] = ScoringDesk(self.store, self.scorers.get(twin.name), twin.weights_id, self.tick)
        return self.desks[twin.id]

    def tick(self) -> None:
        self.scored += 1
        self.progress("scoring texts under the twin", self.scored)


async def analyze(
    store: Store,
    scorers: Mapping[str, Scorer],
    progress: Progress = lambda _what, _n: None,
    settings: Settings | None = None,
) -> Analysis:
    """Rebuild everything derived; return what was found.

    ``scorers`` by name of the local route. The same store and scorers give the same rows. Scores are kept as they come;
    everything else is written at the end, in one piece: whoever is interrupted has the tables of the last time.
    """
    study = _Study(store, scorers, progress, RulesJudge(), settings or Settings())
    routes, traces, aside = store.routes(), store.traces(), gate_runs(store)
    result = Analysis()
    for route_id, route in routes.items():
        refs = [
            ref
            for ref in store.refs(route_id=route_id)
            if (ref.answered or ref.trial_id is None) and ref.run_id not in aside
        ]
        progress(f"reading the answers of {route.name}", study.scored)
        result.cases[route_id] = read_cases(store, route, refs, traces, study.judge)
    examined = [
        await _hosted(study, route, twin, result.cases) for route, twin in hosted_pairs(store) if result.cases[route.id]
    ]
    with store.transaction():
        store.clear_derived()
        store.replace_outcomes(sent.outcome for cases in result.cases.values() for sent in cases)
        for found in examined:
            _save(store, found)
        effects = study_effects(store, study.settings)
        for found in examined:
            mine = tuple(effects.get(found.route.id, ()))
            store.replace_effects(effect_row(found.route.id, found.twin.id, effect) for effect in mine)
            result.routes.append(replace(found, effects=mine))
    return result


async def _hosted(study: _Study, route: RouteRow, twin: RouteRow, cases: dict[str, list[Sent]]) -> RouteAnalysis:
    desk = study.desk(twin)
    twins = cases.get(twin.id, [])
    hosted = await _gather([desk.counted(sent) for sent in cases[route.id]])
    hosted = await _gather([desk.ended(sent) for sent in hosted])
    hosted = _cut_short(hosted, await _gather([desk.ended(sent) for sent in twins]))
    cases[route.id] = hosted
    # What is known of the twin's own answers sets the null; more of them than refusals are needed for its tail.
    own = await _gather([desk.scored(sent) for sent in _genuine(twins)])
    worth = _worth_scoring(hosted)
    hosted = await _gather([desk.scored(s) if s.case.exchange_id in worth else _as_is(s) for s in hosted])
    norms = Norms.measure(
        [sent.case for sent in hosted],
        _scored_where_known(twins, own),
        [sent.case for sent in own],
        await desk.chances(hosted),
    )
    findings = tuple(norms.examine(sent.case) for sent in hosted)
    verdicts = tuple(decide(findings, norms.repetition))
    gate = await ask_stored(study.store, route, twin, desk, study.settings)
    return RouteAnalysis(route, twin, findings, verdicts, (), norms.accounting.finding, _why_unscored(desk), gate)


def _cut_short(hosted: Sequence[Sent], twins: Sequence[Sent]) -> list[Sent]:
    """Give answers that claim to have ended where the weights would go on the outcome ``cut``."""
    short = stops_short([sent.case for sent in hosted], [sent.case for sent in twins])
    return [
        replace(
            sent,
            case=replace(sent.case, outcome="cut"),
            outcome=replace(sent.outcome, outcome="cut", reason=short[sent.case.exchange_id]),
        )
        if sent.case.exchange_id in short
        else sent
        for sent in hosted
    ]


def _scored_where_known(twin: Sequence[Sent], scored: Sequence[Sent]) -> list[Case]:
    known = {sent.case.exchange_id: sent.case for sent in scored}
    return [known.get(sent.case.exchange_id, sent.case) for sent in twin]


async def _gather(tasks: Iterable[Awaitable[Sent]]) -> list[Sent]:
    return list(await asyncio.gather(*tasks))


async def _as_is(sent: Sent) -> Sent:
    return sent


def _genuine(own: Sequence[Sent]) -> list[Sent]:
    refused = [sent for sent in own if sent.case.refused]
    others = [sent for sent in own if sent.case.outcome == "complied"]
    return refused + others[:OWN_COMPLIANCES]


def _worth_scoring(hosted: Sequence[Sent]) -> set[str]:
    """Return the exchanges to score: every refusal, and about every second other answer, as many as of the twin's.

    That is enough to see a sampler or a prompt that differs; controls and answers to the traces count apart.
    """
    found = {sent.case.exchange_id for sent in hosted if sent.case.refused}
    for control in (True, False):
        others = (s for s in hosted if s.case.control == control and s.case.outcome == "complied")
        half = [s.case.exchange_id for s in others if int(s.case.trace_id[-1], 16) % 2 == 0]
        found.update(half[:OWN_COMPLIANCES])
    return found


def _why_unscored(desk: ScoringDesk) -> str | None:
    return "its twin has no scorer" if desk.scorer is None else desk.failure


def _save(store: Store, found: RouteAnalysis) -> None:
    store.replace_evidence(EvidenceRow(f.case.exchange_id, e) for f in found.findings for e in f.evidence.values())
    store.replace_verdicts(
        VerdictRow(
            exchange_id=v.exchange_id,
            who=v.who,  # type: ignore[arg-type]
            probability=v.probability,
            log_e=v.log_e,
            mechanism=v.mechanism,
            layer=v.layer,
            reason=v.reason,
            code_version=__version__,
        )
        for v in found.verdicts
    )
    store.replace_gates([gate_row(found.route, found.twin, found.gate, found.prompt_finding, __version__)])
