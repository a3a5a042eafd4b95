"""Bodies: compressed, once per content hash."""

import sqlite3

import zstandard

from probe.errors import StoreError
from probe.ids import content_hash

_LEVEL = 3
"""zstd's own default: bodies are a few kilobytes, and the writer must keep up with the proxy."""


class Blobs:
    """Puts and gets bodies on one connection. Like the connection, it is not for two threads at once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._decompressor = zstandard.ZstdDecompressor()

    def put(self, data: bytes) -> str:
        """Store ``data`` unless it is there already; return its hash. Raises ``sqlite3.Error``."""
        key = content_hash(data)
        if self._connection.execute("SELECT 1 FROM blobs WHERE hash = ?", (key,)).fetchone() is None:
            packed = self._compressor.compress(data)
            codec, kept = ("zstd", packed) if len(packed) < len(data) else ("raw", data)
            self._connection.execute(
                "INSERT INTO blobs (hash, codec, size, data) VALUES (?, ?, ?, ?)", (key, codec, len(data), kept)
            )
        return key

    def get(self, key: str) -> bytes:
        """Return the body with this hash.

        Raises ``StoreError`` where it is missing or damaged, ``sqlite3.Error`` where the database is.
        """
        row = self._connection.execute("SELECT codec, size, data FROM blobs WHERE hash = ?", (key,)).fetchone()
        if row is None:
            raise StoreError(f"The body {key} is missing from the database.")
        return unpack(key, *row, decompressor=self._decompressor)


def unpack(
    key: str, codec: str, size: int, data: bytes, *, decompressor: zstandard.ZstdDecompressor | None = None
) -> bytes:
    """Return the raw bytes of a row. Raises ``StoreError`` where they are not ``size`` bytes; the hash is not checked.

    (``verify`` checks it: hashing every body on every read would cost more than reading it.)
    """
    if codec == "zstd":
        try:
            data = (decompressor or zstandard.ZstdDecompressor()).decompress(data, max_output_size=size)
        except zstandard.ZstdError as error:
            raise StoreError(f"The body {key} is damaged: {error}.") from error
    if len(data) != size:
        raise StoreError(f"The body {key} is damaged: it has {len(data)} bytes instead of {size}.")
    return data
