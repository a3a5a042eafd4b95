"""Effects from what the store holds: trials, outcomes and verdicts. The last stage, which can be run again alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from probe.attribution.effects.estimate import effects_for
from probe.attribution.effects.pairs import Effect, Pair, Side, Who
from probe.attribution.settings import Settings
from probe.judge.base import Outcome
from probe.judge.rules import RulesJudge
from probe.store.rows import RouteRow, TrialRow
from probe.store.store import Store

Place = tuple[str, str, int]
"""(run id, trace id, repeat)."""


@dataclass(frozen=True)
class StoredSides:
    """Per trial place of one route: what came, and who is behind it. ``exchange_ids`` names the answers."""

    sides: dict[Place, Side]
    exchange_ids: dict[Place, str]
    trials: dict[Place, TrialRow]


def stored_sides(store: Store, route: RouteRow) -> StoredSides:
    """Read the sides of one route."""
    rows = store.outcomes(judge=RulesJudge.name, route_id=route.id)
    outcomes: dict[str, Outcome] = {row.exchange_id: row.outcome for row in rows}
    who: dict[str, Who] = {key: row.who for key, row in store.verdicts(route_id=route.id).items()}
    sides, ids = {}, {}
    for ref in store.refs(route_id=route.id):
        if ref.answered and ref.run_id and ref.trace_id and ref.repeat is not None and ref.id in outcomes:
            place = (ref.run_id, ref.trace_id, ref.repeat)
            sides[place] = Side(outcomes[ref.id], who.get(ref.id))
            ids[place] = ref.id
    trials = {(t.run_id, t.trace_id, t.repeat): t for t in store.trials(route_id=route.id)}
    return StoredSides(sides, ids, trials)


def hosted_pairs(store: Store) -> Iterator[tuple[RouteRow, RouteRow]]:
    """Yield (hosted route, twin) for every hosted route whose twin the study knows."""
    routes = store.routes()
    newest = {route.name: route for route in routes.values()}
    for route in routes.values():
        twin = newest.get(route.twin or "")
        if route.role == "hosted" and twin is not None:
            yield route, twin


def stored_effects(store: Store, route: RouteRow, twin: RouteRow, *, level: float = 0.95) -> list[Effect]:
    """Return the effects of one hosted route: over all pairs, then per family.

    A trial that was given up is a pair with a missing side (outcome ``error``); one that was not sent yet, because the
    run is unfinished, is no pair.
    """
    hosted, own, kinds = stored_sides(store, route), stored_sides(store, twin), store.trace_kinds()
    pairs = []
    for place, trial in hosted.trials.items():
        (family, control), other = kinds[trial.trace_id], own.trials.get(place)
        if control or other is None or "planned" in {trial.state, other.state}:
            continue
        pairs.append(
            Pair(
                trace_id=trial.trace_id,
                family=family,
                hosted=hosted.sides.get(place, Side("error")),
                twin=own.sides.get(place, Side("error")),
            )
        )
    finding = next((gate.detail.get("prompt_finding") for gate in store.gates(route.id)), None)
    return effects_for(pairs, route.name, twin.name, prompt_finding=finding, level=level)


def study_effects(store: Store, settings: Settings) -> dict[str, list[Effect]]:
    """Return the effects of all hosted routes by route id."""
    return {route.id: stored_effects(store, route, twin, level=settings.level) for route, twin in hosted_pairs(store)}
