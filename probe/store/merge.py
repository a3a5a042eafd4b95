"""Merging files: what two labs, or two machines, recorded becomes one study.

Every id is a UUIDv7 or a content hash, so rows never collide by accident, and merging twice changes nothing.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from probe.errors import StoreError
from probe.store import db
from probe.store.failures import mapped
from probe.store.lock import RunLock
from probe.store.store import Store

_TABLES = (
    "weights",
    "routes",
    "route_facts",
    "packs",
    "traces",
    "pack_traces",
    "runs",
    "trials",
    "blobs",
    "exchanges",
    "attempts",
    "likelihoods",
)
"""What is recorded, and the cache of scores, in an order in which every row finds what it refers to."""


@dataclass(frozen=True, slots=True)
class MergeReport:
    """How many rows of each table came in, and whether derived tables were emptied because of them."""

    source: Path
    added: Mapping[str, int]
    cleared: bool


def merge(source: Path, target: Path) -> MergeReport:
    """Add what ``source`` recorded to ``target``, which is made where it is missing, in one commit.

    A trace that both describe keeps the name and labels it has in ``target``. Derived rows are not copied, and those
    of ``target`` go where exchanges came in: verdicts and effects look at all exchanges of a route together. Raises
    ``StoreError``: a file cannot be used, a run writes to ``target``, or both files answered one trial differently.
    """
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and source.samefile(target):
        raise StoreError(f"{source} cannot be merged into itself.")
    db.connect(source, create=False, readonly=True).close()  # is it ours, and of this version?
    with RunLock(target), Store.open(target) as store, mapped(source):
        connection = store.connection
        connection.execute("ATTACH DATABASE ? AS source", (f"file:{quote(str(source.absolute()))}?mode=ro",))
        with store.transaction():
            added = {table: _copy(connection, table) for table in _TABLES}
            _reconcile(connection)
            if added["exchanges"]:
                store.clear_derived()
        connection.execute("DETACH DATABASE source")
    return MergeReport(source, added, cleared=added["exchanges"] > 0)


def _copy(connection: sqlite3.Connection, table: str) -> int:
    columns = [row[1] for row in connection.execute(f"PRAGMA main.table_info({table})")]
    keys = [row[1] for row in connection.execute(f"PRAGMA main.table_info({table})") if row[5]]
    names = ", ".join(columns)
    try:
        return connection.execute(
            f"INSERT INTO main.{table} ({names}) SELECT {names} FROM source.{table} WHERE true "  # noqa: S608
            f"ORDER BY rowid ON CONFLICT ({', '.join(keys)}) DO NOTHING"
        ).rowcount
    except sqlite3.IntegrityError as error:
        if table not in {"trials", "exchanges"}:
            raise
        raise StoreError(
            "The files cannot be merged: each went on with the same run by itself, and both answered the same trial."
        ) from error


def _reconcile(connection: sqlite3.Connection) -> None:
    """Bring runs, trials and attempts that both files hold up to what the exchanges now say."""
    connection.execute(
        "UPDATE attempts SET (ended, exchange_id, prompt_tokens, completion_tokens, nanousd, source) = ("
        "SELECT ended, exchange_id, prompt_tokens, completion_tokens, nanousd, source "
        "FROM source.attempts AS other WHERE other.id = attempts.id) "
        "WHERE ended = 0 AND id IN (SELECT id FROM source.attempts WHERE ended = 1)"
    )
    connection.execute(
        "UPDATE trials SET state = 'answered', reason = '' WHERE state <> 'answered' "
        "AND id IN (SELECT trial_id FROM exchanges WHERE answered = 1)"
    )
    connection.execute(
        "UPDATE runs SET ended_at = (SELECT ended_at FROM source.runs AS other WHERE other.id = runs.id) "
        "WHERE ended_at IS NULL AND id IN (SELECT id FROM source.runs)"
    )
