"""The tilting test: expectations are summed over every text that small weights can write, not sampled."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.evidence.tilt import (
    SPARED,
    TILTS,
    UNHEARD_OF,
    TokenTable,
    ending,
    log_e_foreign,
    log_factors,
    log_partition,
    log_probability,
    log_ratios,
    token_table,
    z_score,
)
from probe.scoring.base import TextScore, TokenScore
from tests.evidence.world import Weights, foreign

Array = npt.NDArray[np.float64]


class Tree:
    """Weights over ``size`` tokens, 0 being the end, with a distribution of their own after every beginning."""

    def __init__(self, seed: int, size: int, depth: int, sharpness: float) -> None:
        self._seed, self._size, self._depth, self._sharpness = seed, size, depth, sharpness

    def next(self, text: tuple[int, ...]) -> Array:
        if len(text) == self._depth:
            return np.asarray(np.eye(self._size)[0])
        rng = np.random.default_rng([self._seed, len(text), *text])
        p: Array = np.asarray(rng.dirichlet(np.full(self._size, self._sharpness)) + 1e-12)
        p /= p.sum()
        return p

    def texts(self, power: float = 1.0, keep: int | None = None) -> Iterator[tuple[tuple[int, ...], float]]:
        """Yield every text and its probability: p^power, among the ``keep`` most probable tokens where given."""

        def grow(text: tuple[int, ...], mass: float) -> Iterator[tuple[tuple[int, ...], float]]:
            p = self.next(text) ** power
            if keep is not None:
                p[np.argsort(-p, kind="stable")[keep:]] = 0.0
            p /= p.sum()
            yield text, mass * float(p[0])
            for token in range(1, self._size):
                if mass * p[token] > 0:
                    yield from grow((*text, token), mass * float(p[token]))

        yield from grow((), 1.0)

    def score(self, text: tuple[int, ...], top: int, *, with_end: bool = False) -> TextScore:
        tokens = []
        for place, token in enumerate((*text, 0) if with_end else text):
            with np.errstate(divide="ignore"):
                logs = np.log(self.next(text[:place]))
            listed = tuple(sorted(map(float, logs), reverse=True)[:top])
            tokens.append(TokenScore(token, float(logs[token]), listed, None))
        return TextScore(tuple(tokens), self._size)


def test_with_its_end_and_the_whole_distribution_the_ratio_has_expectation_one() -> None:
    tree = Tree(1, size=5, depth=4, sharpness=0.4)
    for power in (0.5, 1.0, 2.5):
        expected = np.zeros(len(TILTS))
        for text, p in tree.texts(power):
            expected += p * np.exp(log_ratios(token_table(tree.score(text, 5, with_end=True)), power, spared=0))
        assert expected == pytest.approx(1.0, abs=1e-6)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.1, 0.5, 3.0]),
    top=st.integers(0, 5),
    power=st.sampled_from([0.5, 1.0, 1.0, 1.4, 4.0]),
    keep=st.sampled_from([None, None, 2, 3]),
    spared=st.sampled_from([0, SPARED]),
)
def test_the_e_value_has_expectation_at_most_one(
    seed: int, sharpness: float, top: int, power: float, keep: int | None, spared: int
) -> None:
    tree = Tree(seed, size=5, depth=4, sharpness=sharpness)
    found = [
        (p, log_e_foreign(token_table(tree.score(text, top)), power, spared)) for text, p in tree.texts(power, keep)
    ]
    assert math.fsum(p for p, _ in found) == pytest.approx(1.0)
    assert math.fsum(p * math.exp(log_e) for p, log_e in found) <= 1.0


def geometric(length: int, size: int, e: float) -> TextScore:
    """Texts that end with probability ``e`` at every place, and else go on with any other token."""
    other = math.log((1.0 - e) / (size - 1))
    top = tuple(sorted([math.log(e), *[other] * (size - 1)], reverse=True))
    return TextScore((TokenScore(1, other, top, None),) * length, size)


@pytest.mark.parametrize("e", [0.02, 0.5, 0.9])
def test_the_unscored_end_is_paid_for(e: float) -> None:
    def expectation(*, paid: bool, spared: int) -> float:
        total = 0.0
        for length in range(300):
            table = token_table(geometric(length, 200, e))
            logs = log_ratios(table, spared=spared) - (ending(200) if paid else 0.0)
            p = length * math.log1p(-e) + math.log(e)
            total += float(np.exp(np.logaddexp.reduce(logs) - math.log(len(logs)) + p))
        return total

    assert expectation(paid=True, spared=0) <= 1.0
    assert expectation(paid=True, spared=SPARED) <= 1.0
    if e == 0.5:
        assert expectation(paid=False, spared=0) > 10.0, "without paying, texts that could have ended would count"


@given(
    p=st.lists(st.floats(1e-12, 1.0), min_size=2, max_size=40),
    top=st.integers(0, 40),
    power=st.floats(0.05, 8.0),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_bounds_on_the_partition_hold_whatever_the_tail(p: list[float], top: int, power: float) -> None:
    logs = np.sort(np.log(np.array(p) / math.fsum(p)))[::-1]
    listed = tuple(map(float, logs[:top]))
    table = token_table(TextScore((TokenScore(0, float(logs[0]), listed, 1),), len(p)))
    true = float(np.log(np.exp(power * logs).sum()))
    assert log_partition(table, power, above=True)[0] >= true - 1e-9
    assert log_partition(table, power, above=False)[0] <= true + 1e-9
    if top >= len(p):
        assert log_partition(table, power, above=True)[0] == pytest.approx(true, abs=1e-4 / math.exp(true))


def test_rounding_of_the_reported_probabilities_does_not_hide_the_tail() -> None:
    # A server in single precision reports 0.999999 and its rounding as a sure thing; 700 tokens share the rest.
    tail, size = 1e-6 / 700, 701
    true = math.log(math.exp(0.1 * math.log1p(-1e-6)) + 700 * tail**0.1)
    reported = TextScore((TokenScore(0, 0.0, (0.0, math.log(tail)), 1),), size)
    assert log_partition(token_table(reported), 0.1, above=True)[0] >= true


def table_of(surprisals: list[float]) -> TokenTable:
    top = tuple(map(float, np.log(np.array([0.6, 0.2, 0.1, 0.05]))))
    return token_table(TextScore(tuple(TokenScore(9, -value, top, None) for value in surprisals), 1000))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    surprisals=st.lists(st.floats(0.0, 30.0), min_size=1, max_size=30),
    more=st.floats(0.0, 30.0),
    spared=st.integers(0, 5),
    power=st.sampled_from([0.7, 1.0, 2.0]),
    data=st.data(),
)
def test_a_more_surprising_token_never_exonerates_and_sparing_never_accuses(
    surprisals: list[float], more: float, spared: int, power: float, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(surprisals) - 1))
    raised = [*surprisals[:place], surprisals[place] + more, *surprisals[place + 1 :]]
    before = log_e_foreign(table_of(surprisals), power, spared)
    assert log_e_foreign(table_of(raised), power, spared) >= before - 1e-9
    assert log_e_foreign(table_of(surprisals), power, spared + 1) <= before + 1e-9
    assert log_probability(table_of(raised), power) <= log_probability(table_of(surprisals), power) + 1e-9


def test_the_words_that_begin_a_refusal_are_left_out() -> None:
    plain = [0.5] * 10
    for surprise in (5.0, 20.0, 1e6):
        assert log_e_foreign(table_of([*plain, surprise, surprise])) <= log_e_foreign(table_of(plain))
        assert log_e_foreign(table_of([surprise] * 3)) > log_e_foreign(table_of([0.5] * 3))


def test_nothing_is_more_surprising_than_rounding_allows() -> None:
    assert log_e_foreign(table_of([1e4] * 9)) == log_e_foreign(table_of([UNHEARD_OF] * 9)) < math.inf
    assert log_e_foreign(table_of([math.inf] * 9)) == log_e_foreign(table_of([UNHEARD_OF] * 9))


def one(logprob: float, top: tuple[float, ...], vocabulary: int = 768, n: int = 1) -> TextScore:
    return TextScore((TokenScore(1, logprob, top, None),) * n, vocabulary)


@pytest.mark.parametrize(
    "score",
    [
        TextScore((), 768),
        TextScore((), 0),
        one(0.0, (0.0,)),
        one(0.0, (0.0,), n=40),
        one(-1e-7, (1e-7, -17.0), n=40),
        one(-0.7, (-0.7, -0.7), 2, n=40),
        one(-0.7, (-0.7, -0.7), 0, n=40),
        one(-0.7, (), n=40),
        one(0.0, (0.0, -math.inf, -math.inf), n=40),
        one(0.0, (0.0, -1e4, -1e4), 3, n=40),
        one(-800.0, (-0.01, -5.0), n=2),
    ],
)
@pytest.mark.parametrize("power", [0.5, 1.0, 10.0])
def test_odd_scores_give_numbers_and_accuse_nobody(score: TextScore, power: float) -> None:
    table = token_table(score)
    assert log_e_foreign(table, power) < 0
    assert math.isfinite(z_score(table, power))
    assert -math.inf < log_probability(table, power) <= 0
    assert np.isfinite(log_factors(table, 0.5, power)).all()


def test_an_unknown_vocabulary_is_taken_for_a_large_one() -> None:
    known, unknown = (log_e_foreign(token_table(one(-5.0, (-0.01, -6.0), v, n=20))) for v in (768, 0))
    assert unknown < known


def test_z_is_standard_normal_for_own_texts_and_large_for_others() -> None:
    weights, rng = Weights(5), np.random.default_rng(5)
    texts = [weights.refusal(rng) for _ in range(400)]
    z = np.array([z_score(token_table(weights.score(text, 1.0))) for text in texts])
    assert abs(z.mean()) < 4 / math.sqrt(len(z))
    assert 0.8 < z.std() < 1.2
    assert z_score(token_table(weights.score(foreign(rng), 1.0))) > 10


def test_power_and_size_on_simulated_weights() -> None:
    weights, rng = Weights(6), np.random.default_rng(6)
    needed = math.log(20)

    def share(texts: Iterator[tuple[int, ...]]) -> float:
        return float(np.mean([log_e_foreign(token_table(weights.score(text, 0.5))) >= needed for text in texts]))

    assert share(weights.refusal(rng) for _ in range(400)) <= 0.01
    assert share(foreign(rng) for _ in range(100)) == 1.0
    assert share(weights.warm(rng, 3.0) for _ in range(100)) >= 0.9
    # A host that samples colder than it says accuses nobody.
    cold = [
        log_e_foreign(token_table(weights.score(text, 0.5)), 0.5) for text in itertools.islice(own(weights, rng), 300)
    ]
    assert max(cold) < needed


def own(weights: Weights, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    while True:
        yield weights.refusal(rng)
