"""The parser of AWS event streams, with botocore's own as the oracle."""

import struct
import uuid
import zlib
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given
from hypothesis import strategies as st

from probe.wire.eventstream import LARGEST, EventStreamParser, StreamMessage, looks_like_messages, readable
from tests.wire.dialects_kit import aws, message

NAMES = st.text(min_size=1, max_size=20).filter(lambda name: 0 < len(name.encode()) < 128)
VALUES = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.binary(max_size=30)
    | st.text(max_size=20)
    | st.uuids(allow_nil=True)
)
MESSAGES = st.lists(
    st.builds(message, st.dictionaries(NAMES, VALUES, max_size=4), st.binary(max_size=60)), max_size=5
).map(b"".join)


def parsed(data: bytes, cuts: Any = ()) -> tuple[list[StreamMessage], EventStreamParser]:
    parser, found, start = EventStreamParser(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += parser.feed(data[start:cut])
        start = max(start, cut)
    return found, parser


def oracle(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(dict(event.headers), event.payload) for event in buffer]


def comparable(headers: Any) -> dict[str, Any]:
    # botocore leaves a UUID as its bytes.
    return {name: uuid.UUID(bytes=v) if len(v) == 16 else v for name, v in headers.items() if isinstance(v, bytes)} | {
        name: uuid.UUID(v) if isinstance(v, str) and is_uuid(v) else v
        for name, v in headers.items()
        if not isinstance(v, bytes)
    }


def is_uuid(text: str) -> bool:
    return len(text) == 36 and text.count("-") == 4


@given(MESSAGES)
def test_the_same_messages_as_botocore(data: bytes) -> None:
    found, parser = parsed(data)
    assert [(comparable(m.headers), m.payload) for m in found] == [(comparable(h), p) for h, p in oracle(data)]
    assert parser.close()
    assert not any(m.broken for m in found)
    assert [m.end for m in found][-1:] == [len(data)][: len(found)]


@given(MESSAGES, st.data())
def test_the_same_messages_however_the_bytes_arrive(data: bytes, drawn: st.DataObject) -> None:
    whole, _ = parsed(data)
    cuts = drawn.draw(st.lists(st.integers(0, len(data)), max_size=8))
    assert parsed(data, cuts)[0] == whole
    end = drawn.draw(st.integers(0, len(data)))
    part, parser = parsed(data[:end])
    assert part == [m for m in whole if m.end <= end]
    assert parser.close() == (end in {0, *(m.end for m in whole)})


@given(MESSAGES.filter(bool), st.data())
def test_a_changed_byte_is_found_where_botocore_finds_it(data: bytes, drawn: st.DataObject) -> None:
    at = drawn.draw(st.integers(0, len(data) - 1))
    bad = bytearray(data)
    bad[at] ^= 1 << drawn.draw(st.integers(0, 7))
    found, parser = parsed(bytes(bad))
    assert parser.lost or any(m.broken for m in found)
    with pytest.raises(ParserError):
        oracle(bytes(bad))


@given(st.binary(max_size=80), MESSAGES)
def test_anything_at_all_is_taken(junk: bytes, data: bytes) -> None:
    for body in (junk, data + junk, junk + data):
        found, parser = parsed(body)
        assert all(m.end <= len(body) for m in found)
        parser.close()
        readable(body).encode()


def raw(headers: bytes, payload: bytes = b"{}") -> bytes:
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


@pytest.mark.parametrize(
    "headers",
    [b"\x05ab", b"\x01a", b"\x01a\x0b", b"\x01a\x07\x00\x09ab", b"\x01a\x05\x00", b"\x01\xff\x00", b"\x01a\x09\x00"],
)
def test_headers_that_cannot_be_read(headers: bytes) -> None:
    found, parser = parsed(raw(headers) + message({"a": "b"}, b"x"))
    assert "headers" in found[0].broken
    assert (found[1].headers, found[1].payload, parser.lost) == ({"a": "b"}, b"x", "")


def test_every_type_of_header() -> None:
    numbers = b"\x01a\x02\xff\x01b\x03\xff\xfe\x01c\x04\xff\xff\xff\xfd\x01d\x08" + struct.pack(">q", 1_790_000_000_000)
    (found,), _ = parsed(raw(numbers))
    assert found.headers == {"a": -1, "b": -2, "c": -3, "d": 1_790_000_000_000}
    assert (found.header("a"), found.header("z")) == ("", "")


@pytest.mark.parametrize(("total", "headers"), [(15, 0), (16, 1), (LARGEST + 1, 0), (2**32 - 1, 2**32 - 1)])
def test_lengths_that_cannot_be(total: int, headers: int) -> None:
    prelude = struct.pack(">II", total, headers)
    _, parser = parsed(prelude + struct.pack(">I", zlib.crc32(prelude)) + b"x" * 40)
    assert f"claims {total} bytes" in parser.lost
    assert parser.feed(message({}, b"")) == []
    assert not parser.close()


def test_what_looks_like_messages() -> None:
    data = aws(("messageStart", {"role": "assistant"}))
    assert looks_like_messages(data)
    assert looks_like_messages(data[:12])
    for other in (b"", data[:11], b'{"message": "x"}', b"data: {}\n\n"):
        assert not looks_like_messages(other)


def test_it_can_be_read_by_a_person() -> None:
    data = aws(("contentBlockDelta", {"delta": {"text": "Hé"}}), ("throttlingException", {"message": "slow"}))
    assert readable(data + data[:20]).splitlines() == [
        'contentBlockDelta: {"delta": {"text": "Hé"}}',
        'throttlingException: {"message": "slow"}',
        "[the last message breaks off]",
    ]
