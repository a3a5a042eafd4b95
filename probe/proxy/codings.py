"""Compressed bodies are stored as they crossed, but a secret must not hide in one."""

import gzip
import zlib
from collections.abc import Callable

import brotli
import zstandard

from probe.proxy.redact import Redactor
from probe.wire.content import decode_body, header
from probe.wire.values import HeaderPairs

_LIMIT = 256 * 1024 * 1024
"""Bytes of decoded content that are searched at most."""


def clean_body(redactor: Redactor, headers: HeaderPairs, body: bytes) -> tuple[bytes, int]:
    """Return a body without secrets, and how many places were blotted out.

    The length stays, but for a secret inside a compressed body: then the clean content is compressed anew. What cannot
    be decoded is searched as it is.
    """
    if not redactor.secrets or not body:
        return body, 0
    words = (word.strip().lower() for word in header(headers, "content-encoding").split(","))
    codings = [word for word in words if word not in {"", "identity"}]
    if codings and all(coding in _ENCODERS for coding in codings):
        content, count = redactor.body(decode_body(headers, body, limit=_LIMIT).data)
        if count:
            for coding in codings:
                content = _ENCODERS[coding](content)
            return content, count
    return redactor.body(body)


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _brotli(content: bytes) -> bytes:
    return bytes(brotli.compress(content))


_ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": zlib.compress,
    "br": _brotli,
    "zstd": zstandard.compress,
}
