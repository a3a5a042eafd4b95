"""The plan: which trace goes over which route when."""

import platform
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probe import __version__
from probe.config import Config
from probe.runs.requests import build_request
from probe.store.rows import PackRow, RunRow, TrialRow
from probe.store.store import Store
from probe.traces.values import Trace


@dataclass(frozen=True)
class Pack:
    """Traces with the row that names their file."""

    row: PackRow
    traces: tuple[Trace, ...]


def plan_run(
    config: Config,
    packs: Sequence[Pack],
    *,
    seed: int,
    repeats: int,
    aa: bool = True,
    until: Mapping[str, Any] | None = None,
) -> tuple[RunRow, list[TrialRow]]:
    """Return a run and its trials in random order.

    Traces are shuffled with a stored seed, and so are the trials of each trace, which stay together: drift in time
    (load, a silent deployment) hits all routes alike, and the two sides of a pair are sent at about the same time.
    ``aa``: a twin gets every trace that is no control once more, so that it can be compared with itself. ``until``
    goes into the manifest. A trace that two packs share is sent once.
    """
    traces = {trace.id: trace for pack in packs for trace in pack.traces}
    kept = manifest(config, packs, seed=seed, repeats=repeats, aa=aa, until=until)
    run = RunRow(started_at=time.time(), seed=seed, manifest=kept)
    chance = random.Random(seed)
    order = list(traces.values())
    chance.shuffle(order)
    twins = {route.twin for route in config.hosted()} if aa else set()
    trials: list[TrialRow] = []
    for trace in order:
        places = [
            (route, repeat)
            for route in config.routes.values()
            for repeat in range(1, repeats + 1 + (route.name in twins and not trace.control))
        ]
        chance.shuffle(places)
        for route, repeat in places:
            dropped = build_request(route, trace).dropped
            trials.append(TrialRow(run.id, trace.id, route.row.id, repeat, len(trials), dropped=dropped))
    return run, trials


def store_plan(store: Store, config: Config, packs: Sequence[Pack], run: RunRow, trials: Sequence[TrialRow]) -> None:
    """Write the whole plan in one commit: a run that was killed while planning has not begun."""
    with store.transaction():
        for route in config.routes.values():
            store.add_weights(route.weights_row)
            store.add_route(route.row)
        for pack in packs:
            store.add_pack(pack.row, pack.traces)
        store.add_run(run)
        store.add_trials(trials)


def manifest(
    config: Config,
    packs: Sequence[Pack],
    *,
    seed: int,
    repeats: int,
    aa: bool = False,
    until: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what somebody needs to repeat the run: versions, routes, packs, seed. No credentials, no paths.

    ``until`` adds its own keys where the run may stop early (``Until.to_json``).
    """
    return {
        "probe": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "byteorder": sys.byteorder,
        "seed": seed,
        "repeats": repeats,
        "routes": {name: route.row.id for name, route in config.routes.items()},
        "packs": {pack.row.name: pack.row.id for pack in packs},
        "aa": aa,
        **(until or {}),
    }


_PLAN_KEYS = ("seed", "repeats", "routes", "packs", "kind", "until", "alpha", "delta", "by")


def same_plan(run: RunRow, wanted: Mapping[str, Any]) -> bool:
    """Tell whether an unfinished run has the plan of this manifest, so that it can be resumed.

    One of a version that knew no A/A controls is taken up as it was planned: what was answered was paid for.
    """
    if run.manifest.get("aa", wanted["aa"]) != wanted["aa"]:
        return False
    return all(run.manifest.get(key) == wanted.get(key) for key in _PLAN_KEYS)
