"""The store: one study in one file."""

from pathlib import Path
from typing import Self

from probe.store import db
from probe.store.derived import DerivedTables
from probe.store.exchanges import ExchangeTable
from probe.store.plan import PlanTables
from probe.store.scores import ScoreTable
from probe.store.served import ServedTable
from probe.store.spending import AttemptTable


class Store(PlanTables, ExchangeTable, AttemptTable, ScoreTable, DerivedTables, ServedTable):
    """One study in one file, or in memory. A context manager; every method raises ``StoreError`` only."""

    @classmethod
    def open(cls, path: Path, *, create: bool = True, readonly: bool = False) -> Self:
        """Open the file at ``path`` and bring its schema up to date.

        ``create``: make it where it is missing (never its folder). ``readonly``: write nothing, not even a schema.
        Raises ``StoreError``, ``StoreVersionError`` and ``StoreFullError``.
        """
        path = Path(path)
        return cls(db.connect(path, create=create, readonly=readonly), path)

    @classmethod
    def memory(cls) -> Self:
        """Return an empty store that dies with its connection."""
        return cls(db.connect(db.MEMORY, create=True, readonly=False), db.MEMORY)
