"""Numbered SQL files in ``db/migrations`` and which of them a database has seen.

Files, not code: the schema page and the reason for each table live where the table is made. An applied file is never
edited; its hash is kept in the database so that ``verify`` can tell. sqlite-utils' own migrations record names only.
"""

import re
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from probe.errors import StoreError, StoreVersionError
from probe.ids import content_hash
from probe.resources import data_folder

APPLICATION_ID = 0x50454646
"""Written into the header of every file (``PEFF``), so that a foreign database is told from ours."""

_LEDGER = """
CREATE TABLE migrations (
  number     INTEGER PRIMARY KEY NOT NULL,
  name       TEXT NOT NULL,
  sha256     TEXT NOT NULL,
  applied_at REAL NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file: ``0001_recording.sql`` is number 1 with the name ``recording``."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Hash of the text, as recorded in a database that has applied it."""
        return content_hash(self.sql.encode())


@cache
def shipped() -> tuple[Migration, ...]:
    """Return the migrations of this version in order.

    Raises ``StoreError`` where the files are not numbered 1, 2, 3, …: a broken installation.
    """
    return read(data_folder("db") / "migrations")


def read(folder: Path) -> tuple[Migration, ...]:
    """Return the migrations in ``folder`` in order."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = re.fullmatch(r"(\d{4})_(\w+)", path.stem)
        if match is None:
            raise StoreError(f"The migration {path} has no number: its name must be like 0001_name.sql.")
        found.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    if not found or [m.number for m in found] != list(range(1, len(found) + 1)):
        raise StoreError(f"The migrations in {folder} are not numbered 1, 2, 3, …: install the package again.")
    return tuple(found)


def statements(sql: str) -> Iterator[str]:
    """Yield the statements of a script one by one, so that they can run inside one transaction.

    (``executescript`` commits before it starts.)
    """
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if re.sub(r"--[^\n]*", "", pending).strip():
        yield pending


def applied(connection: sqlite3.Connection) -> dict[int, tuple[str, str]]:
    """Return number → (name, hash) of the migrations that a database has seen."""
    rows = connection.execute("SELECT number, name, sha256 FROM migrations ORDER BY number")
    return {number: (name, sha256) for number, name, sha256 in rows}


def version(connection: sqlite3.Connection) -> int:
    """Return the number of the last migration that a database has seen; 0 for a new file."""
    number: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return number


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a foreign file and one of a newer version, without writing a byte to it.

    Raises ``StoreError`` and ``StoreVersionError``.
    """
    mark: int = connection.execute("PRAGMA application_id").fetchone()[0]
    if mark != APPLICATION_ID:
        objects: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if mark or objects or version(connection):
            raise StoreError(f"{path} is not a database of the probe: another program made it.")
        return
    theirs, ours = version(connection), len(shipped())
    if theirs > ours:
        raise StoreVersionError(
            f"{path} has schema version {theirs} and this probe knows versions up to {ours}: upgrade the probe."
        )


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Apply what is missing, each file in one transaction: killed in the middle, the next start takes it up again."""
    for migration in shipped():
        if migration.number <= version(connection):
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            check(connection, path)  # again, now that no other process can be in between
            if migration.number > version(connection):
                _apply(connection, migration)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    if migration.number == 1:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(_LEDGER)
    for statement in statements(migration.sql):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO migrations (number, name, sha256, applied_at) VALUES (?, ?, ?, ?)",
        (migration.number, migration.name, migration.sha256, time.time()),
    )
    connection.execute(f"PRAGMA user_version = {migration.number}")
