"""How values become column values and come back."""

import json
import math
from collections.abc import Mapping
from typing import Any


def plain(text: str) -> str:
    """Return ``text`` as SQLite can hold it: a lone surrogate, which UTF-8 cannot say, becomes its escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain_or_none(text: str | None) -> str | None:
    """Return :func:`plain` of a text that may be missing."""
    return None if text is None else plain(text)


def to_json(value: Any) -> str:
    """Return ``value`` as JSON text that SQLite's JSON functions accept and :func:`from_json` reads back unchanged.

    Numbers that JSON does not know become the strings ``Infinity``, ``-Infinity`` and ``NaN``: a derived detail must
    not make a whole table unreadable.
    """
    try:
        text = _dump(value, ascii_only=False)
    except ValueError:
        value = _finite(value)
        text = _dump(value, ascii_only=False)
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate: escaped, it survives
        return _dump(value, ascii_only=True)
    return text


def from_json(text: str) -> Any:
    """Return the value that :func:`to_json` wrote."""
    try:
        value, end = _raw_decode(text)
    except ValueError:
        end = -1
    return value if end == len(text) else json.loads(text)


# What to_json writes has no blanks around it, and looking for them takes as long as reading a small value.
_raw_decode = json.JSONDecoder().raw_decode


def _dump(value: Any, *, ascii_only: bool) -> str:
    return (_ASCII if ascii_only else _UNICODE).encode(value)


def _simpler(value: Any) -> Any:
    """Return mappings, sets and the scalars of NumPy as what JSON knows."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


# Made once: json.dumps makes an encoder at every call.
_ASCII, _UNICODE = (
    json.JSONEncoder(ensure_ascii=only, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_simpler)
    for only in (True, False)
)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
