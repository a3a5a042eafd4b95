"""Routes in worker processes: what needs no server, because the store holds every score that is asked for.

A worker opens the database for reading only and writes its rows into a file of its own; the process that analyses puts
them into the tables, all in one transaction. Where a score is missing, a worker gives the route up, and the process
that analyses does it itself, because it is the one that asks servers.
"""

import asyncio
import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from probe.attribution.cases import ScoringDesk, Sent
from probe.attribution.route import (
    RouteAnalysis,
    Study,
    Twin,
    answered,
    examine,
    genuine_of,
    read_hosted,
    read_other,
    read_twin,
    spool_read,
)
from probe.attribution.settings import Settings
from probe.attribution.spool import Spool
from probe.errors import ProbeError
from probe.evidence.likelihood import Genuine
from probe.scoring.base import TextScore
from probe.store.rows import ExchangeRef, RouteRow
from probe.store.store import Store
from probe.traces.values import Message

CHUNK = 4000
"""Answers of a twin that one worker reads at a time."""


COLLECTIONS = (100_000, 20, 100)
"""Thresholds of the garbage collector while exchanges are read: nearly all that is made is kept or dropped at once, and
looking for cycles in it takes an eighth of the time (``scripts/bench-analysis``, 10,000 exchanges)."""


@contextlib.contextmanager
def rare_collections() -> Iterator[None]:
    """Look for cycles less often for a while."""
    before = gc.get_threshold()
    gc.set_threshold(*COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class NotKeptError(Exception):
    """The store does not hold what would have to be asked for."""


@dataclass(slots=True)
class Remembered:
    """Stands for a scorer where only what the store holds may be used: asked for anything, it raises."""

    name: str
    version: str
    vocabulary: int

    async def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Raise ``NotKeptError``."""
        raise NotKeptError(messages)

    async def text_ids(self, text: str) -> tuple[int, ...]:
        """Raise ``NotKeptError``."""
        raise NotKeptError(text)

    async def answer_ids(self, messages: Sequence[Message], text: str, reasoning: str) -> tuple[int, ...]:
        """Raise ``NotKeptError``."""
        raise NotKeptError(messages, text, reasoning)

    async def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        """Raise ``NotKeptError``."""
        raise NotKeptError(prompt, continuation)

    async def ends(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        """Raise ``NotKeptError``."""
        raise NotKeptError(prompt, continuation)

    async def aclose(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a worker makes its desk of; no ``scorer``: nothing is scored."""

    weights: str
    scorer: Remembered | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """What all workers of an analysis need. ``aside``: runs whose answers are not judged."""

    database: Path
    folder: Path
    settings: Settings
    aside: frozenset[str]


@dataclass
class _Worker:
    assignment: Assignment
    study: Study
    twins: dict[Path, Twin]
    ticks: int = 0

    def tick(self) -> None:
        self.ticks += 1

    def desk(self, of: Desk) -> ScoringDesk:
        return ScoringDesk(self.study.store, of.scorer, of.weights, self.tick, fingerprint=of.fingerprint)


_worker: _Worker | None = None


def _begin(assignment: Assignment) -> None:
    """Prepare this process: it ends with the one that started it, at once and without words where that is stopped."""
    global _worker  # noqa: PLW0603 - a worker process is one worker
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.set_threshold(*COLLECTIONS)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()
    store = Store.open(assignment.database, readonly=True)
    _worker = _Worker(assignment, Study(store, store.trace_marks(), assignment.settings, lean=True), {})


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _here() -> _Worker:
    assert _worker is not None
    return _worker


@dataclass(frozen=True, slots=True)
class TwinPart:
    """Part of a twin's answers as a worker read them, and what the refusals among them score."""

    sents: list[Sent]
    genuine: Genuine
    spooled: Path
    ticks: int


@dataclass(frozen=True, slots=True)
class Examined:
    """A hosted route as a worker examined it, or any other as it was read (then without an analysis)."""

    analysis: RouteAnalysis | None
    count: int
    spooled: Path
    ticks: int


def _twin_part(route: RouteRow, refs: Sequence[ExchangeRef], desk: Desk) -> TwinPart | None:
    return _unless_missing(_read_part(route, refs, desk))


async def _read_part(route: RouteRow, refs: Sequence[ExchangeRef], by: Desk) -> TwinPart:
    here = _here()
    desk = here.desk(by)
    sents = await read_twin(here.study, desk, route, refs)
    genuine = await genuine_of(desk, [sent for sent in sents if sent.case.refused])
    path = _spool_outcomes(sents)
    return TwinPart(sents, genuine, path, _ticks())


def _hosted(route: RouteRow, own: RouteRow, desk: Desk, twin: Path) -> Examined | None:
    return _unless_missing(_examine(route, own, desk, twin))


async def _examine(route: RouteRow, own: RouteRow, by: Desk, twin: Path) -> Examined:
    here, kept = _here(), _kept_twin(twin)
    desk = here.desk(by)
    refs = answered(here.study.store, route.id, set(here.assignment.aside))
    hosted = await read_hosted(here.study, desk, route, refs)
    path = _new_file()
    spool = Spool(path)
    analysis, _ = await examine(here.study, desk, (route, own), hosted, kept, spool)
    spool.close()
    return Examined(analysis, len(refs), path, _ticks())


def _kept_twin(path: Path) -> Twin:
    here = _here()
    if path not in here.twins:
        here.twins = {path: pickle.loads(path.read_bytes())}  # noqa: S301 - the process that started this wrote it
    return here.twins[path]


def _other(route: RouteRow) -> Examined:
    here = _here()
    refs = answered(here.study.store, route.id, set(here.assignment.aside))
    return Examined(None, len(refs), _spool_outcomes(read_other(here.study, route, refs)), _ticks())


def _spool_outcomes(sents: Sequence[Sent]) -> Path:
    path = _new_file()
    spool = Spool(path)
    spool_read(spool, sents)
    spool.close()
    return path


def _new_file() -> Path:
    handle, name = tempfile.mkstemp(dir=_here().assignment.folder)
    os.close(handle)
    return Path(name)


def _ticks() -> int:
    here = _here()
    count, here.ticks = here.ticks, 0
    return count


def _unless_missing[T](work: Coroutine[Any, Any, T]) -> T | None:
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(_quietly)
        try:
            return runner.run(work)
        except NotKeptError:
            _ticks()
            return None


def _quietly(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say nothing of further texts that are missing: one is enough to give the route up."""
    if not isinstance(context.get("exception"), NotKeptError):
        loop.default_exception_handler(context)


class Workers:
    """Worker processes for one analysis; a context manager.

    They are spawned, so a script that starts an analysis at its top level needs ``if __name__ == "__main__"``.
    """

    def __init__(self, assignment: Assignment, count: int) -> None:
        self._assignment = assignment
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, context, _begin, (assignment,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            for process in list((self._pool._processes or {}).values()):  # noqa: SLF001 - public from Python 3.14 on
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def twin(self, route: RouteRow, refs: Sequence[ExchangeRef], desk: Desk) -> list[TwinPart] | None:
        """Read a twin in parts; ``None`` where something has to be asked for."""
        parts = [refs[start : start + CHUNK] for start in range(0, len(refs), CHUNK)]
        found = await asyncio.gather(*(self._run(_twin_part, route, part, desk) for part in parts))
        return None if None in found else [part for part in found if part is not None]

    async def hosted(self, route: RouteRow, own: RouteRow, desk: Desk, twin: Path) -> Examined | None:
        """Examine a hosted route; ``twin`` is the file of ``keep``. ``None`` where something has to be asked for."""
        return await self._run(_hosted, route, own, desk, twin)

    async def other(self, route: RouteRow) -> Examined:
        """Read a route that is compared with nothing."""
        return await self._run(_other, route)

    def keep(self, twin: Twin) -> Path:
        """Write a twin for the workers to read."""
        handle, name = tempfile.mkstemp(dir=self._assignment.folder)
        with os.fdopen(handle, "wb") as file:
            pickle.dump(twin, file, pickle.HIGHEST_PROTOCOL)
        return Path(name)

    async def _run[T](self, work: Callable[..., T], *values: object) -> T:
        try:
            return await asyncio.wrap_future(self._pool.submit(work, *values))
        except BrokenProcessPool:
            raise ProbeError(
                "A worker process of the analysis ended before its work was done (out of memory?): the tables are as "
                "they were; try again with `--workers 1`."
            ) from None
