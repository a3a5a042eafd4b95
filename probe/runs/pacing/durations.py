"""Times as servers spell them. What is not a time, or makes no sense as one, is ``None``."""

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_S = 31 * 86_400.0
"""No wait is believed to be longer than this; what is told to be is cut."""

_UNITS = {
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
}
_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([a-zµ]+)")
_WHOLE = re.compile(rf"(?:{_PART.pattern}[\s,]*)+")
_WORDS = {"milliseconds": "ms", "millisecond": "ms", "msecs": "ms", "seconds": "s", "second": "s", "secs": "s"} | {
    "sec": "s",
    "minutes": "m",
    "minute": "m",
    "mins": "m",
    "min": "m",
    "hours": "h",
    "hour": "h",
    "hrs": "h",
    "hr": "h",
    "days": "d",
    "day": "d",
}
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?")


def bounded(seconds: float | None) -> float | None:
    """Return a wait that makes sense: at least 0 and at most ``LONGEST_S``; ``None`` for a negative one and for NaN."""
    if seconds is None or math.isnan(seconds) or seconds < 0:
        return None
    return min(seconds, LONGEST_S)


def number(text: object) -> float | None:
    """Return a decimal number: a JSON number, or a text that is one. Neither an exponent nor ``inf`` nor ``nan``."""
    if isinstance(text, bool):
        return None
    if isinstance(text, int | float):
        return float(text) if abs(text) < 1e18 else None
    if isinstance(text, str) and _NUMBER.fullmatch(found := text.strip()):
        return float(found)  # float() takes other blanks for blanks than strip() does
    return None


def span(text: object) -> float | None:
    """Return seconds of a duration: ``6m0s``, ``20ms``, ``1h2m3.5s`` (Go), ``27s`` (Google), ``26 seconds``, or 26."""
    plain = number(text)
    if plain is not None:
        return bounded(plain)
    if not isinstance(text, str):
        return None
    text = text.strip().lower()
    if not _WHOLE.fullmatch(text):
        return None
    seconds = 0.0
    for amount, unit in _PART.findall(text):
        factor = _UNITS.get(_WORDS.get(unit, unit))
        if factor is None:
            return None
        seconds += float(amount) * factor
    return bounded(seconds)


def http_date(text: str) -> float | None:
    """Return the Unix time of an HTTP date (RFC 9110 §5.6.7), in any of its three forms."""
    try:
        found = parsedate_to_datetime(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def rfc3339(text: str) -> float | None:
    """Return the Unix time of an RFC 3339 timestamp, as Anthropic writes resets."""
    try:
        found = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        return None
    try:
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def until(text: object, now: float) -> float | None:
    """Return seconds until a reset, told in any of the ways in use.

    A number beyond 1e11 is Unix milliseconds (OpenRouter), beyond 1e9 Unix seconds, and else seconds from now; further
    durations, RFC 3339 and HTTP dates. One that has passed is 0.
    """
    plain = number(text)
    if plain is not None:
        if plain > 1e11:
            return bounded(max(0.0, plain / 1000 - now))
        if plain > 1e9:
            return bounded(max(0.0, plain - now))
        return bounded(plain)
    if not isinstance(text, str):
        return None
    seconds = span(text)
    if seconds is not None:
        return seconds
    at = rfc3339(text) or http_date(text)
    return None if at is None else bounded(max(0.0, at - now))
