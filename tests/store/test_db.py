import multiprocessing
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from probe.errors import StoreError, StoreFullError, StoreVersionError
from probe.store import Store, migrations


def sentence(error: pytest.ExceptionInfo[StoreError]) -> str:
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert "sqlite3." not in text
    return text


def test_makes_the_file_and_opens_it_again(database: Path) -> None:
    with Store.open(database) as store:
        assert store.query("PRAGMA application_id") == [(migrations.APPLICATION_ID,)]
        assert store.query("PRAGMA user_version") == [(len(migrations.shipped()),)]
        assert store.query("PRAGMA journal_mode") == [("wal",)]
        assert store.query("PRAGMA foreign_keys") == [(1,)]
    before = database.read_bytes()
    with Store.open(database):
        pass
    assert database.read_bytes() == before


def test_a_missing_file_is_not_made_unless_asked(database: Path) -> None:
    for options in ({"create": False}, {"readonly": True}):
        with pytest.raises(StoreError, match="There is no database") as error:
            Store.open(database, **options)
        assert str(database) in sentence(error)
    assert not database.exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no folder") as error:
        Store.open(tmp_path / "nowhere" / "study.db")
    assert str(tmp_path / "nowhere") in sentence(error)


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="that is a folder") as error:
        Store.open(tmp_path)
    sentence(error)


def test_a_newer_database_is_refused_and_left_alone(database: Path) -> None:
    Store.open(database).close()
    newer = len(migrations.shipped()) + 1
    with sqlite3.connect(database) as raw:
        raw.execute(f"PRAGMA user_version = {newer}")
    raw.close()
    before = database.read_bytes()
    for readonly in (False, True):
        with pytest.raises(StoreVersionError) as error:
            Store.open(database, readonly=readonly)
        text = sentence(error)
        assert str(database) in text
        assert f"version {newer}" in text
        assert f"up to {newer - 1}" in text
    assert database.read_bytes() == before


@pytest.mark.parametrize("mark", ["PRAGMA application_id = 252006674", "CREATE TABLE t (a)", "PRAGMA user_version = 1"])
def test_a_foreign_database_is_refused_and_left_alone(database: Path, mark: str) -> None:
    with sqlite3.connect(database) as raw:
        raw.execute(mark)
    raw.close()
    before = database.read_bytes()
    with pytest.raises(StoreError, match="another program made it") as error:
        Store.open(database)
    sentence(error)
    assert database.read_bytes() == before
    assert not database.with_name("study.db-wal").exists()


def test_a_file_that_is_no_database_is_refused(database: Path) -> None:
    database.write_bytes(b"Dear diary, " * 200)
    for readonly in (False, True):
        with pytest.raises(StoreError, match="not an SQLite file") as error:
            Store.open(database, readonly=readonly)
        sentence(error)


def test_an_empty_file_becomes_a_database_but_not_for_a_reader(database: Path) -> None:
    database.touch()
    with pytest.raises(StoreError, match="it is empty"):
        Store.open(database, readonly=True)
    Store.open(database).close()
    Store.open(database, readonly=True).close()


def test_a_damaged_database_is_called_damaged(database: Path) -> None:
    Store.open(database).close()
    content = bytearray(database.read_bytes())
    content[100:4096] = b"\xff" * 3996
    database.write_bytes(content)
    with pytest.raises(StoreError, match="damaged") as error:
        Store.open(database)
    sentence(error)


def test_a_reader_cannot_write(database: Path) -> None:
    Store.open(database).close()
    with Store.open(database, readonly=True) as store, pytest.raises(StoreError, match="cannot be written") as error:
        store.clear_scores()
    sentence(error)


def test_a_closed_store_says_so(database: Path) -> None:
    store = Store.open(database)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed") as error:
        store.runs()
    sentence(error)


def test_a_lasting_lock_of_another_process_is_a_sentence(database: Path) -> None:
    Store.open(database).close()
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with Store.open(database) as store:
        store.connection.execute("PRAGMA busy_timeout = 50")
        assert store.runs() == []  # readers do not wait
        with pytest.raises(StoreError, match="held by another process") as error:
            store.clear_scores()
        sentence(error)
        holder.execute("ROLLBACK")
        store.clear_scores()
    holder.close()


def test_a_full_disk_is_a_sentence_and_the_store_goes_on(database: Path) -> None:
    with Store.open(database) as store:
        (pages,) = store.query("PRAGMA page_count")[0]
        store.connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreFullError, match="takes no more data") as error, store.transaction():
            store.connection.execute(
                "INSERT INTO blobs (hash, codec, size, data) VALUES ('a', 'raw', 9, zeroblob(1000000))"
            )
        sentence(error)
        store.connection.execute(f"PRAGMA max_page_count = {pages * 100}")
        store.clear_scores()
        assert store.query("SELECT count(*) FROM blobs") == [(0,)]


def test_a_database_of_an_older_version_is_brought_up_to_date(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_of_them = migrations.shipped()
    monkeypatch.setattr(migrations, "shipped", lambda: all_of_them[:1])
    Store.open(database).close()
    monkeypatch.undo()
    with pytest.raises(StoreError, match="older than"):
        Store.open(database, readonly=True)
    with Store.open(database) as store:
        assert store.outcomes() == []
        assert len(migrations.applied(store.connection)) == len(all_of_them)


def _open_and_close(path: str) -> None:
    Store.open(Path(path)).close()


def test_many_processes_may_make_it_at_once(database: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(_open_and_close, [str(database)] * 8)
    with Store.open(database) as store:
        assert len(migrations.applied(store.connection)) == len(migrations.shipped())


def as_nobody(action: Callable[[], str]) -> str:
    """Run in a child without root's rights, which no file permission stops."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            os.write(writing, action().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    return answer


def _attempt(path: Path, *, readonly: bool) -> str:
    try:
        with Store.open(path, readonly=readonly) as store:
            return f"{len(store.runs())} runs"
    except StoreError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - the child must say what it met
        return repr(error)


@pytest.fixture
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in a folder that others may enter, up to the root."""
    folder = tmp_path_factory.mktemp("guarded")
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    path = folder / "study.db"
    Store.open(path).close()
    return path


def test_without_permission_there_is_a_sentence(guarded: Path) -> None:
    guarded.chmod(0o400 if os.getuid() else 0o600)
    if os.getuid():
        assert "cannot be written" in as_nobody(lambda: _attempt(guarded, readonly=False))
        return
    assert "check the permissions" in as_nobody(lambda: _attempt(guarded, readonly=False))
    assert "check the permissions" in as_nobody(lambda: _attempt(guarded, readonly=True))


def test_a_file_in_a_folder_that_cannot_be_written_can_be_read(guarded: Path) -> None:
    guarded.chmod(0o444)
    guarded.parent.chmod(0o555)
    try:
        assert as_nobody(lambda: _attempt(guarded, readonly=True)) == "0 runs"
        assert "check the permissions" in as_nobody(lambda: _attempt(guarded, readonly=False))
    finally:
        guarded.parent.chmod(0o755)


def test_opening_loads_nothing_heavy() -> None:
    code = (
        "import sys, probe.store, probe.store.verify, probe.store.merge; "
        "print([m for m in ('scipy', 'numpy', 'mitmproxy', 'sqlite_utils', 'aiohttp') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
