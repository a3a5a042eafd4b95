"""Gathers from the store what a report says."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from probe import __version__
from probe.attribution.effects.blocking import study_blocking
from probe.attribution.effects.pairs import STOPPED, Effect
from probe.attribution.effects.stored import NOT_SENT, stored_sides, study_effects
from probe.attribution.gate.stored import gate_runs
from probe.attribution.settings import Settings
from probe.errors import ReportError
from probe.report.remarks import remarks
from probe.report.study import RouteSummary, Study
from probe.stats.clusters import proportion
from probe.store.rows import RouteRow
from probe.store.store import Store

SETTINGS = {"delta": "margin δ", "alpha": "α", "gate_delta": "margin δ of the gate", "level": "level of intervals"}
"""What is shown, and taken up again, of the settings of an analysis."""

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
        "The same-weights gate is asked on controls: whether the route serves the weights of its twin, under the same "
        "prompt. Its answer stands beside every effect. What a platform does to restricted requests only, it cannot "
        "see."
    ),
    (
        "A conclusion is about the difference: `platform` and `both` need refusals by verdict platform that the twin "
        "would not have given; `no difference within δ` needs every part shown below δ, undecided refusals and missing "
        "answers counted the worst way."
    ),
)


def gather(
    store: Store,
    *,
    title: str = "Platform effect",
    effects: Sequence[Effect] | None = None,
    settings: Settings | None = None,
) -> Study:
    """Return what the store knows of a study. Raises ``ReportError`` where nothing was analysed yet.

    ``effects`` as ``analyze`` gave them; without, they are made from the store, with the settings of that analysis.
    """
    routes = store.routes()
    if not store.outcomes():
        raise ReportError(f"Nothing was analysed in {store.path} yet: `probe analyze` does it.")
    asked = settings or stored_settings(store)
    if effects is None:
        found = study_effects(store, asked)
        effects = [effect for route_id in routes for effect in found.get(route_id, ())]
    return Study(
        title=title,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        facts=_facts(store, asked),
        routes=tuple(_summaries(store, routes.values(), asked.level)),
        effects=tuple(effects),
        notes=NOTES,
        blocking=tuple(study_blocking(store, level=asked.level)),
    )


def stored_settings(store: Store) -> Settings:
    """Return the settings with which the stored effects were made; the defaults where there are none."""
    stored: Mapping[str, Any] = next((row.detail.get("settings", {}) for row in store.effects()), {})
    return Settings(**{name: stored[name] for name in SETTINGS if name in stored})


def _facts(store: Store, settings: Settings) -> dict[str, str]:
    aside = gate_runs(store)
    runs = [run for run in store.runs() if run.id not in aside]
    facts = {
        key: str(value) for key, value in (runs[-1].manifest if runs else {}).items() if not isinstance(value, dict)
    }
    if runs:
        facts["run"] = runs[-1].id
        facts["packs"] = ", ".join(runs[-1].manifest.get("packs", {}))
    return facts | {label: f"{getattr(settings, name):g}" for name, label in SETTINGS.items()}


def _summaries(store: Store, routes: Iterable[RouteRow], level: float) -> Iterator[RouteSummary]:
    aside = gate_runs(store)
    controls = {trace_id for trace_id, (_, control) in store.trace_kinds().items() if control}
    for route in routes:
        yield _summary(store, route, controls, aside, level)


def _summary(store: Store, route: RouteRow, controls: set[str], aside: set[str], level: float) -> RouteSummary:
    held, verdicts = stored_sides(store, route), store.verdicts(route_id=route.id)
    outcomes: Counter[str] = Counter()
    who: Counter[str] = Counter()
    mechanisms: Counter[str] = Counter()
    refusals: list[tuple[str, int]] = []
    stopped = spared = 0
    for place, trial in held.trials.items():
        if trial.trace_id in controls or trial.run_id in aside:
            continue
        spared += trial.state == "spared"
        if trial.state in NOT_SENT:
            continue
        side = held.sides.get(place)
        outcomes[side.outcome if side else "error"] += 1
        if side is not None and side.refusal is not None:
            refusals.append((trial.trace_id, side.refusal))
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
        refusal=proportion(refusals, level=level),
        spared=spared,
        remarks=remarks(store, route),
    )
