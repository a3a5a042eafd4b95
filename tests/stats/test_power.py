"""Powers and sizes against sums over all tables, other people's tests, and published numbers."""

from itertools import product
from math import comb

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from probe.stats.intervals import mcnemar_exact, tango_paired, wilson
from probe.stats.power import (
    MOST,
    mcnemar_power,
    n_for_width,
    pairs_by_formula,
    pairs_for_power,
    pairs_for_width,
    undecided_after,
)
from probe.stats.sequential import SequentialTest


def by_tables(n: int, up: float, down: float, alpha: float) -> float:
    """The power as the sum of the trinomial over every table whose test rejects."""
    total = 0.0
    for b, c in product(range(n + 1), repeat=2):
        if b + c <= n and mcnemar_exact(b, c) <= alpha:
            same = 1.0 - up - down
            total += comb(n, b) * comb(n - b, c) * up**b * down**c * same ** (n - b - c)
    return total


@pytest.mark.parametrize(
    ("n", "up", "down", "alpha"),
    [(25, 0.3, 0.1, 0.05), (12, 0.7, 0.3, 0.05), (20, 0.5, 0.0, 0.01), (18, 0.2, 0.2, 0.1), (5, 0.9, 0.1, 0.05)],
)
def test_power_is_the_sum_over_all_tables(n: int, up: float, down: float, alpha: float) -> None:
    assert mcnemar_power(n, up, down, alpha=alpha) == pytest.approx(by_tables(n, up, down, alpha), abs=1e-12)


def test_power_agrees_with_another_library_s_test_on_drawn_tables() -> None:
    chance, runs, n = np.random.default_rng(20260), 4000, 114
    drawn = chance.multinomial(n, [0.12, 0.02, 0.86], size=runs)
    found = sum(mcnemar([[0, b], [c, 0]], exact=True).pvalue <= 0.05 for b, c, _ in drawn) / runs
    assert mcnemar_power(n, 0.12, 0.02) == pytest.approx(found, abs=4 * (0.8 * 0.2 / runs) ** 0.5)


def test_fewer_than_six_discordant_pairs_never_reject() -> None:
    assert mcnemar_power(5, 1.0, 0.0) == 0.0
    assert mcnemar_power(6, 1.0, 0.0) == pytest.approx(1.0)
    assert pairs_for_power(1.0, 0.0, power=0.99) == 6


@pytest.mark.parametrize(("up", "down", "formula", "exact"), [(0.12, 0.02, 107, 114), (0.06, 0.01, 217, 228)])
def test_ten_and_five_points(up: float, down: float, formula: int, exact: int) -> None:
    by_formula = pairs_by_formula(up, down)
    assert by_formula is not None
    assert round(by_formula) == formula
    assert pairs_for_power(up, down) == exact
    # What makes the two numbers differ: with the formula's pairs, the exact test has a few points less power.
    assert 0.75 < mcnemar_power(formula, up, down) < 0.8 <= mcnemar_power(exact, up, down)


@pytest.mark.parametrize(("up", "down"), [(0.9, 0.1), (0.6, 0.4), (0.75, 0.2), (0.12, 0.02), (0.0, 0.3)])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_power_never_falls_below_again(up: float, down: float, power: float) -> None:
    n = pairs_for_power(up, down, power=power)
    assert n is not None
    assert mcnemar_power(n - 1, up, down) < power
    assert min(mcnemar_power(more, up, down) for more in range(n, 3 * n + 60)) >= power


def test_directions_are_alike() -> None:
    assert pairs_for_power(0.2, 0.05) == pairs_for_power(0.05, 0.2)
    assert pairs_by_formula(0.2, 0.05) == pytest.approx(pairs_by_formula(0.05, 0.2) or 0.0)


def test_nothing_to_find_and_too_much_to_ask() -> None:
    assert pairs_for_power(0.1, 0.1) is None
    assert pairs_by_formula(0.0, 0.0) is None
    assert mcnemar_power(100, 0.0, 0.0) == 0.0
    assert pairs_for_power(0.0101, 0.01) is None
    assert n_for_width(0.5, 0.0001) is None
    assert mcnemar_power(MOST, 0.0101, 0.01) < 0.2


@pytest.mark.parametrize(("rate", "width"), [(0.0, 0.1), (0.5, 0.1), (0.1, 0.05), (1.0, 0.278)])
def test_units_for_a_width(rate: float, width: float) -> None:
    n = n_for_width(rate, width)
    assert n is not None
    # Counts are whole: beside the expected one they give slightly other widths.
    widths = {k: wilson(k, n).hi - wilson(k, n).lo for k in (int(rate * n), min(int(rate * n) + 1, n))}
    assert min(widths.values()) <= width * 1.001
    fewer = [wilson(k, n - 2) for k in (int(rate * (n - 2)), min(int(rate * (n - 2)) + 1, n - 2))]
    assert max(interval.hi - interval.lo for interval in fewer) > width * 0.999


def test_nothing_seen_in_ten() -> None:
    found = wilson(0, 10)
    assert found.hi - found.lo == pytest.approx(0.278, abs=0.0005)
    assert n_for_width(0.0, found.hi - found.lo + 1e-9) == 10
    assert n_for_width(0.5, 0.1) == 381  # Newcombe 1998, Stat Med 17:857: 4 p q z² / w² less z²


@pytest.mark.parametrize(
    ("up", "down", "width"), [(0.12, 0.02, 0.1), (0.0, 0.0, 0.1), (0.5, 0.25, 0.2), (1.0, 0.0, 0.1)]
)
def test_pairs_for_a_width(up: float, down: float, width: float) -> None:
    n = pairs_for_width(up, down, width)
    assert n is not None
    many = 100 * n  # a hundredfold sample at a design effect of 100: expected counts that are nearly whole
    found = tango_paired(round(up * many), round(down * many), many, design_effect=100.0)
    assert found.hi - found.lo == pytest.approx(width, rel=0.02)
    assert found.hi - found.lo <= width * 1.001


@pytest.mark.parametrize(
    ("up", "down", "alpha"), [(-0.1, 0.2, 0.05), (0.7, 0.4, 0.05), (0.1, 0.2, 0.0), (0.1, 0.2, 1.0)]
)
def test_what_is_no_share_is_refused(up: float, down: float, alpha: float) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1|add up"):
        mcnemar_power(10, up, down, alpha=alpha)
    with pytest.raises(ValueError, match=r"between 0 and 1|add up"):
        pairs_for_power(up, down, alpha=alpha)


@pytest.mark.parametrize("wrong", [0.0, 1.0, 1.5, -0.1])
def test_impossible_wishes_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="power"):
        pairs_for_power(0.2, 0.1, power=wrong)
    with pytest.raises(ValueError, match="width"):
        n_for_width(0.2, wrong)
    with pytest.raises(ValueError, match="rate"):
        n_for_width(-0.2, 0.1)
    if wrong not in {1.0, 1.5}:
        with pytest.raises(ValueError, match="width"):
            pairs_for_width(0.2, 0.1, wrong)


@pytest.mark.parametrize(("up", "down", "most"), [(0.4, 0.05, 60), (0.1, 0.1, 40), (1.0, 0.0, 12)])
def test_a_sequential_run_is_open_as_long_as_the_test_itself_says(up: float, down: float, most: int) -> None:
    chance, runs = np.random.default_rng(7), 100
    still = undecided_after(up, down, most)
    assert still.shape == (most + 1,)
    assert still[0] == pytest.approx(1.0)
    assert (np.diff(still) <= 1e-12).all()
    stopped = []
    for _ in range(runs):
        test = SequentialTest(delta=1e-9)
        for value in chance.choice([1, -1, 0], size=most, p=[up, down, 1 - up - down]):
            test.add(float(value))
            if test.answer is not None:
                break
        stopped.append(test.n if test.answer is not None else most + 1)
    for n in (most // 4, most // 2, most):
        drawn = sum(stop > n for stop in stopped) / runs
        assert still[n] == pytest.approx(drawn, abs=4 * (0.25 / runs) ** 0.5)


def test_six_of_one_side_decide_and_nothing_never_does() -> None:
    assert list(undecided_after(1.0, 0.0, 7).round(9)) == [1, 1, 1, 1, 1, 1, 0, 0]
    assert undecided_after(0.0, 0.0, 5).tolist() == [1.0] * 6
    assert undecided_after(0.2, 0.2, 400)[-1] > 0.95
