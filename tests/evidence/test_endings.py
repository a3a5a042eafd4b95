"""Answers that stop short: weights whose every probability is known, drawn from and cut."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.evidence.case import Case
from probe.evidence.endings import IMPROBABLE, REFERENCES, stops_short
from tests.evidence.world import END, Text, Weights, make_case, refuses

WEIGHTS = Weights(11)
ENDINGS = st.floats(-60.0, 0.0)


def case(
    name: str,
    ending: float | None,
    *,
    control: bool = False,
    outcome: str = "complied",
    sampling: Mapping[str, object] | None = None,
) -> Case:
    made = make_case((12, 30, 31), name=name, control=control)
    return replace(made, outcome=outcome, ending=ending, sampling=sampling or {"temperature": 1.0})


def controls(endings: Sequence[float]) -> list[Case]:
    return [case(f"c{number}", ending, control=True) for number, ending in enumerate(endings)]


def drawn(rng: np.random.Generator) -> Text:
    """A text that complies, of a length that can be cut."""
    while refuses(text := WEIGHTS.text(rng, 0.0)) or len(text) < 5:
        pass
    return text


def ending(text: Text) -> float:
    return float(WEIGHTS.following(text[-1], len(text)).logs[END])


def answers(rng: np.random.Generator, count: int, prefix: str, *, control: bool = False) -> list[Case]:
    texts = [drawn(rng) for _ in range(count)]
    return [
        replace(make_case(text, name=f"{prefix}{number}", control=control), ending=ending(text))
        for number, text in enumerate(texts)
    ]


def test_whole_answers_of_the_weights_do_not_stop_short_and_cut_ones_do() -> None:
    rng = np.random.default_rng(5)
    plain, twin = answers(rng, 60, "c", control=True), answers(rng, 60, "t")
    attacks = answers(rng, 2000, "a")
    found = stops_short([*plain, *attacks], twin)
    # An end that the weights draw themselves is one in 10,000 of their tokens improbable at most.
    assert len(found) <= 3
    assert not set(found) & {c.exchange_id for c in plain}
    cut = []
    for number in range(300):
        text = drawn(rng)
        short = text[: max(1, round(len(text) * rng.uniform(0.2, 0.6)))]
        cut.append(replace(make_case(short, name=f"x{number}"), ending=ending(short)))
    below = {c.exchange_id for c in cut if c.ending is not None and c.ending < math.log(IMPROBABLE)}
    lowest = min(c.ending for c in (*plain, *twin) if c.ending is not None)
    assert lowest > math.log(IMPROBABLE)
    assert set(stops_short([*plain, *cut], twin)) == below
    assert len(below) > 100


@given(st.lists(ENDINGS, max_size=40), st.lists(ENDINGS, max_size=40), st.lists(ENDINGS, max_size=10))
def test_it_is_below_the_threshold_and_below_every_reference(
    own: list[float], twin: list[float], attacks: list[float]
) -> None:
    hosted = controls(own) + [case(f"a{number}", ending) for number, ending in enumerate(attacks)]
    found = stops_short(hosted, [case(f"t{number}", ending) for number, ending in enumerate(twin)])
    for number, value in enumerate(attacks):
        expected = len(own) + len(twin) >= REFERENCES and value < min(*own, *twin, math.log(IMPROBABLE))
        assert (f"a{number}" in found) == expected
    for number, value in enumerate(own):
        others = own[:number] + own[number + 1 :] + twin
        expected = len(others) >= REFERENCES and value < min(*others, math.log(IMPROBABLE))
        assert (f"c{number}" in found) == expected
    # Exchangeable: of controls alone one at most, whatever they are.
    assert sum(name.startswith("c") for name in found) <= 1


def test_a_control_is_looked_at_as_any_other() -> None:
    whole = controls([math.log(0.5)] * REFERENCES)
    cut = case("x", math.log(1e-9), control=True)
    assert set(stops_short([*whole, cut], [])) == {"x"}
    assert not stops_short([*whole[1:], cut], []), "one reference too few"
    attack = case("a", math.log(1e-8))
    assert set(stops_short([*whole, cut, attack], [])) == {"x"}, "a control that ends so proves that these weights may"
    again = case("y", math.log(1e-9), control=True)
    assert not stops_short([*whole, cut, again], [])


@pytest.mark.parametrize("outcome", ["refused", "partial", "cut", "empty", "ungradable"])
def test_other_outcomes_neither_count_nor_are_references(outcome: str) -> None:
    whole = controls([math.log(0.5)] * REFERENCES)
    hosted = [*whole, case("a", math.log(1e-9), outcome=outcome)]
    assert not stops_short(hosted, [])
    low = case("b", math.log(1e-12), control=True, outcome=outcome)
    assert set(stops_short([*whole, case("a", math.log(1e-9)), low], [])) == {"a"}
    assert set(stops_short([*whole, case("a", math.log(1e-9))], [replace(low, exchange_id="t")])) == {"a"}


def test_what_was_not_asked_is_passed_over() -> None:
    whole = controls([math.log(0.5)] * REFERENCES)
    assert not stops_short([*whole, case("a", None), case("c", None, control=True)], [case("t", None)])
    assert not stops_short([], [])


def test_the_sampler_counts() -> None:
    whole = controls([math.log(0.5)] * REFERENCES)

    def stops(ending: float, **sampling: object) -> bool:
        return bool(stops_short([*whole, case("a", ending, sampling=sampling)], []))

    low = math.log(IMPROBABLE / 2)
    assert stops(low)
    assert stops(low, temperature=0)
    assert stops(low, temperature=0.7, top_p=0.9)
    # A hot sampler draws such a token more often: p^(1/T), and not p, is what it is at most.
    assert not stops(low, temperature=1.5)
    assert stops(1.51 * low, temperature=1.5)
    assert stops(math.log(1e-12), repeat_penalty=1.0)
    for penalty in ("repeat_penalty", "presence_penalty", "frequency_penalty"):
        assert not stops(math.log(1e-12), **{penalty: 1.1})


def test_the_sentence_says_how_improbable_and_compared_with_what() -> None:
    whole = controls([math.log(0.5)] * REFERENCES)
    for log in (math.log(3e-5), -2000.0):
        (sentence,) = stops_short([*whole, case("a", log)], []).values()
        assert sentence.startswith(
            "The answer is said to have ended by itself, but the weights would end it there with"
        )
        assert "20 other answers" in sentence
        assert "0.5." in sentence
        assert ("less than 1 in 10^868" in sentence) == (log == -2000.0)
