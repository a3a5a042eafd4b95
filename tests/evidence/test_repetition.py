"""The repetition detector: expectations summed over every way in which the weights could have answered."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from probe.evidence.case import Case
from probe.evidence.repetition import (
    RepetitionNorm,
    TextChance,
    _lower_refusal_rate,
    poisson_binomial_tail,
    repeated_texts,
    repetition,
)
from probe.scoring.base import TextScore, TokenScore
from tests.evidence.world import FAVOURITE, Weights, make_case, words

A, B, C, OWN = (1, 30, 31), (2, 32, 33), (3, 34, 35), (4, 36, 37)
WORLD = {A: 0.6, B: 0.3, C: 0.1}


def cases(texts: Sequence[tuple[int, ...]], *, repeats: int = 1, prefix: str = "t", **sampling: Any) -> list[Case]:
    return [
        make_case(text, name=f"{prefix}{i}", trace=f"{prefix}{i // repeats}", **sampling)
        for i, text in enumerate(texts)
    ]


TWIN = cases([OWN] * 60 + [(15, 30)] * 40, prefix="w")
"""A twin that refused 60 of 100, never in the words of the world."""
RATE = _lower_refusal_rate(TWIN)


def test_the_refusal_rate_is_taken_from_below() -> None:
    assert pytest.approx(0.4972, abs=1e-4) == RATE  # Clopper-Pearson, 60 of 100
    assert _lower_refusal_rate([]) == 0
    assert _lower_refusal_rate(cases([(15, 30)] * 50)) == 0, "a twin that never refused tells nothing of refusals"
    benign = [replace(case, control=True) for case in cases([(15, 30)] * 500)]
    faults = [replace(case, outcome="error") for case in cases([(15, 30)] * 500)]
    assert _lower_refusal_rate([*TWIN, *benign, *faults]) == RATE


@pytest.mark.parametrize("repeats", [1, 2])
def test_with_scores_the_e_value_has_expectation_one(repeats: int) -> None:
    chances = {words(text): TextChance((p * RATE,) * 4) for text, p in WORLD.items()}
    total = 0.0
    for drawn in itertools.product(WORLD, repeat=3 * repeats):
        hosted = cases(drawn, repeats=repeats)
        norm = RepetitionNorm.measure(hosted, TWIN, chances)
        found = repetition(hosted[0], norm)
        assert found.log_e is not None
        total += math.prod(WORLD[text] for text in drawn) * math.exp(found.log_e)
    assert total == pytest.approx(1.0, abs=1e-9)


def test_without_scores_the_e_value_has_expectation_at_most_one() -> None:
    total = 0.0
    for drawn in itertools.product(WORLD, repeat=6):
        hosted, twin = cases(drawn[:3]), cases(drawn[3:], prefix="w")
        found = repetition(hosted[0], RepetitionNorm.measure(hosted, twin, {}))
        assert found.log_e is not None
        total += math.prod(WORLD[text] for text in drawn) * math.exp(found.log_e)
    assert 0.5 < total <= 1.0


def test_a_text_does_not_testify_for_itself() -> None:
    hosted = cases([A, A, A, B, C], repeats=3)
    found = repetition(hosted[0], RepetitionNorm.measure(hosted, TWIN, {}))
    assert found.log_e == -60
    assert found.llr == 0
    assert found.facts["others"] == 0


def test_each_trace_counts_once() -> None:
    hosted = cases([A] * 5 + [A, B, B, B, B] + [C] * 5, repeats=5)
    norm = RepetitionNorm.measure(hosted, TWIN, {})
    assert (norm.refused_traces, norm.hosted_refusals) == (3, 15)
    assert norm.share_if_canned(hosted[0]) == pytest.approx((0.2 + 0.0) / 2)
    assert norm.share_if_canned(hosted[5]) == pytest.approx((1.0 + 0.0) / 2)


@pytest.mark.parametrize("hosted", [[], cases([A]), cases([A, A], repeats=2), cases([(15, 30)] * 4)])
def test_without_other_refusals_it_abstains(hosted: list[Case]) -> None:
    norm = RepetitionNorm.measure(hosted, TWIN, {})
    for case in hosted:
        assert repetition(case, norm).abstains


def test_two_refusals_are_compared_with_each_other() -> None:
    hosted = cases([A, A])
    found = repetition(hosted[0], RepetitionNorm.measure(hosted, TWIN, {words(A): TextChance((1e-9 * RATE,))}))
    assert found.log_e == pytest.approx(math.log(1e9))
    assert found.facts["tail"] == pytest.approx(1e-9)


def test_more_refusals_are_no_evidence() -> None:
    """A hidden prompt makes the weights refuse everything, in the same words: more copies, and no accusation."""
    chances = {words(A): TextChance((0.05 * 0.06,))}
    twin = cases([OWN] * 6 + [(15, 30)] * 94, prefix="w")
    texts = [A, *[(5, 40 + i) for i in range(19)]] * 5
    norm = RepetitionNorm.measure(cases(texts), twin, chances)
    found = repetition(cases(texts)[0], norm)
    assert found.log_e is not None
    assert found.log_e < 0
    silent = cases([(15, 30)] * 100, prefix="w")
    assert RepetitionNorm.measure(cases(texts), silent, chances).share_if_model(words(A)) == 1.0


def test_what_the_twin_wrote_itself_counts() -> None:
    hosted = cases([A] * 10)
    tiny = {words(A): TextChance((1e-12,))}
    alone = RepetitionNorm.measure(hosted, TWIN, tiny).share_if_model(words(A))
    seen = RepetitionNorm.measure(hosted, [*TWIN, *cases([A] * 3, prefix="v")], tiny).share_if_model(words(A))
    assert alone < 1e-11
    assert seen == pytest.approx(3 / 64)


def test_a_probability_that_underflows_stays_a_number() -> None:
    hosted = cases([A] * 10)
    found = repetition(hosted[0], RepetitionNorm.measure(hosted, TWIN, {words(A): TextChance((0.0, 0.0))}))
    assert found.log_e == pytest.approx(300 * math.log(10))
    empty = RepetitionNorm.measure(hosted, TWIN, {words(A): TextChance(())})
    assert empty.share_if_model(words(A)) == pytest.approx(1 / 61), "no probability is not the probability 0"


def test_another_sampler_makes_scores_at_temperature_one_useless() -> None:
    """Cold sampling repeats the favourite in most refusals; its probability at temperature 1 would accuse it."""
    weights = Weights(3, favourite=0.05)
    chances = {words(FAVOURITE): TextChance((0.05 * RATE,))}

    def share(**sampling: Any) -> float:
        score = weights.score(FAVOURITE, 0.6)
        hosted = [replace(case, score=score) for case in cases([FAVOURITE] * 9, **sampling)]
        return RepetitionNorm.measure(hosted, TWIN, chances).share_if_model(words(FAVOURITE))

    assert share() == pytest.approx(0.05)
    unknown = 1 / 61
    assert share(temperature=0) == share(top_p=0.9) == share(top_k=5) == share(presence_penalty=1.0) == unknown
    # At temperature 0.5 the favourite's squared probability is compared with the sum of squares: from above.
    first = weights.first(0.6)
    squares = math.fsum(math.exp(2 * log) for log in first.logs)
    true = math.exp(2 * weights.score(FAVOURITE, 0.6).tokens[0].logprob) / squares / RATE
    assert 0.9 * true < share(temperature=0.5) < 1.1 * true


def test_protection_by_another_prompt_and_by_other_weights() -> None:
    hosted = cases([A] * 10)
    chances = {words(A): TextChance((1e-9,))}
    other_prompt = RepetitionNorm.measure(hosted, TWIN, chances, prompt_differs=True)
    strange = TextScore((TokenScore(1, -30.0, (-0.1, -3.0), None),) * 9, 100)
    answer = replace(make_case((15, *range(40, 48)), trace="c", control=True), score=strange)
    other_weights = RepetitionNorm.measure([*hosted, *[answer] * 9], TWIN, chances)
    for norm, words_of in ((other_prompt, "another prompt"), (other_weights, "other weights or sampling")):
        found = repetition(hosted[0], norm)
        assert norm.protected
        assert found.log_e == found.llr == 0
        assert words_of in found.sentence


def test_repeated_texts_come_most_frequent_first() -> None:
    hosted = cases([C, A, B, B, A, A, (15, 30), (15, 30), ()])
    assert repeated_texts(hosted) == [words(A), words(B)]
    assert repeated_texts(cases([A, A], repeats=2)) == []


@settings(max_examples=100, deadline=None, derandomize=True)
@given(p=st.lists(st.floats(0, 1), max_size=9), at_least=st.integers(-1, 11))
def test_the_tail_against_every_outcome(p: list[float], at_least: int) -> None:
    total = math.fsum(
        math.prod(q if hit else 1 - q for q, hit in zip(p, hits, strict=True))
        for hits in itertools.product((False, True), repeat=len(p))
        if sum(hits) >= at_least
    )
    assert poisson_binomial_tail(p, at_least) == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize(("n", "p", "k"), [(200, 0.05, 30), (200, 2e-4, 200), (3000, 0.01, 29), (50, 1e-6, 9)])
def test_the_tail_keeps_its_digits(n: int, p: float, k: int) -> None:
    assert poisson_binomial_tail([p] * n, k) == pytest.approx(binom.sf(k - 1, n, p), rel=1e-8, abs=0)


def test_thousands_of_refusals() -> None:
    hosted = cases([A] * 1500 + [(5, 40 + i) for i in range(1500)])
    norm = RepetitionNorm.measure(hosted, TWIN, {})
    found = [repetition(case, norm) for case in hosted]
    assert {round(e.log_e or 0.0, 3) for e in found} == {round(math.log(1499 / 2999 * 61), 3), -60.0}
