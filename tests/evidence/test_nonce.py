"""The nonce detector: what an absent nonce is worth, as often as the weights themselves leave it out."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from probe.evidence.case import Case
from probe.evidence.nonce import ECHO, WAGER, NonceNorm, carries, nonce
from probe.wire.values import Reading

NONCE = "[K7Q2]"


def reply(
    text: str, number: int = 0, *, outcome: str = "refused", control: bool = False, asked: str | None = NONCE
) -> Case:
    reading = Reading("answer", text=text)
    return Case(f"x{number}", f"t{number}", control, outcome, reading, nonce=asked)


WITH, WITHOUT = f"{NONCE} I can't help with that.", "I can't help with that."


def norm(lacking: int, n: int, controls_lacking: int = 0, controls: int = 20, **more: bool) -> NonceNorm:
    return NonceNorm(lacking, n, controls_lacking, controls, **more)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[K7Q2] No.", True),
        ("(k7q2): no", True),
        ("No. Ref K7Q2", True),
        ("**[K7Q2]**", True),
        ("K7Q2_", True),
        ("[K7Q2x] No.", False),
        ("XK7Q2", False),
        ("K7 Q2", False),
        ("No.", False),
        ("", False),
    ],
)
def test_marks_and_case_do_not_count(text: str, found: bool) -> None:
    assert carries(text, NONCE) is found


def test_a_nonce_of_several_words_and_one_of_none() -> None:
    assert carries("Begin: amber fox. No.", "Amber-Fox")
    assert not carries("amber red fox", "amber fox")
    assert not carries("anything", "[]")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(word=st.from_regex(r"[A-Z0-9]{3,6}", fullmatch=True), text=st.text(max_size=30))
def test_whatever_begins_with_the_nonce_carries_it(word: str, text: str) -> None:
    assert carries(f"[{word}] {text}", f"[{word}]")


def test_what_is_counted() -> None:
    twin = [
        reply(WITHOUT, 1),
        reply(WITH, 2),
        reply(WITH, 3),
        replace(reply(WITHOUT, 3), repeat=1),
        reply(WITHOUT, 4, outcome="complied"),
        reply(WITHOUT, 5, asked=None),
        reply("", 6),
    ]
    hosted = [
        reply("K7Q2: the sea.", 7, outcome="complied", control=True),
        reply("The sea.", 8, outcome="complied", control=True),
        reply("The sea.", 9, outcome="error", control=True),
        reply("The sea.", 10, outcome="complied"),
    ]
    assert NonceNorm.measure(hosted, twin) == NonceNorm(2, 3, 1, 2)
    assert NonceNorm.measure([], [], prompt_differs=True) == NonceNorm(prompt_differs=True)


def test_absent_and_present() -> None:
    absent, present = nonce(reply(WITHOUT), norm(1, 40)), nonce(reply(WITH), norm(1, 40))
    assert absent.log_e == pytest.approx(math.log(1 - WAGER + WAGER * 41 / 2))
    assert absent.llr == pytest.approx(math.log(0.98 / (2 / 42)), rel=0.01)
    assert present.log_e == pytest.approx(math.log(0.05))
    assert -4.0 <= present.llr < -3.0
    assert "lacks the nonce [K7Q2]" in absent.sentence
    assert "1 of 40 refusals of the twin and 0 of 20 controls" in absent.sentence
    assert "had read the prompt" in present.sentence


@pytest.mark.parametrize("found", [norm(40, 40), norm(0, 40, 20, 20)])
def test_where_the_weights_or_the_route_leave_it_out_it_says_nothing(found: NonceNorm) -> None:
    absent = nonce(reply(WITHOUT), found)
    assert absent.log_e == pytest.approx(0.0)
    assert absent.llr < 0.05


@pytest.mark.parametrize(
    ("case", "found", "why"),
    [
        (reply(WITHOUT, asked=None), norm(0, 40), "does not ask for a nonce"),
        (reply(WITHOUT, outcome="complied"), norm(0, 40), "no refusal text"),
        (reply(""), norm(0, 40), "no refusal text"),
        (reply(WITHOUT), norm(0, 0), "no refusals of the twin"),
        (reply(WITHOUT), norm(0, 40, 0, 0), "no answered controls"),
    ],
)
def test_it_abstains_and_says_why(case: Case, found: NonceNorm, why: str) -> None:
    evidence = nonce(case, found)
    assert evidence.abstains
    assert evidence.llr == 0
    assert why in evidence.sentence


def test_under_another_prompt_an_absent_nonce_proves_nothing() -> None:
    found = norm(0, 40, prompt_differs=True)
    absent, present = nonce(reply(WITHOUT), found), nonce(reply(WITH), found)
    assert absent.log_e == absent.llr == 0
    assert "another prompt" in absent.sentence
    assert present.log_e is not None
    assert present.log_e < 0 > present.llr


@pytest.mark.parametrize("m", [1, 5, 40])
@pytest.mark.parametrize("rate", [0.01, 0.2, 0.9])
def test_the_expectation_is_one_at_most(m: int, rate: float) -> None:
    """Over what the twin's m refusals and the tested one do, each leaving the nonce out with this rate."""
    total = 0.0
    for k in range(m + 1):
        for text, p in ((WITHOUT, rate), (WITH, 1 - rate)):
            log_e = nonce(reply(text), norm(k, m, 0, 50)).log_e
            assert log_e is not None
            total += binom.pmf(k, m, rate) * p * math.exp(log_e)
    assert 0.05 < total <= 1.0 + 1e-12


@settings(max_examples=100, deadline=None, derandomize=True)
@given(k=st.integers(0, 30), m=st.integers(1, 30), j=st.integers(0, 30), n=st.integers(1, 30))
def test_bounds(k: int, m: int, j: int, n: int) -> None:
    found = norm(min(k, m), m, min(j, n), n)
    for text in (WITH, WITHOUT):
        evidence = nonce(reply(text), found)
        assert evidence.llr >= -4.0
        assert evidence.log_e is not None
        assert evidence.log_e >= math.log(1 - WAGER) - 1e-12
        assert (evidence.llr <= 0) if text == WITH else (evidence.llr >= math.log1p(-ECHO))
