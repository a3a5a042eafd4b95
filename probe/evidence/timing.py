"""``timing``: did this answer come at the pace of the route's ordinary answers?

Times of one kind are compared as residuals of logarithms (time to the first text and to the head against the size of
the request, by Tukey's resistant line; Tukey 1977, "Exploratory Data Analysis", ch. 5). The score of a member of the
bag adds up, over the kinds of times, how far its third nearest neighbour is in the bag, against how far that is for the
others: two upstream hosts with a pace each make two clusters, and a value between them or beyond them is odd, be it
early or late. Scale, line and neighbours come from the bag with the tested answer in it, so that the rank of the score
is uniform if that answer is an ordinary one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probe.evidence.base import Evidence
from probe.evidence.case import Case
from probe.evidence.conformal import (
    COMMON,
    LEAST,
    NOT_DECLINING,
    TESTED,
    TEXTLESS,
    Indices,
    References,
    e_of_rank,
    llr_of,
    rank_of,
    reference_note,
)
from probe.evidence.made import made
from probe.evidence.timing_features import Times, TimeTable

NAME, VERSION = "timing", "1"

NEIGHBOUR = 3
SLOWER = math.log(3.0)
"""Server-side pace within this factor of the usual one says nothing: it varies with the number of tokens."""

_ENOUGH = 0.8
"""Share of the reference answers that must be long enough for a comparison at a length."""

_SUPPORT = 5
"""Reference answers with requests of about the same size (by a factor of 2) that a time to the first text needs."""

_FINEST = 0.02
"""Natural log: a scale below 2 % is rounding of clocks."""

_HURRY = ("start", "byte")

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TimingNorm:
    """At which pace the answers of a route come. ``times`` and ``table`` hold one row per measured case."""

    references: References
    times: tuple[Times, ...]
    table: TimeTable

    @classmethod
    def measure(cls, cases: Sequence[Case]) -> "TimingNorm":
        """Read the times of all answers of one hosted route."""
        times = tuple(made(case).times for case in cases)
        return cls(References.pick(cases), times, TimeTable.of(times))


@dataclass(frozen=True, eq=False)
class _Bag:
    """Times of the reference answers, and of the tested one in the last row.

    ``numbers`` (n+1, f) are residuals, ``flags`` (n+1, g) are 0 or 1; the names are those of the columns.
    """

    names: tuple[str, ...]
    numbers: Array
    flag_names: tuple[str, ...]
    flags: npt.NDArray[np.int64]
    raw: Array

    @property
    def n(self) -> int:
        return len(self.numbers) - 1


def timing(case: Case, norm: TimingNorm) -> Evidence:
    """Compare the pace of one answer with the ordinary answers of its route."""
    if case.outcome not in TESTED:
        return Evidence(NAME, VERSION, None, 0.0, NOT_DECLINING)
    if case.outcome == "cut":
        # Its beginning is the model's own, at the model's pace, whoever ended it.
        return Evidence(NAME, VERSION, None, 0.0, "Not tested: the pace of a beginning does not tell who ended it.")
    if case.exchange is not None and case.exchange.state in {"timeout", "client_gone", "unreachable"}:
        return Evidence(NAME, VERSION, None, 0.0, "Not tested: our own side ended the exchange.")
    chosen = norm.references.of(case)
    if len(chosen) < LEAST:
        return Evidence(NAME, VERSION, None, 0.0, reference_note(len(chosen)), {"n": len(chosen)})
    place = norm.references.place(case)
    own = TimeTable.of([made(case).times]) if place is None else None
    bag = _bag(norm.table, own, chosen, place, textless=case.outcome in TEXTLESS)
    if bag is None:
        return Evidence(NAME, VERSION, None, 0.0, _why_not(case), {"n": len(chosen)})
    parts = np.column_stack([_remoteness(bag.numbers), _rarities(bag.flags)])
    scores = parts.sum(axis=1)
    rank = rank_of(float(scores[-1]), scores[:-1])
    log_e = math.log(e_of_rank(rank, bag.n))
    names = (*bag.names, *bag.flag_names)
    facts: dict[str, float | int | None] = {"n": bag.n, "score": round(float(scores[-1]), 3), "rank": rank}
    for column, name in enumerate(bag.names):
        facts[name] = round(math.exp(bag.raw[-1, column]), 5)
        facts[f"{name}_usual"] = round(math.exp(_middle(bag.raw[:-1, column])), 5)
    odd = [int(column) for column in np.argsort(-parts[-1]) if parts[-1, column] > 1.0][:2]
    if rank > COMMON * (bag.n + 1):
        odd = []
    told = [_told(names[column], bag, column) for column in odd]
    sentence = _sentence([words for words, _ in told], rank, bag.n)
    exhibit = "; ".join(shown for _, shown in told)
    return Evidence(NAME, VERSION, log_e, llr_of(log_e, bag.n), sentence, facts, exhibit)


def _columns(
    table: TimeTable, own: TimeTable, row: int, chosen: Indices, *, textless: bool
) -> tuple[dict[str, tuple[Array, float]], dict[str, tuple[npt.NDArray[np.int64], int]]]:
    """Return the columns that the tested answer has, each as (values of all cases, its own)."""
    numbers: dict[str, tuple[Array, float]] = {}
    # An answer without text has no first text, but a first byte; where the text follows it, that is another time.
    if textless:
        numbers["byte"] = (table.byte, float(own.byte[row]))
    else:
        numbers["start"] = (table.start, float(own.start[row]))
        numbers["per_token"] = (table.per_token, float(own.per_token[row]))
    level = _level(np.isfinite(table.middle[chosen]), np.isfinite(own.middle[row]))
    if level is not None:
        numbers["gap"] = (table.middle[:, level], float(own.middle[row, level]))
        numbers["unevenness"] = (table.spread[:, level], float(own.spread[row, level]))
        # In units of the gap: the same slow host makes both long, and counts once.
        if not textless:
            numbers["tail"] = (table.tail - table.middle[:, level], float(own.tail[row] - own.middle[row, level]))
    flags: dict[str, tuple[npt.NDArray[np.int64], int]] = {}
    if not textless:
        flags["generated"] = (table.generated, int(own.generated[row]))
        flags["read"] = (table.read, int(own.read[row]))
    at = _level(table.together[chosen] >= 0, own.together[row] >= 0)
    if at is not None:
        flags["together"] = (table.together[:, at], int(own.together[row, at]))
    return numbers, flags


def _level(have: npt.NDArray[np.bool_], has: npt.NDArray[np.bool_]) -> int | None:
    """Return the longest length at which the tested answer and most of the others can be compared."""
    counts = have.sum(axis=0)
    for level in range(len(has) - 1, -1, -1):
        if has[level] and counts[level] >= max(_ENOUGH * len(have), LEAST):
            return level
    return None


def _bag(table: TimeTable, own: TimeTable | None, chosen: Indices, place: int | None, *, textless: bool) -> _Bag | None:
    """Arrange the bag; ``None`` where there is nothing to compare."""
    mine, row = (table, place) if own is None and place is not None else (own or table, 0)
    numbers, flags = _columns(table, mine, row, chosen, textless=textless)
    numbers = {k: (v, x) for k, (v, x) in numbers.items() if math.isfinite(x) and np.isfinite(v[chosen]).sum() >= LEAST}
    flags = {k: (v, x) for k, (v, x) in flags.items() if x >= 0 and (v[chosen] >= 0).sum() >= LEAST}
    sizes, size = table.size[chosen], float(mine.size[row])
    if np.count_nonzero(np.abs(sizes - size) <= math.log(2.0)) < _SUPPORT:
        numbers = {name: value for name, value in numbers.items() if name not in _HURRY}
    kept = np.ones(len(chosen), dtype=bool)
    for name, have in _have(numbers, flags, chosen).items():
        if np.count_nonzero(kept & have) >= max(_ENOUGH * len(chosen), LEAST):
            kept &= have
        else:
            numbers.pop(name, None)
            flags.pop(name, None)
    if not numbers and not flags:
        return None
    rows = chosen[kept]
    raw = np.empty((len(rows) + 1, len(numbers)))
    for column, (v, own_value) in enumerate(numbers.values()):
        raw[:-1, column], raw[-1, column] = v[rows], own_value
    found = np.empty((len(rows) + 1, len(flags)), dtype=np.int64)
    for column, (states, own_state) in enumerate(flags.values()):
        found[:-1, column], found[-1, column] = states[rows], own_state
    x = np.append(table.size[rows], size)
    residuals = raw.copy()
    for column, name in enumerate(numbers):
        if name in _HURRY:
            residuals[:, column] -= _slope(x, raw[:, column]) * x
        elif name == "per_token":
            off = raw[:, column] - _middle(raw[:, column])
            residuals[:, column] = np.sign(off) * np.maximum(np.abs(off) - SLOWER, 0.0)
    return _Bag(tuple(numbers), residuals, tuple(flags), found, raw)


def _have(
    numbers: Mapping[str, tuple[Array, float]],
    flags: Mapping[str, tuple[npt.NDArray[np.int64], int]],
    chosen: Indices,
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which reference answers have each column, the column that most of them have first."""
    found = {name: np.isfinite(v[chosen]) for name, (v, _) in numbers.items()}
    found |= {name: v[chosen] >= 0 for name, (v, _) in flags.items()}
    return dict(sorted(found.items(), key=lambda pair: -int(pair[1].sum())))


def _slope(x: Array, y: Array) -> float:
    """Return the slope of Tukey's resistant line through the outer thirds; time does not fall with size."""
    if not np.isfinite(x).all():
        return 0.0
    ordered = np.sort(x)
    left, right = x <= ordered[len(x) // 3], x >= ordered[-1 - len(x) // 3]
    run = _middle(x[right]) - _middle(x[left])
    return min(max((_middle(y[right]) - _middle(y[left])) / run, 0.0), 1.5) if run >= 0.1 else 0.0


def _middle(values: Array) -> float:
    """Return the (upper) median; ``np.median`` takes ten times as long on so few."""
    return float(np.partition(values, len(values) // 2)[len(values) // 2])


def _remoteness(numbers: Array) -> Array:
    """Return log(1 + d²/mean d² of the other members) per member and column, d the distance to its third neighbour.

    Each side of the median is a kind of its own: bursts of load make answers late and never early. What strays far by
    itself has a large mean, so that its outliers weigh little.
    """
    if not numbers.shape[1]:
        return np.zeros((len(numbers), 0))
    order = np.argsort(numbers, axis=0, kind="stable")
    ordered = np.take_along_axis(numbers, order, axis=0)
    n = len(ordered)
    nearest = np.full(ordered.shape, np.inf)
    low, high = ordered[: n - NEIGHBOUR], ordered[NEIGHBOUR:]
    for below in range(NEIGHBOUR + 1):
        # The window of NEIGHBOUR + 1 sorted values that has ``below`` of them under the member.
        middle = ordered[below : n - NEIGHBOUR + below]
        part = nearest[below : n - NEIGHBOUR + below]
        np.minimum(part, np.maximum(middle - low, high - middle), out=part)
    squares = np.empty_like(nearest)
    np.put_along_axis(squares, order, nearest**2, axis=0)
    above = numbers > ordered[n // 2]
    sides = [np.where(side, squares, 0.0) for side in (above, ~above)]
    others = [np.maximum(side.sum(axis=0) - side, 0.0) / (n - 1) for side in sides]
    return np.asarray(np.log1p(squares / (np.where(above, *others) + _FINEST**2)))


def _rarities(flags: npt.NDArray[np.int64]) -> Array:
    """Return -log of the share of a member's value, per column."""
    ones = flags.sum(axis=0) / len(flags)
    shares = np.where(flags == 1, ones, 1.0 - ones)
    return -np.log(np.maximum(shares, 1e-12))


_TOLD = {
    "start": "the first text came after",
    "byte": "the first byte came after",
    "gap": "between pieces of text pass typically",
    "per_token": "the server says that each token took",
}


def _told(name: str, bag: _Bag, column: int) -> tuple[str, str]:
    """Return words and an exhibit for one column."""
    if name in bag.flag_names:
        values = bag.flags[:, column - len(bag.names)]
        yes = bool(values[-1])
        same = f"{int(np.count_nonzero(values[:-1] == values[-1]))} of {bag.n}"
        words = {
            "together": f"the text came {'at once' if yes else 'piece by piece'}",
            "generated": f"the server says that generating took {'some' if yes else 'no'} time",
            "read": f"the server says that reading the prompt took {'some' if yes else 'no'} time",
        }[name]
        return f"{words}, as in {same} ordinary answers", f"{name} = {yes}"
    mine, others = bag.raw[-1, column], bag.raw[:-1, column]
    low, high = np.quantile(others, (0.05, 0.95))
    if name in {"head", "tail"}:
        what = {
            "head": "the head of the response came after {} of the time to the first text",
            "tail": "from the last text to the end pass {} gaps",
        }[name].format(f"{math.exp(mine):.3g}")
        return f"{what} where {math.exp(low):.3g} to {math.exp(high):.3g} are usual", f"{name} = {math.exp(mine):.3g}"
    if name == "unevenness":
        usual = f"{math.exp(low):.3g} to {math.exp(high):.3g} is usual"
        words = f"the gaps between pieces vary by a factor of {math.exp(mine):.3g} where {usual}"
        return words, f"gaps: quartile ratio {math.exp(mine):.3g}"
    return (
        f"{_TOLD[name]} {_seconds(mine)} where {_seconds(low)} to {_seconds(high)} are usual",
        f"{name} = {_seconds(mine)}",
    )


def _seconds(log: float) -> str:
    value = math.exp(log)
    return f"{value:.3g} s" if value >= 0.1 else f"{1000 * value:.3g} ms"


def _sentence(words: Sequence[str], rank: int, n: int) -> str:
    if not words:
        return f"It came at the pace of the route's ordinary answers (n = {n})."
    said = "; ".join(words)
    if rank == 1:
        return f"No ordinary answer of the route came at such a pace (n = {n}): {said}."
    return f"{said[0].upper()}{said[1:]}; {rank - 1} of {n} ordinary answers are as unusual."


def _why_not(case: Case) -> str:
    if not made(case).timed:
        return "Not tested: no times of arrival were recorded."
    if not case.reading.streamed:
        return "Not tested: the answer was not streamed, and the server reports no durations to compare."
    return f"Not tested: fewer than {LEAST} ordinary answers have times to compare with."
