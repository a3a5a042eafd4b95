"""Equivalence of two rates on the same traces: two one-sided tests against a margin.

TOST (Schuirmann 1987, J Pharmacokinet Biopharm 15:657) with Tango's score statistic (Tango 1998, Stat Med 17:891, §3):
"no difference within delta" is claimed only if both "delta or more" and "-delta or less" are rejected at alpha. That
is the same as the interval at level 1 - 2 alpha lying inside ±delta. A difference that is not found is no equivalence.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import nextafter
from typing import Any

from probe.stats.clusters import cautious_design_effect, difference, difference_limits, single_proportion
from probe.stats.intervals import Interval, tango_p


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Whether a difference lies within ±``delta``, as a fraction: ``p`` is the larger of both one-sided tests'.

    ``interval`` is at level 1 - 2 ``alpha``. ``equivalent`` if and only if it lies inside ±delta, and if and only if
    p < alpha.
    """

    delta: float
    alpha: float
    p: float
    equivalent: bool
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def tost(values: Sequence[tuple[str, int]], delta: float, *, alpha: float = 0.05) -> Equivalence:
    """Test values -1, 0 and 1, clustered by trace, against the margins ±``delta``; repeats count by design effect.

    Without values nothing is claimed (p = 1). Raises ``ValueError`` unless 0 < delta and 0 < alpha < 1/2.
    """
    if delta <= 0 or not 0 < alpha < 0.5:
        raise ValueError(f"Equivalence takes delta > 0 and 0 < alpha < 1/2, not {delta} and {alpha}.")
    interval = difference(values, level=1 - 2 * alpha)
    equivalent = bool(values) and -delta < interval.lo and interval.hi < delta
    if not values:
        return Equivalence(delta, alpha, 1.0, False, interval)
    effect = cautious_design_effect(values)
    up, down = (sum(value == sign for _, value in values) / effect for sign in (1, -1))
    n = len(values) / effect
    p = max(tango_p(up, down, n, delta), tango_p(down, up, n, delta))
    if single_proportion(up, down, n):
        p = max(p, _smallest_alpha(up, down, n, delta))
    # The interval's limits are found by halving; where they meet the margin to the last digits, it decides.
    p = min(p, nextafter(alpha, 0)) if equivalent else max(p, alpha)
    return Equivalence(delta, alpha, p, equivalent, interval)


def _smallest_alpha(up: float, down: float, n: float, delta: float) -> float:
    """Return the smallest alpha whose interval lies inside the margins; at most 1/2."""
    low, high = 0.0, 0.5
    for _ in range(20):
        alpha = (low + high) / 2
        lo, hi = difference_limits(up, down, n, 1 - 2 * alpha)
        if -delta < lo and hi < delta:
            high = alpha
        else:
            low = alpha
    return high
