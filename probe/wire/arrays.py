"""An incremental parser for a stream that is one JSON array: Google's streams without ``alt=sse``."""

import re

from probe.wire.framing import JsonLine

_MARKS = re.compile(rb'["\\{}\[\],]')
_BLANK = b"\xef\xbb\xbf \t\r\n"


class JsonArrayParser:
    """Splits ``[a, b, …]`` into its elements; the texts of elements are not looked into.

    Whatever way the bytes are split into chunks, the same elements come out, as ``JsonLine`` values: ``end`` is the
    number of bytes of the stream up to the end of the element. What stands before the array or after it comes out as
    an element of its own.
    """

    def __init__(self) -> None:
        self._length = 0
        self._element = bytearray()
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._closed = False

    def feed(self, data: bytes) -> list[JsonLine]:
        """Return the elements that these bytes complete."""
        found: list[JsonLine] = []
        start, place = 0, 0
        while not self._closed:
            if self._escaped and place < len(data):
                self._escaped, place = False, place + 1
            mark = _MARKS.search(data, place)
            if mark is None:
                break
            place = mark.end()
            if self._in_string:
                self._escaped, self._in_string = mark[0] == b"\\", mark[0] != b'"'
            elif self._ends_element(mark[0]):
                self._element += data[start : mark.start()]
                found += self._taken(self._length + mark.start())
                start = place
        self._element += data[start:]
        self._length += len(data)
        return found

    def _ends_element(self, sign: bytes) -> bool:
        """Follow a sign outside of strings; return whether an element, or what stood before the array, is over."""
        if sign in b"{[":
            self._depth += 1
            return self._depth == 1
        self._in_string = sign == b'"'
        self._depth -= sign in b"}]"
        self._closed = self._depth <= 0
        return self._closed or (sign == b"," and self._depth == 1)

    def close(self) -> list[JsonLine]:
        """Return what came after the last complete element."""
        return [line._replace(complete=self._closed) for line in self._taken(self._length)]

    def _taken(self, end: int) -> list[JsonLine]:
        text = bytes(self._element).strip(_BLANK).decode("utf-8", "replace")
        self._element.clear()
        return [JsonLine(text, end)] if text else []
