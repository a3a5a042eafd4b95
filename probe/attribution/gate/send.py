"""Asks both routes for what the gate wants to see: a run of its own, planned, paced and resumed like any other.

Per prompt the hosted route is asked twice, at temperature 1 and at temperature 0, because each request may cost money
and the rank test is content with one. The twin, which costs nothing, is asked more often at temperature 1: its answers
say how far two samples of the same weights lie apart.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probe.attribution.gate.stored import GATE_RUN
from probe.config import Config, Route
from probe.errors import ConfigError, PackError
from probe.runs.check import check_routes, fact_rows
from probe.runs.execute import check_credentials
from probe.runs.manifest import route_ids
from probe.runs.pacing.clock import Clock, SystemClock
from probe.runs.plan import Pack, manifest, store_plan
from probe.runs.requests import build_request
from probe.runs.runner import Progress, RunSummary
from probe.runs.sending import Sending, send_open
from probe.store.lock import RunLock
from probe.store.rows import RunRow, TrialRow
from probe.store.store import Store
from probe.store.writer import Writer
from probe.traces.values import Sampling, Trace

TWIN_DRAWS = 4
"""Answers of the twin to one prompt at temperature 1."""

PACK = "gate"
"""The pack that ships for the gate."""

_SAME_PLAN = ("kind", "seed", "repeats", "prompts", "packs")


@dataclass(frozen=True)
class GateSent:
    """What a run of the gate did. ``prompts`` were planned; ``open`` trials are left for the next start."""

    run: RunRow
    resumed: bool
    prompts: int
    planned: int
    already: int
    answered: int
    open: int
    summary: RunSummary


def pair_of(config: Config, name: str) -> tuple[Route, Route]:
    """Return the hosted route of that name, and its twin. Raises ``ConfigError``."""
    route = config.only((name,)).routes[name]
    if route.role == "local":
        hosted = ", ".join(other.name for other in config.hosted()) or "none yet"
        raise ConfigError(
            f"Route {name!r} is local: the gate asks whether a hosted route serves the weights of its local twin "
            f"(hosted routes with a twin: {hosted})."
        )
    if route.twin is None:
        raise ConfigError(f'Route {name!r} has no twin to be compared with: give it one in probe.toml (twin = "…").')
    return route, config.routes[route.twin]


def gate_traces(traces: Iterable[Trace], prompts: int) -> list[Trace]:
    """Return the first ``prompts`` controls, each at temperature 1 and at temperature 0.

    Filters and penalties are off, whatever the pack says: the tests compare with the weights' own distribution. Only
    the length is the pack's.
    """
    controls = [trace for trace in traces if trace.control][:prompts]
    return [
        replace(
            trace,
            name=trace.name if temperature else f"{trace.name} at temperature 0",
            sampling=Sampling(temperature=temperature, max_tokens=trace.sampling.max_tokens),
        )
        for trace in controls
        for temperature in (1.0, 0.0)
    ]


def plan_gate(
    config: Config, hosted: Sequence[Route], twin: Route, pack: Pack, *, prompts: int, seed: int
) -> tuple[RunRow, list[TrialRow], list[Trace]]:
    """Return a run, its trials and their traces. Raises ``PackError`` where the pack has no controls.

    Prompts in one seeded shuffle, and within each its requests: what drifts in time hits both routes alike.
    """
    traces = gate_traces(pack.traces, prompts)
    if not traces:
        raise PackError(
            f"The pack {pack.row.name!r} holds no controls (control: true), and the gate asks nothing else."
        )
    run = RunRow(time.time(), seed, _manifest(config, hosted, twin, pack, prompts=prompts, seed=seed))
    chance = random.Random(seed)
    shuffled = list({trace.id: trace for trace in traces}.values())
    chance.shuffle(shuffled)
    trials: list[TrialRow] = []
    for trace in shuffled:
        draws = TWIN_DRAWS if trace.sampling.temperature else 1
        places = [*((route, 1) for route in hosted), *((twin, repeat) for repeat in range(1, draws + 1))]
        chance.shuffle(places)
        for route, repeat in places:
            dropped = build_request(route, trace).dropped
            trials.append(TrialRow(run.id, trace.id, route.row.id, repeat, len(trials), dropped=dropped))
    return run, trials, traces


def send(
    config: Config,
    database: Path,
    names: str | Sequence[str],
    pack: Pack,
    *,
    prompts: int,
    seed: int = 0,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> GateSent:
    """Ask one hosted route or several, and their twin, or take up the unfinished run with the same plan.

    Raises ``ProbeError``; what was recorded until then stays, and the next call goes on from there.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    pairs = [pair_of(config, name) for name in names]
    hosted, twin = [route for route, _ in pairs], pairs[0][1]
    if {other.name for _, other in pairs} != {twin.name}:
        raise ConfigError("One run of the gate asks routes that share a twin: ask those of another twin by themselves.")
    config = config.only(names)
    check_credentials(config)
    lock = RunLock(database)
    try:
        store = Store.open(database)
    except BaseException:
        lock.release()
        raise
    with store, Writer(database, lock=lock) as writer:
        run, resumed = _run_row(store, config, hosted, twin, pack, prompts=prompts, seed=seed)
        _ask_routes(store, config)
        before = store.count_trials(run.id)
        # A trial that was given up last time gets another chance now.
        store.mark_trials([trial.id for trial in store.trials(run.id, state="failed")], "planned")
        sent = send_open(store, writer, config, run.id, Sending(progress=progress, clock=clock or SystemClock()))
        if sent.summary.interrupted is not None:
            raise KeyboardInterrupt
        after = store.count_trials(run.id)
        if after["answered"] == sum(after.values()):
            store.end_run(run.id, time.time())
    return GateSent(
        run=run,
        resumed=resumed,
        prompts=len(gate_traces(pack.traces, prompts)) // 2,
        planned=sum(after.values()),
        already=before["answered"],
        answered=after["answered"] - before["answered"],
        open=sum(after.values()) - after["answered"],
        summary=sent.summary,
    )


def _manifest(
    config: Config, hosted: Sequence[Route], twin: Route, pack: Pack, *, prompts: int, seed: int
) -> Mapping[str, Any]:
    return {
        **manifest(config, [pack], seed=seed, repeats=1),
        "kind": GATE_RUN,
        "prompts": prompts,
        # Not a number as in other runs: `probe run` never takes this run for one of its own.
        "repeats": {**{route.name: 1 for route in hosted}, twin.name: TWIN_DRAWS},
    }


def _run_row(
    store: Store, config: Config, hosted: Sequence[Route], twin: Route, pack: Pack, *, prompts: int, seed: int
) -> tuple[RunRow, bool]:
    wanted = _manifest(config, hosted, twin, pack, prompts=prompts, seed=seed)
    for run in reversed(store.runs()):
        same = all(run.manifest.get(key) == wanted[key] for key in _SAME_PLAN)
        if run.ended_at is None and same and route_ids(run.manifest) == route_ids(wanted):
            return run, True
    run, trials, traces = plan_gate(config, hosted, twin, pack, prompts=prompts, seed=seed)
    with store.transaction():
        # Before the plan, because trials name them; the cold ones stand in no file.
        store.add_traces(traces)
        store_plan(store, config, [pack], run, trials)
    return run, False


def _ask_routes(store: Store, config: Config) -> None:
    """Keep what each server says of itself now."""
    store.add_facts(fact_rows(config, asyncio.run(check_routes(config)), time.time()))
