"""The schema page in the documents, made from the migrations: the comments there are the documentation."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlite_utils import Database

from probe.store import migrations
from probe.store.db import MEMORY, connect

_HEAD = """\
# The database

One study is one SQLite file, which any SQLite tool can read: `sqlite3`, Datasette, pandas, DuckDB.
This page is made from the migrations in `db/migrations` by `scripts/make-docs`; edit the comments there.
Queries to begin with are in `db/queries`.

The table `migrations` says which of these files the database has applied, with their hashes;
`probe verify` compares them.
"""


@dataclass(slots=True)
class _Table:
    """A table as its migration describes it: prose, and a comment for each column."""

    name: str
    prose: list[str]
    columns: dict[str, str] = field(default_factory=dict)


def schema_page() -> str:
    """Return the page as Markdown, with a newline at its end."""
    connection = connect(MEMORY, create=True, readonly=False)
    try:
        database = Database(connection)
        parts = [_HEAD]
        files = [migration.sql.splitlines() for migration in migrations.shipped()]
        # A table that a later file makes again is described where it came first, as it is now.
        newest = {table.name: table for lines in files for table in _tables(lines)}
        for lines in files:
            parts.append("\n".join(_leading(lines)) + "\n")
            parts.extend(_section(newest.pop(t.name), database) for t in _tables(lines) if t.name in newest)
        return "\n".join(parts)
    finally:
        connection.close()


def _leading(lines: Sequence[str]) -> Iterator[str]:
    """Yield the comment at the top of a file, up to the first empty line."""
    for line in lines:
        if not line.startswith("--"):
            return
        yield line.removeprefix("--").strip()


def _tables(lines: Sequence[str]) -> Iterator[_Table]:
    prose: list[str] = []
    table: _Table | None = None
    column = ""
    for line in lines:
        code, _, comment = line.partition("-- ")
        if started := re.match(r"CREATE TABLE (\w+) \(", code):
            table = _Table(started[1], prose)
        elif table is None:
            prose = [*prose, comment.strip()] if line.startswith("--") else []
        elif code.startswith(")"):
            yield table
            table, prose = None, []
        else:
            if named := re.match(r"  ([a-z_0-9]+) ", code):
                column = named[1]
            if comment:
                table.columns[column] = f"{table.columns.get(column, '')} {comment.strip()}".strip()


def _section(table: _Table, database: Database) -> str:
    keys = {key.column: f"{key.other_table}.{key.other_column}" for key in database.table(table.name).foreign_keys}
    lines = [f"## {table.name}", "", *table.prose, "", "| column | type | what it holds |", "|---|---|---|"]
    for column in database.table(table.name).columns:
        meaning = table.columns[column.name].replace("|", "\\|")
        link = f" → `{keys[column.name]}`" if column.name in keys else ""
        kind = column.type + ("" if column.notnull else ", may be empty")
        lines.append(f"| `{column.name}` | {kind} | {meaning}{link} |")
    return "\n".join(lines) + "\n"
