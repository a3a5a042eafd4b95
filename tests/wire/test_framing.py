import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.wire.framing import JsonLine, NdjsonParser, SseEvent, SseParser


def events_of(*pieces: bytes) -> tuple[list[SseEvent], list[str]]:
    parser = SseParser()
    found = [event for piece in pieces for event in parser.feed(piece)]
    return [*found, *parser.close()], parser.comments


def lines_of(*pieces: bytes) -> list[JsonLine]:
    parser = NdjsonParser()
    found = [line for piece in pieces for line in parser.feed(piece)]
    return [*found, *parser.close()]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_all_line_ends_give_the_same_events(newline: bytes) -> None:
    data = newline.join([b"event: a", b"data: x", b"data:y", b"", b": ping", b"", b"data: [DONE]", b"", b""])
    events, comments = events_of(data)
    assert [(event.name, event.data) for event in events] == [("a", "x\ny"), ("", "[DONE]")]
    assert comments == ["ping"]


def test_only_one_space_after_the_colon_is_no_data() -> None:
    assert events_of(b"data:  x\n\n")[0][0].data == " x"
    assert events_of(b"data:x\n\n")[0][0].data == "x"
    assert events_of(b"data\n\n")[0][0].data == ""


def test_byte_order_mark_is_dropped_at_the_start_only() -> None:
    events, _ = events_of(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n")
    assert [event.data for event in events] == ["a", "c"]


def test_a_blank_line_after_no_data_is_no_event_and_forgets_the_name() -> None:
    events, _ = events_of(b"event: a\n\ndata: x\n\n")
    assert [(event.name, event.data) for event in events] == [("", "x")]


def test_unterminated_last_event_is_kept_and_flagged() -> None:
    events, _ = events_of(b"data: a\n\ndata: b\ndata: c")
    assert [(event.data, event.complete) for event in events] == [("a", True), ("b\nc", False)]


def test_end_is_the_offset_of_the_terminator() -> None:
    data = b"data: a\r\n\r\ndata: b\n\n"
    events, _ = events_of(data)
    assert [event.end for event in events] == [10, len(data)]


def test_a_character_split_over_chunks() -> None:
    data = "data: né – 好 🙂\n\n".encode()
    assert events_of(*(data[i : i + 1] for i in range(len(data))))[0][0].data == "né – 好 🙂"


def test_a_long_stream_takes_linear_time() -> None:
    data = b"data: 0123456789\n\n" * 60_000
    assert len(events_of(data)[0]) == 60_000


STREAMS = st.lists(
    st.sampled_from(
        [
            *(b"data: a", b"data:b", b"data", b"event: e", b": c", b"id: 1", b"retry: 5", b"x", b"data: {", b"\x00"),
            *(b"\n", b"\r", b"\r\n", b"\n\n", "data: ü好🙂".encode(), b"\xef\xbb\xbf", b"\xff"),
        ]
    ),
    max_size=30,
).map(b"".join) | st.binary(max_size=80)


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_of_any_stream_gives_the_same_events(data: bytes, places: list[int]) -> None:
    assert events_of(*cut(data, places)) == events_of(data)


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_of_any_stream_gives_the_same_lines(data: bytes, places: list[int]) -> None:
    assert lines_of(*cut(data, places)) == lines_of(data)


def test_lines_of_json() -> None:
    assert lines_of(b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"b":2}') == [
        JsonLine('{"a":1}', 12),
        JsonLine('{"b":2}', 23, complete=False),
    ]
