"""JSON from strangers: parsing, and access to fields that may have any type. What is wrong becomes a sentence."""

import json
import math
from collections.abc import Mapping
from typing import Any

_PROBLEMS = 20
"""Sentences kept per response; a broken stream repeats itself."""

DEEPEST = 200
"""Levels of a JSON value. Parsers take thousands, and then whatever walks the value overflows the stack."""


class Problems:
    """Collects sentences about what could not be read, each once."""

    def __init__(self) -> None:
        self._sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Add a sentence; beyond a number of them the rest is dropped."""
        sentence = clean(sentence)
        if sentence not in self._sentences and len(self._sentences) < _PROBLEMS:
            self._sentences.append(sentence)

    def all(self) -> tuple[str, ...]:
        """Return all sentences in the order in which they were added."""
        return tuple(self._sentences)


class NotJson(ValueError):  # noqa: N818 - caught next to where it is raised
    """A text is not JSON."""


def parse(text: str) -> Any:
    """Parse JSON. Raises ``NotJson``, also for nesting deeper than ``DEEPEST`` and for numbers too long."""
    try:
        value, end = _raw_decode(text)
    except (ValueError, RecursionError):
        end = -1
    if end != len(text):  # blanks around it, or an error that deserves its words
        value = _loads(text)
    # Most texts have too few brackets to be deep, and counting them costs nothing.
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
        raise NotJson("nested too deeply")
    return value


# json.loads looks for blanks on both sides, which takes as long as parsing a small piece of a stream.
_raw_decode = json.JSONDecoder().raw_decode


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise NotJson("nested too deeply") from None
    except ValueError as error:
        raise NotJson(str(error)) from None


def _is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        inner = [entry for entries in level for entry in (entries.values() if isinstance(entries, dict) else entries)]
        level = [entry for entry in inner if isinstance(entry, dict | list)]
        if not level:
            return False
    return True


def clean(text: str) -> str:
    """Return a text that can be encoded as UTF-8.

    JSON escapes can spell half a character, one surrogate of a pair; halves that met again through joining become one
    character, the others U+FFFD.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def table(value: Any) -> Mapping[str, Any]:
    """Return a JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def text_field(source: Mapping[str, Any], key: str, problems: Problems) -> str:
    """Return a text; empty where it is absent, null or (a problem) of another type."""
    value = source.get(key)
    if value is None or isinstance(value, str):
        return value or ""
    problems.add(f"{key} is {_kind(value)} where a text is expected")
    return ""


def kind_of(source: Mapping[str, Any]) -> str:
    """Return the ``type`` of an object; empty where it has none, or one that is no text."""
    value = source.get("type")
    return value if isinstance(value, str) else ""


def count_field(source: Mapping[str, Any], key: str, problems: Problems) -> int | None:
    """Return a number of things; ``None`` where it is absent, null or (a problem) no whole number from 0 on."""
    value = source.get(key)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
        return value
    problems.add(f"{key} is {_kind(value)} where a count is expected")
    return None


def number_field(source: Mapping[str, Any], key: str, problems: Problems) -> float | None:
    """Return a finite number; ``None`` where it is absent, null or (a problem) anything else."""
    value = source.get(key)
    if value is None:
        return None
    found = number(value)
    if found is None:
        problems.add(f"{key} is {_kind(value)} where a number is expected")
    return found


def number(value: Any) -> float | None:
    """Return a finite number as float, ``None`` for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", str: "a text", dict: "an object", list: "a list"}
    return kinds.get(type(value), f"the number {str(value)[:24]}")
