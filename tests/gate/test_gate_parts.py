"""Counts, greedy texts, texts set aside, and what a temperature explains."""

from dataclasses import replace

import pytest
from scipy.stats import binom

from probe.attribution.gate.cause import likeliest
from probe.attribution.gate.counts import counts_test
from probe.attribution.gate.greedy import ALLOWED, answers_needed, greedy_test, upper_limit
from probe.attribution.gate.texts import Texts
from probe.attribution.gate.values import SAMPLER
from probe.evidence.case import Case
from probe.evidence.sampler import Sampler
from tests.gate.gate_world import COLD, OTHER, answers, route


def with_surplus(values: list[int | None]) -> list[Case]:
    cases = answers(1, len(values))
    return [
        replace(
            case,
            reading=replace(
                case.reading,
                usage=replace(case.reading.usage, prompt_tokens=None if value is None else 30 + value),
            ),
        )
        for case, value in zip(cases, values, strict=True)
    ]


def test_a_constant_surplus_is_another_prompt() -> None:
    found = counts_test(with_surplus([24] * 19 + [0]))
    assert found.statistic == 24
    assert found.p == pytest.approx(float(binom.sf(18, 20, 0.1)))
    assert found.sentence == "The route reports 24 more prompt tokens than were sent, on 19 of 20 requests."
    assert "1 fewer" in counts_test(with_surplus([-1] * 6)).sentence


def test_counts_that_agree_or_deviate_now_and_then_are_no_difference() -> None:
    assert counts_test(with_surplus([0] * 10)).p == 1.0
    assert counts_test(with_surplus([0] * 19 + [-17])).p == 1.0


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([None] * 10, "Not asked: the route reports no prompt tokens."),
        ([24] * 4, "Not asked: 4 prompts report prompt tokens, 5 needed."),
        (list(range(10)), "(+0 to +9, n = 10), as those of another tokenizer do."),
        ([0] * 5 + [24] * 5, "numbers that vary"),
        ([], "Not asked: the route reports no prompt tokens."),
    ],
)
def test_counts_that_tell_nothing_are_not_tested(values: list[int | None], why: str) -> None:
    found = counts_test(with_surplus(values))
    assert found.p is None
    assert why in found.sentence


def test_without_the_twins_counts_nothing_can_be_compared() -> None:
    cases = [replace(case, prompt_tokens=None) for case in answers(1, 9)]
    assert counts_test(cases).sentence == "Not asked: the twin counts no tokens."


def cold(seed: int, n: int, **how: object) -> Texts:
    return Texts.of(answers(seed, n, COLD, **how))  # type: ignore[arg-type]


def test_the_twins_own_greedy_texts_never_leave_its_choice() -> None:
    found = greedy_test(cold(1, 100).cold, 0.05, 0.05)
    assert (found.statistic, found.p, found.distance) == (0.0, 1.0, 0.0)
    assert found.limit == pytest.approx(1 - 0.05 ** (1 / 100))
    assert found.detail["tokens_far"] == 0


def test_engines_that_differ_in_the_last_digits_are_no_other_weights() -> None:
    for noise in (0.005, 0.03):
        found = greedy_test(cold(2, 100, noise=noise).cold, 0.05, 0.05)
        assert found.p is not None
        assert found.p > 0.05


def test_lower_precision_and_other_weights_leave_it() -> None:
    for how in ({"noise": 0.35}, {"weights": OTHER}, {"real": Sampler(0.7)}):
        found = greedy_test(cold(3, 60, **how).cold, 0.05, 0.05)
        assert found.p is not None
        assert found.p < 1e-3
        assert found.distance == found.statistic
        assert found.detail["n_needed"] is None


def test_p_is_that_of_the_share_that_the_null_allows() -> None:
    texts = cold(4, 97).cold
    others = cold(4, 3, weights=OTHER).cold
    renamed = tuple(replace(text, case=replace(text.case, trace_id=f"o{n}")) for n, text in enumerate(others))
    found = greedy_test((*texts, *renamed), 0.05, 0.05)
    assert found.statistic == pytest.approx(0.03)
    assert found.p == pytest.approx(float(binom.sf(2, 100, ALLOWED)))


def test_how_many_answers_would_do() -> None:
    assert answers_needed(0, 1, 0.05, 0.05) == 59
    assert answers_needed(5, 100, 0.05, 0.05) is None
    some = answers_needed(1, 100, 0.05, 0.05)
    assert some is not None
    assert upper_limit(round(some / 100), some, 0.05) < 0.05
    assert upper_limit(7, 7, 0.05) == 1.0


def test_a_temperature_that_explains_the_texts_is_the_sampler() -> None:
    texts = Texts.of(route(5, 100, real=Sampler(0.6)))
    tests = {"counts": counts_test([]), "greedy": greedy_test(texts.cold, 0.05, 0.05)}
    blame = likeliest(["greedy"], tests, texts, alpha=0.05, delta=0.05, seed=0)
    assert blame.cause == SAMPLER
    assert "a temperature explains it" in blame.reason
