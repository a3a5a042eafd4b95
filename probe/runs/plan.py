"""The plan: which trace goes over which route when."""

import platform
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probe import __version__
from probe.config import Config, Route
from probe.store.rows import PackRow, RunRow, TrialRow
from probe.store.store import Store
from probe.traces.values import Trace
from probe.wire.dialects import dialect
from probe.wire.values import BuiltRequest

LOGPROBS = 0
"""Alternatives asked for per token; hosted routes reveal nothing more by default."""


@dataclass(frozen=True)
class Pack:
    """Traces with the row that names their file."""

    row: PackRow
    traces: tuple[Trace, ...]


def build_request(route: Route, trace: Trace) -> BuiltRequest:
    """Return what a trace becomes on a route; the same for every repeat."""
    return dialect(route.backend.dialect).build(
        trace,
        model=route.model,
        stream=route.stream,
        backend=route.backend,
        request=route.request,
        logprobs=LOGPROBS,
    )


def plan_run(config: Config, packs: Sequence[Pack], *, seed: int, repeats: int) -> tuple[RunRow, list[TrialRow]]:
    """Return a run and its trials in random order.

    Interleaved in one shuffle with a stored seed, so that drift in time (load, a silent deployment) hits all routes
    alike. A trace that two packs share is sent once.
    """
    traces = {trace.id: trace for pack in packs for trace in pack.traces}
    run = RunRow(started_at=time.time(), seed=seed, manifest=manifest(config, packs, seed=seed, repeats=repeats))
    places = [
        (trace, route, repeat)
        for trace in traces.values()
        for route in config.routes.values()
        for repeat in range(1, repeats + 1)
    ]
    random.Random(seed).shuffle(places)
    trials = [
        TrialRow(
            run_id=run.id,
            trace_id=trace.id,
            route_id=route.row.id,
            repeat=repeat,
            position=position,
            dropped=build_request(route, trace).dropped,
        )
        for position, (trace, route, repeat) in enumerate(places)
    ]
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


def manifest(config: Config, packs: Sequence[Pack], *, seed: int, repeats: int) -> dict[str, Any]:
    """Return what somebody needs to repeat the run: versions, routes, packs, seed. No credentials, no paths."""
    return {
        "probe": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "byteorder": sys.byteorder,
        "seed": seed,
        "repeats": repeats,
        "routes": {name: route.row.id for name, route in config.routes.items()},
        "packs": {pack.row.name: pack.row.id for pack in packs},
    }


def same_plan(run: RunRow, config: Config, packs: Sequence[Pack], *, seed: int, repeats: int) -> bool:
    """Tell whether an unfinished run has the same routes, packs, seed and repeats, so that it can be resumed."""
    wanted = manifest(config, packs, seed=seed, repeats=repeats)
    return all(run.manifest.get(key) == wanted[key] for key in ("seed", "repeats", "routes", "packs"))
