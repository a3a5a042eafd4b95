"""How a case reads its sampling parameters, and when two texts are copies."""

import math

import pytest

from probe.evidence.case import normalised
from tests.evidence.world import make_case


@pytest.mark.parametrize(
    ("temperature", "power"),
    [(1, 1.0), (0.5, 2.0), (2.0, 0.5), (None, 1.0), (0, None), (0.05, None), (-1.0, None), ("0.7", None), (True, None)],
)
def test_only_a_temperature_that_is_a_number_can_be_tested(temperature: object, power: float | None) -> None:
    assert make_case((1, 30), temperature=temperature).power == power


def test_a_temperature_that_nobody_stated_is_one() -> None:
    case = make_case((1, 30))
    assert case.power == 1.0
    object.__setattr__(case, "sampling", {})
    assert case.power == 1.0
    for bad in (math.nan, math.inf):
        assert make_case((1, 30), temperature=bad).power is None


def test_parameters_that_are_off_are_told_from_those_that_act() -> None:
    off = make_case((1, 30), top_k=-1, min_p=0, repeat_penalty=1, presence_penalty=None, frequency_penalty=0.0)
    assert (off.filtered, off.penalised) == ((), ())
    on = make_case((1, 30), top_p=0.9, top_k=40, min_p="0.05", repeat_penalty=1.1, presence_penalty=True)
    assert on.filtered == ("top_p", "top_k", "min_p")
    assert on.penalised == ("repeat_penalty", "presence_penalty")


def test_copies_differ_in_white_space_only() -> None:
    assert normalised(" I can't\n help.  ") == normalised("I can't help.")
    assert normalised("I can't help.") != normalised("I can't help!")
    assert normalised("I CAN'T help.") != normalised("I can't help.")
    assert normalised("\n ") == ""
