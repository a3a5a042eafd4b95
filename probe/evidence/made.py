"""How one answer is made, read off its bytes once: all that the detectors of envelope, pace and counts need of them.

With it a case can let go of its raw bytes and parsed documents, which are far larger: see ``lean``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from probe.evidence.case import Case
from probe.evidence.envelope_features import Features, features
from probe.evidence.shapes import text_lengths
from probe.evidence.timing_features import Times, times_of
from probe.wire.content import header
from probe.wire.fields import table

_END = 60
"""Bytes of a body's end that an exhibit may show."""

_KNOWN = 4096


@dataclass(frozen=True, slots=True)
class Made:
    """How an answer is made.

    ``features`` of the envelope, as of an answer that did not break off; answers that are made alike share one object.
    ``first`` and ``total``: characters of the first piece of text and of all, 0 where it does not come in pieces.
    ``size``: bytes of the body, -1 unknown. ``timed``: whether arrivals were recorded. ``adds_up``: whether the
    reported total of tokens is the sum, ``None`` where that is not known. ``stored``: it says that it is from a cache.
    """

    features: Features
    first: int = 0
    total: int = 0
    size: int = -1
    times: Times = field(default_factory=Times)
    timed: bool = False
    adds_up: bool | None = None
    stored: bool = False


_alike: dict[tuple[tuple[str, str | None], ...], Features] = {}


def made(case: Case) -> Made:
    """Return how an answer is made: as it was read before, or read now."""
    return case.made or _read(case)


def _read(case: Case) -> Made:
    exchange = case.exchange
    lengths = text_lengths(case.reading.documents)
    first, total = _pieces(case, lengths)
    return Made(
        features=_shared(features(case, lengths)),
        first=first,
        total=total,
        size=-1 if exchange is None else len(exchange.response_body),
        times=times_of(case, lengths),
        timed=exchange is not None and bool(exchange.chunks),
        adds_up=_adds_up(case),
        stored=exchange is not None and header(exchange.response_headers, "x-openrouter-cache-status") == "HIT",
    )


def _shared(found: Features) -> Features:
    key = tuple(found.items())
    if len(_alike) >= _KNOWN:
        _alike.clear()
    return _alike.setdefault(key, found)


def _pieces(case: Case, lengths: Sequence[int]) -> tuple[int, int]:
    """Return the characters of the first piece of text and of all; nothing where the answer does not come in pieces."""
    if not case.reading.streamed:
        return 0, 0
    return next((length for length in lengths if length), 0), sum(lengths)


def _adds_up(case: Case) -> bool | None:
    usage = case.reading.usage
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    for document in reversed(case.reading.documents[-4:]):
        total = table(table(document).get("usage")).get("total_tokens")
        if isinstance(total, int):
            return total == usage.prompt_tokens + usage.completion_tokens
    return None


def lean(case: Case) -> Case:
    """Return the case without raw bytes and documents: what is needed of them is in ``made``."""
    found, exchange = made(case), case.exchange
    if exchange is not None:
        end = exchange.response_body[-_END:]
        exchange = replace(exchange, request_headers=(), request_body=b"", response_body=end, chunks=())
    reading = replace(case.reading, documents=(), events=(), logprobs=None)
    return replace(case, exchange=exchange, reading=reading, made=found)
