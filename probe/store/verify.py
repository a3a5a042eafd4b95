"""Checks that a database still is what was recorded: every hash, every sum, every reference.

Hashes here tell accidents and edits from the record; they are no signature, because whoever edits can hash, too.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from probe.errors import StoreError
from probe.ids import content_hash
from probe.store import db, migrations
from probe.store.blobs import unpack
from probe.store.columns import from_json
from probe.store.exchanges import COLUMNS, checksum
from probe.store.failures import mapped, translated
from probe.store.store import Store

EACH = 20
"""Problems of one kind that are named; the rest is counted."""

_Check = Callable[[sqlite3.Connection], Iterator[str]]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found: ``problems`` are sentences, ``checked`` how many rows of each table were looked at."""

    path: Path
    problems: tuple[str, ...]
    checked: Mapping[str, int]

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.problems


def verify(path: Path) -> VerifyReport:
    """Check a database without writing to it; a run may go on meanwhile: one snapshot is checked.

    Raises ``StoreError`` where it cannot be opened at all (``StoreVersionError`` where it is newer).
    """
    path = Path(path)
    connection = db.connect(path, create=False, readonly=True)
    try:
        with mapped(path):
            connection.execute("BEGIN")
            problems = [problem for check in _CHECKS for problem in _some(check, connection, path)]
            checked = _counted(connection)
    finally:
        connection.close()
    return VerifyReport(path, tuple(dict.fromkeys(problems)), checked)


def _counted(connection: sqlite3.Connection) -> dict[str, int]:
    counted = {}
    for table in ("exchanges", "blobs", "trials", "traces", "routes", "weights", "runs", "attempts"):
        with contextlib.suppress(sqlite3.DatabaseError):  # a damaged table: a check has said so
            counted[table] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
    return counted


def _some(check: _Check, connection: sqlite3.Connection, path: Path) -> list[str]:
    """Run one check; damage that stops it is a problem like any other, and the next check goes on."""
    found: list[str] = []
    try:
        problems = check(connection)
        found.extend(islice(problems, EACH))
        more = sum(1 for _ in problems)
        if more:
            found.append(f"… and {more} more of this kind.")
    except (sqlite3.Error, StoreError, ValueError, TypeError) as error:
        found.append(str(translated(error, path)))
    return found


def _pages(connection: sqlite3.Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check(100)"):
        if line != "ok":
            yield f"SQLite's own check says: {line}."


def _schema(connection: sqlite3.Connection) -> Iterator[str]:
    """Compare the migrations and the schema that they made with what is there; tables that users add are theirs."""
    applied = migrations.applied(connection)
    for migration in migrations.shipped():
        seen = applied.pop(migration.number, None)
        label = f"{migration.number:04d}_{migration.name}"
        if seen is None:
            yield f"The migration {label} is not recorded as applied."
        elif seen != (migration.name, migration.sha256):
            yield f"The migration {label} is not the file that this database applied ({seen[0]}, SHA-256 {seen[1]})."
    for number, (name, _) in applied.items():
        yield f"The migration {number:04d}_{name} was applied and does not exist."
    objects = "SELECT type || ' ' || name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    there = dict(connection.execute(objects))
    with Store.memory() as fresh:
        for name, sql in fresh.query(objects):
            if there.get(name) != sql:
                yield f"The {name} is {'missing' if name not in there else 'not as the migrations made it'}."


def _references(connection: sqlite3.Connection) -> Iterator[str]:
    for table, rowid, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"Row {rowid} of {table} refers to a row of {parent} that does not exist."


def _bodies(connection: sqlite3.Connection) -> Iterator[str]:
    for key, codec, size, data in connection.execute("SELECT hash, codec, size, data FROM blobs"):
        try:
            sound = content_hash(unpack(key, codec, size, data)) == key
        except StoreError as error:
            yield str(error)
            continue
        if not sound:
            yield f"The body {key} is not what its hash says."


def _orphans(connection: sqlite3.Connection) -> Iterator[str]:
    sql = """
    SELECT hash FROM blobs
    WHERE hash NOT IN (SELECT request_body FROM exchanges) AND hash NOT IN (SELECT response_body FROM exchanges)
    """
    for (key,) in connection.execute(sql):
        yield f"The body {key} belongs to no exchange."


def _exchanges(connection: sqlite3.Connection) -> Iterator[str]:
    sizes = "(SELECT size FROM blobs WHERE hash = response_body)"
    sql = f"SELECT {', '.join(COLUMNS)}, checksum, {sizes} FROM exchanges"  # noqa: S608
    place = COLUMNS.index("chunks")
    for row in connection.execute(sql):
        *columns, recorded, size = row
        if checksum(tuple(columns)) != recorded:
            yield f"The exchange {row[0]} was changed after it was recorded: its checksum differs."
            continue
        total = sum(chunk for chunk, _ in from_json(columns[place]))
        if size is not None and total != size:
            yield f"The chunks of the exchange {row[0]} add up to {total} bytes, and its response body has {size}."


def _answers(connection: sqlite3.Connection) -> Iterator[str]:
    sql = """
    SELECT trials.id, trials.state, count(exchanges.id)
    FROM trials LEFT JOIN exchanges ON trial_id = trials.id AND answered = 1
    GROUP BY trials.id
    HAVING count(exchanges.id) <> (trials.state = 'answered')
    """
    for trial, state, answers in connection.execute(sql):
        yield f"The trial {trial} is {state} and has {answers or 'no'} exchange marked as its answer."


def _attempts(connection: sqlite3.Connection) -> Iterator[str]:
    """Compare the journal with the trials and exchanges that it names."""
    sql = """
    SELECT attempts.id, attempts.trial_id, exchanges.id
    FROM attempts JOIN trials ON trials.id = attempts.trial_id
    LEFT JOIN exchanges ON exchanges.id = attempts.exchange_id
    WHERE attempts.route_id <> trials.route_id
      OR exchanges.trial_id IS NOT attempts.trial_id AND exchanges.id IS NOT NULL
      OR exchanges.attempt <> attempts.attempt
    """
    for attempt, trial, exchange in connection.execute(sql):
        yield f"The attempt {attempt} at the trial {trial} names another trial's route or exchange ({exchange})."


def _names(connection: sqlite3.Connection) -> Iterator[str]:
    """Compare ids that are content hashes with their content."""
    store = Store(connection, Path())
    tables: tuple[tuple[str, Mapping[str, object]], ...] = (
        ("trace", {key: trace.id for key, trace in store.traces().items()}),
        ("route", {key: route.id for key, route in store.routes().items()}),
        ("set of weights", {key: weights.id for key, weights in store.weights().items()}),
    )
    for kind, ids in tables:
        for key, made in ids.items():
            if key != made:
                yield f"The {kind} {key} is not what its id says: its content has the hash {made}."


def _secrets(connection: sqlite3.Connection) -> Iterator[str]:
    from probe.proxy.redact import MASK, SECRET_HEADERS

    for key, *both in connection.execute("SELECT id, request_headers, response_headers FROM exchanges"):
        for name, value in (pair for headers in both for pair in from_json(headers)):
            if name.lower() in SECRET_HEADERS and value != MASK:
                yield f"The exchange {key} holds the value of a header that carries credentials: {name}."


_CHECKS: tuple[_Check, ...] = (
    _pages,
    _schema,
    _references,
    _bodies,
    _orphans,
    _exchanges,
    _answers,
    _attempts,
    _names,
    _secrets,
)
