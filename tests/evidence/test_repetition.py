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
from probe.evidence.systems import GENERIC_SYSTEMS
from probe.scoring.base import TextScore, TokenScore
from probe.wire.signatures import Match
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


def null_sum(drawn: Sequence[tuple[int, ...]], twin: list[Case], chances: dict[str, TextChance], repeats: int) -> float:
    """Return the mean e-value of a route on which the weights wrote everything."""
    hosted = cases(drawn, repeats=repeats)
    norm = RepetitionNorm.measure(hosted, twin, chances)
    logs = [repetition(case, norm).log_e for case in hosted]
    return math.fsum(math.exp(log) for log in logs if log is not None) / len(hosted)


@pytest.mark.parametrize(("traces", "repeats"), [(2, 1), (3, 1), (4, 1), (2, 2)])
def test_with_scores_these_are_compound_e_values(traces: int, repeats: int) -> None:
    chances = {words(text): TextChance((p * RATE,) * 4) for text, p in WORLD.items()}
    total = 0.0
    for drawn in itertools.product(WORLD, repeat=traces * repeats):
        total += math.prod(WORLD[text] for text in drawn) * null_sum(drawn, TWIN, chances, repeats)
    assert 0.3 < total <= 1.0


def test_without_scores_these_are_compound_e_values() -> None:
    total = 0.0
    for drawn in itertools.product(WORLD, repeat=5):
        twin = cases(drawn[3:], prefix="w")
        total += math.prod(WORLD[text] for text in drawn) * null_sum(drawn[:3], twin, {}, 1)
    assert 0.2 < total <= 1.0


def test_without_scores_a_text_that_the_twin_wrote_accuses_nobody() -> None:
    """A route that samples colder than asked repeats what the twin says now and then; only scores would tell."""
    twin = cases([A, *((5, 90 + i) for i in range(60))], prefix="w")
    hosted = cases([A] * 70 + [(5, 40 + i) for i in range(30)])
    norm = RepetitionNorm.measure(hosted, twin, {})
    assert norm.share_if_model(words(A)) == 1.0
    assert max(repetition(case, norm).log_e or 0.0 for case in hosted) <= math.log(100 / 30)
    never = RepetitionNorm.measure(hosted, twin[1:], {})
    assert min(repetition(case, never).log_e or 0.0 for case in hosted[:70]) > math.log(20 * 100 / 70)


def test_traces_with_more_refusals_do_not_weigh_more() -> None:
    """The weights refuse three times where they wrote; where the platform did, once. Still a sum of n at most."""
    chances = {words(text): TextChance((p * RATE,) * 4) for text, p in WORLD.items()}
    platform = [make_case(A, name=f"p{i}", trace=f"p{i}") for i in range(2)]
    total = 0.0
    for drawn in itertools.product(WORLD, repeat=4):
        hosted = cases(drawn, repeats=2)
        norm = RepetitionNorm.measure([*platform, *hosted], TWIN, chances)
        null = math.fsum(math.exp(norm.log_es[case.exchange_id]) for case in hosted)
        total += math.prod(WORLD[text] for text in drawn) * null / (len(hosted) + len(platform))
    assert 0.2 < total <= 1.0


def test_a_sentence_that_the_weights_like_can_be_accused() -> None:
    """4 % of the weights' refusals, half of the route's: what e-BH asks of 83 copies among 160 is 20·160/83."""
    chances = {words(A): TextChance((0.04 * RATE,))}
    texts = [A] * 83 + [(5, 40 + i) for i in range(77)]
    norm = RepetitionNorm.measure(cases(texts), TWIN, chances)
    found = [repetition(case, norm) for case in cases(texts)]
    assert min(e.log_e or 0.0 for e in found[:83]) > math.log(20 * 160 / 83)
    assert {e.log_e for e in found[83:]} == {-60.0}
    # The likelihood ratio for the posterior is the plain one.
    assert found[0].llr == pytest.approx(math.log(82 / 159 / 0.04))


def test_a_declared_author_needs_no_e_value_and_does_not_count() -> None:
    said = Match("error", "declared_block", "gateway", "platform", "It says so.", "", "", "documented")
    hosted = cases([A] * 4 + [B] * 4)
    declared = [replace(case, exchange_id=f"d{i}", trace_id=f"d{i}", matches=(said,)) for i, case in enumerate(hosted)]
    chances = {words(A): TextChance((0.1 * RATE,)), words(B): TextChance((0.1 * RATE,))}
    alone = RepetitionNorm.measure(hosted, TWIN, chances)
    both = RepetitionNorm.measure([*hosted, *declared], TWIN, chances)
    assert both.log_es == alone.log_es


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
    assert found.log_e == pytest.approx(math.log(0.95 * 1e9))
    assert found.llr == pytest.approx(math.log(1e9))
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
    assert found.llr == pytest.approx(300 * math.log(10))
    assert found.log_e == pytest.approx(300 * math.log(10), rel=0.01)
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


def test_a_measured_temperature_replaces_the_stated_one() -> None:
    weights = Weights(3, favourite=0.05)
    score = weights.score(FAVOURITE, 0.6)
    hosted = [replace(case, score=score) for case in cases([FAVOURITE] * 9)]
    stated = [replace(case, score=score) for case in cases([FAVOURITE] * 9, temperature=0.5)]
    plain = {words(FAVOURITE): TextChance((0.05 * RATE,))}

    def share(found: list[Case], power: float | None, chances: dict[str, TextChance] = plain) -> float:
        return RepetitionNorm.measure(found, TWIN, chances, power=power).share_if_model(words(FAVOURITE))

    assert share(hosted, 2.0) == share(stated, None) == pytest.approx(share(hosted, 2.0, {}))
    assert share(hosted, 1.0) == share(hosted, None) == share(stated, 1.0) == pytest.approx(0.05)
    unscored = cases([FAVOURITE] * 9)
    filtered = [replace(case, score=score) for case in cases([FAVOURITE] * 9, top_p=0.9)]
    assert share(unscored, 2.0) == share(filtered, 2.0) == 1.0, "the twin's own use was at another temperature"
    norm = RepetitionNorm.measure(unscored, TWIN, plain, power=2.0)
    assert repetition(unscored[0], norm).log_e == -60.0
    # Colder, a system prompt's probability is not lower than at temperature 1.
    steered = {words(FAVOURITE): TextChance((0.05 * RATE,), ((0.3, 0.5), (0.01, 0.01)))}
    assert share(hosted, 2.0, steered) >= 0.4
    assert share(hosted, 0.5, steered) >= 0.4


def test_what_a_generic_system_prompt_makes_frequent_is_the_weights_own() -> None:
    hosted = cases([A] * 20 + [(5, 40 + i) for i in range(20)])
    plain = TextChance((0.001 * RATE,) * 3)
    steered = TextChance((0.001 * RATE,) * 3, ((0.0, 0.0), (0.3, 0.5), (0.1, 0.1)))
    accused, excused = (
        repetition(hosted[0], RepetitionNorm.measure(hosted, TWIN, {words(A): c})) for c in (plain, steered)
    )
    assert accused.log_e is not None
    assert excused.log_e is not None
    assert accused.log_e > math.log(500)
    assert excused.log_e < math.log(6)
    assert excused.facts["share_of_weights"] == pytest.approx(0.4)
    assert "generic system prompt" in excused.sentence
    assert "generic system prompt" in excused.facts["share_from"]
    assert "system" not in accused.sentence
    assert excused.facts["tail"] > accused.facts["tail"]
    weaker = TextChance((0.05 * RATE,) * 3, ((0.01,),))
    norm = RepetitionNorm.measure(hosted, TWIN, {words(A): weaker})
    assert norm.share_if_model(words(A)) == pytest.approx(0.05)
    assert not norm.steered


def test_the_generic_system_prompts_are_four_and_short() -> None:
    assert len(set(GENERIC_SYSTEMS)) == 4
    assert all(20 < len(system) < 200 for system in GENERIC_SYSTEMS)


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
    assert {round(e.llr, 3) for e in found} == {round(math.log(1499 / 2999 * 61), 3), 0.0}
    assert {e.log_e for e in found[1500:]} == {-60.0}
    assert all(math.log(0.9 * 0.95 * 60 * 2) < (e.log_e or 0.0) < math.log(60 * 2.1) for e in found[:1500])
