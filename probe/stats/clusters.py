"""Rates and differences over clustered units: repeats of one trace are not independent of each other.

Values are (cluster, value) pairs; the cluster is the trace. ``proportion`` and ``difference`` are the intervals that
the effects rest on. Both take the counts down to the effective number of units and put a floor under the coverage:
``scripts/simulate-coverage`` shows where each of them holds and where it is wider than it need be.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from probe.stats.blaker import blaker_lower
from probe.stats.intervals import Interval, named, tango_limits, wilson_limits, z_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

FLOOR = 1.2
"""Largest error anywhere over the nominal one: a 95 % interval covers at least 94 % at every rate (no repeats)."""

PLACES = 10
"""Decimals of a cautious design effect: exact limits jump, and the order of a sum must not decide on which side."""

PRIOR_CLUSTERS = 2
"""So many clusters that repeat themselves exactly are added to those that the design effect is estimated from."""

FEWEST = 10
"""Clusters that must deviate from the commonest pattern for a bootstrap to have something to resample."""

_LARGEST_ALPHA = 0.99

_WILSON_ENDS = (8, 11)
"""Between these n 0 of n keeps Wilson's limit, which tables print (0 of 10: 27.8 %), although Blaker's lies beyond it.
At 95 % and larger n it does not; at smaller n no other outcome could cover the rates between the two."""


def design_effect(values: Sequence[tuple[str, float]]) -> float:
    """How much larger the variance of a mean is than that of independent units, from (cluster, value) pairs.

    The ratio of the cluster-robust to the naive variance (Miller 2024, arXiv 2411.00640, eq. 4) with the small-sample
    factor T / (T - 1) over T clusters, held between 1 and what identical values within clusters would give
    (Kish's sum m² / n). Where all values are equal nothing can be estimated, and that largest value is taken: k
    repeats of one trace may all be one observation. Exactly 1 without repeats.
    """
    n = len(values)
    sums: dict[str, float] = {}
    sizes: dict[str, int] = {}
    mean = sum(value for _, value in values) / n if n else 0.0
    for cluster, value in values:
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
        sizes[cluster] = sizes.get(cluster, 0) + 1
    if len(sizes) == n:
        return 1.0
    largest = sum(size * size for size in sizes.values()) / n
    naive = sum((value - mean) ** 2 for _, value in values)
    if naive == 0 or len(sizes) < 2:
        return largest
    clustered = sum(total * total for total in sums.values()) * len(sizes) / (len(sizes) - 1)
    return min(max(clustered / naive, 1.0), largest)


def cautious_design_effect(values: Sequence[tuple[str, float]]) -> float:
    """``design_effect`` drawn towards its largest value where few clusters tell anything about it.

    Informative are the clusters that deviate from the commonest pattern (all 0, say). Rare refusals of which most
    traces show none hide how strongly repeats agree: three traces that refused one time in five look independent, and
    the one trace in fifty that would refuse five times in five was not drawn. With g informative clusters the effect
    is (g * estimate + 2 * largest) / (g + 2). Plain, 95 % intervals cover 80 % there (rate 3 %, 60 traces of 5
    repeats, of which 70 % repeat themselves exactly); so drawn, at least 94 %.
    """
    n, patterns = len(values), _patterns(values)
    if len(patterns) == n:
        return 1.0
    sizes = [size for _, _, size in patterns.values()]
    largest = sum(size * size for size in sizes) / n
    constant: dict[float, int] = {}
    for low, high, _ in patterns.values():
        if low == high:
            constant[low] = constant.get(low, 0) + 1
    informative = len(patterns) - max(constant.values(), default=0)
    weight = informative + PRIOR_CLUSTERS
    return round((informative * design_effect(values) + PRIOR_CLUSTERS * largest) / weight, PLACES)


def proportion(values: Sequence[tuple[str, int]], *, level: float = 0.95) -> Interval:
    """Interval for the rate of values 0 and 1, clustered: Wilson's, widened to Blaker's where Wilson's falls short.

    Counts are divided by ``cautious_design_effect``. At 95 % and n of 8 or more 0 of n has the limits of Wilson.
    """
    n = len(values)
    if n == 0:
        return Interval(None, 0.0, 1.0, 0, "none", level)
    count, effect = sum(value for _, value in values), cautious_design_effect(values)
    lo, hi = proportion_limits(count / effect, n / effect, level)
    return Interval(count / n, min(lo, count / n), max(hi, count / n), n, named("Wilson-Blaker", effect), level)


def proportion_limits(k: float, n: float, level: float) -> tuple[float, float]:
    """Limits of ``proportion`` for ``k`` of ``n`` effective units, n > 0."""
    return _lower_limit(k, n, level), 1 - _lower_limit(n - k, n, level)


def _lower_limit(k: float, n: float, level: float) -> float:
    """Return the smaller of Wilson's and Blaker's lower limit.

    Where n of n keeps Wilson's limit, the rates between the two go to the outcome that is next to cover them, at the
    other end: to k, if its limit lies beyond that gap, and that of k - 1 does not.
    """
    z, alpha = z_of(level), min(FLOOR * (1 - level), _LARGEST_ALPHA)

    def widened(count: float) -> float:
        return min(wilson_limits(count, n, z)[0], blaker_lower(count, n, alpha))

    if k <= 0:
        return 0.0
    if not _WILSON_ENDS[0] <= n <= _WILSON_ENDS[1]:
        return widened(k)
    if k >= n:
        return wilson_limits(n, n, z)[0]
    zero = wilson_limits(0.0, n, z)[1]
    lower = widened(k)
    if lower > zero and 1 - blaker_lower(n, n, alpha) > zero and (k <= 1 or widened(k - 1) <= zero):
        return zero
    return lower


def difference(values: Sequence[tuple[str, int]], *, level: float = 0.95) -> Interval:
    """Interval for the mean of values -1, 0 and 1, clustered: a difference of rates on the same traces.

    Tango's, and where the values leave a single proportion (all of one sign, or none 0) as wide as ``proportion``'s.
    Counts are divided by ``cautious_design_effect``.
    """
    up, down = sum(value == 1 for _, value in values), sum(value == -1 for _, value in values)
    if not values:
        return Interval(None, -1.0, 1.0, 0, "none", level)
    effect, n = cautious_design_effect(values), len(values)
    lo, hi = difference_limits(up / effect, down / effect, n / effect, level)
    estimate = (up - down) / n
    return Interval(estimate, min(lo, estimate), max(hi, estimate), n, named("Tango-Blaker", effect), level)


def difference_limits(up: float, down: float, n: float, level: float) -> tuple[float, float]:
    """Limits of ``difference`` for ``up`` times 1 and ``down`` times -1 among ``n`` effective units, n > 0."""
    lo, hi = tango_limits(up, down, n, z_of(level))
    found = [(lo, hi)]
    if down == 0:
        found.append(proportion_limits(up, n, level))
    if up == 0:
        lower, upper = proportion_limits(down, n, level)
        found.append((-upper, -lower))
    if single_proportion(up, down, n) and up and down:
        lower, upper = proportion_limits(up, n, level)
        found.append((2 * lower - 1, 2 * upper - 1))
    return min(lo for lo, _ in found), max(hi for _, hi in found)


def single_proportion(up: float, down: float, n: float) -> bool:
    """Whether the values are those of a single proportion: of one sign only, or none 0."""
    return up == 0 or down == 0 or up + down >= n * (1 - 1e-12)


def cluster_bootstrap(
    values: Sequence[tuple[str, float]],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    strata: Mapping[str, str] | None = None,
    lowest: float = -1.0,
) -> Interval:
    """Bootstrap interval for the mean of values in [``lowest``, 1]; resamples clusters, within strata where given.

    ``strata`` maps clusters to strata (families). BCa (Efron 1987, JASA 82:171), with the tails widened for small
    samples as Hesterberg (2015, Am Stat 69:371, §3.2) does for percentiles: by a t quantile and sqrt(T / (T - S)) for
    T clusters in S strata. Strata of one cluster are pooled, else they would vary by nothing.

    Where fewer than 10 clusters deviate from the commonest pattern, resampling them says little (nothing, where all
    values are equal): the interval is then that of ``difference`` (``proportion`` if ``lowest`` is 0), and ``method``
    says so. Values between -1, 0 and 1 count there by their parts, which is on the wide side.
    """
    n = len(values)
    if n == 0:
        return Interval(None, lowest, 1.0, 0, "none", level)
    patterns = _patterns(values)
    constant = [low for low, high, _ in patterns.values() if low == high]
    groups = _groups(patterns, strata)
    if len(patterns) - max(map(constant.count, set(constant)), default=0) < FEWEST:
        return _too_few(values, level, lowest)
    sums: dict[str, float] = dict.fromkeys(patterns, 0.0)
    for cluster, value in values:
        sums[cluster] += value
    kinds = [_kinds([(sums[c], patterns[c][2]) for c in group]) for group in groups]
    found = bca(kinds, level=level, resamples=resamples, seed=seed)
    return replace(found, lo=max(found.lo, lowest), n=n)


def bca(groups: Sequence[tuple["Floats", "Ints"]], *, level: float, resamples: int, seed: int) -> Interval:
    """BCa interval of ``cluster_bootstrap`` from counts, for those who have them: no fallback, ``n`` is the clusters.

    Per stratum (of at least two clusters): the distinct (sum, size) of its clusters as rows, and how many clusters have
    each. How often each kind comes in a resample is one multinomial draw, whatever the number of clusters.
    """
    import numpy as np
    from scipy.stats import norm, t

    rng = np.random.default_rng(seed)
    clusters = int(sum(times.sum() for _, times in groups))
    totals = sum((times @ kinds for kinds, times in groups), np.zeros(2))
    estimate = float(totals[0] / totals[1])
    drawn, squares, cubes = np.zeros((resamples, 2)), 0.0, 0.0
    for kinds, times in groups:
        drawn += rng.multinomial(times.sum(), times / times.sum(), size=resamples) @ kinds
        influence = kinds[:, 0] - estimate * kinds[:, 1]
        influence = influence - (times @ influence) / times.sum()
        squares += float(times @ influence**2)
        cubes += float(times @ influence**3)
    means = drawn[:, 0] / drawn[:, 1]
    below = float(np.mean(means < estimate - 1e-12) + np.mean(np.abs(means - estimate) <= 1e-12) / 2)
    bias = norm.ppf(np.clip(below, 1 / resamples, 1 - 1 / resamples))
    skew = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    free = clusters - len(groups)
    tail = t.ppf(0.5 + level / 2, free) * np.sqrt(clusters / free)
    shifted = bias + np.array([-tail, tail])
    lo, hi = np.quantile(means, norm.cdf(bias + shifted / np.maximum(1 - skew * shifted, 0.1)))
    lo, hi = min(float(lo), estimate), max(float(hi), estimate)
    return Interval(estimate, lo, hi, clusters, "cluster bootstrap (BCa)", level)


def _kinds(pairs: list[tuple[float, int]]) -> tuple["Floats", "Ints"]:
    """Distinct (sum, size), and how often each comes."""
    import numpy as np

    found: dict[tuple[float, int], int] = {}
    for pair in pairs:
        found[pair] = found.get(pair, 0) + 1
    ordered = sorted(found)
    return np.array(ordered, dtype=np.float64), np.array([found[pair] for pair in ordered], dtype=np.int64)


def _too_few(values: Sequence[tuple[str, float]], level: float, lowest: float) -> Interval:
    n, effect = len(values), cautious_design_effect(values)
    up, down = sum(max(value, 0.0) for _, value in values), sum(max(-value, 0.0) for _, value in values)
    if lowest >= 0:
        lo, hi = proportion_limits(up / effect, n / effect, level)
    else:
        lo, hi = difference_limits(up / effect, down / effect, n / effect, level)
    estimate = (up - down) / n
    method = f"design effect (fewer than {FEWEST} traces differ from the rest: too few to resample)"
    return Interval(estimate, min(lo, estimate), max(hi, estimate), n, method, level)


def _patterns(values: Sequence[tuple[str, float]]) -> dict[str, tuple[float, float, int]]:
    """Smallest and largest value of each cluster, and its size."""
    found: dict[str, tuple[float, float, int]] = {}
    for cluster, value in values:
        low, high, size = found.get(cluster, (value, value, 0))
        found[cluster] = (min(low, value), max(high, value), size + 1)
    return found


def _groups(clusters: Iterable[str], strata: Mapping[str, str] | None) -> list[list[str]]:
    """Clusters by stratum, in an order of their own; strata of one are pooled, with the smallest other if need be."""
    by_name: dict[str, list[str]] = {}
    for cluster in sorted(clusters):
        by_name.setdefault(strata.get(cluster, "") if strata else "", []).append(cluster)
    groups = sorted(by_name.values(), key=len)
    alone = [group for group in groups if len(group) == 1]
    rest = groups[len(alone) :]
    if len(alone) == 1 and rest:
        return [alone[0] + rest[0], *rest[1:]]
    return ([[cluster for group in alone for cluster in group]] if alone else []) + rest
