"""Effects from what the store holds: trials, outcomes and verdicts. The last stage, which can be run again alone."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from probe.attribution.effects.aa import AATest
from probe.attribution.effects.columns import ERROR, SIDES, Columns, place_of
from probe.attribution.effects.controls import Answer, against_itself, early_against_late, judged
from probe.attribution.effects.estimate import TOTAL, RouteFacts, concluded, route_effects
from probe.attribution.effects.pairs import Effect, Side
from probe.attribution.gate.stored import gate_runs
from probe.attribution.gate.values import Gate, gate_of_json
from probe.attribution.settings import Settings
from probe.judge.rules import RulesJudge
from probe.store.columns import from_json
from probe.store.rows import TRIED, GateRow, RouteRow, TrialRow, WeightsRow
from probe.store.store import Store

Place = tuple[str, str, int]
"""(run id, trace id, repeat)."""

NOT_SENT = frozenset({"planned", "spared"})
"""States of trials that were not sent: no answer is missing there, because none was asked for."""

_ANSWERS = """
SELECT trials.id, run_id, trace_id, repeat, position,
  CASE WHEN trials.state = 'planned' AND trials.reason IN (SELECT value FROM json_each(?)) THEN 'failed'
    ELSE trials.state END,
  dropped, exchanges.id, outcome, who
FROM trials
LEFT JOIN exchanges ON exchanges.trial_id = trials.id AND answered = 1
LEFT JOIN outcomes ON outcomes.exchange_id = exchanges.id AND judge = ?
LEFT JOIN verdicts ON verdicts.exchange_id = exchanges.id
WHERE trials.route_id = ?
ORDER BY run_id, position
"""


@dataclass(frozen=True)
class StoredSides:
    """Per trial place of one route: what came, and who is behind it. ``exchange_ids`` names the answers."""

    sides: dict[Place, Side]
    exchange_ids: dict[Place, str]
    trials: dict[Place, TrialRow]


def stored_sides(store: Store, route: RouteRow) -> StoredSides:
    """Read the sides of one route."""
    held = StoredSides({}, {}, {})
    for trial, run, trace, repeat, position, state, dropped, exchange, outcome, who in _rows(store, route):
        place = (run, trace, repeat)
        if outcome is not None:
            held.sides[place] = SIDES[place_of(outcome, who)]
            held.exchange_ids[place] = exchange
        names = () if dropped == "[]" else tuple(from_json(dropped))
        held.trials[place] = TrialRow(run, trace, route.id, repeat, position, state, names, trial)
    return held


def hosted_pairs(store: Store) -> Iterator[tuple[RouteRow, RouteRow]]:
    """Yield (hosted route, twin) for every hosted route whose twin the study knows."""
    routes = store.routes()
    newest = {route.name: route for route in routes.values()}
    for route in routes.values():
        twin = newest.get(route.twin or "")
        if route.role == "hosted" and twin is not None:
            yield route, twin


def study_effects(store: Store, settings: Settings) -> dict[str, list[Effect]]:
    """Return the effects of all hosted routes by route id, with p-values adjusted over routes and families together."""
    study = _Study(store, settings)
    found: dict[str, list[Effect]] = {}
    tests: dict[str, list[AATest]] = {}
    for route, twin in hosted_pairs(store):
        hosted, own = study.asked(route), study.asked(twin)
        tests[route.id] = study.controls(route, twin, hosted, own)
        found[route.id] = study.effects(route, twin, hosted, own)
    controls = judged(tests, settings.alpha)
    known = [
        [replace(effect, aa=controls[key]) if effect.scope == TOTAL else effect for effect in effects]
        for key, effects in found.items()
    ]
    return dict(zip(found, concluded(known), strict=True))


def stored_effects(store: Store, route: RouteRow, twin: RouteRow, *, level: float = 0.95) -> list[Effect]:
    """Return the effects of one hosted route of a study; ``twin`` is its twin in ``hosted_pairs``."""
    del twin
    return study_effects(store, Settings(level=level))[route.id]


_UNSENT = -1

_Asked = dict[Place, int]
"""Attack trials of one route in the order of sending: the answer's place in ``SIDES``, or ``_UNSENT``."""


@dataclass
class _Matched:
    """Pairs as rows, and per family what is no pair."""

    rows: list[tuple[str, str, int, int]] = field(default_factory=list)
    unpaired: dict[str, Counter[str]] = field(default_factory=lambda: {"hosted": Counter(), "twin": Counter()})
    unsent: Counter[str] = field(default_factory=Counter)
    across_runs: Counter[str] = field(default_factory=Counter)


class _Study:
    """What all hosted routes of a study share is read once: kinds of traces, runs, and the twins' answers."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self._families = {key: family for key, (family, control) in store.trace_kinds().items() if not control}
        self._aside = gate_runs(store)
        self._stopping = {run.id for run in store.runs() if run.manifest.get("until")}
        self._weights = store.weights()
        self._twins: dict[str, _Asked] = {}
        self._own: dict[str, AATest] = {}

    def asked(self, route: RouteRow) -> _Asked:
        """Return the attack trials of a route; a twin's are kept for the next hosted route."""
        if route.role != "local":
            return self._read(route)
        if route.id not in self._twins:
            self._twins[route.id] = self._read(route)
        return self._twins[route.id]

    def _read(self, route: RouteRow) -> _Asked:
        return {
            (run, trace, repeat): _UNSENT if state in NOT_SENT else _place(outcome, who)
            for _, run, trace, repeat, _, state, _, _, outcome, who in _rows(self.store, route)
            if trace in self._families and run not in self._aside
        }

    def controls(self, route: RouteRow, twin: RouteRow, hosted: _Asked, own: _Asked) -> list[AATest]:
        """Return the A/A controls of a hosted route; the twin's is the same for all of its hosted routes."""
        level = self.settings.level
        if twin.id not in self._own:
            self._own[twin.id] = against_itself(self._answers(own), twin.name, level=level)
        halves = early_against_late(self._answers(hosted), route.name, level=level, seed=self.settings.seed)
        return [self._own[twin.id], halves]

    def _answers(self, asked: _Asked) -> list[Answer]:
        refusals = [side.refusal for side in SIDES]
        return [
            Answer(run, trace, repeat, self._families[trace], refusal)
            for (run, trace, repeat), place in asked.items()
            if place != _UNSENT and (refusal := refusals[place]) is not None
        ]

    def effects(self, route: RouteRow, twin: RouteRow, hosted: _Asked, own: _Asked) -> list[Effect]:
        """Return the effects of a hosted route, not yet adjusted, and without A/A controls."""
        matched = _match(hosted, own, self._families)
        gates = [row for row in self.store.gates(route.id) if row.twin_id == twin.id]
        facts = RouteFacts(
            prompt_finding=next((row.detail.get("prompt_finding") for row in gates), None),
            gate=next((_gate(row) for row in gates), None),
            sequential=any(run in self._stopping for run in {run for run, _, _ in hosted}),
            unpaired=matched.unpaired,
            unsent=matched.unsent,
            across_runs=matched.across_runs,
            other_weights=self._other_weights(route, twin),
        )
        return route_effects(Columns.of_rows(matched.rows), route.name, twin.name, facts, self.settings)

    def _other_weights(self, route: RouteRow, twin: RouteRow) -> str | None:
        if route.weights_id == twin.weights_id:
            return None
        theirs, own = self._weights[route.weights_id], self._weights[twin.weights_id]
        # What only one side states contradicts nothing: few hosts say which revision they serve.
        stated = ((theirs.revision, own.revision), (theirs.quantization, own.quantization))
        if theirs.name == own.name and all(a == b for a, b in stated if a and b):
            return None
        return (
            f"{route.name} is said to serve {_named(theirs)} and its twin {twin.name} {_named(own)}: a difference "
            "between them may be the weights'."
        )


def _named(weights: WeightsRow) -> str:
    return "@".join(part for part in (weights.name, weights.revision) if part)


def _rows(store: Store, route: RouteRow) -> list[tuple[Any, ...]]:
    # A route that turns nearly everything away must not look as if nobody had asked.
    return store.query(_ANSWERS, (json.dumps(TRIED), RulesJudge.name, route.id))


def _place(outcome: Any, who: Any) -> int:
    # A trial that was given up, or whose answer nobody judged, is missing: outcome ``error``.
    return ERROR if outcome is None else place_of(outcome, who)


def _gate(row: GateRow) -> Gate | None:
    """Return the stored answer; ``None`` where an older version did not ask."""
    detail = {key: value for key, value in row.detail.items() if key != "prompt_finding"}
    return gate_of_json(detail) if "tests" in detail else None


def _match(hosted: _Asked, twin: _Asked, families: Mapping[str, str]) -> _Matched:
    """Pair answers to the same trace: of the same run and repeat first, what is left then across runs.

    A trial that was given up is a pair with a missing side; one that was not sent is no pair. A twin's answers to a
    trace that a run asked more often of it than of the hosted route are the A/A control's.
    """
    found = _Matched()
    alone: list[tuple[str, int]] = []
    for place, answer in hosted.items():
        trace, other = place[1], twin.get(place)
        if other is None:
            alone += [(trace, answer)] if answer != _UNSENT else []
        elif _UNSENT in (answer, other):
            found.unsent[families[trace]] += 1
        else:
            found.rows.append((trace, families[trace], answer, other))
    asked = {(run, trace) for run, trace, _ in hosted}
    spare: dict[str, list[int]] = {}
    for place, answer in twin.items():
        if answer != _UNSENT and place[:2] not in asked:
            spare.setdefault(place[1], []).append(answer)
    for trace, answer in alone:
        family = families[trace]
        if spare.get(trace):
            found.rows.append((trace, family, answer, spare[trace].pop(0)))
            found.across_runs[family] += 1
        else:
            found.unpaired["hosted"][family] += 1
    for trace, answers in spare.items():
        found.unpaired["twin"][families[trace]] += len(answers)
    return found
