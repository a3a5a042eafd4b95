"""An incremental parser for AWS event streams (``application/vnd.amazon.eventstream``).

A message is: total length and length of its headers (4 bytes each, big-endian), CRC-32 of these 8 bytes, headers,
payload, CRC-32 of all before it. A header is: length of its name (1 byte), name, type (1 byte), value.

Sources: Smithy, "Amazon Event Stream Specification" (smithy.io/2.0/aws/amazon-eventstream.html);
``botocore/eventstream.py``, which is the oracle of the tests.
"""

import struct
import uuid
import zlib
from collections.abc import Mapping
from typing import NamedTuple

MEDIA_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
_HEAD = _PRELUDE.size + _CRC.size
LARGEST = 32 * 1024 * 1024
"""Bytes of one message; AWS allows 24 MiB of payload and 128 KiB of headers (``botocore/eventstream.py``)."""

HeaderValue = bool | int | bytes | str
_FIXED_SIZES = {2: ">b", 3: ">h", 4: ">i", 5: ">q", 8: ">q"}
"""Types of a header's value with a fixed size: byte, short, integer, long, and a time in milliseconds."""


class StreamMessage(NamedTuple):
    """One message. ``end``: bytes of the stream up to its end; ``broken``: a sentence on what is wrong with it."""

    headers: Mapping[str, HeaderValue]
    payload: bytes
    end: int
    broken: str = ""

    def header(self, name: str) -> str:
        """Return a header's text; empty where it is absent or no text."""
        value = self.headers.get(name)
        return value if isinstance(value, str) else ""


class EventStreamParser:
    """Splits a byte stream into messages. Whatever way it is split into chunks, the same messages come out.

    A message whose checksum or headers are wrong is ``broken``. Where lengths cannot be trusted nothing that follows
    can be found: ``lost`` says so in words, and the parser gives nothing more.
    """

    def __init__(self) -> None:
        self.lost = ""
        self._rest = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> list[StreamMessage]:
        """Return the messages that these bytes complete."""
        if self.lost:
            return []
        self._rest += data
        found, place = [], 0
        while (size := self._size(place)) and place + size <= len(self._rest):
            whole = bytes(self._rest[place : place + size])
            place += size
            found.append(_message(whole, self._at + place))
        del self._rest[:place]
        self._at += place
        return found

    def close(self) -> bool:
        """Return whether the stream ends between two messages."""
        return not self._rest and not self.lost

    def _size(self, place: int) -> int:
        """Return the size of the message at a place; 0 where it cannot be known yet, or never."""
        if len(self._rest) - place < _HEAD:
            return 0
        total, headers = _PRELUDE.unpack_from(self._rest, place)
        (crc,) = _CRC.unpack_from(self._rest, place + _PRELUDE.size)
        if crc != zlib.crc32(self._rest[place : place + _PRELUDE.size]):
            self.lost = "the lengths of a message of the event stream do not match their checksum"
        elif not _HEAD + headers + _CRC.size <= total <= LARGEST:
            self.lost = f"a message of the event stream claims {total} bytes with {headers} bytes of headers"
        return 0 if self.lost else int(total)


def looks_like_messages(data: bytes) -> bool:
    """Whether bytes begin with a message, or with the beginning of one whose lengths are whole."""
    return len(data) >= _HEAD and _CRC.unpack_from(data, _PRELUDE.size)[0] == zlib.crc32(data[: _PRELUDE.size])


def _message(whole: bytes, end: int) -> StreamMessage:
    if _CRC.unpack_from(whole, len(whole) - _CRC.size)[0] != zlib.crc32(whole[: -_CRC.size]):
        return StreamMessage({}, b"", end, "a message of the event stream does not match its checksum")
    _, length = _PRELUDE.unpack_from(whole)
    try:
        headers = _headers(whole[_HEAD : _HEAD + length])
    except (struct.error, ValueError, IndexError) as error:
        return StreamMessage({}, b"", end, f"the headers of a message of the event stream cannot be read: {error}")
    return StreamMessage(headers, whole[_HEAD + length : -_CRC.size], end)


def _headers(data: bytes) -> dict[str, HeaderValue]:
    found: dict[str, HeaderValue] = {}
    place = 0
    while place < len(data):
        name_end = place + 1 + data[place]
        name = data[place + 1 : name_end].decode()
        kind, place = data[name_end], name_end + 1
        value: HeaderValue
        if kind in {0, 1}:
            value = kind == 0
        elif kind in _FIXED_SIZES:
            (value,) = struct.unpack_from(_FIXED_SIZES[kind], data, place)
            place += struct.calcsize(_FIXED_SIZES[kind])
        elif kind in {6, 7, 9}:
            size = 16 if kind == 9 else struct.unpack_from(">H", data, place)[0]
            place += 0 if kind == 9 else 2
            raw = data[place : place + size]
            if len(raw) < size:
                raise ValueError("a value breaks off")
            value = raw if kind == 6 else raw.decode() if kind == 7 else str(uuid.UUID(bytes=raw))
            place += size
        else:
            raise ValueError(f"there is no type {kind}")
        found[name] = value
    return found


def readable(data: bytes) -> str:
    """Return an event stream as lines that a person can read: the kind of each message, and its payload."""
    parser = EventStreamParser()
    lines = [_line(message) for message in parser.feed(data)]
    if not parser.close():
        lines.append(f"[{parser.lost or 'the last message breaks off'}]")
    return "\n".join(lines)


def _line(message: StreamMessage) -> str:
    names = (":event-type", ":exception-type", ":error-code", ":error-message")
    kind = " ".join(value for name in names if (value := message.header(name)))
    return message.broken or f"{kind}: {message.payload.decode('utf-8', 'replace')}"
