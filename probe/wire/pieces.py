"""Pieces of a stream that are alike but for their text: most of an answer, and not worth parsing one by one.

A server that streams repeats one JSON document with each piece; between two of them nothing differs but the value of
``choices[0].delta.content``. Where a piece begins and ends like the one before, byte by byte, and what lies between is
one JSON string, it is that document with another text, whatever else stands in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from probe.wire.fields import table

_KEY = '"content":'
_ADDING = ("refusal", "reasoning", "reasoning_content", "thinking", "reasoning_details")
"""Fields of a delta that add to an answer each time that they are read."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A document of a stream, and how its JSON begins and ends around the text."""

    before: str
    after: str
    whole: Mapping[str, Any]

    @classmethod
    def of(cls, data: str, document: Any) -> "Piece | None":
        """Return the piece, or ``None`` where reading it again would do anything but append its text."""
        choices = table(document).get("choices")
        choice = table(choices[0]) if isinstance(choices, list) and len(choices) == 1 else {}
        delta = table(choice.get("delta"))
        said = delta.get("content")
        plain = isinstance(said, str) and choice.get("index") in (None, 0) and choice.get("logprobs") is None
        if not plain or any(delta.get(name) for name in _ADDING) or data.count(_KEY) != 1:
            return None
        start = data.index(_KEY) + len(_KEY)
        start += data[start : start + 1] == " "
        if data[start : start + 1] != '"':
            return None
        value, end = scanstring(data, start + 1)
        return cls(data[: start + 1], data[end - 1 :], document) if value == said else None

    def text_of(self, data: str) -> str | None:
        """Return the text of a piece that differs in nothing else; ``None`` where it does, or may."""
        if not (data.startswith(self.before) and data.endswith(self.after)):
            return None
        start, end = len(self.before), len(data) - len(self.after)
        text = data[start:end]
        if text.isprintable() and '"' not in text and "\\" not in text:
            return text if end >= start else None
        try:
            text, closed = scanstring(data, start)
        except ValueError:
            return None
        return text if closed == end + 1 else None

    def document(self, text: str) -> "TextPiece":
        """Return the whole document with this text."""
        (choice,) = self.whole["choices"]
        made = TextPiece(self.whole)
        made["choices"] = [{**choice, "delta": {**choice["delta"], "content": text}}]
        made.like, made.length = self.whole, len(text)
        return made


class TextPiece(dict[str, Any]):
    """A document that differs from the one it is ``like`` in its text alone, which has ``length`` characters."""

    __slots__ = ("length", "like")

    like: Mapping[str, Any]
    length: int
