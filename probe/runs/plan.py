"""The plan: which trace goes over which route when."""

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any

from probe.config import Config
from probe.runs.manifest import occasion, route_entry, route_ids, software
from probe.runs.requests import build_request
from probe.store.rows import PackRow, RunRow, TrialRow
from probe.store.store import Store
from probe.traces.values import Trace

_BATCH = 1000
"""Trials that are written at once."""


@dataclass(frozen=True)
class Pack:
    """Traces with the row that names their file."""

    row: PackRow
    traces: Sequence[Trace]


def plan_run(
    config: Config,
    packs: Sequence[Pack],
    *,
    seed: int,
    repeats: int,
    aa: bool = True,
    until: Mapping[str, Any] | None = None,
) -> tuple[RunRow, list[TrialRow]]:
    """Return a run and its trials in random order (``plan_trials``); ``until`` goes into the manifest."""
    run = new_run(config, packs, seed=seed, repeats=repeats, aa=aa, until=until)
    return run, list(plan_trials(config, packs, run, repeats=repeats, aa=aa))


def new_run(
    config: Config,
    packs: Sequence[Pack],
    *,
    seed: int,
    repeats: int,
    aa: bool = True,
    until: Mapping[str, Any] | None = None,
) -> RunRow:
    """Return a run without its trials."""
    kept = manifest(config, packs, seed=seed, repeats=repeats, aa=aa, until=until)
    return RunRow(started_at=time.time(), seed=seed, manifest=kept)


def plan_trials(
    config: Config, packs: Sequence[Pack], run: RunRow, *, repeats: int, aa: bool = True
) -> Iterator[TrialRow]:
    """Yield the trials of a run in random order, one by one: a long plan is never in memory as a whole.

    Traces are shuffled with a stored seed, and so are the trials of each trace, which stay together: drift in time
    (load, a silent deployment) hits all routes alike, and the two sides of a pair are sent at about the same time.
    ``aa``: a twin gets every trace that is no control once more, so that it can be compared with itself. A trace that
    two packs share is sent once.
    """
    chance = random.Random(run.seed)
    order = _distinct(packs)
    chance.shuffle(order)
    twins = {route.twin for route in config.hosted()} if aa else set()
    ids = {route.name: route.row.id for route in config.routes.values()}
    position = 0
    for pack, place in order:
        trace = packs[pack].traces[place]
        dropped = {route.name: build_request(route, trace).dropped for route in config.routes.values()}
        places = [
            (route, repeat)
            for route in config.routes.values()
            for repeat in range(1, repeats + 1 + (route.name in twins and not trace.control))
        ]
        chance.shuffle(places)
        for route, repeat in places:
            yield TrialRow(run.id, trace.id, ids[route.name], repeat, position, dropped=dropped[route.name])
            position += 1


def _distinct(packs: Sequence[Pack]) -> list[tuple[int, int]]:
    """Return where each trace stands first: number of the pack, place in it."""
    seen: set[bytes] = set()
    found = []
    for number, pack in enumerate(packs):
        for place, trace in enumerate(pack.traces):
            digest = bytes.fromhex(trace.id)
            if digest not in seen:
                seen.add(digest)
                found.append((number, place))
    return found


def store_plan(store: Store, config: Config, packs: Sequence[Pack], run: RunRow, trials: Iterable[TrialRow]) -> None:
    """Write the whole plan in one commit: a run that was killed while planning has not begun."""
    with store.transaction():
        for route in config.routes.values():
            store.add_weights(route.weights_row)
            store.add_route(route.row)
        for pack in packs:
            store.add_pack(pack.row, pack.traces)
        store.add_run(run)
        for batch in batched(trials, _BATCH):
            store.add_trials(batch)


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
        **software(),
        **occasion(),
        "seed": seed,
        "repeats": repeats,
        "routes": {name: route_entry(route) for name, route in config.routes.items()},
        "packs": {pack.row.name: pack.row.id for pack in packs},
        "aa": aa,
        **(until or {}),
    }


_PLAN_KEYS = ("seed", "repeats", "packs", "kind", "until", "alpha", "delta", "by")


def same_plan(run: RunRow, wanted: Mapping[str, Any]) -> bool:
    """Tell whether an unfinished run has the plan of this manifest, so that it can be resumed.

    One of a version that knew no A/A controls is taken up as it was planned: what was answered was paid for.
    """
    if run.manifest.get("aa", wanted["aa"]) != wanted["aa"]:
        return False
    if route_ids(run.manifest) != route_ids(wanted):
        return False
    return all(run.manifest.get(key) == wanted.get(key) for key in _PLAN_KEYS)
