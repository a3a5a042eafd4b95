"""Pairs as columns of numbers, so that a hundred thousand of them cost what one array does."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import get_args

import numpy as np
import numpy.typing as npt

from probe.attribution.effects.pairs import Pair, Side, Who
from probe.judge.base import Outcome
from probe.stats.clusters import PLACES, PRIOR_CLUSTERS, difference_limits, proportion_limits
from probe.stats.intervals import Interval, named

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Values = list[tuple[str, int]]
"""(trace, value): what the statistics of clustered units take."""

SIDES: tuple[Side, ...] = tuple(Side(o, who) for o, who in product(get_args(Outcome), (*get_args(Who), None)))
"""All that one answer can be; a column holds places in this list."""

_PLACES = {(side.outcome, side.who): place for place, side in enumerate(SIDES)}
ERROR = _PLACES["error", None]
MISSING = -1


def place_of(outcome: str, who: Who | None) -> int:
    """Return where an answer stands in ``SIDES``."""
    return _PLACES[outcome, who]


@cache
def _table(name: str) -> Ints:
    def value(side: Side) -> int:
        found = (side.refusal == 0 and side.outcome == "complied") if name == "complied" else getattr(side, name)
        return MISSING if found is None else int(found)

    return np.array([value(side) for side in SIDES])


class Clusters:
    """Units by cluster. ``rate`` and ``change`` are ``proportion`` and ``difference`` of ``probe.stats.clusters``.

    Those take pairs of any kind one by one; a hundred thousand pairs and thirty rates over them need arrays.
    """

    def __init__(self, trace: Ints) -> None:
        _, self._place = np.unique(trace, return_inverse=True)
        self._sizes = np.bincount(self._place) if len(trace) else np.zeros(0, dtype=np.int64)

    def rate(self, numbers: Ints, level: float) -> Interval:
        """Return the rate of numbers 0 and 1."""
        n, count = len(numbers), int(numbers.sum())
        if n == 0:
            return Interval(None, 0.0, 1.0, 0, "none", level)
        effect, estimate = self.design_effect(numbers), count / n
        lo, hi = proportion_limits(count / effect, n / effect, level)
        return Interval(estimate, min(lo, estimate), max(hi, estimate), n, named("Wilson-Blaker", effect), level)

    def change(self, numbers: Ints, level: float) -> Interval:
        """Return the mean of numbers -1, 0 and 1."""
        n, up, down = len(numbers), int((numbers == 1).sum()), int((numbers == -1).sum())
        if n == 0:
            return Interval(None, -1.0, 1.0, 0, "none", level)
        effect, estimate = self.design_effect(numbers), (up - down) / n
        lo, hi = difference_limits(up / effect, down / effect, n / effect, level)
        return Interval(estimate, min(lo, estimate), max(hi, estimate), n, named("Tango-Blaker", effect), level)

    def design_effect(self, numbers: Ints) -> float:
        """Return ``cautious_design_effect`` of ``probe.stats.clusters``."""
        n, sizes = len(numbers), self._sizes
        if len(sizes) == n:
            return 1.0
        sums = np.bincount(self._place, weights=numbers)
        squares = np.bincount(self._place, weights=numbers * numbers)
        # Numbers are whole, so means and sums of squares are compared without rounding.
        alike = sums * sums == squares * sizes
        kinds = np.unique((sums / sizes)[alike], return_counts=True)[1]
        informative = len(sizes) - (int(kinds.max()) if len(kinds) else 0)
        largest = float((sizes * sizes).sum()) / n
        mean = float(numbers.sum()) / n
        naive = float(((numbers - mean) ** 2).sum())
        effect = largest
        if naive > 0.0 and len(sizes) > 1:
            between = float(((sums - sizes * mean) ** 2).sum()) * len(sizes) / (len(sizes) - 1)
            effect = min(max(between / naive, 1.0), largest)
        return round((informative * effect + PRIOR_CLUSTERS * largest) / (informative + PRIOR_CLUSTERS), PLACES)


@dataclass(frozen=True)
class Columns:
    """Pairs in the order of sending: places in ``traces`` and ``families``, and both answers as places in ``SIDES``."""

    traces: npt.NDArray[np.object_]
    families: Sequence[str]
    trace: Ints
    family: Ints
    hosted: Ints
    twin: Ints

    @classmethod
    def of_pairs(cls, pairs: Iterable[Pair]) -> "Columns":
        """Turn pairs into columns."""
        rows = [
            (p.trace_id, p.family, place_of(p.hosted.outcome, p.hosted.who), place_of(p.twin.outcome, p.twin.who))
            for p in pairs
        ]
        return cls.of_rows(rows)

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[str, str, int, int]]) -> "Columns":
        """Turn rows of trace id, family and the places of both answers into columns."""
        ids = list(dict.fromkeys(row[0] for row in rows))
        families = sorted({row[1] for row in rows})
        trace_of, family_of = ({name: i for i, name in enumerate(names)} for names in (ids, families))
        return cls(
            traces=np.array([*ids, None], dtype=object)[:-1],
            families=families,
            trace=np.array([trace_of[row[0]] for row in rows], dtype=np.int64),
            family=np.array([family_of[row[1]] for row in rows], dtype=np.int64),
            hosted=np.array([row[2] for row in rows], dtype=np.int64),
            twin=np.array([row[3] for row in rows], dtype=np.int64),
        )

    def __len__(self) -> int:
        """How many pairs."""
        return len(self.trace)

    def where(self, mask: Mask) -> "Columns":
        """Return the pairs that the mask picks."""
        picked = (column[mask] for column in (self.trace, self.family, self.hosted, self.twin))
        return Columns(self.traces, self.families, *picked)

    def of(self, side: str, name: str) -> Ints:
        """Return ``refusal``, ``acted``, ``undecided``, ``declared`` or ``complied`` of a side; -1 where missing."""
        found: Ints = _table(name)[getattr(self, side)]
        return found

    @cached_property
    def clusters(self) -> "Clusters":
        """The pairs by trace."""
        return Clusters(self.trace)

    @property
    def graded(self) -> Mask:
        """Which pairs can be scored on both sides."""
        return (self.of("hosted", "refusal") >= 0) & (self.of("twin", "refusal") >= 0)

    def values(self, numbers: Ints, mask: Mask | None = None) -> Values:
        """Return one number per pair with its trace."""
        trace = self.trace
        if mask is not None:
            trace, numbers = trace[mask], numbers[mask]
        return list(zip(self.traces[trace].tolist(), numbers.tolist(), strict=True))

    def missing(self) -> tuple[tuple[str, str, int], ...]:
        """Count (side, outcome) of what cannot be scored."""
        counts: Counter[tuple[str, str]] = Counter()
        for name in ("hosted", "twin"):
            places = getattr(self, name)[self.of(name, "refusal") == MISSING]
            for place, n in zip(*np.unique(places, return_counts=True), strict=True):
                counts[name, SIDES[place].outcome] += int(n)
        return tuple((side, outcome, n) for (side, outcome), n in sorted(counts.items()))
