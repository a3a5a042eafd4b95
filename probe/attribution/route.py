"""One route from the store to its findings: read, counted, scored, compared with its twin, and decided."""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import batched
from typing import Any

from probe import __version__
from probe.attribution.cases import Marked, ScoringDesk, Sent, read_cases
from probe.attribution.detectors import Norms
from probe.attribution.effects.pairs import Effect
from probe.attribution.gate.stored import ask_stored
from probe.attribution.gate.values import Gate
from probe.attribution.settings import Settings
from probe.attribution.spool import Spool
from probe.attribution.verdicts import Finding, Verdict, decide
from probe.evidence.case import Case
from probe.evidence.endings import stops_short
from probe.evidence.likelihood import Genuine
from probe.judge.base import Judge
from probe.judge.rules import RulesJudge
from probe.store.derived import evidence_values, outcome_values, verdict_values
from probe.store.rows import ExchangeRef, RouteRow, VerdictRow
from probe.store.served import served_values
from probe.store.store import Store

OWN_COMPLIANCES = 60
"""Answers of the twin other than refusals that are scored to learn what genuine looks like."""

BATCH = 256
"""Answers that are read, counted and scored together."""


@dataclass(frozen=True)
class RouteAnalysis:
    """What was found for one hosted route. ``unscored`` says why the twin scored nothing, where it did not.

    ``findings`` are kept for small studies only; the store has them all.
    """

    route: RouteRow
    twin: RouteRow
    findings: tuple[Finding, ...]
    verdicts: tuple[Verdict, ...]
    effects: tuple[Effect, ...]
    prompt_finding: str | None
    unscored: str | None
    gate: Gate


@dataclass(frozen=True)
class Twin:
    """What a twin's answers are needed for: the cases without bytes or scores, and what its own texts score."""

    cases: tuple[Case, ...]
    genuine: Genuine


@dataclass
class Study:
    """What all routes share. ``lean``: keep no bytes, and no findings once they are written."""

    store: Store
    marks: Mapping[str, Marked]
    settings: Settings
    lean: bool = False
    judge: Judge = field(default_factory=RulesJudge)


async def each(waiting: Iterable[Coroutine[Any, Any, Sent]]) -> list[Sent]:
    """Await all, in their order. What needs no server is done at once and costs no turn of the loop."""
    loop = asyncio.get_running_loop()
    tasks = [asyncio.Task(one, loop=loop, eager_start=True) for one in waiting]
    late = [task for task in tasks if not task.done()]
    if late:
        try:
            await asyncio.gather(*late)
        except BaseException:
            for task in late:
                task.cancel()
            raise
    return [task.result() for task in tasks]


def answered(store: Store, route_id: str, aside: set[str]) -> list[ExchangeRef]:
    """Return the answers of a route that are judged: those of trials, and those outside any plan.

    What was fetched (a list of models, what a router tells of a generation afterwards) is no answer.
    """
    fetched = {
        key for (key,) in store.query("SELECT id FROM exchanges WHERE route_id = ? AND method = 'GET'", [route_id])
    }
    return [
        ref
        for ref in store.refs(route_id=route_id)
        if (ref.answered or ref.trial_id is None) and ref.run_id not in aside and ref.id not in fetched
    ]


async def read_hosted(study: Study, desk: ScoringDesk, route: RouteRow, refs: Sequence[ExchangeRef]) -> list[Sent]:
    """Read a hosted route's answers, with token counts and the probabilities of their ends."""
    found: list[Sent] = []
    for sents in _batches(study, route, refs):
        found += await each(map(desk.ended, await each(map(desk.counted, sents))))
    return found


async def read_twin(study: Study, desk: ScoringDesk, route: RouteRow, refs: Sequence[ExchangeRef]) -> list[Sent]:
    """Read a twin's answers, with the probabilities of their ends."""
    found: list[Sent] = []
    for sents in _batches(study, route, refs):
        found += await each(map(desk.ended, sents))
    return found


def read_other(study: Study, route: RouteRow, refs: Sequence[ExchangeRef]) -> list[Sent]:
    """Read the answers of a route that is compared with nothing."""
    return [sent for sents in _batches(study, route, refs) for sent in sents]


def _batches(study: Study, route: RouteRow, refs: Sequence[ExchangeRef]) -> Iterator[list[Sent]]:
    for some in batched(refs, BATCH):
        yield read_cases(study.store, route, some, study.marks, study.judge, lean=study.lean)


async def genuine_of(desk: ScoringDesk, sents: Iterable[Sent]) -> Genuine:
    """Score texts of a twin and return what its own texts score."""
    parts = [
        Genuine.measure(sent.case for sent in await each(map(desk.scored, some))) for some in batched(sents, BATCH)
    ]
    return together(parts)


def together(parts: Sequence[Genuine]) -> Genuine:
    """Return what several parts of a twin's texts score."""
    return Genuine(tuple(log for part in parts for log in part.logs), tuple(m for part in parts for m in part.margins))


def compliances(twins: Sequence[Sent]) -> list[Sent]:
    """Return answers of a twin that are scored beside its refusals: more of them are needed for the null's tail."""
    return [sent for sent in twins if sent.case.outcome == "complied"][:OWN_COMPLIANCES]


async def examine(
    study: Study, desk: ScoringDesk, routes: tuple[RouteRow, RouteRow], hosted: list[Sent], twin: Twin, spool: Spool
) -> tuple[RouteAnalysis, list[Sent]]:
    """Find who wrote what on a hosted route; its rows go to ``spool``. Returns the answers as they were judged, too."""
    route, own = routes
    hosted = _cut_short(hosted, twin.cases)
    worth = _worth_scoring(hosted)
    hosted = await _scored(desk, hosted, worth)
    cases = [sent.case for sent in hosted]
    norms = Norms.measure(cases, twin.cases, (), await desk.chances(hosted), own=twin.genuine)
    spool_read(spool, hosted)
    findings = []
    for case in cases:
        finding = norms.examine(case)
        spool.add("evidence", [evidence_values(case.exchange_id, e) for e in finding.evidence.values()])
        if not study.lean or finding.open:
            findings.append(finding)
    verdicts = decide(findings, norms.repetition)
    spool.add("verdicts", (verdict_values(_verdict_row(v)) for v in verdicts))
    gate = await ask_stored(study.store, route, own, desk, study.settings)
    kept = () if study.lean else tuple(findings)
    unscored = "its twin has no scorer" if desk.scorer is None else desk.failure
    prompt = norms.accounting.finding
    return RouteAnalysis(route, own, kept, tuple(verdicts), (), prompt, unscored, gate), hosted


def spool_read(spool: Spool, sents: Sequence[Sent]) -> None:
    """Write what answers were judged as, and who served them."""
    spool.add("outcomes", (outcome_values(sent.outcome) for sent in sents))
    spool.add("served", [served_values(sent.served) for sent in sents if sent.served is not None])


async def _scored(desk: ScoringDesk, hosted: list[Sent], worth: set[str]) -> list[Sent]:
    found = []
    for some in batched(hosted, BATCH):
        chosen = [sent for sent in some if sent.case.exchange_id in worth]
        scored = iter(await each(map(desk.scored, chosen)))
        found += [next(scored) if sent.case.exchange_id in worth else sent for sent in some]
    return found


def _cut_short(hosted: Sequence[Sent], twins: Sequence[Case]) -> list[Sent]:
    """Give answers that claim to have ended where the weights would go on the outcome ``cut``."""
    short = stops_short([sent.case for sent in hosted], twins)
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


def _verdict_row(v: Verdict) -> VerdictRow:
    return VerdictRow(
        exchange_id=v.exchange_id,
        who=v.who,  # type: ignore[arg-type]
        probability=v.probability,
        log_e=v.log_e,
        mechanism=v.mechanism,
        layer=v.layer,
        reason=v.reason,
        code_version=__version__,
    )
