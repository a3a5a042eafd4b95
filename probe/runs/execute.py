"""One run from plan to end: lock, plan or resume, proxy, runner."""

import asyncio
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probe.config import Config
from probe.errors import CredentialError, StoreError
from probe.ids import content_hash
from probe.proxy.server import ProxyServer
from probe.proxy.table import RouteTable
from probe.runs.check import check_routes
from probe.runs.plan import Pack, plan_run, same_plan, store_plan
from probe.runs.runner import Progress, RecordingSink, Runner, RunSummary
from probe.store.lock import RunLock
from probe.store.rows import FactRow, PackRow, RunRow
from probe.store.store import Store
from probe.store.writer import Writer
from probe.traces.pack import find_pack, read_pack


@dataclass(frozen=True)
class Executed:
    """What a run did. ``already`` trials were answered before it started; ``open`` are left for the next start."""

    run: RunRow
    resumed: bool
    planned: int
    already: int
    answered: int
    open: int
    summary: RunSummary


def load_packs(names: Sequence[str]) -> list[Pack]:
    """Read packs by name or file. Raises ``PackError``."""
    packs = []
    for name in names:
        path = find_pack(name)
        digest, traces = read_pack(path)
        card = path.with_suffix(".md")
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        row = PackRow(
            id=digest,
            name=path.stem,
            source=path.name,
            licence=_licence(text),
            card={"text": text, "sha256": content_hash(text.encode())} if text else {},
        )
        packs.append(Pack(row, tuple(traces)))
    return packs


def _licence(card: str) -> str:
    """Return what a card says behind the word "licence", in a table's row or after a colon."""
    found = re.search(r"(?im)^[|*\s-]*licence[*\s]*[|:]\s*([^|\n]+)", card)
    return found.group(1).strip(" *") if found else ""


def check_credentials(config: Config) -> None:
    """Raise ``CredentialError`` for the first route whose key variable is not set: before anything is sent."""
    for route in config.routes.values():
        if (
            route.backend.auth
            and route.key_env
            and not os.environ.get(route.key_env)
            and route.backend.kind == "hosted"
        ):
            raise CredentialError(
                f"Route {route.name!r} needs a key: set the environment variable {route.key_env} and run this again."
            )


def execute(
    config: Config,
    database: Path,
    packs: Sequence[Pack],
    *,
    seed: int,
    repeats: int,
    new: bool = False,
    progress: Progress | None = None,
) -> Executed:
    """Plan a run, or take up the unfinished one with the same plan, and send what is open.

    ``new`` starts another run in any case. Raises ``ProbeError``; what was recorded until then stays.
    """
    check_credentials(config)
    lock = RunLock(database)
    try:
        store = Store.open(database)
    except BaseException:
        lock.release()
        raise
    with store, Writer(database, lock=lock) as writer:
        run, resumed = _run_row(store, config, packs, seed=seed, repeats=repeats, new=new)
        _ask_routes(store, config)
        counts = store.count_trials(run.id)
        trials = [trial for trial in store.trials(run.id) if trial.state != "answered"]
        # A trial that was given up last time gets another chance now.
        store.mark_trials([trial.id for trial in trials if trial.state == "failed"], "planned")
        traces = store.traces(run_id=run.id)
        sink = RecordingSink(writer)
        table = RouteTable(route.target for route in config.routes.values())
        with ProxyServer(table, sink) as proxy:
            runner = Runner(config, proxy, writer, progress)
            summary, failed = asyncio.run(runner.run(trials, traces))
        if sink.failure is not None:
            raise sink.failure
        store.mark_trials(failed, "failed")
        after = store.count_trials(run.id)
        if after["answered"] == sum(after.values()):
            store.end_run(run.id, time.time())
    return Executed(
        run=run,
        resumed=resumed,
        planned=sum(after.values()),
        already=counts["answered"],
        answered=after["answered"] - counts["answered"],
        open=after["planned"] + after["failed"],
        summary=summary,
    )


def _ask_routes(store: Store, config: Config) -> None:
    """Keep what each server says of itself now: its version, and whether it lists the model; or that it is down."""
    at = time.time()
    found = asyncio.run(check_routes(config))
    store.add_facts(
        FactRow(route_id=route.row.id, at=at, kind="check", value=check.to_json())
        for route, check in zip(config.routes.values(), found, strict=True)
    )


def _run_row(
    store: Store, config: Config, packs: Sequence[Pack], *, seed: int, repeats: int, new: bool
) -> tuple[RunRow, bool]:
    unfinished = [run for run in store.runs() if run.ended_at is None]
    for run in reversed(unfinished):
        if not new and same_plan(run, config, packs, seed=seed, repeats=repeats):
            return run, True
    run, trials = plan_run(config, packs, seed=seed, repeats=repeats)
    if not trials:
        raise StoreError("Nothing to run: no trace, or no route.")
    store_plan(store, config, packs, run, trials)
    return run, False
