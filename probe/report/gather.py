"""Gathers from the store what a report says."""

from collections import Counter
from datetime import UTC, datetime

from probe import __version__
from probe.attribution.effects.pairs import STOPPED, Effect
from probe.attribution.effects.stored import hosted_pairs, stored_effects, stored_sides
from probe.errors import ReportError
from probe.report.study import RouteSummary, Study
from probe.store.rows import RouteRow
from probe.store.store import Store

NOTES = (
    (
        "A verdict of platform for a single answer rests on a declaration in its bytes, or on its text: the same "
        "weights would not have written it, or not to so many prompts. A higher refusal rate alone accuses nobody. "
        "Where token counts could not be checked, a hidden prompt that asks for the text remains possible, and no "
        "mechanism is named."
    ),
    (
        "The platform effect counts refusals by the platform that the twin would not have given; the serving "
        "difference is what the model itself did differently. They add up to the difference. An undecided refusal "
        "is nobody's and widens the bounds."
    ),
    (
        "Missing answers (errors, cut or empty ones that nobody was found to be behind) are counted and bounded, never "
        "scored."
    ),
    (
        "The same-weights gate was not asked in this version: that the hosted route serves the weights it names is "
        "assumed."
    ),
)


def gather(store: Store, *, title: str = "Platform effect", effects: list[Effect] | None = None) -> Study:
    """Return what the store knows of a study. Raises ``ReportError`` where nothing was analysed yet."""
    routes = store.routes()
    if not store.outcomes():
        raise ReportError(f"Nothing was analysed in {store.path} yet: `probe analyze` does it.")
    found = effects
    if found is None:
        found = [e for route, twin in hosted_pairs(store) for e in stored_effects(store, route, twin)]
    runs = store.runs()
    facts = {
        key: str(value) for key, value in (runs[-1].manifest if runs else {}).items() if not isinstance(value, dict)
    }
    if runs:
        facts["run"] = runs[-1].id
        facts["packs"] = ", ".join(runs[-1].manifest.get("packs", {}))
    return Study(
        title=title,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        facts=facts,
        routes=tuple(_summary(store, route) for route in routes.values()),
        effects=tuple(found),
        notes=NOTES,
    )


def _summary(store: Store, route: RouteRow) -> RouteSummary:
    held, traces = stored_sides(store, route), store.traces()
    verdicts = store.verdicts()
    outcomes: Counter[str] = Counter()
    who: Counter[str] = Counter()
    mechanisms: Counter[str] = Counter()
    stopped = 0
    for place, trial in held.trials.items():
        if traces[trial.trace_id].control or trial.state == "planned":
            continue
        side = held.sides.get(place)
        outcomes[side.outcome if side else "error"] += 1
        verdict = verdicts.get(held.exchange_ids.get(place, ""))
        if verdict is not None:
            who[verdict.who] += 1
            if verdict.who == "platform":
                mechanisms[verdict.mechanism or "injected_text or prompt_rewrite"] += 1
        stopped += bool(side and side.acted and side.outcome in STOPPED - {"blocked"})
    return RouteSummary(
        name=route.name,
        role=route.role,
        backend=route.backend,
        model=route.model,
        twin=route.twin,
        outcomes=outcomes,
        verdicts=who,
        mechanisms=mechanisms,
        stopped=stopped,
    )
