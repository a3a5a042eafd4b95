"""Rows on their way to the derived tables: made by several processes, written by one in one transaction.

They wait in a file of pickled batches, compressed, because those of a large study do not fit into memory.
"""

import pickle
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from probe.store.derived import DerivedTable

BATCH = 1000
_IN_MEMORY = 16 * 2**20

Row = tuple[Any, ...]


class Spool:
    """Takes rows of several tables and gives them back in batches, in the order in which they came per table."""

    def __init__(self, path: Path | None = None) -> None:
        """Write to ``path``, or to a file without a name that lives in memory while it is small."""
        file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) if path is None else path.open("w+b")  # noqa: SIM115
        self._file: IO[bytes] = file
        self._waiting: dict[DerivedTable, list[Row]] = {}
        self._compressor = zstandard.ZstdCompressor(level=1)

    def add(self, table: DerivedTable, rows: Iterable[Row]) -> None:
        """Take rows of a table."""
        waiting = self._waiting.setdefault(table, [])
        waiting.extend(rows)
        if len(waiting) >= BATCH:
            self._write(table, waiting)
            waiting.clear()

    def close(self) -> None:
        """Write what waits, and let go of the file: it is read by ``read``."""
        self.finish()
        self._file.close()

    def finish(self) -> None:
        """Write what waits."""
        for table, waiting in self._waiting.items():
            if waiting:
                self._write(table, waiting)
        self._waiting.clear()

    def batches(self) -> Iterator[tuple[DerivedTable, list[Row]]]:
        """Yield what came so far."""
        self.finish()
        self._file.seek(0)
        yield from _batches(self._file)

    def _write(self, table: DerivedTable, rows: list[Row]) -> None:
        data = self._compressor.compress(pickle.dumps((table, rows), pickle.HIGHEST_PROTOCOL))
        self._file.write(struct.pack("<Q", len(data)))
        self._file.write(data)


def read(path: Path) -> Iterator[tuple[DerivedTable, list[Row]]]:
    """Yield what a spool wrote to ``path``, which our own processes made."""
    with path.open("rb") as file:
        yield from _batches(file)


def _batches(file: IO[bytes]) -> Iterator[tuple[DerivedTable, list[Row]]]:
    decompressor = zstandard.ZstdDecompressor()
    while head := file.read(8):
        (size,) = struct.unpack("<Q", head)
        yield pickle.loads(decompressor.decompress(file.read(size)))  # noqa: S301
