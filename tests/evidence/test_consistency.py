"""The consistency detector: expectations summed over every way in which the weights could have answered."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import binom

from probe.evidence.case import Case
from probe.evidence.consistency import VARIES, WAGER, ConsistencyNorm, consistency
from probe.scoring.base import TextScore, TokenScore
from tests.evidence.world import make_case, words

A, B, C, YES = (1, 30, 31), (2, 32, 33), (3, 34, 35), (15, 30)
WORLD = {A: 0.6, B: 0.3, C: 0.1}
"""P(text | refuse)."""


def score(probability: float) -> TextScore:
    return TextScore((TokenScore(1, math.log(probability), (math.log(probability),), 1),), 2)


def trace(
    texts: Sequence[tuple[int, ...]], name: str = "t", *, rate: float | None = None, **sampling: Any
) -> list[Case]:
    """Repeats of one trace; scored where a refusal rate is given."""
    found = []
    for i, text in enumerate(texts):
        case = make_case(text, name=f"{name}-{i}", trace=name, **sampling)
        known = None if rate is None or text not in WORLD else score(rate * WORLD[text])
        found.append(replace(case, repeat=i, score=known))
    return found


ORDINARY = trace([(15, 31), (15, 32)], "o")
"""An answered trace whose repeats differ."""


def log_e(hosted: list[Case], twin: list[Case], **more: Any) -> float:
    found = consistency(hosted[0], ConsistencyNorm.measure([*hosted, *ORDINARY], twin, **more))
    assert found.log_e is not None
    return found.log_e


@pytest.mark.parametrize("refusals", [2, 3])
@pytest.mark.parametrize(("rate", "answers"), [(0.3, 1), (0.3, 4), (0.9, 2), (1.0, 3)])
def test_with_scores_the_expectation_is_one_at_most(refusals: int, rate: float, answers: int) -> None:
    total = 0.0
    for drawn in itertools.product(WORLD, repeat=refusals):
        hosted = trace(drawn, rate=rate)
        for k in range(answers + 1):
            twin = trace([A] * k + [YES] * (answers - k))
            p = math.prod(WORLD[text] for text in drawn) * binom.pmf(k, answers, rate)
            total += p * math.exp(log_e(hosted, twin))
    if answers >= refusals - 1 == 1:
        assert total == pytest.approx(1.0), "it is exact: nothing is given away"
    assert 0.1 < total <= 1.0 + 1e-12


@pytest.mark.parametrize("traces", [1, 3])
def test_without_scores_the_expectation_is_one_at_most(traces: int) -> None:
    total = 0.0
    for drawn in itertools.product(WORLD, repeat=2 * (traces + 1)):
        twin = [case for i in range(traces) for case in trace(drawn[2 * i : 2 * i + 2], f"w{i}")]
        total += math.prod(WORLD[text] for text in drawn) * math.exp(log_e(trace(drawn[-2:]), twin))
    assert 0.5 < total <= 1.0 + 1e-12


def test_the_same_in_every_repeat_is_evidence() -> None:
    hosted, twin = trace([C] * 4, rate=1.0), trace([A, B, A, C, A])
    norm = ConsistencyNorm.measure([*hosted, *ORDINARY], twin)
    found = [consistency(case, norm) for case in hosted]
    assert len({e.log_e for e in found}) == 1
    assert found[0].log_e == pytest.approx(math.log(1 - WAGER + WAGER * (10 + 100 + 1000) / 3))
    assert found[0].llr == pytest.approx(found[0].log_e + math.log(1 - VARIES))
    assert "All 4 refusals of this trace have the same text" in found[0].sentence
    assert found[0].facts["by"] == "scores"
    # One answer of the twin allows one comparison, and a twin that never refused none.
    assert log_e(hosted, trace([A])) == pytest.approx(math.log(1 - WAGER + WAGER * 10))
    assert log_e(hosted, trace([YES] * 5)) == pytest.approx(math.log(1 - WAGER))
    # One refusal among four: C(1, 1)/C(4, 1) is all there is.
    assert log_e(hosted, trace([A, YES, YES, YES])) == pytest.approx(math.log(1 - WAGER + WAGER * 10 / 4 / 3))
    varied = consistency(trace([A, A, B])[0], ConsistencyNorm.measure([*trace([A, A, B]), *ORDINARY], twin))
    assert varied.log_e == pytest.approx(math.log(1 - WAGER))
    assert varied.llr == pytest.approx(math.log(VARIES))
    assert "2 different texts" in varied.sentence


def test_a_sentence_that_the_weights_always_say_is_no_evidence() -> None:
    hosted, twin = trace([A] * 4), [case for i in range(9) for case in trace([A] * 4, f"w{i}")]
    assert log_e(hosted, twin) == pytest.approx(0.0)
    sure = [replace(case, score=score(0.999)) for case in hosted]
    assert log_e(sure, trace([A] * 4)) == pytest.approx(0.0, abs=0.01)


def test_shorter_traces_of_the_twin_are_alike_more_easily() -> None:
    norm = ConsistencyNorm.measure([], [*trace([A, A, B], "w0"), *trace([A, A], "w1"), *trace([A], "w2")])
    assert norm.twin_alike(2) == (2, 2)
    assert norm.twin_alike(3) == (1, 2)


def test_a_host_that_repeats_itself_is_not_tested() -> None:
    hosted, twin = trace([C] * 4, rate=1.0), trace([A, B, C])
    cached = [case for i in range(4) for case in trace([(15, 40 + i)] * 3, f"c{i}")]
    norm = ConsistencyNorm.measure([*hosted, *cached, *ORDINARY], twin)
    assert norm.repeats_itself
    found = consistency(hosted[0], norm)
    assert found.abstains
    assert "4 of 5 traces got the same answer every time" in found.sentence
    # Where few ordinary answers are the same every time, those bound what the same words are worth.
    some = [case for i in range(4) for case in trace([(15, 40 + i), (15, 50 + i)], f"d{i}")]
    found = consistency(hosted[0], ConsistencyNorm.measure([*hosted, *cached[:3], *some, *ORDINARY], twin))
    assert found.log_e == pytest.approx(math.log(1 - WAGER + WAGER * 7 / 2))


def test_another_temperature_and_another_prompt() -> None:
    hosted, twin = trace([C] * 2, rate=1.0), trace([A, B, C])
    cold = log_e(hosted, twin, power=2.0)
    # Of two tokens with 0.1 and 0.9: 0.1 squared over the sum of squares.
    assert cold == pytest.approx(math.log(1 - WAGER + WAGER * 0.82 / 0.01), rel=0.01)
    assert log_e(trace([C] * 2, rate=1.0, temperature=0.5), twin) == pytest.approx(cold)
    found = consistency(hosted[0], ConsistencyNorm.measure([*hosted, *ORDINARY], twin, prompt_differs=True))
    assert found.log_e == found.llr == 0
    assert "another prompt" in found.sentence
    filtered = trace([C] * 2, rate=1.0, top_p=0.5)
    assert log_e(filtered, twin) == pytest.approx(math.log(1 - WAGER + WAGER * 2)), "the twin's traces decide"


@pytest.mark.parametrize(
    ("hosted", "why"),
    [
        (trace([A]), "refused only once"),
        (trace([A, YES, YES]), "refused only once"),
        (trace([A, A], seed=7), "seed 7"),
        (trace([A, A], temperature=0), "temperature 0"),
        (trace([A, A], temperature=0.0, seed=1), "seed 1, temperature 0.0"),
        (trace([YES, YES]), "no refusal text"),
        ([replace(trace([()])[0], outcome="refused")], "no refusal text"),
    ],
)
def test_it_abstains_and_says_why(hosted: list[Case], why: str) -> None:
    found = consistency(hosted[0], ConsistencyNorm.measure([*hosted, *ORDINARY], []))
    assert found.abstains
    assert found.llr == 0
    assert why in found.sentence


def test_without_ordinary_repeats_a_cache_cannot_be_ruled_out() -> None:
    hosted = trace([A, A])
    found = consistency(hosted[0], ConsistencyNorm.measure(hosted, trace([A, B])))
    assert found.abstains
    assert "would show a cache" in found.sentence
    fixed = trace([(15, 31), (15, 32)], "o", seed=5)
    assert consistency(hosted[0], ConsistencyNorm.measure([*hosted, *fixed], trace([A, B]))).abstains
    assert consistency(hosted[0], ConsistencyNorm()).abstains


def test_order_of_the_cases_does_not_matter() -> None:
    hosted = trace([C] * 3, rate=1.0)
    twin = [*trace([A, A, B], "w0"), *trace([A, B], "w1")]
    assert ConsistencyNorm.measure(hosted[::-1], twin[::-1]) == ConsistencyNorm.measure(hosted, twin)
    assert ConsistencyNorm.measure(hosted, twin).hosted["t"].texts == (words(C),) * 3
