"""The likelihood detector: what it can test, what genuine texts allow it to say, and what protects a route."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.evidence.case import Case
from probe.evidence.estimate import Estimate
from probe.evidence.likelihood import MIN_TOKENS, RATIOS, WHOLE, LikelihoodNorm, likelihood, served_otherwise
from probe.evidence.sampler import Sampler
from probe.evidence.tilt import TILTS
from probe.wire.values import Reading, Usage
from tests.evidence.test_estimate import draw
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
        (scored(STRANGE, temperature=0), "only 0"),
        (scored(STRANGE, top_k=1), "only 0"),
        (scored(STRANGE, temperature="hot"), "at temperature hot"),
        (scored(STRANGE, top_p="x"), "top_p x"),
        (
            replace(scored(STRANGE), reading=Reading("answer", text="x", usage=Usage(reasoning_tokens=12))),
            "the route withholds its reasoning (12 tokens)",
        ),
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
    assert LikelihoodNorm.measure([], hosted_controls=[case]).controls == ()


def test_returned_reasoning_is_tested_with_the_text() -> None:
    # The score is that of the whole generated sequence; its makers abstain where they cannot place the reasoning.
    reading = Reading("answer", text="x", reasoning="y", usage=Usage(reasoning_tokens=12))
    found = likelihood(replace(scored(STRANGE), reading=reading), LikelihoodNorm())
    assert found.log_e is not None
    assert found.log_e > 20


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


def answers(seed: int, sampler: Sampler, n: int = 60, *, refusal: float = 0.001, **sampling: Any) -> list[Case]:
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        text = draw(rng, sampler, refusal=refusal)
        case = make_case(text, name=f"{seed}-{i}", trace=f"{seed}-{i}", score=WEIGHTS.score(text, refusal), **sampling)
        found.append(replace(case, control=refusal < 0.5))
    return found


def test_the_hosts_sampler_is_read_from_its_controls_and_becomes_the_null() -> None:
    for real in (0.6, 1.5):
        controls, twins = answers(1, Sampler(real)), answers(2, Sampler(), refusal=1.0)
        norm = LikelihoodNorm.measure([*twins, *controls], hosted_controls=controls)
        assert isinstance(norm.estimate, Estimate)
        assert norm.estimate.differs
        assert len(norm.controls) == 60
        assert len(norm.own) == 120
        assert not norm.served_otherwise, "another temperature is not other weights"
        assert not served_otherwise(controls, norm.estimates)
        found = [likelihood(case, norm) for case in answers(3, Sampler(real), 100, refusal=1.0)]
        assert np.mean([math.exp(e.log_e) for e in found if e.log_e is not None]) <= 1
        assert "controls look like" in found[0].facts["sampler"]
        assert found[0].facts["assumed_temperature"] != 1
        strange = likelihood(scored(STRANGE), norm)
        assert strange.log_e is not None
        assert strange.log_e > 10, "instead of protecting the route"
        assert strange.llr > 10


def test_a_host_that_does_as_asked_is_tested_as_asked() -> None:
    controls = answers(4, Sampler(0.7), temperature=0.7)
    norm = LikelihoodNorm.measure(answers(5, Sampler(0.7), refusal=1.0, temperature=0.7), hosted_controls=controls)
    assert norm.estimate is not None
    assert not norm.estimate.differs
    case = scored(STRANGE, temperature=0.7)
    assert norm.samplers(case) == (Sampler(0.7),)
    assert not {"assumed_temperature", "sampler"} & set(likelihood(case, norm).facts)
    # Asked otherwise, nothing is known of the host.
    assert norm.samplers(scored(STRANGE, temperature=0.9)) == (Sampler(0.9),)
    assert LikelihoodNorm.measure(controls).estimate is None, (
        "without knowing which are the host's nothing is estimated"
    )


def test_a_filter_counts_only_where_the_controls_show_it() -> None:
    asked = Sampler(top_p=0.7)
    case = scored(STRANGE, top_p=0.7)
    kept = LikelihoodNorm.measure([], hosted_controls=answers(6, asked, top_p=0.7))
    ignored = LikelihoodNorm.measure([], hosted_controls=answers(6, Sampler(), top_p=0.7))
    assert kept.samplers(case) == (asked,)
    assert ignored.samplers(case) == LikelihoodNorm().samplers(case) == (Sampler(),)
    sharp, blunt = likelihood(case, kept), likelihood(case, ignored)
    assert sharp.facts["forbidden_tokens"] > 3
    assert blunt.facts["forbidden_tokens"] == 0
    assert sharp.log_e is not None
    assert blunt.log_e is not None
    assert sharp.log_e > blunt.log_e > 20
    assert "do not show" in blunt.facts["sampler"]
    genuine = [likelihood(c, ignored) for c in answers(7, Sampler(), 100, refusal=1.0, top_p=0.7)]
    assert np.mean([math.exp(e.log_e) for e in genuine if e.log_e is not None]) <= 1


def test_at_temperature_zero_margins_are_compared_with_genuine_texts() -> None:
    cold = Sampler(0.0)
    controls, twins = answers(8, cold, 30, temperature=0), answers(9, cold, 60, refusal=1.0, temperature=0)
    norm = LikelihoodNorm.measure(twins, hosted_controls=controls)
    assert len(norm.greedy.own) == 90
    assert len(norm.greedy.controls) == 30
    assert not norm.own
    strange = likelihood(scored(STRANGE, temperature=0), norm)
    own = likelihood(answers(10, cold, 1, refusal=1.0, temperature=0)[0], norm)
    assert strange.log_e is not None
    assert own.log_e is not None
    assert strange.log_e >= math.log(20)
    assert strange.llr > 10
    assert "in 90 genuine texts" in strange.sentence
    assert "nats below the most probable" in strange.exhibit
    assert own.log_e <= 0
    assert own.llr < 0
    assert own.facts[WHOLE] < math.log(20)
    assert list(own.facts[RATIOS]) == [str(tilt) for tilt in TILTS]
    # A route that samples although it was asked for temperature 0 gets the null that its controls show.
    warm = LikelihoodNorm.measure(twins, hosted_controls=answers(11, Sampler(), temperature=0))
    found = [likelihood(case, warm) for case in answers(12, Sampler(), 100, refusal=1.0, temperature=0)]
    assert np.mean([math.exp(e.log_e) for e in found if e.log_e is not None]) <= 1
    assert "asked 0, controls look like" in found[0].facts["sampler"]
    # Other weights at temperature 0 stay protected.
    odd = [scored(foreign(RNG), control=True, temperature=0) for _ in range(12)]
    protected = likelihood(scored(STRANGE, temperature=0), LikelihoodNorm.measure(twins, hosted_controls=odd))
    assert protected.log_e == protected.llr == 0
    assert served_otherwise(odd)


def test_the_card_names_the_token_of_the_largest_surprise() -> None:
    case = scored(STRANGE)
    assert case.score is not None
    tokens = tuple(replace(token, text=f" w{token.token_id}") for token in case.score.tokens)
    found = likelihood(replace(case, score=replace(case.score, tokens=tokens)), LikelihoodNorm())
    worst = min(tokens, key=lambda token: token.logprob)
    assert repr(f" w{worst.token_id}") in found.exhibit
    assert "has probability" in found.exhibit
