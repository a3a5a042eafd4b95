"""Opening the file: SQLite with a write-ahead log, one file per study.

A connection here is in autocommit mode; transactions are begun by hand (``Session.transaction``), because Python's
implicit ones start too late (deferred) and a deferred transaction that turns to writing can fail at once with
``SQLITE_BUSY`` where an immediate one would have waited.
"""

import sqlite3
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from probe.errors import StoreError
from probe.store import migrations
from probe.store.failures import BUSY_SECONDS, mapped, mapped_system

MEMORY = Path(":memory:")
"""The path of a database that lives and dies with its connection."""

Synchronous = Literal["NORMAL", "FULL"]
"""``NORMAL`` survives the death of the process: a commit has reached the write-ahead log, which then belongs to the
kernel. ``FULL`` also survives a power cut: each commit waits until the log is on the disk."""


def connect(path: Path, *, create: bool, readonly: bool, synchronous: Synchronous = "NORMAL") -> sqlite3.Connection:
    """Open ``path``, refuse what is not ours, and bring its schema up to date (unless ``readonly``).

    Raises ``StoreError`` (missing, foreign, locked, no permission), ``StoreVersionError`` (newer than this version)
    and ``StoreFullError``.
    """
    with mapped(path), mapped_system(path):
        if path != MEMORY and (readonly or not create) and not path.exists():
            raise StoreError(f"There is no database {path}: a run makes one.")
        if readonly:
            return _reader(path)
        connection = _raw(path, "rwc" if create else "rw")
        try:
            migrations.check(connection, path)  # before the first pragma that writes
            _keep_log(connection, path)
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            migrations.migrate(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _keep_log(connection: sqlite3.Connection, path: Path) -> None:
    mode: str = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal" and path != MEMORY:
        raise StoreError(f"The database {path} cannot keep a write-ahead log there: put it on a local disk.")


def _reader(path: Path) -> sqlite3.Connection:
    connection = _raw(path, "ro")
    try:
        _check_current(connection, path)
    except sqlite3.OperationalError as error:
        connection.close()
        log = path.with_name(path.name + "-wal")
        if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY} or (
            log.exists() and log.stat().st_size > 0
        ):
            raise
        # A write-ahead log needs a shared file beside it even for reading. On a read-only medium there is none, and
        # without a log nobody can be writing, which is what `immutable` promises.
        connection = _raw(path, "ro&immutable=1")
        try:
            _check_current(connection, path)
        except BaseException:
            connection.close()
            raise
    except BaseException:
        connection.close()
        raise
    return connection


def _check_current(connection: sqlite3.Connection, path: Path) -> None:
    migrations.check(connection, path)
    theirs, ours = migrations.version(connection), len(migrations.shipped())
    if theirs == 0:
        raise StoreError(f"{path} is not a database of the probe: it is empty.")
    if theirs < ours:
        raise StoreError(
            f"{path} has schema version {theirs}, older than {ours}: any command that writes brings it up to date."
        )


def _raw(path: Path, mode: str) -> sqlite3.Connection:
    name = ":memory:" if path == MEMORY else f"file:{quote(str(path.absolute()))}?mode={mode}"
    connection = sqlite3.connect(
        name,
        uri=path != MEMORY,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,  # Session guards it with a lock
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        # Reading a file of a stranger must not run functions that its schema smuggles in.
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection
