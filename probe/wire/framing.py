"""Incremental parsers for event streams and newline-delimited JSON.

Whatever way a stream is split into chunks, the same events come out. Lines are only decoded once they are complete, so
a UTF-8 character may be split as well. Bytes that are no UTF-8 become U+FFFD.
"""

import re
from itertools import accumulate
from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
_DATA = b"data: "
_BREAKS = re.compile(rb"\r\n?|\n")


class SseEvent(NamedTuple):
    """One server-sent event.

    ``name`` is its ``event`` field, empty where none was sent; ``data`` its data lines joined by newlines. ``end`` is
    the number of bytes of the stream up to the end of the event, which tells the chunk that completed it. ``complete``
    is false for a last event without the blank line that dispatches it.
    """

    data: str
    name: str = ""
    end: int = 0
    complete: bool = True


class JsonLine(NamedTuple):
    """One line that is not blank; ``end`` and ``complete`` as in ``SseEvent``."""

    data: str
    end: int = 0
    complete: bool = True


class _Lines:
    """Splits a byte stream into lines, which LF ends, and with ``returns`` CR and CRLF as well.

    Blank lines in a row are given once.
    """

    def __init__(self, *, returns: bool) -> None:
        self._returns = returns
        self._rest = bytearray()
        self._length = 0
        self._skip_lf = False
        self._blank = False

    def feed(self, data: bytes) -> list[tuple[bytes, int]]:
        """Return the lines that ``data`` completes, each with the stream's length at the end of its terminator."""
        if not data:
            return []
        # The LF of a CRLF belongs to the line that the CR has ended already, even if it comes in the next chunk.
        start = 1 if self._skip_lf and data[0] == 0x0A else 0
        self._skip_lf = self._returns and data[-1] == 0x0D
        returned = self._returns and b"\r" in data
        pieces = _BREAKS.split(data[start:]) if returned else data[start:].split(b"\n")
        last = pieces.pop()
        if not pieces:
            self._rest += last
            self._length += len(data)
            return []
        if returned:
            ends = [self._length + found.start() + 1 for found in _BREAKS.finditer(data, start)]
        else:
            ends = list(accumulate((len(piece) + 1 for piece in pieces), initial=self._length + start))[1:]
        # What was left has no break in it.
        pieces[0] = bytes(self._rest) + pieces[0]
        self._rest = bytearray(last)
        self._length += len(data)
        lines, blank = [], self._blank
        for line, end in zip(pieces, ends, strict=True):
            # Of blank lines in a row only the first says anything.
            if line or not blank:
                lines.append((line, end))
                blank = not line
        self._blank = blank
        return lines

    def close(self) -> tuple[bytes, int]:
        """Return what came after the last terminator, with the length of the stream."""
        return bytes(self._rest), self._length


class SseParser:
    """Parses an event stream as the WHATWG HTML standard says (§9.2.6, "Interpreting an event stream").

    Two departures, because a recorder must not lose bytes: comments are kept in ``comments``, and ``close`` returns an
    unterminated last event instead of discarding it.
    """

    def __init__(self) -> None:
        self.comments: list[str] = []
        self._lines = _Lines(returns=True)
        self._first = True
        self._name = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the events that these bytes complete."""
        events = []
        for line, end in self._lines.feed(data):
            if line or self._first:
                self._field(line)
            if not line:
                if self._data:
                    events.append(SseEvent("\n".join(self._data), self._name, end))
                self._name, self._data = "", []
        return events

    def close(self) -> list[SseEvent]:
        """Return the unterminated last event, if there is one."""
        line, end = self._lines.close()
        if line:
            self._field(line)
        event = SseEvent("\n".join(self._data), self._name, end, complete=False)
        data, self._name, self._data = self._data, "", []
        return [event] if data else []

    def _field(self, raw: bytes) -> None:
        if self._first:
            raw = raw.removeprefix(_BOM)
            self._first = False
        if raw.startswith(_DATA):  # nearly every line is one
            self._data.append(raw[len(_DATA) :].decode("utf-8", "replace"))
            return
        name, colon, value = raw.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif colon and not name:
            self.comments.append(value)


def plain_events(data: bytes) -> list[str] | None:
    """Return the data of all events of a whole stream in which each is one ``data: …`` line and nothing is odd.

    ``None`` where any rule of ``SseParser`` beyond that might matter: it then has to read the stream.
    """
    if b"\r" in data or not data.startswith((_DATA, b":")) or not data.endswith(b"\n\n"):
        return None
    try:
        blocks = data[:-2].decode("utf-8").split("\n\n")
    except UnicodeDecodeError:
        return None
    found = []
    for block in blocks:
        if "\n" in block or block[:6] != "data: ":
            if "\n" in block or block[:1] != ":":
                return None
        else:
            found.append(block[6:])
    return found


class NdjsonParser:
    """Parses newline-delimited JSON into lines (https://github.com/ndjson/ndjson-spec); blank ones are skipped."""

    def __init__(self) -> None:
        self._lines = _Lines(returns=False)
        self._first = True

    def feed(self, data: bytes) -> list[JsonLine]:
        """Return the lines that these bytes complete."""
        return [JsonLine(text, end) for line, end in self._lines.feed(data) if (text := self._text(line))]

    def close(self) -> list[JsonLine]:
        """Return the last line if nothing terminated it. It may well be whole: many servers send no last newline."""
        line, end = self._lines.close()
        text = self._text(line)
        return [JsonLine(text, end, complete=False)] if text else []

    def _text(self, line: bytes) -> str:
        if self._first:
            line = line.removeprefix(_BOM)
            self._first = False
        return line.decode("utf-8", "replace").strip()
