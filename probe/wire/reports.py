"""What an answer reveals beside its text, read as the backend's file says: durations, counts, token ids, the provider.

Dialects read what belongs to their format; fields of one host's own stand in ``backends/*.toml`` as ``[[reports]]``.
Reports whose confidence is ``unconfirmed`` are not read: a wrong unit would make a wrong finding.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jmespath.exceptions import JMESPathError

from probe.wire.backend import COUNTS, TIMINGS, TOKEN_IDS, UNITS, Backend, Report
from probe.wire.content import header
from probe.wire.dialects import dialect
from probe.wire.fields import clean, number
from probe.wire.pieces import TextPiece
from probe.wire.values import Exchange, Reading, Usage

_NUMBER = re.compile(r"\s*(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(ns|us|ms|s)?\s*", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,15}")

_LONGEST_S = 7 * 24 * 3600.0
"""Seconds that a duration may have; anything longer is a point in time or of another unit."""

_TEXT = 2_000
"""Characters of one value that are kept as text."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What one answer reveals, by the words of ``Report.means``.

    ``timings`` are in seconds, ``counts`` numbers of tokens, ``token_ids`` the ids in order (of a stream all pieces
    joined), ``others`` everything else: texts, numbers and objects as they were sent.
    """

    timings: dict[str, float]
    counts: dict[str, int]
    token_ids: dict[str, tuple[int, ...]]
    others: dict[str, Any]


def read_answer(backend: Backend, exchange: Exchange, dialect_name: str | None = None) -> Reading:
    """Read a response by its dialect and add what the backend's file knows of; never raises.

    ``dialect_name`` is the dialect that the exchange was recorded under, the backend's own where it is not given.
    """
    reading = dialect(dialect_name or backend.dialect).read(exchange)
    return with_reports(backend, exchange, reading)


def with_reports(backend: Backend, exchange: Exchange, reading: Reading) -> Reading:
    """Return the reading with durations, counts and the provider that only the backend's file knows where to find.

    What the dialect read itself stays, but for durations: the file's are the more exact.
    """
    if not backend.reports or exchange.status is None:
        return reading
    known = {means for means in _COUNTED if getattr(reading.usage, means) is not None}
    known |= {means for means in _NAMED if getattr(reading, means) is not None}
    found = reported(backend, exchange, reading, only=_READ - known)
    if not (found.timings or found.counts or found.others):
        return reading
    usage, counts = reading.usage, found.counts
    return replace(
        reading,
        timings={**reading.timings, **found.timings},
        usage=Usage(
            _first(usage.prompt_tokens, counts.get("prompt_tokens")),
            _first(usage.completion_tokens, counts.get("completion_tokens")),
            _first(usage.reasoning_tokens, counts.get("reasoning_tokens")),
        ),
        provider=_first(reading.provider, _name(found.others.get("provider"))),
        fingerprint=_first(reading.fingerprint, _name(found.others.get("fingerprint"))),
        native_finish_reason=_first(reading.native_finish_reason, _name(found.others.get("native_finish_reason"))),
    )


def timings_of(backend: Backend, exchange: Exchange, reading: Reading) -> Mapping[str, float]:
    """Return the durations on the server's side in seconds, by the words of ``TIMINGS``."""
    return reported(backend, exchange, reading, only=frozenset(TIMINGS)).timings


def reported(backend: Backend, exchange: Exchange, reading: Reading, *, only: frozenset[str] | None = None) -> Reported:
    """Return everything that an answer reveals by the backend's file; ``only`` names what is wanted."""
    found = Reported({}, {}, {}, {})
    every = [document for document in reading.documents if isinstance(document, dict)]
    # A piece of a stream that differs from the one before in its text alone says nothing new, but for its tokens.
    telling = [document for document in every if type(document) is not TextPiece]
    for report in backend.reports:
        if report.confidence == "unconfirmed" or (only is not None and report.means not in only):
            continue
        if report.means not in TOKEN_IDS:
            _add(found, report, _value(report, exchange, telling))
        elif ids := _ids(report, every):
            found.token_ids[report.means] = ids
    return found


def _add(found: Reported, report: Report, value: Any) -> None:
    means = report.means
    if means in TIMINGS:
        seconds = _seconds(report, value)
        if seconds is not None:
            found.timings[means] = seconds
    elif means in COUNTS:
        count = _count(value)
        if count is not None:
            found.counts[means] = count
    elif value is not None:
        found.others.setdefault(means, clean(value)[:_TEXT] if isinstance(value, str) else value)


_COUNTED = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
_NAMED = ("provider", "fingerprint", "native_finish_reason")
_READ = frozenset({*TIMINGS, *_COUNTED, *_NAMED})
"""What has a place in ``Reading``."""


def _first(read: Any, found: Any) -> Any:
    return read if read is not None else found


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _value(report: Report, exchange: Exchange, documents: Sequence[Mapping[str, Any]]) -> Any:
    """Return what stands at a report's place; of several documents the last one that has something counts."""
    if report.header is not None:
        return header(exchange.response_headers, report.header).strip() or None
    return next(_values(report, reversed(documents)), None)


def _values(report: Report, documents: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    for document in documents:
        if report.keys is not None and report.keys.isdisjoint(document):
            continue
        try:
            value = report.search(document)
        except JMESPathError:
            continue  # a function met a type that it does not take
        if value is not None:
            yield value


def _ids(report: Report, documents: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    found: list[int] = []
    for value in _values(report, documents) if report.search is not None else ():
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, int) and not isinstance(entry, bool) and entry >= 0 for entry in ids):
            return ()  # one that cannot be read makes the places of all others wrong
        found += ids
    return tuple(found)


def _seconds(report: Report, value: Any) -> float | None:
    unit = UNITS[report.unit or "s"]
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value[:64])
        if match is None:
            return None
        value, unit = float(match[1]), UNITS[match[2]] if match[2] else unit
    found = number(value)
    return found * unit if found is not None and 0 <= found * unit <= _LONGEST_S else None


def _count(value: Any) -> int | None:
    if isinstance(value, str):
        value = int(value) if _DIGITS.fullmatch(value) else None
    found = number(value)
    return int(found) if found is not None and found.is_integer() and 0 <= found < 2**53 else None
