"""Temperature 0: margins of genuine texts under other precision, and of texts that the weights did not write."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.evidence.greedy import RATES, TURNED, GreedyNorm, Margins, margins_of
from probe.evidence.sampler import Sampler
from probe.evidence.tilt import SPARED, TILTS, token_table
from probe.scoring.base import TextScore, TokenScore
from tests.evidence.test_estimate import REFUSAL, WEIGHTS, draw
from tests.evidence.world import Text, foreign

GREEDY = Sampler(0.0)


def margins(text: Text) -> Margins:
    return Margins.of(token_table(WEIGHTS.score(text, REFUSAL)))


def genuine(seed: int, n: int, noise: float = 0.15) -> list[Margins]:
    rng = np.random.default_rng(seed)
    return [margins(draw(rng, GREEDY, noise=noise)) for _ in range(n)]


def table_of(values: list[float]) -> Margins:
    top = (-0.2, -2.5)
    return Margins.of(token_table(TextScore(tuple(TokenScore(0, -0.2 - v, top, None) for v in values), 50)))


def test_margins_are_measured_from_the_most_probable_token() -> None:
    found = table_of([0.0, 0.0, 0.1, 1.0, 4.0, 7.0])
    assert found.tokens == 6
    assert found.total == pytest.approx(1.0 - TURNED)
    assert found.mean == pytest.approx((1.0 - TURNED) / 6)
    assert found.largest == pytest.approx(7.0)
    assert (found.turned, found.not_first, found.at) == (3, 4, 5)
    assert margins_of(token_table(TextScore((TokenScore(0, -3.0, (), None),), 9))).tolist() == [3.0]
    assert table_of([5.0] * SPARED).total == 0


def test_a_foreign_text_stands_out_and_a_genuine_one_does_not() -> None:
    norm = GreedyNorm(tuple(genuine(1, 80)), tuple(genuine(2, 30)))
    assert norm.enough
    assert not norm.served_otherwise
    rng = np.random.default_rng(3)
    strange = margins(foreign(rng))
    assert norm.log_e(strange) >= math.log(20)
    assert norm.log_ratios(strange).max() > 10
    assert norm.cap_ratio(strange) == math.inf
    fresh = genuine(4, 300)
    e_values = [math.exp(norm.log_e(found)) for found in fresh]
    assert np.mean(e_values) <= 1
    assert np.mean([norm.log_ratios(found).max() > 0 for found in fresh]) < 0.01
    assert len(RATES) == len(TILTS), "the verdict compares routes by columns"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.1, 2.0, 5.0]), st.integers(1, 30)), min_size=11, max_size=60))
def test_by_exchangeability_the_expectation_is_at_most_one(bag: list[tuple[float, int]]) -> None:
    # Each of the bag is the tested one with the same probability, whatever the texts are.
    members = [table_of([margin] * n) for margin, n in bag]
    e_values = [
        math.exp(GreedyNorm(tuple(members[:i] + members[i + 1 :])).log_e(member)) for i, member in enumerate(members)
    ]
    assert math.fsum(e_values) / len(e_values) <= 1 + 1e-9


def test_other_precision_on_the_route_widens_the_null() -> None:
    twin = genuine(1, 60, noise=0.0)
    fine, coarse = (
        GreedyNorm((*twin, *genuine(2, 30, 0.0))),
        GreedyNorm((*twin, *(odd := genuine(2, 30, 0.6))), tuple(odd)),
    )
    assert sum(m.turned for m in odd) > 0
    flipped = max(odd, key=lambda m: m.total)
    assert coarse.log_e(flipped) < math.log(20) <= fine.log_e(flipped)
    assert coarse.cap_ratio(flipped) < math.inf
    assert coarse.highest_rate > fine.highest_rate


def test_controls_that_are_mostly_no_greedy_texts_protect_the_route() -> None:
    rng = np.random.default_rng(6)
    strange = tuple(margins(foreign(rng)) for _ in range(12))
    assert GreedyNorm(strange, strange).served_otherwise
    assert not GreedyNorm((), ()).served_otherwise
    assert not GreedyNorm((), (*genuine(1, 30), *strange)).served_otherwise


def test_few_texts_say_nothing() -> None:
    few = GreedyNorm(tuple(genuine(1, 5)))
    assert not few.enough
    assert few.log_e(table_of([9.0] * 9)) == 0
    assert TURNED > 0
