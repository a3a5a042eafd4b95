"""Incremental parsers for event streams and newline-delimited JSON.

Whatever way a stream is split into chunks, the same events come out. Lines are only decoded once they are complete, so
a UTF-8 character may be split as well. Bytes that are no UTF-8 become U+FFFD.
"""

import re
from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One server-sent event.

    ``name`` is its ``event`` field, empty where none was sent; ``data`` its data lines joined by newlines. ``end`` is
    the number of bytes of the stream up to the end of the event, which tells the chunk that completed it. ``complete``
    is false for a last event without the blank line that dispatches it.
    """

    data: str
    name: str = ""
    end: int = 0
    complete: bool = True


@dataclass(frozen=True, slots=True)
class JsonLine:
    """One line that is not blank; ``end`` and ``complete`` as in ``SseEvent``."""

    data: str
    end: int = 0
    complete: bool = True


class _Lines:
    """Splits a byte stream into lines; ``breaks`` finds what ends one. Blank lines in a row are given once."""

    def __init__(self, breaks: re.Pattern[bytes]) -> None:
        self._breaks = breaks
        self._rest = bytearray()
        self._scanned = 0
        self._offset = 0
        self._skip_lf = False
        self._blank = False

    def feed(self, data: bytes) -> list[tuple[bytes, int]]:
        """Return the lines that ``data`` completes, each with the stream's length at the end of its terminator."""
        if not data:
            return []
        self._rest += data
        lines = []
        start = 0
        # The LF of a CRLF belongs to the line that the CR has ended already, even if it comes in the next chunk.
        if self._skip_lf and self._rest[0] == 0x0A:
            start = 1
        for found in self._breaks.finditer(self._rest, max(start, self._scanned)):
            at, after = found.span()
            # Of blank lines in a row only the first says anything.
            if at > start or not self._blank:
                lines.append((bytes(self._rest[start:at]), self._offset + at + 1))
                self._blank = at == start
            start = after
        self._skip_lf = start == len(self._rest) and self._rest[start - 1] == 0x0D
        self._offset += start
        del self._rest[:start]
        self._scanned = len(self._rest)
        return lines

    def close(self) -> tuple[bytes, int]:
        """Return what came after the last terminator, with the length of the stream."""
        return bytes(self._rest), self._offset + len(self._rest)


class SseParser:
    """Parses an event stream as the WHATWG HTML standard says (§9.2.6, "Interpreting an event stream").

    Two departures, because a recorder must not lose bytes: comments are kept in ``comments``, and ``close`` returns an
    unterminated last event instead of discarding it.
    """

    def __init__(self) -> None:
        self.comments: list[str] = []
        self._lines = _Lines(re.compile(rb"\r\n?|\n"))
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
        name, colon, value = raw.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif colon and not name:
            self.comments.append(value)


class NdjsonParser:
    """Parses newline-delimited JSON into lines (https://github.com/ndjson/ndjson-spec); blank ones are skipped."""

    def __init__(self) -> None:
        self._lines = _Lines(re.compile(rb"\n"))
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
