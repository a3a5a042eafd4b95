"""The gate's answer: its size where nothing differs, its power where something does, and what it says to bad input."""

import json
from dataclasses import replace

import numpy as np
import pytest

from probe.attribution.gate.ask import ask, holm
from probe.attribution.gate.values import CANNOT_TELL, DIFFERENT, OTHER_MODEL, PROMPT, SAME, SAMPLER, gate_of_json
from probe.attribution.settings import Settings
from probe.evidence.case import Case
from probe.evidence.sampler import Sampler
from tests.evidence.world import foreign
from tests.gate.gate_world import (
    CITIES,
    COLD,
    HOT,
    OTHER,
    RIVERS,
    answer,
    answers,
    route,
    spoken,
    text_of,
    twin,
)

SETTINGS = Settings()
TESTS = {"counts", "ranks", "mmd", "greedy"}


def test_identical_routes_are_rarely_called_different_and_mostly_the_same_where_n_allows() -> None:
    gates = [ask(route(seed, 60), twin(seed, 60), SETTINGS) for seed in range(16)]
    found = [gate.answer for gate in gates]
    # 5 of 16 and more have a probability of 0.1 % where the size is 5 %.
    assert found.count(DIFFERENT) < 5
    assert found.count(SAME) >= 1
    for gate in gates:
        assert set(gate.tests) == TESTS
        assert gate.n == 60
        assert (gate.cause is None) == (gate.answer != DIFFERENT)
        assert (gate.n_needed is None) or gate.n_needed > 60


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ({"weights": OTHER}, OTHER_MODEL),
        ({"noise": 0.2}, SAMPLER),
        ({"real": Sampler(0.6)}, SAMPLER),
        ({"surplus": 21}, PROMPT),
        ({"surplus": -1}, PROMPT),
        ({"surplus": 1, "weights": OTHER}, PROMPT),
    ],
)
def test_what_differs_is_found_and_named(how: dict[str, object], cause: str) -> None:
    for seed in range(2):
        gate = ask(route(seed, 80, **how), twin(seed, 80), SETTINGS)
        assert (gate.answer, gate.cause) == (DIFFERENT, cause)
        assert gate.sentence.startswith("Different, most likely ")
        assert gate.n_needed is None


def test_an_answer_survives_json() -> None:
    gate = ask(route(1, 30), twin(1, 30), SETTINGS)
    assert gate_of_json(json.loads(json.dumps(gate.to_json()))) == gate
    assert gate == ask(route(1, 30), twin(1, 30), SETTINGS), "the same answers and seed give the same gate"


def test_the_same_is_never_said_without_the_limits_of_both_distances() -> None:
    everything = route(2, 100)
    hot = [case for case in everything if case.sampling["temperature"]]
    cold = [case for case in everything if not case.sampling["temperature"]]
    assert ask(everything, twin(2, 100), SETTINGS).answer == SAME
    for part, where in ((hot, "at temperature 0"), (cold, "above temperature 0")):
        gate = ask(part, twin(2, 100), SETTINGS)
        assert gate.answer == CANNOT_TELL
        assert f"no scored answers {where}" in gate.sentence
        assert gate.n_needed is not None
    few = ask(route(2, 30), twin(2, 30), SETTINGS)
    assert few.answer == CANNOT_TELL
    assert few.n_needed is not None
    assert few.n_needed > 30
    assert str(few.n_needed) in few.sentence


def unscored(cases: list[Case]) -> list[Case]:
    return [replace(case, score=None, prompt_tokens=None) for case in cases]


def test_without_scores_only_texts_are_compared() -> None:
    gate = ask(unscored(route(3, 40)), twin(3, 40), SETTINGS)
    assert gate.answer == CANNOT_TELL
    assert gate.n_needed is None
    assert {name for name, test in gate.tests.items() if test.p is not None} == {"mmd"}
    assert "no answer could be scored (no twin scores texts)" in gate.sentence
    assert gate.n == 40
    other = ask(spoken(3, 60, RIVERS), spoken(4, 60, CITIES, repeats=2), SETTINGS)
    assert (other.answer, other.cause) == (DIFFERENT, OTHER_MODEL)
    assert "or a hidden prompt" in other.sentence


def test_what_is_missing_is_said() -> None:
    cases = route(4, 80)
    half = [*unscored(cases[:40]), *cases[40:]]
    gate = ask(half, twin(4, 80), SETTINGS)
    assert "40 of 160 answers have no score (no twin scores texts)" in gate.sentence
    assert gate.tests["ranks"].n == 40


def blank(case: Case) -> Case:
    return replace(case, outcome="empty", score=None, reading=replace(case.reading, text=""))


@pytest.mark.parametrize(
    "hosted",
    [
        [],
        route(5, 1),
        [replace(case, outcome="blocked", score=None) for case in route(5, 20)],
        [blank(case) for case in route(5, 20)],
        [replace(case, sampling={"temperature": "warm"}) for case in route(5, 20)],
        [replace(case, sampling={"temperature": 1.0, "repeat_penalty": 1.3}) for case in route(5, 20)],
        route(5, 3),
    ],
    ids=["nothing", "one prompt", "all blocked", "all empty", "unknown sampler", "penalties", "three prompts"],
)
@pytest.mark.parametrize("own", [[], twin(5, 20)], ids=["no twin", "twin"])
def test_too_little_is_never_an_answer(hosted: list[Case], own: list[Case]) -> None:
    gate = ask(hosted, own, SETTINGS)
    assert gate.answer == CANNOT_TELL
    assert gate.cause is None
    assert gate.sentence.startswith("Whether these are the same weights cannot be told at n = ")
    assert all(test.sentence for test in gate.tests.values())
    json.dumps(gate.to_json(), allow_nan=False)


def test_refusals_of_the_weights_count_as_texts() -> None:
    cases = [replace(case, outcome="refused") for case in route(6, 80)]
    assert ask(cases, twin(6, 80), SETTINGS).tests["greedy"].n == 80


def test_the_same_text_everywhere_is_no_text_of_the_weights() -> None:
    text = text_of(answers(7, 1)[0])
    hosted = [answer(text, prompt, heat) for prompt in range(60) for heat in (1.0, 0.0)]
    gate = ask(hosted, twin(7, 60), SETTINGS)
    assert gate.answer == DIFFERENT
    assert gate.sentence


def test_a_few_texts_of_a_platform_do_not_make_the_weights_other_ones() -> None:
    rng = np.random.default_rng(8)
    wrong = 0
    for seed in range(5):
        cases = route(100 + seed, 60)
        canned = foreign(rng)
        for place in (3, 17, 30, 44):
            cases[place] = answer(canned, place, 1.0)
            cases[60 + place] = answer(canned, place, 0.0)
        gate = ask(cases, twin(seed, 60), SETTINGS)
        wrong += gate.answer == DIFFERENT
        assert "8 answers to controls were set aside" in gate.sentence
    assert wrong < 2
    many = route(1, 60)
    for place in range(20):
        many[place] = answer(foreign(rng), place, 1.0)
    assert ask(many, twin(1, 60), SETTINGS).answer == DIFFERENT


def test_holm_is_stepwise_and_monotone() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({}) == {}


def test_repeated_answers_to_one_prompt_are_not_more_prompts() -> None:
    hosted = [*answers(9, 10, HOT, repeats=8), *answers(10, 10, COLD, repeats=8)]
    gate = ask(hosted, twin(9, 10), SETTINGS)
    assert gate.answer == CANNOT_TELL
    assert gate.n == 10
    assert gate.tests["greedy"].n == 10
    assert gate.tests["counts"].n == 10
