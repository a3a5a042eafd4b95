"""Undoes the content coding of a body (RFC 9110 §8.4): bytes or a problem, never an exception, never over a limit."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import brotli
import zstandard

from probe.wire.values import Exchange, HeaderPairs

LIMIT = 64 * 1024 * 1024
"""Bytes of a decoded body; an answer of a model is smaller by orders of magnitude."""

_CODINGS = 4
"""Codings on top of each other; more is an attack."""

_STEP = 64 * 1024
_FIRST_STEP = 512


class Decoded(NamedTuple):
    """A body without its content coding. With a ``problem``, ``data`` is what could be decoded until then."""

    data: bytes
    problem: str | None = None


def header(headers: HeaderPairs, name: str) -> str:
    """Return the values of a header field joined by commas (RFC 9110 §5.2); empty where it is absent."""
    return ", ".join(value for key, value in headers if key.lower() == name)


def decode_body(headers: HeaderPairs, body: bytes, *, limit: int = LIMIT) -> Decoded:
    """Undo ``Content-Encoding``: gzip, deflate (zlib or raw), br, zstd, in any order and number up to four."""
    codings = [word.strip().lower() for word in header(headers, "content-encoding").split(",")]
    codings = [word for word in codings if word not in {"", "identity"}]
    if len(codings) > _CODINGS:
        return Decoded(body, f"more than {_CODINGS} content codings")
    for coding in reversed(codings):
        decoder = _DECODERS.get(coding)
        if decoder is None:
            return Decoded(body, f"unknown content coding {coding[:40]!r}")
        if not body:
            return Decoded(body)  # an empty body, as to HEAD or after a cut, has no coding
        decoded = _bounded(decoder(body), coding, limit)
        body = decoded.data
        if decoded.problem:
            return decoded
    return Decoded(body)


def decoded_body(exchange: Exchange, *, limit: int = LIMIT) -> Decoded:
    """Return the response body of an exchange without its content coding."""
    return decode_body(exchange.response_headers, exchange.response_body, limit=limit)


def _bounded(pieces: Iterator[bytes], coding: str, limit: int) -> Decoded:
    data = bytearray()
    try:
        for piece in pieces:
            data += piece
            if len(data) > limit:
                return Decoded(bytes(data[:limit]), f"the {coding} body is longer than {limit} bytes")
    except (zlib.error, brotli.error, zstandard.ZstdError, EOFError, MemoryError) as error:
        return Decoded(bytes(data), f"the {coding} body is broken: {error or type(error).__name__}")
    return Decoded(bytes(data))


def _inflate(body: bytes, window: int) -> Iterator[bytes]:
    # A gzip body may have several members (RFC 1952 §2.2); what follows the last one is padding.
    start = 0
    while start < len(body):
        machine, place, size = zlib.decompressobj(window), start, _FIRST_STEP
        while not machine.eof:
            step = machine.unconsumed_tail
            if not step:
                # In steps: the unread tail is copied each time, which is quadratic over a large body. The first one
                # is small: what a member does not use is copied as well, and there may be thousands of members.
                step = body[place : place + size]
                place, size = place + len(step), min(2 * size, _STEP)
            piece = machine.decompress(step, _STEP)
            if not piece and not step and not machine.eof:
                raise EOFError("it ends early")
            yield piece
        start = place - len(machine.unused_data)
        if window != _GZIP or body[start : start + 2] != b"\x1f\x8b":
            return


_GZIP = 16 + zlib.MAX_WBITS


def _gzip(body: bytes) -> Iterator[bytes]:
    return _inflate(body, _GZIP)


def _deflate(body: bytes) -> Iterator[bytes]:
    # RFC 9110 §8.4.1.2: zlib is meant, and some servers send raw deflate all the same.
    zlib_header = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] * 256 + body[1]) % 31 == 0
    return _inflate(body, zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS)


def _brotli(body: bytes) -> Iterator[bytes]:
    machine = brotli.Decompressor()
    yield machine.process(body, output_buffer_limit=_STEP)
    while not machine.is_finished():
        piece = machine.process(b"", output_buffer_limit=_STEP)
        if not piece and not machine.is_finished():
            raise EOFError("it ends early")
        yield piece


def _zstd(body: bytes) -> Iterator[bytes]:
    # RFC 8878 §3.1.1.1.2 advises at least 8 MiB of window; browsers take as much for HTTP and no more.
    machine = zstandard.ZstdDecompressor(max_window_size=2**23)
    place = 0
    while place < len(body):
        frame = machine.decompressobj(read_across_frames=False)
        while not frame.eof:
            step = body[place : place + _ZSTD_STEP]
            if not step:
                raise EOFError("it ends early")
            place += len(step)
            yield frame.decompress(step)
        place -= len(frame.unused_data)


_ZSTD_STEP = 512
"""Compressed bytes at a time: each step's output is held before it is counted, and a block expands to 128 KiB."""

_DECODERS: Mapping[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
