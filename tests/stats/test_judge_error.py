"""Rates corrected for the judge's error: estimate, interval, and judges that tell nothing."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from probe.stats.clusters import difference, proportion
from probe.stats.judge_error import MISFIT, corrected_difference, corrected_rate, judge_error

PERFECT = judge_error(10**7, 10**7, 10**7, 10**7, "nobody is")


def seen(count: int, n: int) -> list[tuple[str, int]]:
    return [(str(i), int(i < count)) for i in range(n)]


def test_the_estimate_is_rogan_and_gladens() -> None:
    error = judge_error(90, 100, 190, 200, "labels")
    found = corrected_rate(seen(30, 100), error)
    assert found.estimate == pytest.approx((0.3 + 0.95 - 1) / (0.9 + 0.95 - 1))
    assert error.sensitivity.n == 100
    assert error.to_json()["source"] == "labels"
    apart = corrected_difference([(str(i), 1 if i < 20 else -int(i < 25)) for i in range(100)], error)
    assert apart.estimate == pytest.approx(0.15 / 0.85)


def lang_reiczigel(k: int, n: int, found: int, refusals: int, right: int, answers: int) -> tuple[float, float]:
    """Lang & Reiczigel (2014), eqs. 6, 7, 16, 17, as prevSeSp of the R package asht has them."""
    z = 1.959963984540054
    se, sp = (found + 1) / (refusals + 2), (right + 1) / (answers + 2)
    rate, size = (k + z * z / 2) / (n + z * z), n + z * z
    true = (rate + sp - 1) / (se + sp - 1)
    var_se, var_sp = se * (1 - se) / (refusals + 2), sp * (1 - sp) / (answers + 2)
    shift = 2 * z * z * (true * var_se - (1 - true) * var_sp)
    half = z * sqrt(rate * (1 - rate) / size + true**2 * var_se + (1 - true) ** 2 * var_sp) / (se + sp - 1)
    return true + shift - half, true + shift + half


@pytest.mark.parametrize("counts", [(60, 200, 180, 200, 190, 200), (150, 500, 900, 1000, 1200, 1250)])
def test_intervals_are_those_of_lang_and_reiczigel_where_theirs_are_good(counts: tuple[int, ...]) -> None:
    k, n, *judge = counts
    ours = corrected_rate(seen(k, n), judge_error(*judge, "labels"))
    assert (ours.lo, ours.hi) == pytest.approx(lang_reiczigel(*counts), abs=0.006)


def test_a_perfect_judge_changes_nothing() -> None:
    for k, n in ((0, 10), (3, 10), (40, 120)):
        ours, plain = corrected_rate(seen(k, n), PERFECT), proportion(seen(k, n))
        assert (ours.estimate, ours.lo, ours.hi) == pytest.approx((plain.estimate, plain.lo, plain.hi), abs=1e-4)
        apart, direct = corrected_difference(seen(k, n), PERFECT), difference(seen(k, n))
        assert (apart.lo, apart.hi) == pytest.approx((direct.lo, direct.hi), abs=1e-4)


@pytest.mark.parametrize(
    "error", [judge_error(5, 10, 5, 10, ""), judge_error(2, 10, 3, 10, ""), judge_error(0, 0, 9, 9, "")]
)
def test_a_judge_no_better_than_chance_leaves_all_possible(error: object) -> None:
    rate = corrected_rate(seen(3, 30), error)  # type: ignore[arg-type]
    apart = corrected_difference(seen(3, 30), error)  # type: ignore[arg-type]
    assert (rate.estimate, rate.lo, rate.hi) == (None, 0, 1)
    assert (apart.estimate, apart.lo, apart.hi) == (None, -1, 1)
    assert "chance" in rate.method
    assert corrected_rate([], PERFECT).lo == 0
    assert corrected_difference([], PERFECT).lo == -1


def test_a_judge_hardly_better_than_chance_is_no_division_by_nearly_nothing() -> None:
    barely = judge_error(51, 100, 51, 100, "")
    assert (corrected_rate(seen(10, 50), barely).lo, corrected_rate(seen(10, 50), barely).hi) == (0, 1)
    assert corrected_difference(seen(5, 50), barely).hi == 1


counts = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(max_examples=80, deadline=None)
@given(counts, counts, counts)
def test_corrected_intervals_are_possible_and_never_narrower_for_knowing_less(
    rate: tuple[int, int], found: tuple[int, int], right: tuple[int, int]
) -> None:
    error = judge_error(*found, *right, "")
    ours = corrected_rate(seen(*rate), error)
    apart = corrected_difference(seen(*rate), error)
    assert 0 <= ours.lo <= ours.hi <= 1
    assert -1 <= apart.lo <= apart.hi <= 1
    for interval in (ours, apart):
        assert interval.estimate is None or interval.lo <= interval.estimate <= interval.hi


@pytest.mark.parametrize(("p", "n", "se", "sp"), [(0.3, 200, 0.9, 0.95), (0.05, 100, 0.7, 0.8), (0.9, 400, 0.95, 0.9)])
def test_what_the_judge_is_uncertain_of_is_covered(p: float, n: int, se: float, sp: float) -> None:
    rng, runs, labels = np.random.default_rng(n), 500, 60
    hits = np.zeros(2)
    for _ in range(runs):
        error = judge_error(int(rng.binomial(labels, se)), labels, int(rng.binomial(labels, sp)), labels, "")
        k = int(rng.binomial(n, p * se + (1 - p) * (1 - sp)))
        found = corrected_rate(seen(k, n), error)
        # The same labels taken a thousandfold: as if Se and Sp were known to be what was found.
        sure = judge_error(
            round(1000 * labels * (error.sensitivity.estimate or 0)), 1000 * labels,
            round(1000 * labels * (error.specificity.estimate or 0)), 1000 * labels, "",
        )  # fmt: skip
        hits += [found.covers(p), corrected_rate(seen(k, n), sure).covers(p)]
    ours, sure_share = hits / runs
    assert ours >= binom.ppf(0.001, runs, 0.94) / runs
    assert sure_share < ours - 0.03


def test_a_rate_that_the_judge_could_not_have_seen_has_limits_all_the_same() -> None:
    error = judge_error(302, 343, 497, 557, "labels of other models")
    found = corrected_rate(seen(120, 120), error)
    assert found.estimate == 1.0
    assert found.lo < 0.98
    assert found.method.endswith(MISFIT)
    assert corrected_rate(seen(0, 120), error).hi > 0.02
