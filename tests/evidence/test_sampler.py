"""What a sampler lets through: every order of filters is enumerated over every text that small weights can write."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.evidence.sampler import (
    DRIFT,
    Sampler,
    admitted,
    log_probability_at_most,
    surely_admitted,
)
from probe.evidence.tilt import SPARED, UNHEARD_OF, log_e_foreign, log_ratios, token_table, z_score
from probe.scoring.base import TextScore, TokenScore
from tests.evidence.test_tilt import Array, Tree

ORDERS = ("llama.cpp", "vllm", "transformers")


def drawn_from(p: Array, sampler: Sampler, order: str) -> Array:
    """The distribution that a server draws from, in the order in which it applies temperature and filters."""
    steps = {
        "llama.cpp": ("top_k", "top_p", "min_p", "temperature"),
        "vllm": ("temperature", "min_p", "top_k", "top_p"),
        "transformers": ("temperature", "top_k", "top_p", "min_p"),
    }[order]
    q = p / p.sum()
    for step in steps:
        ranked = np.argsort(-q, kind="stable")
        if step == "temperature":
            q = q**sampler.power
        elif step == "top_k" and sampler.top_k:
            q[ranked[sampler.top_k :]] = 0.0
        elif step == "top_p" and sampler.top_p < 1:
            before = np.cumsum(q[ranked]) - q[ranked]
            before[0] = -1.0
            q[ranked[before >= sampler.top_p]] = 0.0
        elif step == "min_p" and sampler.min_p:
            q[q < sampler.min_p * q.max()] = 0.0
        q = q / q.sum()
    return np.asarray(q)


SAMPLERS = st.builds(
    Sampler,
    temperature=st.sampled_from([0.25, 0.7, 1.0, 1.5]),
    top_p=st.sampled_from([1.0, 0.95, 0.8, 0.5]),
    top_k=st.sampled_from([0, 0, 2, 3, 20]),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 0.3]),
)


def texts(tree: Tree, sampler: Sampler, order: str) -> Iterator[tuple[tuple[int, ...], float]]:
    def grow(text: tuple[int, ...], mass: float) -> Iterator[tuple[tuple[int, ...], float]]:
        q = drawn_from(tree.next(text), sampler, order)
        yield text, mass * float(q[0])
        for token in range(1, len(q)):
            if mass * q[token] > 0:
                yield from grow((*text, token), mass * float(q[token]))

    yield from grow((), 1.0)


@pytest.mark.parametrize("order", ORDERS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.1, 0.5, 3.0]),
    top=st.integers(0, 6),
    sampler=SAMPLERS,
    spared=st.sampled_from([0, SPARED]),
)
def test_the_e_value_has_expectation_at_most_one_in_every_order(
    order: str, seed: int, sharpness: float, top: int, sampler: Sampler, spared: int
) -> None:
    tree = Tree(seed, size=6, depth=4, sharpness=sharpness)
    total, mass = 0.0, 0.0
    for text, p in texts(tree, sampler, order):
        score = tree.score(text, top)
        table = admitted(token_table(score), sampler)
        assert not table.outside.any(), "it was drawn"
        total += p * math.exp(log_e_foreign(table, sampler.power, spared))
        mass += p
        assert math.isfinite(z_score(table, sampler.power))
        if p > 0:
            spoken = math.log(p) - float(np.log(drawn_from(tree.next(text), sampler, order)[0]))
            assert log_probability_at_most(token_table(score), sampler) >= spoken - 1e-4 * (1 + len(text))
    assert mass == pytest.approx(1.0)
    assert total <= 1.0


@pytest.mark.parametrize("order", ORDERS)
def test_where_the_cut_is_known_exactly_the_ratio_spends_its_whole_expectation(order: str) -> None:
    # Far apart probabilities: no drift decides about a place, so that the larger set is the true one.
    p = np.array([0.6, 0.3, 0.06, 0.03, 0.006, 0.004])
    sampler = Sampler(top_k=2)
    q = drawn_from(p, sampler, order)
    top = tuple(map(float, np.log(p)))
    ratios = sum(
        q[i] * np.exp(log_ratios(admitted(token_table(one(top[i], top, 6)), sampler), spared=0)) for i in range(2)
    )
    assert ratios == pytest.approx(1.0, abs=1e-9)


def one(logprob: float, top: tuple[float, ...], vocabulary: int, n: int = 1) -> TextScore:
    return TextScore((TokenScore(0, logprob, top, None),) * n, vocabulary)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 100_000),
    size=st.integers(2, 40),
    top=st.integers(1, 40),
    sampler=SAMPLERS,
    order=st.sampled_from(ORDERS),
)
def test_a_host_of_other_precision_draws_inside_the_larger_set_and_never_misses_the_smaller(
    seed: int, size: int, top: int, sampler: Sampler, order: str
) -> None:
    rng = np.random.default_rng(seed)
    p = np.sort(rng.dirichlet(np.full(size, rng.choice([0.1, 0.5, 2.0]))) + 1e-12)[::-1]
    p /= p.sum()
    host = p * np.exp(rng.uniform(-DRIFT, DRIFT, size))
    possible = drawn_from(host, sampler, order) > 0
    logs = np.log(p)
    listed = tuple(map(float, logs[:top]))
    for token in range(size):
        table = token_table(one(float(logs[token]), listed, size))
        if possible[token]:
            assert not admitted(table, sampler).outside[0]
    sure = surely_admitted(token_table(one(float(logs[0]), listed, size)), sampler)[0]
    assert possible[: len(sure)][sure].all()


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("settings_", [{"top_p": 0.9}, {"top_k": 4}, {"min_p": 0.1}, {"top_p": 0.8, "min_p": 0.02}])
def test_z_of_own_texts_is_not_above_zero_on_average(power: float, order: str, settings_: dict[str, Any]) -> None:
    sampler = Sampler(temperature=1 / power, **settings_)
    rng = np.random.default_rng(4)
    for _ in range(20):
        p = np.sort(rng.dirichlet(np.full(12, 0.5)) + 1e-9)[::-1]
        p /= p.sum()
        q, logs = drawn_from(p, sampler, order), np.log(p)
        found = [
            (q[i], z_score(admitted(token_table(one(float(logs[i]), tuple(map(float, logs)), 12)), sampler), power))
            for i in range(12)
        ]
        assert math.fsum(share * z for share, z in found) <= 1e-6


def test_a_known_filter_sharpens_the_test() -> None:
    # Every token is one of three that make 99.9 %; the text takes the fourth, of which the sampler lets none through.
    p = np.array([0.5, 0.3, 0.199, 0.001])
    top = tuple(map(float, np.log(p)))
    table = token_table(one(top[3], top, 4, n=6))
    sampler = Sampler(top_p=0.9)
    plain, sharp = log_e_foreign(table), log_e_foreign(admitted(table, sampler))
    assert sharp > plain + 50
    assert admitted(table, sampler).outside.all()
    few = token_table(TextScore((*one(top[0], top, 4, n=10).tokens, *one(top[3], top, 4, n=SPARED).tokens), 4))
    assert log_e_foreign(admitted(few, sampler)) < 0, "the tokens that speak most against the weights are left out"
    assert log_e_foreign(admitted(table, sampler)) <= (6 - SPARED) * UNHEARD_OF
    assert z_score(admitted(table, sampler)) > 100


def test_a_tail_that_may_be_drawn_from_stays_in() -> None:
    # Two tokens are listed, twenty may be drawn: a token that is not listed is inside as long as it may be near.
    top = (math.log(0.3), math.log(0.2))
    inside = admitted(token_table(one(math.log(0.19), top, 1000)), Sampler(top_k=20))
    assert not inside.outside[0]
    assert inside.others[0] == 998
    cut = admitted(token_table(one(math.log(0.19), top, 1000)), Sampler(min_p=0.5))
    assert not cut.outside[0]
    assert cut.others[0] == math.floor((0.5 + 1e-5) / (0.15 * math.exp(-2 * DRIFT)))
    gone = admitted(token_table(one(math.log(0.001), top, 1000)), Sampler(min_p=0.5))
    assert gone.outside[0]


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ({}, Sampler()),
        ({"temperature": None, "top_k": -1, "top_p": 1.0, "min_p": 0}, Sampler()),
        ({"temperature": 0}, Sampler(temperature=0.0)),
        ({"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05}, Sampler(0.7, 0.9, 40, 0.05)),
        ({"temperature": 0.7, "seed": 3, "max_tokens": 5}, Sampler(0.7)),
        ({"temperature": "hot"}, None),
        ({"temperature": True}, None),
        ({"temperature": -1}, None),
        ({"temperature": math.nan}, None),
        ({"top_p": "0.9"}, None),
        ({"top_p": -0.5}, None),
        ({"top_k": 2.5}, None),
        ({"min_p": 1.5}, None),
    ],
)
def test_a_request_states_a_sampler_or_none(stated: dict[str, Any], found: Sampler | None) -> None:
    assert Sampler.of(stated) == found


def test_what_takes_one_token_only_is_greedy() -> None:
    assert [Sampler(t).greedy for t in (0.0, 0.05, 0.1, 1.0)] == [True, True, False, False]
    assert Sampler(top_k=1).greedy
    assert Sampler(0.0).power == math.inf
    assert log_probability_at_most(token_table(one(-3.0, (-0.1, -3.0), 9)), Sampler(0.0)) == 0
    assert Sampler(0.7, 0.9).at(2.0) == Sampler(0.5, 0.9)
    assert Sampler(0.7, 0.9).unfiltered() == Sampler(0.7)
    assert not Sampler(0.7).filters
    table = token_table(one(-3.0, (-0.1, -3.0), 9))
    assert admitted(table, Sampler(0.7)) is table


def test_tables_without_tokens_or_lists_stay_tables() -> None:
    for score in (TextScore((), 9), one(-3.0, (), 9), one(-3.0, (-math.inf,), 9)):
        table = admitted(token_table(score), Sampler(0.8, 0.9, 5, 0.1))
        assert math.isfinite(log_e_foreign(table, 1.25))
        assert math.isfinite(log_probability_at_most(token_table(score), Sampler(0.8, 0.9, 5, 0.1)))
