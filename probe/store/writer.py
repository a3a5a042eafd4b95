"""The writer: a thread that commits exchanges in batches, so that the proxy never waits for the disk on its loop.

A hosted request is noted in the journal before it leaves, and its end together with its exchange; both go through the
same batches, in the order in which they were handed over.

Group commit: the thread takes whatever waits, writes it in one transaction, and meanwhile the next batch gathers. An
idle writer commits at once; a busy one, or a slow disk, makes its own bigger batches. No timer is needed.

``PRAGMA synchronous``: in WAL mode a commit is a ``write`` into the log, and after that it belongs to the kernel, so
``kill -9`` cannot take it back even with ``NORMAL``. The writer uses ``FULL`` all the same: one ``fsync`` per batch
costs little, and an answer that was paid for then survives a power cut too.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from probe.errors import StoreError
from probe.store import db, spending
from probe.store.blobs import Blobs
from probe.store.exchanges import save
from probe.store.failures import translated
from probe.store.lock import RunLock
from probe.store.rows import AttemptEnd, AttemptRow, TrialState
from probe.wire.values import Exchange

BATCH = 64
"""Jobs per commit at most (exchanges, and attempts that begin or end): bounds what one full disk can take with it."""

WAITING = 256
"""Jobs that may wait; then ``submit`` blocks, and with it whoever sends faster than the disk writes."""


_ITS_OWN = (
    StoreError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    OverflowError,
    TypeError,
    ValueError,
)
"""What is wrong with one job, and not with the database."""


_Write = Callable[[sqlite3.Connection, Blobs], None]


class _Job(NamedTuple):
    """Something to write inside a transaction of the writer's thread; ``subject`` names it in an error."""

    subject: str
    write: _Write
    done: Future[None]


class Writer:
    """Commits exchanges of one run. One per database at a time, over all processes; a context manager.

    After an error that concerns the database (full disk, lost permission) the writer is broken: what was committed
    stays, what waited fails with the same ``StoreError``, and so does every later ``submit``. An error that concerns
    one exchange only (an unknown route) fails that one.
    """

    def __init__(self, path: Path, *, lock: RunLock | None = None) -> None:
        """Take the run's lock (or the one that is handed in, which the writer then releases) and open the database.

        Raises ``StoreError``.
        """
        self.path = Path(path)
        self._lock = lock or RunLock(self.path)
        try:
            self._connection = db.connect(self.path, create=True, readonly=False, synchronous="FULL")
        except BaseException:
            self._lock.release()
            raise
        self._blobs = Blobs(self._connection)
        self._slots = threading.Semaphore(WAITING)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._broken: StoreError | None = None
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def broken(self) -> StoreError | None:
        """Why nothing more can be written, or ``None``."""
        return self._broken

    def submit(
        self, exchange: Exchange, state: TrialState, *, reason: str = "", cost: AttemptEnd | None = None
    ) -> Future[None]:
        """Hand over an exchange and what it makes of its trial (see ``Store.save_exchange``).

        ``cost`` ends the attempt that the exchange belongs to, in the same commit. The future is done only after the
        commit; its exception is a ``StoreError``. It cannot be cancelled: bytes that have crossed the wire are written.
        Blocks while too many wait. Raises ``StoreError`` where the writer is broken or closed.
        """
        self._slots.acquire()
        return self._hand_over(*_saving(exchange, state, reason, cost))

    def begin(self, attempt: AttemptRow) -> Future[None]:
        """Note that a request is about to leave; it may leave when the future is done. Blocks and raises as ``submit``.

        A coroutine uses ``begun``, which does not block its loop.
        """
        self._slots.acquire()
        return self._hand_over(*_beginning(attempt))

    def finish(self, end: AttemptEnd) -> Future[None]:
        """Note the end of an attempt without an exchange: it never left, or nothing was recorded. As ``submit``."""
        self._slots.acquire()
        return self._hand_over(*_finishing(end))

    async def record(
        self, exchange: Exchange, state: TrialState, *, reason: str = "", cost: AttemptEnd | None = None
    ) -> None:
        """Hand over an exchange and return after its commit; ``submit`` for coroutines. Raises ``StoreError``.

        A cancelled caller does not cancel the writing.
        """
        await self._await(*_saving(exchange, state, reason, cost))

    async def begun(self, attempt: AttemptRow) -> None:
        """Note that a request is about to leave and return after the commit; ``begin`` for coroutines."""
        await self._await(*_beginning(attempt))

    async def finished(self, end: AttemptEnd) -> None:
        """Note the end of an attempt without an exchange and return after the commit; ``finish`` for coroutines."""
        await self._await(*_finishing(end))

    def close(self) -> None:
        """Write what waits, close the database, release the lock; twice is fine."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        try:
            self._connection.close()
        finally:
            self._lock.release()

    async def _await(self, subject: str, write: _Write) -> None:
        while not self._slots.acquire(blocking=False):  # noqa: ASYNC110 - the slots are shared with threads
            # Not in a thread, where a cancelled wait would keep its slot.
            await asyncio.sleep(0.005)
        await asyncio.wrap_future(self._hand_over(subject, write))

    def _hand_over(self, subject: str, write: _Write) -> Future[None]:
        job = _Job(subject, write, Future())
        job.done.set_running_or_notify_cancel()
        with self._gate:
            problem = self._broken
            if self._closed and problem is None:
                problem = StoreError(f"{subject} came after the database {self.path} was closed.")
            if problem is None:
                self._jobs.put(job)
                return job.done
        self._slots.release()
        raise problem

    def _work(self) -> None:
        last = False
        while not last:
            batch, last = self._gather()
            if batch:
                try:
                    self._settle(batch, self._write(batch))
                except Exception as error:  # noqa: BLE001 - a thread that dies in silence leaves its callers waiting
                    self._broken = self._broken or translated(error, self.path)
                    self._settle(batch, dict.fromkeys(range(len(batch)), self._broken))
                self._slots.release(len(batch))

    def _gather(self) -> tuple[list[_Job], bool]:
        """Wait for one job, then take what else is there; the second value says that the last one was taken."""
        batch: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            batch.append(job)
            if len(batch) == BATCH:
                return batch, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _write(self, batch: list[_Job]) -> dict[int, StoreError]:
        """Commit a batch; return what was wrong with single jobs. Raises what is wrong with the database."""
        if self._broken is not None:
            raise self._broken
        connection, failed = self._connection, {}
        connection.execute("BEGIN IMMEDIATE")
        try:
            for number, job in enumerate(batch):
                connection.execute("SAVEPOINT one")
                try:
                    job.write(connection, self._blobs)
                except _ITS_OWN as error:
                    connection.execute("ROLLBACK TO one")
                    failed[number] = translated(error, self.path)
                connection.execute("RELEASE one")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return failed

    @staticmethod
    def _settle(batch: list[_Job], failed: dict[int, StoreError]) -> None:
        for number, job in enumerate(batch):
            if number in failed:
                job.done.set_exception(failed[number])
            else:
                job.done.set_result(None)


def _saving(exchange: Exchange, state: TrialState, reason: str, cost: AttemptEnd | None) -> tuple[str, _Write]:
    def write(connection: sqlite3.Connection, blobs: Blobs) -> None:
        save(connection, blobs, exchange, state, reason)
        if cost is not None:
            spending.end(connection, cost, exchange.id)

    return f"The exchange {exchange.id}", write


def _beginning(attempt: AttemptRow) -> tuple[str, _Write]:
    return f"The attempt {attempt.id}", lambda connection, _: spending.begin(connection, attempt)


def _finishing(end: AttemptEnd) -> tuple[str, _Write]:
    return f"The end of the attempt {end.attempt_id}", lambda connection, _: spending.end(connection, end)
