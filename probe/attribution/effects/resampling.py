"""The cluster bootstrap of a difference and its two parts.

``probe.stats.clusters.cluster_bootstrap`` resamples traces one by one, within families. Over thousands of traces most
are alike: those that add the same sums to the same number of pairs. How often each kind comes in a resample of a family
is one multinomial draw, so the same distribution costs the same for a hundred traces and for a hundred thousand.
"""

import numpy as np
import numpy.typing as npt

from probe.attribution.effects.columns import Columns, Ints
from probe.attribution.settings import Settings
from probe.stats.clusters import FEWEST, cluster_bootstrap
from probe.stats.intervals import Interval

RESAMPLES = 2000

ONE_BY_ONE = 60
"""Traces up to which they are resampled one by one."""

_Floats = npt.NDArray[np.float64]


def resampled(graded: Columns, change: Ints, serving: Ints, settings: Settings) -> dict[str, Interval]:
    """Return intervals for the means of the difference and its parts; a platform can only add refusals.

    ``change``: hosted - twin per pair, ``serving``: the part of it that is not the platform's.
    """
    parts = {
        "difference": (change, -1.0),
        "platform_effect": (change - serving, 0.0),
        "serving_difference": (serving, -1.0),
    }
    many = len(np.unique(graded.trace)) > ONE_BY_ONE
    return {
        name: _by_kind(graded, numbers, settings) or _one_by_one(graded, numbers, settings, lowest)
        if many
        else _one_by_one(graded, numbers, settings, lowest)
        for name, (numbers, lowest) in parts.items()
    }


def _one_by_one(graded: Columns, numbers: Ints, settings: Settings, lowest: float) -> Interval:
    names = np.array([*graded.families, ""], dtype=object)
    strata = dict(zip(graded.traces[graded.trace].tolist(), names[graded.family].tolist(), strict=True))
    return cluster_bootstrap(
        graded.values(numbers),
        level=settings.level,
        resamples=RESAMPLES,
        seed=settings.seed,
        strata=strata,
        lowest=lowest,
    )


def _by_kind(graded: Columns, numbers: Ints, settings: Settings) -> Interval | None:
    """Return the BCa interval of ``cluster_bootstrap``; ``None`` where too few traces differ, or a family has one.

    BCa (Efron 1987, JASA 82:171), tails by a t quantile and sqrt(T / (T - S)) for T traces in S families.
    """
    from scipy.stats import norm, t

    families = _kinds(graded, numbers)
    counts = [times for _, times in families]
    traces = int(sum(times.sum() for times in counts))
    if traces - _commonest(families) < FEWEST or min(int(times.sum()) for times in counts) < 2:
        return None
    rng = np.random.default_rng(settings.seed)
    totals = sum((times @ kinds for kinds, times in families), np.zeros(2))
    estimate = float(totals[0] / totals[1])
    drawn, squares, cubes = np.zeros((RESAMPLES, 2)), 0.0, 0.0
    for kinds, times in families:
        drawn += rng.multinomial(times.sum(), times / times.sum(), RESAMPLES) @ kinds
        deviation = kinds[:, 0] - estimate * kinds[:, 1]
        deviation -= (times @ deviation) / times.sum()
        squares += float(times @ deviation**2)
        cubes += float(times @ deviation**3)
    means = drawn[:, 0] / drawn[:, 1]
    below = float(np.mean(means < estimate - 1e-12) + np.mean(np.abs(means - estimate) <= 1e-12) / 2)
    bias = norm.ppf(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    skew = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    free = traces - len(families)
    tail = t.ppf(0.5 + settings.level / 2, free) * np.sqrt(traces / free)
    shifted = bias + np.array([-tail, tail])
    lo, hi = np.quantile(means, norm.cdf(bias + shifted / np.maximum(1 - skew * shifted, 0.1)))
    lo, hi = min(float(lo), estimate), max(float(hi), estimate)
    return Interval(estimate, lo, hi, len(graded), "cluster bootstrap (BCa)", settings.level)


def _kinds(graded: Columns, numbers: Ints) -> list[tuple[_Floats, Ints]]:
    """Return per family the distinct (sum, pairs) of its traces, and how many traces have each."""
    pairs = np.bincount(graded.trace)
    known = np.flatnonzero(pairs)
    sums = np.bincount(graded.trace, weights=numbers)[known]
    family = np.zeros(len(pairs), dtype=np.int64)
    family[graded.trace] = graded.family
    # Sums are whole numbers: one whole key per (family, sum, pairs), which sorts faster than rows do.
    most = int(pairs.max())
    keys = (family[known] * (2 * most + 1) + sums.astype(np.int64) + most) * (most + 1) + pairs[known]
    distinct, counts = np.unique(keys, return_counts=True)
    rest, size = np.divmod(distinct, most + 1)
    stratum, total = np.divmod(rest, 2 * most + 1)
    kinds = np.column_stack((total - most, size)).astype(np.float64)
    return [(kinds[stratum == which], counts[stratum == which]) for which in np.unique(stratum)]


def _commonest(families: list[tuple[_Floats, Ints]]) -> int:
    """Count the traces of the commonest mean among those that may be constant: all -1, all 0 or all 1."""
    found: dict[float, int] = {}
    for kinds, times in families:
        for (total, size), n in zip(kinds.tolist(), times.tolist(), strict=True):
            if total in {-size, 0.0, size}:
                found[total / size] = found.get(total / size, 0) + n
    return max(found.values(), default=0)
