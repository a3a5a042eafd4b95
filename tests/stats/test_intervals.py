"""Intervals against published values, other implementations, and simulated coverage."""

from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from probe.stats.intervals import (
    benjamini_hochberg,
    mcnemar_exact,
    newcombe_paired,
    tango_p,
    tango_paired,
    wilson,
)

REPLICATIONS = 2000
# A method whose true coverage is 94 % falls below this in fewer than one of a thousand runs of this size.
LOWEST = binom.ppf(0.001, REPLICATIONS, 0.94) / REPLICATIONS


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (3, 7), (42, 120), (999, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_agrees_with_scipy_and_statsmodels(k: int, n: int, level: float) -> None:
    ours = wilson(k, n, level=level)
    theirs = binomtest(k, n).proportion_ci(level, "wilson")
    assert (ours.lo, ours.hi) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert (ours.lo, ours.hi) == pytest.approx(proportion_confint(k, n, 1 - level, "wilson"), abs=1e-12)
    assert ours.lo <= k / n <= ours.hi


def test_nothing_measured_has_no_estimate_and_all_is_possible() -> None:
    assert (wilson(0, 0).estimate, wilson(0, 0).lo, wilson(0, 0).hi) == (None, 0, 1)
    for interval in (newcombe_paired(0, 0, 0, 0), tango_paired(0, 0, 0)):
        assert (interval.estimate, interval.lo, interval.hi) == (None, -1, 1)


@pytest.mark.parametrize("call", [lambda: wilson(3, 2), lambda: tango_paired(2, 2, 3), lambda: mcnemar_exact(-1, 2)])
def test_impossible_counts_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="negative"):
        call()


def test_newcombe_agrees_with_another_implementation() -> None:
    # Complete response before and after consolidation therapy (Cavo et al. 2012), as the test suite of the R package
    # contingencytables (Fagerland, Lydersen & Laake) prints it: estimate -0.0621 (95 % CI -0.1186 to -0.0046).
    # Without the n/2 correction of phi it would be -0.1174 to -0.0059.
    ours = newcombe_paired(59, 6, 16, 80)
    assert ours.estimate is not None
    assert (round(ours.estimate, 4), round(ours.lo, 4), round(ours.hi, 4)) == (-0.0621, -0.1186, -0.0046)


@pytest.mark.parametrize(
    ("b", "c", "n", "level", "limits"),
    [
        # As the R package ratesci (P. Laud; tests/testthat/test3.R) has them from the papers: Tango 1998, the example
        # with 32 pairs, and 44 pairs of contact lens disinfections at 90 %; Agresti & Min 2005, 86 patients in a
        # cross-over trial; Fagerland, Lydersen & Laake 2014 (Bentur et al. 2009, 21 children).
        (9, 3, 32, 0.95, (-0.027, 0.390)),
        (0, 1, 44, 0.90, (-0.096, 0.037)),
        (16, 8, 86, 0.95, (-0.020, 0.207)),
        (1, 7, 21, 0.95, (-0.517, -0.026)),
    ],
)
def test_tango_agrees_with_published_examples(
    b: int, c: int, n: int, level: float, limits: tuple[float, float]
) -> None:
    ours = tango_paired(b, c, n, level=level)
    assert (round(ours.lo, 3), round(ours.hi, 3)) == limits


def test_tango_p_is_small_exactly_where_the_interval_ends_below() -> None:
    for b, c, n in [(9, 3, 32), (0, 1, 44), (16, 8, 86), (0, 0, 50)]:
        hi = tango_paired(b, c, n, level=0.9).hi
        assert tango_p(b, c, n, hi) == pytest.approx(0.05, abs=1e-6)
        assert tango_p(b, c, n, hi + 0.01) < 0.05 < tango_p(b, c, n, hi - 0.01)
    assert tango_p(0, 0, 0, 0.05) == 1


def independent_newcombe(a: int, b: int, c: int, d: int) -> tuple[float, float]:
    """Method 10 with Wilson's limits as roots of the score equation rather than in closed form."""
    n, z = a + b + c + d, norm.ppf(0.975)

    def limits(k: int) -> np.ndarray:
        # (k/n - p)² = z² p (1 - p) / n as a polynomial in p.
        return np.sort(np.roots([1 + z * z / n, -2 * k / n - z * z / n, (k / n) ** 2]).real)

    (lo1, hi1), (lo2, hi2) = limits(a + b), limits(a + c)
    p1, p2 = (a + b) / n, (a + c) / n
    spread = p1 * (1 - p1) * p2 * (1 - p2)
    cross = a / n - p1 * p2  # (ad - bc) / n²
    numerator = cross if cross < 0 else max(cross - 1 / (2 * n), 0)
    phi = numerator / sqrt(spread) if spread > 1e-15 else 0
    x1, x2 = np.array([p1 - lo1, hi2 - p2]), np.array([hi1 - p1, p2 - lo2])
    matrix = np.array([[1, -phi], [-phi, 1]])
    return p1 - p2 - sqrt(x1 @ matrix @ x1), p1 - p2 + sqrt(x2 @ matrix @ x2)


def test_newcombe_agrees_with_an_independent_computation() -> None:
    rng = np.random.default_rng(1)
    tables = [tuple(map(int, rng.multinomial(n, rng.dirichlet([0.5] * 4)))) for n in (5, 20, 120) for _ in range(60)]
    for table in [*tables, (0, 30, 0, 0), (30, 0, 0, 0), (0, 0, 0, 30), (15, 0, 0, 15)]:
        ours = newcombe_paired(*table)
        assert (ours.lo, ours.hi) == pytest.approx(independent_newcombe(*table), abs=1e-9), table


def test_tango_limits_solve_the_score_equation() -> None:
    for b, c, n in [(5, 0, 41), (6, 16, 161), (40, 20, 160), (0, 0, 54), (1, 7, 21)]:
        ours = tango_paired(b, c, n)
        for limit in (ours.lo, ours.hi):
            assert restricted_score(b, c, n, limit) == pytest.approx(norm.ppf(0.975), abs=1e-6), (b, c, n)


def restricted_score(b: int, c: int, n: int, delta: float) -> float:
    """|score| with the nuisance probability found by maximizing the trinomial likelihood on a bracket."""

    def slope(q: float) -> float:
        return b / (q + delta) + c / q - 2 * (n - b - c) / (1 - 2 * q - delta)

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = brentq(slope, low + 1e-13, high - 1e-13, xtol=1e-16) if slope(low + 1e-13) > 0 else low
    return abs(b - c - n * delta) / sqrt(n * (2 * q + delta - delta**2))


def test_tango_at_the_ends() -> None:
    z2 = norm.ppf(0.975) ** 2
    zero = tango_paired(0, 0, 50)
    assert (zero.lo, zero.hi) == pytest.approx((-z2 / (50 + z2), z2 / (50 + z2)))
    top = tango_paired(30, 0, 30)
    assert (top.estimate, top.hi) == (1.0, 1.0)
    assert 0.5 < top.lo < 1
    mirrored = tango_paired(0, 30, 30)
    assert (mirrored.lo, mirrored.hi) == pytest.approx((-top.hi, -top.lo))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (6, 0), (5, 5), (12, 3), (40, 20)])
def test_mcnemar_agrees_with_statsmodels(b: int, c: int) -> None:
    expected = mcnemar([[10, b], [c, 10]], exact=True).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected)


def test_benjamini_hochberg_agrees_with_statsmodels() -> None:
    p = [0.03, 0.001, 0.2, 0.03, 0.9]
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])
    assert benjamini_hochberg([]) == []


@pytest.mark.parametrize("n", [20, 50, 120])
@pytest.mark.parametrize("p", [0.02, 0.1, 0.35, 0.8])
def test_wilson_covers_a_platform_effect(n: int, p: float) -> None:
    hits = np.random.default_rng(n).binomial(n, p, REPLICATIONS)
    covered = np.mean([wilson(int(k), n).covers(p) for k in hits])
    # Wilson's coverage oscillates around 95 % and has known dips at small np (Brown, Cai & DasGupta 2001, §3.1.1):
    # the test holds the simulation against the exact coverage, and the exact coverage against that paper's dips.
    exact = sum(binom.pmf(k, n, p) for k in range(n + 1) if wilson(k, n).covers(p))
    assert abs(covered - exact) < 4 * sqrt(exact * (1 - exact) / REPLICATIONS) + 1e-12
    assert exact > 0.92


CELLS = [
    (0.35, 0.0, 0.0, 0.65),
    (0.34, 0.01, 0.01, 0.64),
    (0.5, 0.0, 0.02, 0.48),
    (0.5, 0.0, 0.05, 0.45),
    (0.3, 0.01, 0.10, 0.59),
    (0.2, 0.15, 0.15, 0.5),
    (0.0, 0.3, 0.02, 0.68),
    (0.02, 0.02, 0.02, 0.94),
]


@pytest.mark.parametrize("n", [20, 50, 120])
@pytest.mark.parametrize("cells", CELLS)
def test_tango_covers_a_serving_difference(n: int, cells: tuple[float, ...]) -> None:
    tables = np.random.default_rng(n).multinomial(n, cells, REPLICATIONS)
    truth = cells[1] - cells[2]
    kinds, counts = np.unique(tables[:, 1:3], axis=0, return_counts=True)
    hit = [tango_paired(int(b), int(c), n).covers(truth) for b, c in kinds]
    assert counts[hit].sum() / REPLICATIONS >= LOWEST


def test_newcombe_undercovers_where_tango_does_not() -> None:
    # Why the effects do not use it: few discordant pairs, all one way, among rates near one half.
    n, cells = 50, (0.5, 0.0, 0.08, 0.42)
    tables = np.random.default_rng(5).multinomial(n, cells, REPLICATIONS)
    newcombe = np.mean([newcombe_paired(*map(int, t)).covers(-0.08) for t in tables])
    tango = np.mean([tango_paired(int(t[1]), int(t[2]), n).covers(-0.08) for t in tables])
    assert newcombe < LOWEST < tango


def test_a_component_that_is_always_zero_has_a_width() -> None:
    assert wilson(0, 120).hi > 0.02
    assert tango_paired(0, 0, 120).hi > 0.02 < -tango_paired(0, 0, 120).lo
