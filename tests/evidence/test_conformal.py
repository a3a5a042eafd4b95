"""Ranks as e-values: the expectation under exchangeability is computed, not simulated."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.evidence.case import Case
from probe.evidence.conformal import BETS, MOST, References, e_of_rank, llr_of, log_e_from_rank, p_value, rank_of
from probe.wire.values import Reading

SCORES = st.lists(st.integers(0, 6).map(float) | st.floats(-1e6, 1e6), min_size=1, max_size=40)


def case(name: str, outcome: str, *, control: bool = False, trace: str = "", state: str = "answer") -> Case:
    reading = Reading(state, text="Hm." if state == "answer" else "")  # type: ignore[arg-type]
    return Case(name, trace or f"t-{name}", control, outcome, reading)


@given(SCORES)
def test_the_expectation_is_at_most_one_for_any_bag(bag: list[float]) -> None:
    """Each member of the bag is the tested one with the same probability."""
    left_out = [(bag[i], bag[:i] + bag[i + 1 :]) for i in range(len(bag))]
    assert sum(math.exp(log_e_from_rank(score, rest)) for score, rest in left_out) / len(bag) <= 1.0 + 1e-9


@given(SCORES, st.floats(0.01, 1.0))
def test_p_values_are_no_smaller_than_uniform(bag: list[float], level: float) -> None:
    below = sum(p_value(bag[i], bag[:i] + bag[i + 1 :]) <= level for i in range(len(bag)))
    assert below / len(bag) <= level + 1e-12


@pytest.mark.parametrize("n", [10, 23, 50, 250])
def test_without_ties_the_wagers_are_worth_exactly_what_is_staked(n: int) -> None:
    assert sum(e_of_rank(rank, n) for rank in range(1, n + 2)) / (n + 1) == pytest.approx(1.0)
    assert sum(BETS.values()) < 1.0
    assert e_of_rank(n + 1, n) == pytest.approx(1.0 - sum(BETS.values())), "never 0"


def test_fifty_answers_are_enough_to_reach_twenty() -> None:
    assert log_e_from_rank(5.0, [1.0] * 50) > math.log(20)
    assert log_e_from_rank(5.0, [5.0] * 50) < 0, "a tie is no oddness"
    assert rank_of(1.0 + 1e-13, [1.0] * 50) == 51, "nor are last digits"
    assert llr_of(math.log(0.05), 50) == -0.7
    assert llr_of(9.0, 50) == pytest.approx(math.log(51))


def test_who_is_compared_with_whom() -> None:
    cases = [
        *(case(f"c{i}", "complied", control=True) for i in range(3)),
        case("refused-control", "refused", control=True),
        case("cut-control", "cut", control=True, state="truncated"),
        case("failed", "error", control=True, state="error"),
        case("a", "complied", trace="A"),
        case("b", "refused", trace="A"),
        case("c", "complied", trace="B"),
        case("d", "cut", trace="B", state="truncated"),
    ]
    found = References.pick(cases)

    def names(tested: Case) -> set[str]:
        return {cases[i].exchange_id for i in found.of(tested)}

    assert names(cases[7]) == {"c0", "c1", "c2", "refused-control", "c"}, "whole texts, of other traces"
    assert names(cases[9]) == {"c0", "c1", "c2", "refused-control", "cut-control"}, "answered controls"
    assert names(cases[3]) == {"c0", "c1", "c2", "a", "c"}, "never itself"
    assert names(cases[4]) == {"c0", "c1", "c2", "refused-control"}


def test_controls_come_first_where_there_are_many() -> None:
    cases = [case(f"a{i}", "complied") for i in range(400)] + [
        case(f"c{i}", "complied", control=True) for i in range(40)
    ]
    found = References.pick(cases)
    assert len(found.texts) == MOST
    assert sum(cases[i].control for i in found.texts) == 40
    gaps = [b - a for a, b in itertools.pairwise(sorted(i for i in found.texts if i < 400))]
    assert max(gaps) <= 2, "evenly spaced"
