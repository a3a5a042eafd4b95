"""Blaker's exact limits of a proportion, as the floor under methods that are right on average only.

An interval whose coverage is 95 % on average falls below at single rates: Wilson's to 84 % where one refusal in a
hundred is asked for ten times (Brown, Cai & DasGupta 2001, Stat Sci 16:101, §3.1.1 and §4.1.1). Blaker's interval
(2000, Can J Stat 28:783) at level 1 - alpha covers at least that at every rate, and no interval with this property
lies inside it. So whatever is widened to Blaker's limits at 94 % covers 94 % everywhere.

Counts may be effective ones (fractional): tail probabilities are then those of the beta distribution, at counts that
are whole steps away from the one observed.
"""

from functools import lru_cache


@lru_cache(maxsize=4096)
def blaker_lower(k: float, n: float, alpha: float) -> float:
    """Return the smallest rate at which ``k`` of ``n`` is acceptable at ``alpha``; the upper limit by symmetry.

    ``k`` is acceptable at a rate if its tail probability, P(X >= k), plus the largest probability of a lower tail that
    is no larger, exceeds alpha. Between the rates where one tail probability is alpha / 2 and alpha, that lower tail
    grows by one count at some point, and there the sum jumps to twice P(X >= k), which is alpha or more. So the limit
    is that point, or one before it where the sum, which falls and then rises, reaches alpha.
    """
    from scipy.optimize import brentq
    from scipy.special import betaincinv

    if k <= 0:
        return 0.0
    left = float(betaincinv(k, n - k + 1, alpha / 2))
    right = float(betaincinv(k, n - k + 1, alpha))
    below = _largest_lower_tail(k, n, left)

    def total(rate: float) -> float:
        return _upper(k, n, rate) + _lower(below, n, rate)

    def surplus(rate: float) -> float:
        return _lower(below + 1, n, rate) - _upper(k, n, rate)

    if total(left) >= alpha:
        return left
    # Where the lower tail stays the same all the way, P(X >= k) alone is alpha at the right end.
    jump = right if surplus(right) > 0 else float(brentq(surplus, left, right, xtol=1e-15))
    if total(jump) <= alpha:
        return jump
    return float(brentq(lambda rate: total(rate) - alpha, left, jump, xtol=1e-15))


def _largest_lower_tail(k: float, n: float, rate: float) -> float:
    """Return the largest count a whole number of steps below ``k`` whose lower tail is no larger than P(X >= k)."""
    most = _upper(k, n, rate)
    near, far = 1, int(k) + 2  # steps: the lower tail at k - far is 0
    while near < far:
        middle = (near + far) // 2
        if _lower(k - middle, n, rate) <= most:
            far = middle
        else:
            near = middle + 1
    return k - near


def _upper(k: float, n: float, rate: float) -> float:
    """P(X >= k)."""
    from scipy.special import betainc

    return float(betainc(k, n - k + 1, rate)) if k > 0 else 1.0


def _lower(k: float, n: float, rate: float) -> float:
    """P(X <= k)."""
    from scipy.special import betainc

    if k < 0:
        return 0.0
    return 1.0 if k >= n else float(betainc(n - k, k + 1, 1 - rate))
