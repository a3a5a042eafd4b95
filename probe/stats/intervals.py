"""Intervals and tests for proportions and for differences of proportions on the same traces.

Pure functions of counts. Every result names its method, its level and its n, so that no rate travels bare. An interval
over nothing (n = 0) has no estimate and spans all that is possible; an interval over a component that was never seen
(0 of n) still has a width.

Paired differences come with two methods. Newcombe's method 10 is the one that tables and reviewers know. Tango's score
interval is the better one: where few pairs differ, and all in one direction, Newcombe's covers 91 % at a nominal 95 %
(n = 50 to 120, refusal rates near 50 %), Tango's at least 94.4 % (``docs/figures.md``). That corner is where a serving
difference lives once the platform's refusals are set aside. Both of these and Wilson's are the textbook methods, for
comparison with tables; what the effects rest on is in ``clusters``, and holds in the corners where these fall short.
"""

from dataclasses import asdict, dataclass
from math import inf, sqrt
from statistics import NormalDist
from typing import Any


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its ``level`` confidence interval [``lo``, ``hi``], all as fractions, over ``n`` units.

    ``estimate`` is ``None`` where n is 0: nothing was measured, and ``lo`` and ``hi`` are the ends of the possible.
    """

    estimate: float | None
    lo: float
    hi: float
    n: int
    method: str
    level: float = 0.95

    def covers(self, value: float) -> bool:
        """Whether ``value`` lies in the closed interval."""
        return self.lo <= value <= self.hi

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def z_of(level: float) -> float:
    """Two-sided normal quantile of a confidence level."""
    if not 0 < level < 1:
        raise ValueError(f"A confidence level lies between 0 and 1, not at {level}.")
    return NormalDist().inv_cdf(0.5 + level / 2)


def wilson_limits(k: float, n: float, z: float) -> tuple[float, float]:
    """Wilson (1927), JASA 22:209; ``k`` and ``n`` may be effective (fractional) counts."""
    middle = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * sqrt(k * (n - k) / n + z * z / 4)
    # Rounding must not push a limit past the estimate at the ends, where they coincide exactly.
    lo = 0.0 if k <= 0 else max(0.0, middle - half)
    hi = 1.0 if k >= n else min(1.0, middle + half)
    return lo, hi


def wilson(k: int, n: int, *, level: float = 0.95, design_effect: float = 1.0) -> Interval:
    """Wilson's score interval for ``k`` of ``n``.

    ``design_effect`` (at least 1) is the variance of the proportion over what independent units would have; the limits
    are those of n / design_effect units (Kish 1965 §8.2; Dean & Pagano 2015, J. Surv. Stat. Methodol. 3:484).
    """
    _check_counts(n, k, n - k)
    if n == 0:
        return Interval(None, 0.0, 1.0, 0, "none", level)
    lo, hi = wilson_limits(k / design_effect, n / design_effect, z_of(level))
    return Interval(k / n, lo, hi, n, named("Wilson", design_effect), level)


def newcombe_paired(a: int, b: int, c: int, d: int, *, level: float = 0.95) -> Interval:
    """Newcombe (1998), Stat Med 17:2635, method 10: difference of two proportions on the same n units.

    The table counts units positive in both (``a``), in the first only (``b``), in the second only (``c``), in neither
    (``d``); the estimate is (b - c) / n. Wilson limits of the two margins are squared and added with a correlation phi
    whose numerator ad - bc is lowered by n/2, but not below 0, where it is positive, and left alone where negative;
    phi is 0 where a margin is empty.
    """
    n = a + b + c + d
    _check_counts(n, a, b, c, d)
    if n == 0:
        return Interval(None, -1.0, 1.0, 0, "none", level)
    z = z_of(level)
    first, second = (a + b) / n, (a + c) / n
    lo1, hi1 = wilson_limits(a + b, n, z)
    lo2, hi2 = wilson_limits(a + c, n, z)
    down1, up1, down2, up2 = first - lo1, hi1 - first, second - lo2, hi2 - second
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    cross = a * d - b * c
    corrected = max(cross - n / 2, 0.0) if cross > 0 else float(cross)
    phi = corrected / sqrt(margins) if margins else 0.0
    below = sqrt(max(down1**2 - 2 * phi * down1 * up2 + up2**2, 0.0))
    above = sqrt(max(up1**2 - 2 * phi * up1 * down2 + down2**2, 0.0))
    estimate = (b - c) / n
    return Interval(estimate, max(-1.0, estimate - below), min(1.0, estimate + above), n, "Newcombe 10", level)


def tango_paired(b: int, c: int, n: int, *, level: float = 0.95, design_effect: float = 1.0) -> Interval:
    """Tango (1998), Stat Med 17:891: score interval for (b - c) / n, the difference of paired proportions.

    ``b`` units are positive in the first only, ``c`` in the second only, of ``n``. The same interval serves the mean
    of values in {-1, 0, 1}, of which b are 1 and c are -1. The limits solve score(delta) = ±z, by bisection: the
    score falls strictly in delta. ``design_effect`` as in ``wilson``.
    """
    _check_counts(n, b, c, n - b - c)
    if n == 0:
        return Interval(None, -1.0, 1.0, 0, "none", level)
    z = z_of(level)
    lo, hi = tango_limits(b / design_effect, c / design_effect, n / design_effect, z)
    return Interval((b - c) / n, lo, hi, n, named("Tango", design_effect), level)


def tango_limits(b: float, c: float, n: float, z: float) -> tuple[float, float]:
    """Limits of ``tango_paired`` for counts that may be effective ones (fractional), n > 0."""
    estimate = (b - c) / n
    lo = _crossing((b, c, n), -1.0, estimate, z)
    hi = _crossing((b, c, n), estimate, 1.0, -z)
    return min(lo, estimate), max(hi, estimate)


def tango_variance(b: float, c: float, n: float, delta: float) -> float:
    """Variance of (b - c) / n if the true difference is ``delta``: Tango's eq. (9), with his restricted estimate (10).

    That is the maximum-likelihood estimate of the second discordant probability given delta.
    """
    linear = -b - c + (2 * n - b + c) * delta
    constant = -c * delta * (1 - delta)
    q = (sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
    return max(2 * q + delta * (1 - delta), 0.0) / n


def _tango_score(b: float, c: float, n: float, delta: float) -> float:
    """Tango's statistic, eq. (9)."""
    variance = tango_variance(b, c, n, delta)
    excess = (b - c) / n - delta
    if variance <= 0:
        return 0.0 if excess == 0 else inf * excess
    return excess / sqrt(variance)


def _crossing(counts: tuple[float, float, float], left: float, right: float, target: float) -> float:
    """Where the falling score meets ``target`` in [left, right]; an end of it where it never does."""
    b, c, n = counts
    for _ in range(60):
        middle = (left + right) / 2
        if _tango_score(b, c, n, middle) > target:
            left = middle
        else:
            right = middle
    # Sixty halvings stop within 1e-18 of an end that was never left: that end is the answer.
    return max(-1.0, min(1.0, round((left + right) / 2, 15)))


def tango_p(b: float, c: float, n: float, delta: float) -> float:
    """One-sided p of Tango's score test against "the difference is ``delta`` or more": small where it is less."""
    if n <= 0:
        return 1.0
    return NormalDist().cdf(_tango_score(b, c, n, delta))


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact p of McNemar's test: the binomial(b + c, 1/2) test on the discordant pairs; 1 without any."""
    _check_counts(b + c, b, c)
    if b + c == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(b, b + c, 0.5).pvalue)


def benjamini_hochberg(p_values: list[float]) -> list[float]:
    """Adjust p-values (Benjamini & Hochberg 1995), in the order given."""
    if not p_values:
        return []
    from scipy.stats import false_discovery_control

    return [float(p) for p in false_discovery_control(p_values)]


def named(method: str, effect: float) -> str:
    """Return the method's name, with what was done about repeats where they mattered."""
    return method if effect == 1.0 else f"{method}, clustered by trace"


def _check_counts(n: int, *parts: int) -> None:
    if n < 0 or any(part < 0 for part in parts):
        raise ValueError(f"Counts must not be negative: {parts} of {n}.")
