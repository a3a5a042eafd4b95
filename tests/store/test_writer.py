import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_study import Study, exchange_of

from probe.errors import StoreError, StoreFullError
from probe.ids import new_id
from probe.store import Store, Writer
from probe.store.verify import verify
from probe.store.writer import BATCH, WAITING

# Answers trials one after the other, many in flight, and says which ones it was told are committed.
CHILD = """
import collections, os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from small_study import exchange_of
from probe.errors import StoreError
from probe.store import Store, Writer
path, limit, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with Store.open(path, readonly=True) as store:
    trials = store.trials(state="planned")
writer = Writer(path)
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
waiting = collections.deque()
try:
    for trial in trials:
        exchange = exchange_of(trial.route_id, trial.id, response_body=os.urandom(size))
        waiting.append((trial.id, writer.submit(exchange, "answered")))
        while len(waiting) > 40:
            name, done = waiting.popleft()
            done.result()
            print(name, flush=True)
    for name, done in waiting:
        done.result()
        print(name, flush=True)
except StoreError as error:
    print("error", type(error).__name__, error, flush=True)
    try:
        writer.submit(exchange, "answered")
    except StoreError as again:
        print("again", type(again).__name__, again, flush=True)
    writer.close()
"""


def child(path: Path, *, limit: int = 0, size: int = 2000) -> subprocess.Popen[str]:
    code = CHILD.format(tests=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(limit), str(size)], stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def writer(study: Study, database: Path) -> Iterator[Writer]:
    with Writer(database) as writer:
        yield writer


def test_a_future_is_done_after_the_commit(study: Study, database: Path, writer: Writer) -> None:
    exchange = study.exchange(0)
    writer.submit(exchange, "answered").result()
    with sqlite3.connect(database) as other:  # another connection sees only what is committed
        assert other.execute("SELECT state FROM trials WHERE id = ?", (exchange.trial_id,)).fetchone() == ("answered",)
        assert other.execute("SELECT id FROM exchanges").fetchall() == [(exchange.id,)]
    other.close()
    assert study.store.exchange(exchange.id) == exchange
    assert writer.broken is None
    assert writer._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_closing_writes_what_waits(study: Study, database: Path) -> None:
    with Writer(database) as writer:
        futures = [writer.submit(study.exchange(), "answered") for _ in range(3 * BATCH)]
    assert all(future.done() and future.exception() is None for future in futures)
    assert len(study.store.refs()) == 3 * BATCH
    writer.close()
    with pytest.raises(StoreError, match="was closed"):
        writer.submit(study.exchange(), "answered")


def test_one_bad_exchange_fails_alone(study: Study, writer: Writer) -> None:
    bad = [
        exchange_of("no route"),
        exchange_of(study.route.id, new_id()),
        study.exchange(status=2**70),
        study.exchange(state="gone"),
        study.exchange(status=object()),
        study.exchange(ended_at=float("inf")),
    ]
    good = [study.exchange(n) for n in range(4)]
    futures = [writer.submit(exchange, "answered") for exchange in (*bad, *good)]
    for future in futures[: len(bad)]:
        assert isinstance(future.exception(), StoreError)
    for future in futures[len(bad) :]:
        future.result()
    assert len(study.store.refs()) == 4
    assert verify(study.store.path).problems == ()


def test_it_takes_no_more_than_it_can_hold(study: Study, writer: Writer) -> None:
    with study.store.transaction():  # the writer cannot begin
        futures = [writer.submit(study.exchange(), "answered") for _ in range(WAITING)]
        late = threading.Thread(target=lambda: futures.append(writer.submit(study.exchange(), "answered")))
        late.start()
        late.join(0.2)
        assert late.is_alive()
    late.join(20)
    for future in futures:
        future.result(20)
    assert len(study.store.refs()) == WAITING + 1


async def test_a_coroutine_waits_for_its_commit(study: Study, writer: Writer) -> None:
    exchanges = [study.exchange() for _ in range(WAITING + 50)]
    await asyncio.gather(*(writer.record(exchange, "answered") for exchange in exchanges))
    assert len(study.store.refs()) == len(exchanges)
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        await writer.record(exchange_of("no route"), "answered")


async def test_a_cancelled_caller_does_not_cancel_the_bytes(study: Study, writer: Writer) -> None:
    with study.store.transaction():
        task = asyncio.create_task(writer.record(study.exchange(0), "answered"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    writer.close()
    assert study.store.count_trials(study.run.id)["answered"] == 1


def test_an_error_of_the_database_breaks_it_with_a_sentence(study: Study, database: Path) -> None:
    with Writer(database) as writer:
        writer.submit(study.exchange(0), "answered").result()
        writer._connection.execute("PRAGMA query_only = ON")  # as a disk that turns read-only
        with pytest.raises(StoreError, match="cannot be written"):
            writer.submit(study.exchange(1), "answered").result()
        assert writer.broken is not None
        with pytest.raises(StoreError, match="cannot be written"):
            writer.submit(study.exchange(2), "answered")
    assert study.store.count_trials(study.run.id)["answered"] == 1
    Writer(database).close()


def test_a_fault_of_its_own_does_not_leave_anybody_waiting(study: Study, writer: Writer) -> None:
    writer._blobs = None  # type: ignore[assignment]
    with pytest.raises(StoreError, match="cannot be stored"):
        writer.submit(study.exchange(0), "answered").result(20)


def test_a_database_that_cannot_be_opened_leaves_no_lock(database: Path) -> None:
    database.write_bytes(b"no database" * 100)
    for _ in range(2):
        with pytest.raises(StoreError, match="not an SQLite file"):
            Writer(database)


@pytest.mark.parametrize("after", [1, 150, 400])
def test_kill_9_loses_no_answer_that_was_acknowledged(
    database: Path, make_study: Callable[[Path, int], Study], after: int
) -> None:
    study = make_study(database, 3000)
    study.store.close()
    told: set[str] = set()
    with child(database) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.add(line.strip())
            if len(told) == after:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    told = {line for line in told if len(line) == 36}  # the last line may be torn
    with Writer(database) as writer, Store.open(database) as store:
        answered = {trial.id for trial in store.trials(study.run.id, state="answered")}
        assert told <= answered
        assert 0 < len(answered) < 3000
        assert verify(database).problems == ()
        first = store.trials(study.run.id, state="planned")[0]  # and the run goes on
        writer.submit(exchange_of(study.route.id, first.id), "answered").result()


def outcome_of(process: subprocess.Popen[str]) -> tuple[set[str], list[str]]:
    output, _ = process.communicate(timeout=120)
    lines = output.splitlines()
    return {line for line in lines if len(line) == 36}, [line for line in lines if len(line) != 36]


def test_a_limit_on_file_sizes_ends_the_run_and_keeps_what_was_recorded(
    database: Path, make_study: Callable[[Path, int], Study]
) -> None:
    study = make_study(database, 400)
    study.store.close()
    with child(database, limit=1 << 20, size=20_000) as process:
        told, words = outcome_of(process)
    assert [line.split()[:2] for line in words] == [["error", "StoreError"], ["again", "StoreError"]]
    assert "a limit on file sizes" in words[0]
    with Store.open(database) as store:
        assert told <= {trial.id for trial in store.trials(study.run.id, state="answered")}
    assert told
    assert verify(database).problems == ()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of three megabytes, where the system lets us make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_run_and_keeps_what_was_recorded(
    small_disk: Path, tmp_path: Path, make_study: Callable[[Path, int], Study]
) -> None:
    database = small_disk / "study.db"
    study = make_study(database, 400)
    study.store.close()
    with child(database, size=20_000) as process:
        told, words = outcome_of(process)
    assert [line.split()[:2] for line in words] == [["error", "StoreFullError"], ["again", "StoreFullError"]]
    assert str(database) in words[0]
    with Store.open(database) as store:
        assert told
        assert told <= {trial.id for trial in store.trials(study.run.id, state="answered")}
    assert verify(database).problems == ()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    with child(database, size=20_000) as process:  # with room again, the run goes on to its end
        _, words = outcome_of(process)
    assert words == []
    with Store.open(database) as store:
        assert store.count_trials(study.run.id)["answered"] == 400
    assert isinstance(StoreFullError(""), StoreError)
