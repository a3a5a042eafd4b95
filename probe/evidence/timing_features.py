"""When the bytes of an answer came, as numbers that do not depend on how long the answer is.

Refusals are shorter than other answers. A median over five gaps varies more than one over a hundred, so gaps are looked
at over the same number of pieces of every answer, and "all at once" over the same number of characters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probe.evidence.case import Case
from probe.evidence.shapes import text_lengths
from probe.wire.arrivals import document_ends
from probe.wire.content import header
from probe.wire.values import Exchange

PIECES = (3, 6, 12, 24, 48)
"""Numbers of gaps between pieces of text at which answers are compared."""

CHARACTERS = (40, 80, 160, 320)
"""Numbers of characters at which answers are compared as to whether they came at once."""

SHORTEST_S = 1e-4
"""Seconds below which times are taken as equal: what a scheduler adds at random."""

EVEN = 0.02
"""Interquartile range of log gaps below which a cadence counts as even."""

FEWEST_TOKENS = 4
"""Tokens from which a duration per token says something."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Times:
    """One answer. Times in seconds after the request went out, NaN where unknown.

    ``size``: bytes of the request. ``head``: the response's head came. ``byte``: the first byte of the body. ``start``:
    the first text. ``gaps``: between pieces of text, at most ``PIECES[-1]``. ``together``: per entry of ``CHARACTERS``
    whether so many characters came at once, -1 unknown. ``tail``: from the last text to the end, where the answer ended
    by itself. ``per_token``: server-side seconds per generated token; ``generated`` and ``read``: whether the server
    says that it took any time to generate and to read the prompt (-1: it says nothing).
    """

    size: float = math.nan
    head: float = math.nan
    byte: float = math.nan
    start: float = math.nan
    gaps: tuple[float, ...] = ()
    together: tuple[int, ...] = (-1,) * len(CHARACTERS)
    tail: float = math.nan
    per_token: float = math.nan
    generated: int = -1
    read: int = -1


def times_of(case: Case, lengths: Sequence[int] | None = None) -> Times:
    """Return the times of one answer; ``lengths`` are the characters that each of its documents adds."""
    per_token, generated, read = _server_side(case)
    exchange = case.exchange
    if exchange is None or exchange.sent_at is None or not exchange.chunks or not case.reading.streamed:
        return Times(per_token=per_token, generated=generated, read=read)
    sent = exchange.sent_at
    head = math.nan if exchange.head_at is None else exchange.head_at - sent
    start, gaps, together, tail = math.nan, np.empty(0), Times().together, math.nan
    lengths = text_lengths(case.reading.documents) if lengths is None else lengths
    arrivals = _arrivals(exchange, len(lengths), broken=not case.reading.terminated)
    if arrivals is not None and any(lengths):
        spoke = np.flatnonzero(lengths)
        at = arrivals[spoke]
        gaps = np.diff(at[: PIECES[-1] + 1])
        together = _together(at, np.cumsum(np.asarray(lengths)[spoke]))
        start = float(at[0]) - sent
        # At the token limit the last text is the end.
        if case.reading.finish_reason == "stop" and exchange.ended_at is not None:
            tail = exchange.ended_at - float(at[-1])
    return Times(
        size=float(len(exchange.request_body)),
        head=head,
        byte=exchange.chunks[0].at - sent,
        start=start,
        gaps=tuple(gaps.tolist()),
        together=together,
        tail=tail,
        per_token=per_token,
        generated=generated,
        read=read,
    )


def _arrivals(exchange: Exchange, documents: int, *, broken: bool) -> Array | None:
    """Return when each document of a stream was there; ``None`` where bytes and documents cannot be matched."""
    if not documents or header(exchange.response_headers, "content-encoding"):
        return None
    ends = document_ends(exchange)
    if broken:
        ends = ends[:documents]  # the last one may have broken off
    if len(ends) != documents:
        return None
    sums = np.cumsum([chunk.size for chunk in exchange.chunks])
    at = np.array([chunk.at for chunk in exchange.chunks])
    return np.asarray(at[np.minimum(np.searchsorted(sums, ends), len(at) - 1)], dtype=float)


def _together(at: Array, characters: npt.NDArray[np.int64]) -> tuple[int, ...]:
    found = []
    for wanted in CHARACTERS:
        place = int(np.searchsorted(characters, wanted))
        found.append(-1 if place >= len(at) else int(at[place] - at[0] < SHORTEST_S))
    return tuple(found)


def _server_side(case: Case) -> tuple[float, int, int]:
    reading = case.reading
    tokens = reading.usage.completion_tokens or 0
    spent, read = reading.timings.get("generation"), reading.timings.get("prompt")
    per_token, generated = math.nan, -1
    if spent is not None and tokens >= FEWEST_TOKENS and reading.text:
        generated = int(spent > 0)
        per_token = spent / tokens if spent > 0 else math.nan
    # Ollama leaves the prompt's duration out where it was cached; what is left out says nothing.
    return per_token, generated, -1 if read is None else int(read > 0)


@dataclass(frozen=True, eq=False)
class TimeTable:
    """The times of all answers of a route as arrays of logarithms, one row per case; NaN where unknown.

    ``middle`` and ``spread`` (n, len(PIECES)): median of the log gaps and log of their interquartile range.
    ``together`` (n, len(CHARACTERS)), ``generated`` and ``read`` (n,): 0 or 1, -1 unknown.
    """

    size: Array
    head: Array
    byte: Array
    start: Array
    tail: Array
    per_token: Array
    middle: Array
    spread: Array
    together: npt.NDArray[np.int64]
    generated: npt.NDArray[np.int64]
    read: npt.NDArray[np.int64]

    @classmethod
    def of(cls, times: Sequence[Times]) -> "TimeTable":
        """Arrange the times of cases."""
        middle, spread = _cadences([t.gaps for t in times])
        return cls(
            size=_logs([t.size for t in times]),
            head=_logs([t.head for t in times]),
            byte=_logs([t.byte for t in times]),
            start=_logs([t.start for t in times]),
            tail=_logs([t.tail for t in times]),
            per_token=_logs([t.per_token for t in times], least=1e-9),
            middle=middle,
            spread=spread,
            together=np.array([t.together for t in times], dtype=np.int64).reshape(-1, len(CHARACTERS)),
            generated=np.array([t.generated for t in times], dtype=np.int64),
            read=np.array([t.read for t in times], dtype=np.int64),
        )


def _logs(values: Sequence[float], least: float = SHORTEST_S) -> Array:
    found = np.array(values, dtype=float)
    return np.where(np.isfinite(found), np.log(np.maximum(found, least)), np.nan)


def _cadences(gaps: Sequence[tuple[float, ...]]) -> tuple[Array, Array]:
    """Return the median log gap, and the log of their interquartile range, over the first gaps of every answer."""
    table_ = np.full((len(gaps), PIECES[-1]), np.nan)
    for row, found in enumerate(gaps):
        table_[row, : len(found)] = found
    logs = np.log(np.maximum(table_, SHORTEST_S))
    counts = np.array([len(found) for found in gaps], dtype=np.int64)
    middle, spread = np.full((2, len(gaps), len(PIECES)), np.nan)
    for column, pieces in enumerate(PIECES):
        enough = counts >= pieces
        if enough.any():
            low, mid, high = np.quantile(logs[enough, :pieces], (0.25, 0.5, 0.75), axis=1)
            middle[enough, column] = mid
            spread[enough, column] = np.log(high - low + EVEN)
    return middle, spread
