"""One connection, its transactions, and the errors it may raise."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from probe.store.failures import mapped

Values = Sequence[Any] | Mapping[str, Any]


class Session:
    """A connection that any thread of the process may use, one at a time. Every method raises ``StoreError`` only."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.RLock()
        self._depth = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection itself, for what needs more than rows (sqlite-utils, Datasette); its errors are not mapped."""
        return self._connection

    def close(self) -> None:
        """Close the connection; closing twice is fine."""
        with self._lock, mapped(self.path):
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes inside the block one commit, or none of them. Blocks nest; the outermost commits.

        Never ``await`` inside: another task of the thread would find itself in this transaction.
        """
        with self._lock, mapped(self.path):
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has already rolled back by itself after some errors (a full disk).
                if self._depth == 1 and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    def query(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock, mapped(self.path):
            return self._connection.execute(sql, values).fetchall()

    def _write(self, sql: str, rows: Iterable[Values]) -> None:
        with self.transaction():
            self._connection.executemany(sql, rows)

    def _put(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, known: str) -> None:
        """Insert rows; ``known`` is the SQL that says what happens to a row that is already there."""
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        # Table and columns are literals of this package.
        self._write(f"INSERT INTO {table} ({names}) VALUES ({marks}) {known}", rows)  # noqa: S608
