"""The likelihood detector: what it can test, what genuine texts allow it to say, and what protects a route."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.evidence.case import Case
from probe.evidence.likelihood import MIN_TOKENS, RATIOS, WHOLE, LikelihoodNorm, likelihood, served_otherwise
from probe.evidence.tilt import TILTS
from tests.evidence.world import FAVOURITE, Text, Weights, foreign, make_case

WEIGHTS = Weights(11)
RNG = np.random.default_rng(11)
STRANGE = foreign(np.random.default_rng(1))


def scored(text: Text, *, weights: Weights = WEIGHTS, control: bool = False, **sampling: Any) -> Case:
    case = make_case(text, control=control, score=weights.score(text, 0.5), **sampling)
    return replace(case, outcome="complied") if control else case


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (make_case(STRANGE), "no twin scores texts"),
        (scored(STRANGE[: MIN_TOKENS - 1]), "only 3 tokens"),
        (scored((), control=True), "only 0 tokens"),
        (scored(STRANGE, temperature=0), "at temperature 0"),
        (scored(STRANGE, temperature="hot"), "at temperature hot"),
        (scored(STRANGE, temperature=True), "at temperature True"),
        (scored(STRANGE, presence_penalty=0.5, repeat_penalty="x"), "repeat_penalty, presence_penalty"),
    ],
)
def test_it_abstains_and_says_why(case: Case, why: str) -> None:
    found = likelihood(case, LikelihoodNorm())
    assert found.abstains
    assert found.llr == 0
    assert why in found.sentence
    assert LikelihoodNorm.measure([case]).own == ()


def test_a_foreign_text_is_evidence_and_an_own_one_is_not() -> None:
    norm = LikelihoodNorm.measure([scored(WEIGHTS.refusal(RNG)) for _ in range(100)])
    assert len(norm.own) == 100
    strange, own = likelihood(scored(STRANGE), norm), likelihood(scored(WEIGHTS.refusal(RNG)), norm)
    assert strange.log_e is not None
    assert own.log_e is not None
    assert strange.log_e > 20
    assert strange.llr > 20
    assert "far less probable" in strange.sentence
    assert "probability" in strange.exhibit
    assert own.log_e < 0 > own.llr
    assert "as probable as" in own.sentence
    assert list(own.facts[RATIOS]) == [str(tilt) for tilt in TILTS]
    assert own.facts[WHOLE] >= own.facts["log_e"]


def test_filters_leave_it_testable_and_do_not_accuse() -> None:
    # top_k = 2: drawn from the two most probable tokens at every place.
    rng = np.random.default_rng(2)
    logs = []
    for _ in range(100):
        text = [int(rng.integers(2))]
        while len(text) < 20:
            at = WEIGHTS.following(text[-1], len(text))
            p = np.exp(at.logs[list(at.order[:2])])
            text.append(int(at.order[int(rng.random() > p[0] / p.sum())]))
        found = likelihood(scored(tuple(text), top_k=2, top_p=0.9, min_p=0.05), LikelihoodNorm())
        assert found.log_e is not None
        logs.append(found.log_e)
    assert np.exp(logs).mean() <= 1.0
    assert max(logs) < math.log(20)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    own=st.lists(st.floats(-80, 80), max_size=60),
    controls=st.lists(st.floats(-80, 80), max_size=20),
    log_e=st.floats(-80, 80),
    less=st.floats(0, 20),
)
def test_genuine_texts_only_lower_the_evidence(
    own: list[float], controls: list[float], log_e: float, less: float
) -> None:
    norm = LikelihoodNorm(tuple(sorted([*own, *controls])), tuple(sorted(controls)))
    assert norm.cap(log_e) <= log_e
    assert norm.cap_ratio(log_e) >= 0
    assert norm.cap(log_e - less) <= norm.cap(log_e) + 1e-12
    if all(value < log_e for value in norm.own):
        assert norm.cap(log_e) == log_e
        assert norm.cap_ratio(log_e) == math.inf
    more = LikelihoodNorm(tuple(sorted([*norm.own, 100.0])), norm.controls)
    assert more.cap_ratio(log_e) <= norm.cap_ratio(log_e) + math.log((len(norm.own) + 2) / (len(norm.own) + 1)) + 1e-12


@pytest.mark.parametrize("n", [1, 5, 60, 1000])
def test_where_genuine_texts_reach_as_far_the_cap_is_an_e_value_by_exchangeability(n: int) -> None:
    # n + 1 exchangeable scores, all beyond what the weights allow: each is the tested one with probability 1/(n+1). The
    # largest has no rank among the others and keeps its value; the rest must leave it room within expectation 1.
    values = [float(value) for value in range(100, 101 + n)]
    capped = [math.exp(LikelihoodNorm(tuple(v for v in values if v != tested)).cap(tested)) for tested in values[:-1]]
    assert math.fsum(capped) / (n + 1) < 1.0


def test_controls_of_other_weights_protect_the_route() -> None:
    other = Weights(12)
    answers = [scored(other.text(RNG, 0.0), control=True) for _ in range(20)]
    twins = [scored(WEIGHTS.text(RNG, 0.0), control=True) for _ in range(20)]
    assert served_otherwise(answers)
    assert not served_otherwise(twins)
    assert not served_otherwise(answers[:1]), "one odd answer is not a route"
    assert not served_otherwise([replace(case, control=False) for case in answers])
    assert not served_otherwise([replace(case, outcome="refused") for case in answers])
    norm = LikelihoodNorm.measure(twins + answers)
    assert norm.served_otherwise
    # Also where the rank among them alone brings the e-value below 1: the text is foreign, and must not look genuine.
    for protected in (norm, LikelihoodNorm(own=(100.0,) * 9, controls=(100.0,) * 9)):
        found = likelihood(scored(STRANGE), protected)
        assert found.log_e == found.llr == 0
        assert "so are the route's answers to controls" in found.sentence
        assert RATIOS not in found.facts
        assert found.facts[WHOLE] > 20


def test_under_another_prompt_it_does_not_accuse_but_may_exonerate() -> None:
    norm = LikelihoodNorm(prompt_differs=True)
    strange, own = likelihood(scored(STRANGE), norm), likelihood(scored(FAVOURITE), norm)
    assert strange.log_e == strange.llr == 0
    assert "the model saw another prompt" in strange.sentence
    assert own.log_e is not None
    assert own.log_e < 0 > own.llr
