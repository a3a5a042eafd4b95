"""Identifiers: every row has a UUIDv7 or a content hash, so that databases merge without collisions (DESIGN §7)."""

import hashlib
import json
import os
import time
import uuid
from typing import Any


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, then random bits.

    The standard library has ``uuid.uuid7`` from 3.14 on only.
    """
    value = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))
    value[6] = 0x70 | (value[6] & 0x0F)
    value[8] = 0x80 | (value[8] & 0x3F)
    return str(uuid.UUID(bytes=bytes(value)))


def content_hash(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return the one UTF-8 encoding of a JSON value that hashes are taken of: sorted keys, no spaces."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")


def json_hash(value: Any) -> str:
    """Return the content hash of a JSON value."""
    return content_hash(canonical_json(value))
