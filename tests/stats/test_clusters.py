"""Intervals over repeats of traces: the floor, the effective number of units, and the bootstrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaincinv
from scipy.stats import binom

from probe.stats.blaker import blaker_lower
from probe.stats.clusters import (
    FEWEST,
    cautious_design_effect,
    cluster_bootstrap,
    design_effect,
    difference,
    difference_limits,
    proportion,
    proportion_limits,
)
from probe.stats.intervals import tango_paired, wilson

RATES = np.arange(0.01, 0.995, 0.0025)


def each_once(values: list[int]) -> list[tuple[str, int]]:
    return [(str(i), value) for i, value in enumerate(values)]


def repeated(rows: np.ndarray) -> list[tuple[str, int]]:
    return [(str(i), int(value)) for i, row in enumerate(rows) for value in row]


def test_the_design_effect_of_repeats() -> None:
    assert design_effect([]) == 1
    assert design_effect([("a", 1), ("b", 0), ("c", 1)]) == 1
    same = [(trace, value) for trace, value in (("a", 1), ("b", 0), ("c", 1), ("d", 0)) for _ in range(3)]
    assert design_effect(same) == pytest.approx(3)
    assert design_effect([(trace, 0) for trace, _ in same]) == pytest.approx(3)
    mixed = [(str(i), j) for i in range(40) for j in (0, 1)]
    assert design_effect(mixed) == 1


def test_few_informative_traces_leave_the_design_effect_near_its_largest() -> None:
    # Three traces of sixty refused, one time in five each: nothing shows how strongly repeats agree.
    rows = np.zeros((60, 5), dtype=int)
    rows[:3, 0] = 1
    assert design_effect(repeated(rows)) == 1
    assert cautious_design_effect(repeated(rows)) == pytest.approx((3 * 1 + 2 * 5) / 5)
    assert cautious_design_effect(repeated(np.zeros((60, 5), dtype=int))) == 5
    assert cautious_design_effect(each_once([0, 1, 0])) == 1
    assert cautious_design_effect([("a", 1)] * 4) == 4
    many = np.tile([[0, 1]], (500, 1))
    assert cautious_design_effect(repeated(many)) < 1.01


def by_definition(k: int, n: int, alpha: float) -> float:
    """Blaker's lower limit by search over a grid: the first rate whose acceptability is above alpha."""
    rates = np.linspace(1e-6, 1 - 1e-6, 4001)
    mass = binom.pmf(np.arange(n + 1)[:, None], n, rates)
    tails = np.minimum(np.cumsum(mass, axis=0), mass[::-1].cumsum(axis=0)[::-1])
    # P(the smaller tail is no larger than the one observed), Blaker 2000, eq. (2).
    acceptable = (mass * (tails <= tails[k] * (1 + 1e-9))).sum(axis=0)
    return float(rates[np.argmax(acceptable > alpha)])


@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 10), (6, 10), (9, 10), (3, 37), (30, 37), (2, 120)])
def test_blakers_limit_is_the_first_acceptable_rate(k: int, n: int) -> None:
    for alpha in (0.05, 0.12):
        assert blaker_lower(k, n, alpha) == pytest.approx(by_definition(k, n, alpha), abs=3e-4)
        # Nested in Clopper and Pearson's exact interval.
        assert blaker_lower(k, n, alpha) >= betaincinv(k, n - k + 1, alpha / 2) - 1e-12


def test_blakers_limits_are_those_of_the_r_package_blakerci() -> None:
    # The example in its documentation: binom.blaker.limits(3, 10), J. Klaschka, BlakerCI 1.0-6.
    limits = blaker_lower(3, 10, 0.05), 1 - blaker_lower(7, 10, 0.05)
    assert limits == pytest.approx((0.08726443, 0.61941066), abs=1e-8)


@pytest.mark.parametrize("n", [8, 9, 10, 12, 17, 33, 80])
def test_a_rate_is_covered_at_94_percent_everywhere_and_plain_wilson_is_not(n: int) -> None:
    k = np.arange(n + 1)
    lowest = []
    for limits in (
        [proportion_limits(int(x), n, 0.95) for x in k],
        [(i.lo, i.hi) for i in (wilson(int(x), n) for x in k)],
    ):
        lo, hi = np.array(limits).T
        inside = (lo[None] <= RATES[:, None]) & (hi[None] >= RATES[:, None])
        lowest.append((binom.pmf(k, n, RATES[:, None]) * inside).sum(axis=1).min())
    assert lowest[0] >= 0.94
    assert lowest[1] < 0.933


def test_zero_of_ten_is_what_wilson_says() -> None:
    assert (proportion(each_once([0] * 10)).lo, round(proportion(each_once([0] * 10)).hi, 3)) == (0, 0.278)
    for n in (8, 9, 10, 20, 500):
        assert proportion(each_once([0] * n)).hi == pytest.approx(wilson(0, n).hi)
        assert difference(each_once([0] * n)).hi == pytest.approx(wilson(0, n).hi)


@pytest.mark.parametrize(("n", "up", "down"), [(10, 0.9, 0.1), (15, 0.7, 0.3), (50, 0.98, 0.0), (30, 0.3, 0.0)])
def test_a_difference_is_covered_where_plain_tango_falls_short(n: int, up: float, down: float) -> None:
    truth, plain, ours = up - down, 0.0, 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            rest = max(1 - up - down, 0.0)
            mass = binom.pmf(b, n, up) * (
                binom.pmf(c, n - b, down / (down + rest)) if down + rest > 0 else float(b == n)
            )
            if mass < 1e-12:
                continue
            plain += mass * tango_paired(b, c, n).covers(truth)
            lo, hi = difference_limits(b, c, n, 0.95)
            ours += mass * (lo - 1e-12 <= truth <= hi + 1e-12)
    assert plain < 0.935 <= ours


small = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([-1, 0, 1])), max_size=24)


@settings(max_examples=60, deadline=None)
@given(small, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_limits_enclose_the_estimate_stay_possible_and_mirror(values: list[tuple[str, int]], level: float) -> None:
    whole, flipped = difference(values, level=level), difference([(c, -v) for c, v in values], level=level)
    assert (whole.lo, whole.hi) == pytest.approx((-flipped.hi, -flipped.lo), abs=1e-9)
    rate = proportion([(c, abs(v)) for c, v in values], level=level)
    for interval, lowest in ((whole, -1), (rate, 0)):
        assert interval.n == len(values)
        assert lowest <= interval.lo <= (interval.estimate or 0.0) <= interval.hi <= 1
        assert interval.hi - interval.lo > 0
    if values:
        wider = difference(values, level=0.995)
        assert wider.lo <= whole.lo + 1e-9
        assert wider.hi >= whole.hi - 1e-9
    assert (whole.estimate is None) == (not values)


@settings(max_examples=40, deadline=None)
@given(small.filter(bool), st.integers(2, 4))
def test_exact_copies_of_every_answer_tell_nothing_new(values: list[tuple[str, int]], times: int) -> None:
    traces = each_once([value for _, value in values])
    copies = [pair for pair in traces for _ in range(times)]
    once, again = difference(traces), difference(copies)
    assert (again.lo, again.hi) == pytest.approx((once.lo, once.hi), abs=1e-9) or len(traces) > 1
    assert again.hi - again.lo >= (once.hi - once.lo) * 0.99


def test_repeats_that_agree_are_covered_where_single_units_are_not() -> None:
    # 60 traces of 5 repeats, a rate of 3 %, 70 % of the traces repeat themselves exactly.
    rng = np.random.default_rng(31)
    hits = np.zeros(3)
    for _ in range(600):
        steady, refuses = rng.random((60, 1)) < 0.7, rng.random((60, 1)) < 0.03
        rows = np.where(steady, refuses, rng.random((60, 5)) < 0.03).astype(int)
        values, k = repeated(rows), int(rows.sum())
        hits += [
            proportion(values).covers(0.03),
            wilson(k, 300, design_effect=design_effect(values)).covers(0.03),
            wilson(k, 300).covers(0.03),
        ]
    ours, plain, naive = hits / 600
    assert ours >= binom.ppf(0.001, 600, 0.94) / 600
    assert plain < 0.88
    assert naive < 0.8


def test_the_bootstrap_agrees_with_the_other_interval_where_both_are_good() -> None:
    rng = np.random.default_rng(4)
    own = rng.beta(0.5, 0.5, 200)
    values = [(str(i), int(rng.random() < own[i])) for i in range(200) for _ in range(3)]
    boot, other = cluster_bootstrap(values, seed=1), proportion(values)
    assert boot.method == "cluster bootstrap (BCa)"
    assert boot.n == 600
    assert (boot.lo, boot.hi) == pytest.approx((other.lo, other.hi), abs=0.015)
    naive = cluster_bootstrap([(str(i), value) for i, (_, value) in enumerate(values)], seed=1)
    assert boot.hi - boot.lo > 1.2 * (naive.hi - naive.lo)


def test_the_bootstrap_is_reproducible_and_knows_strata() -> None:
    values = [(f"{family}{i}", 1.0 if family == "x" else 0.0) for family in "xy" for i in range(50)]
    values += [(f"x{i}", 0.0) for i in range(12)]
    strata = {cluster: cluster[0] for cluster, _ in values}
    free, within = cluster_bootstrap(values, seed=3), cluster_bootstrap(values, seed=3, strata=strata)
    assert within == cluster_bootstrap(values, seed=3, strata=strata)
    assert free == cluster_bootstrap(list(reversed(values)), seed=3)
    # Nearly all of the variance lies between the strata, which are not drawn.
    assert within.hi - within.lo < 0.5 * (free.hi - free.lo)


def test_the_bootstrap_does_not_collapse() -> None:
    equal = cluster_bootstrap([(str(i // 3), 0.0) for i in range(30)])
    assert "design effect" in equal.method
    assert (equal.lo, equal.hi) == pytest.approx((-wilson(0, 10).hi, wilson(0, 10).hi))
    assert cluster_bootstrap([(str(i // 3), 0.0) for i in range(30)], lowest=0.0).lo == 0
    for values in ([("a", 1.0)], [("a", 0.5), ("b", -0.5)], [(str(i), float(i < FEWEST - 1)) for i in range(90)]):
        found = cluster_bootstrap(values)
        assert "design effect" in found.method
        assert found.hi - found.lo > 0.05
    assert cluster_bootstrap([]).estimate is None
    # One trace per family, and one family of one trace: strata of one cannot be drawn from alone.
    alone = [(str(i), float(i % 2)) for i in range(40)]
    for strata in ({str(i): str(i) for i in range(40)}, {str(i): str(min(i, 1)) for i in range(40)}):
        found = cluster_bootstrap(alone, strata=strata)
        assert 0.25 < found.hi - found.lo < 0.4


@pytest.mark.parametrize(("spread", "copies"), [(0.1, 3), (0.45, 3)])
def test_clustered_intervals_cover(spread: float, copies: int) -> None:
    # 40 traces; a trace's own probability is 0.5 ± spread, so the population rate is 0.5.
    rng = np.random.default_rng(7)
    hits = np.zeros(3)
    runs = 200
    for _ in range(runs):
        own = 0.5 + spread * rng.choice([-1, 1], (40, 1))
        rows = (rng.random((40, copies)) < own).astype(int)
        values = repeated(rows)
        boot = cluster_bootstrap(values, resamples=300, seed=int(rng.integers(1000)))
        hits += [proportion(values).covers(0.5), boot.covers(0.5), wilson(int(rows.sum()), 40 * copies).covers(0.5)]
    ours, boot_share, naive = hits / runs
    assert min(ours, boot_share) >= binom.ppf(0.001, runs, 0.94) / runs
    if spread == 0.45:
        assert naive < 0.85
