"""How many pairs, or how many units, for a wanted power or a wanted width. Pure functions of rates.

Two numbers of pairs are given for a wanted power, because both are in use. ``pairs_for_power`` is for the exact
McNemar test, which the effects use: it adds up the trinomial. ``pairs_by_formula`` is the textbook approximation
(Connor 1987), which assumes a test that rejects at just ``alpha``; the exact test of a discrete count rejects more
rarely than that, and so needs some more: 114 pairs where the formula says 107 (12 % against 2 % discordant, power
80 %, alpha 5 %), 228 where it says 217 (6 % against 1 %).
"""

from collections.abc import Callable
from functools import lru_cache
from math import isqrt, sqrt
from statistics import NormalDist
from typing import Any

from probe.stats.intervals import tango_paired

MOST = 1_000_000
"""Pairs or units beyond which nobody plans: ``None`` stands for more."""

_TAIL_SDS = 9.0
"""Standard deviations of the number of discordant pairs that are added up; the rest is below 1e-17."""

_PARTS = 1_000_000
"""Rates are taken to this resolution where an interval wants counts."""


def mcnemar_power(n: int, up: float, down: float, *, alpha: float = 0.05) -> float:
    """Probability that the exact two-sided McNemar test over ``n`` pairs has p of at most ``alpha``.

    ``up`` and ``down`` are the probabilities of the two kinds of discordant pairs. Given m of n discordant, the test
    is the binomial(m, 1/2) test; the sum is over m (Duffy 1984, Biometrics 40:1005). With alpha = 0.05 fewer than six
    discordant pairs never reject.
    """
    _check(up, down, alpha)
    if n < 0:
        raise ValueError(f"A number of pairs is not negative: {n}.")
    if up + down == 0.0:
        return 0.0
    import numpy as np
    from scipy.stats import binom

    share = min(up + down, 1.0)
    spread = _TAIL_SDS * sqrt(n * share * (1.0 - share)) + 10.0
    first, last = max(0, int(n * share - spread)), min(n, int(n * share + spread) + 1)
    weights = binom.pmf(np.arange(first, last + 1), n, share)
    return min(1.0, float(weights @ _rejected(last, up / (up + down), alpha)[first : last + 1]))


def pairs_for_power(up: float, down: float, *, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return how many pairs the exact McNemar test needs.

    Its power is a saw-tooth where nearly all pairs are discordant; the number given is the smallest from which on the
    power stays at ``power`` or above. ``None`` where ``up`` equals ``down`` (there is nothing to find) and beyond
    ``MOST``.
    """
    _check(up, down, alpha)
    _check_inside(power, "power")
    if up == down:
        return None
    enough = _least(lambda n: mcnemar_power(n, up, down, alpha=alpha) >= power)
    if enough is None:
        return None
    # The teeth are two or three pairs long and die out with the square root; from above, one by one.
    near = 10 + 4 * isqrt(enough)
    last = enough + near
    while last > 1 and mcnemar_power(last - 1, up, down, alpha=alpha) >= power:
        last -= 1
    return last


def pairs_by_formula(up: float, down: float, *, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Connor (1987), Biometrics 43:207, eq. 3: (z_a sqrt(s) + z_b sqrt(s - d²))² / d², s = up + down, d = up - down.

    Not rounded. ``None`` where ``up`` equals ``down``.
    """
    _check(up, down, alpha)
    _check_inside(power, "power")
    difference, share = abs(up - down), up + down
    if difference == 0.0:
        return None
    normal = NormalDist()
    reach = normal.inv_cdf(1.0 - alpha / 2) * sqrt(share)
    reach += normal.inv_cdf(power) * sqrt(max(share - difference * difference, 0.0))
    return reach * reach / (difference * difference)


def undecided_after(up: float, down: float, most: int, *, alpha: float = 0.05) -> Any:
    """Probability that the sequential test is open after n = 0 … ``most`` pairs: an array of shape (most + 1,).

    It answers "different" as soon as its e-process on discordant pairs, 2^(a+b) B(a+s, b+s) / B(s, s) for a pairs to
    one side and b to the other, reaches 1 / alpha (``probe.stats.sequential``). Of the first m discordant pairs the
    splits that never did are counted one by one; m of n pairs is binomial. The limits of its confidence sequence may
    answer a little earlier, so this is from above. The answer "same within δ" is left out: it takes far more pairs.
    """
    _check(up, down, alpha)
    import numpy as np
    from scipy.special import betaln
    from scipy.stats import binom

    from probe.stats.sequential import SHAPE

    share = min(up + down, 1.0)
    if share == 0.0:
        return np.ones(most + 1)
    upward = up / (up + down)
    discordant = min(most, int(most * share + _TAIL_SDS * sqrt(most * share * (1.0 - share)) + 10.0))
    open_splits, still = np.ones(1), [1.0]
    for m in range(1, discordant + 1):
        # Place a of the array: a pairs to the one side, of m discordant ones.
        grown = np.zeros(m + 1)
        grown[1:] += open_splits * upward
        grown[:-1] += open_splits * (1.0 - upward)
        a = np.arange(m + 1)
        log_e = m * np.log(2.0) + betaln(a + SHAPE, m - a + SHAPE) - betaln(SHAPE, SHAPE)
        open_splits = np.where(log_e >= -np.log(alpha), 0.0, grown)
        still.append(float(open_splits.sum()))
    pairs = np.arange(most + 1)[:, None]
    return binom.pmf(np.arange(discordant + 1)[None, :], pairs, share) @ np.array(still)


def n_for_width(rate: float, width: float, *, level: float = 0.95) -> int | None:
    """Return how many units make Wilson's interval around ``rate`` at most ``width`` wide, from limit to limit.

    At the expected count rate * n, whole or not. ``None`` beyond ``MOST``.
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"A rate lies between 0 and 1, not at {rate}.")
    _check_inside(width, "width")
    _check_inside(level, "level")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    return _least(lambda n: 2 * z / (n + z * z) * sqrt(n * rate * (1.0 - rate) + z * z / 4) <= width)


def pairs_for_width(up: float, down: float, width: float, *, level: float = 0.95) -> int | None:
    """Return how many pairs make Tango's interval for the difference at most ``width`` wide, from limit to limit.

    At the expected counts, whole or not. ``None`` beyond ``MOST``.
    """
    _check(up, down, 1.0 - level)
    _check_inside(width / 2, "half of the width")
    counts = round(up * _PARTS), round(down * _PARTS)

    def narrow(n: int) -> bool:
        # n units' worth of information out of _PARTS units: the interval at counts that need not be whole.
        found = tango_paired(*counts, max(_PARTS, sum(counts)), level=level, design_effect=_PARTS / n)
        return found.hi - found.lo <= width

    return _least(narrow)


def _least(holds: Callable[[int], bool]) -> int | None:
    """Return a number that holds while the one below it does not: the least, where the condition is monotone."""
    high = 1
    while not holds(high):
        if high >= MOST:
            return None
        high = min(2 * high, MOST)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _rejected(most: int, upward: float, alpha: float) -> Any:
    """Probability that the exact test rejects, given m = 0 … ``most`` discordant pairs or more (an array)."""
    # In powers of two, so that a search asks for few different arrays.
    return _rejected_up_to(1 << max(most, 1).bit_length(), upward, alpha)


@lru_cache(maxsize=8)
def _rejected_up_to(most: int, upward: float, alpha: float) -> Any:
    import numpy as np
    from scipy.stats import binom

    m = np.arange(most + 1)
    # The largest c with 2 P(Bin(m, 1/2) <= c) <= alpha: the quantile, or the value below it.
    c = binom.ppf(alpha / 2, m, 0.5)
    c = np.where(2.0 * binom.cdf(c, m, 0.5) <= alpha, c, c - 1.0)
    return binom.cdf(c, m, upward) + binom.sf(m - c - 1.0, m, upward)


def _check(up: float, down: float, alpha: float) -> None:
    if not (up >= 0.0 and down >= 0.0 and up + down <= 1.0 + 1e-12):
        raise ValueError(f"Two shares of all pairs are not negative and add up to at most 1, unlike {up} and {down}.")
    _check_inside(alpha, "alpha")


def _check_inside(value: float, name: str) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} lies between 0 and 1, not at {value}.")
