"""Equivalence: what p and interval say is the same, and "not found" is not "none"."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from probe.stats.clusters import difference
from probe.stats.equivalence import tost
from probe.stats.intervals import tango_p

values = st.lists(
    st.tuples(st.sampled_from([str(i) for i in range(40)]), st.sampled_from([-1, 0, 0, 0, 1])), max_size=60
)


def pairs(up: int, down: int, n: int) -> list[tuple[str, int]]:
    return [(str(i), 1 if i < up else -1 if i < up + down else 0) for i in range(n)]


@settings(max_examples=60, deadline=None)
@given(values, st.sampled_from([0.02, 0.1, 0.3, 0.6]), st.sampled_from([0.01, 0.05, 0.2]))
def test_interval_p_and_answer_say_the_same(given_values: list[tuple[str, int]], delta: float, alpha: float) -> None:
    found = tost(given_values, delta, alpha=alpha)
    inside = bool(given_values) and -delta < found.interval.lo and found.interval.hi < delta
    assert found.equivalent == inside == (found.p < alpha)
    assert found.interval == difference(given_values, level=1 - 2 * alpha)
    mirrored = tost([(cluster, -value) for cluster, value in given_values], delta, alpha=alpha)
    assert mirrored.p == pytest.approx(found.p, abs=1e-6)


def test_p_is_that_of_tangos_test_at_the_nearer_margin() -> None:
    found = tost(pairs(12, 4, 400), 0.05)
    assert found.p == pytest.approx(tango_p(12, 4, 400, 0.05))
    assert found.equivalent
    assert found.to_json()["interval"]["level"] == 0.9


def test_too_little_is_not_equivalent() -> None:
    assert (tost([], 0.05).p, tost([], 0.05).equivalent, tost([], 0.05).interval.estimate) == (1.0, False, None)
    for few in ([("a", 0)], [("a", 0)] * 500, pairs(0, 0, 20)):
        assert not tost(few, 0.05).equivalent
    assert tost(pairs(0, 0, 100), 0.05).equivalent
    # Five repeats of 20 traces that all agree are 20 units, not 100.
    assert not tost([(str(i % 20), 0) for i in range(100)], 0.05).equivalent
    assert not tost(pairs(30, 0, 100), 0.05).equivalent


@pytest.mark.parametrize(("delta", "alpha"), [(0.0, 0.05), (-0.1, 0.05), (0.05, 0.5), (0.05, 0.0)])
def test_margins_that_are_none_are_refused(delta: float, alpha: float) -> None:
    with pytest.raises(ValueError, match="Equivalence takes"):
        tost(pairs(0, 0, 10), delta, alpha=alpha)


@pytest.mark.parametrize(("n", "up", "down"), [(60, 0.1, 0.0), (60, 0.2, 0.1), (150, 0.12, 0.02)])
def test_a_difference_of_delta_is_rarely_called_equivalent(n: int, up: float, down: float) -> None:
    # 10 points apart at delta = 10 points: in one run of twenty at most, and a sixth of that for the discrete corner.
    rng = np.random.default_rng(n)
    tables, counts = np.unique(rng.multinomial(n, [up, down, 1 - up - down], 1500), axis=0, return_counts=True)
    wrong = sum(int(t) for (b, c, _), t in zip(tables, counts, strict=True) if tost(pairs(b, c, n), 0.1).equivalent)
    assert wrong <= binom.ppf(0.999, 1500, 0.06)
