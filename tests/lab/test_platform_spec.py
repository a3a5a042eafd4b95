"""A specification of a lab platform says what it means, or is refused."""

import random
from typing import Any

import pytest

from probe.lab.platform_spec import Platform, Screen

SCREEN = Screen(words=("cat", "cat food"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"screen": SCREEN}, "screen and action belong together"),
        ({"action": "refuse_more"}, "screen and action belong together"),
        ({"screen": SCREEN, "action": "injected_text"}, "injected_text needs texts"),
        ({"screen": SCREEN, "action": "output_replaced"}, "output_replaced needs texts"),
        ({"screen": SCREEN, "action": "injected_text", "texts": ("No.",), "writer": "model"}, "needs a paraphraser"),
        ({"screen": SCREEN, "action": "declared_block", "block": "x"}, "no block shape 'x'"),
        ({"screen": SCREEN, "action": "declared_block", "front": "ollama"}, "of the front 'openrouter', not 'ollama'"),
        ({"front": "contoso"}, "'contoso' is no front"),
        ({"providers": ()}, "no provider"),
        ({"surprise": 1.5}, "from 0 to 1"),
        ({"screen": SCREEN, "action": "explode"}, "'explode' is no action"),
        ({"envelope": "good"}, "'good' is no envelope"),
        ({"writer": "monkey"}, "'monkey' is no writer"),
        ({"jitter_s": -1.0}, "delays are not negative"),
    ],
)
def test_contradictions_are_refused(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"lab platform 'p': .*{says}"):
        Platform("p", **more)


def test_a_platform_that_does_nothing_needs_a_name_only() -> None:
    assert not Platform("p").waits


def test_only_deeds_that_take_time_make_a_platform_wait() -> None:
    more: dict[str, Any] = {"screen": SCREEN, "texts": ("No.",), "paraphraser": "x"}
    assert Platform("p", action="refuse_more", **more).waits
    assert Platform("p", action="injected_text", writer="model", **more).waits
    assert not Platform("p", action="injected_text", writer="model", envelope="sloppy", **more).waits
    assert not Platform("p", action="injected_text", **more).waits


def test_a_screen_finds_whole_words_and_the_longest() -> None:
    assert SCREEN.find(["A category", "No Cat Food today"]) == "Cat Food"
    assert SCREEN.find(["concatenate"]) is None
    assert Screen().find(["anything"]) == ""
    assert SCREEN.redacted("My cat eats cat food.") == "My [REDACTED] eats [REDACTED]."
    assert Screen().redacted("My cat") == "[REDACTED]"


def test_a_screen_acts_as_often_as_its_rate_says() -> None:
    chance = random.Random(0)
    hits = sum(Screen(rate=0.3).matches(["cat"], chance) for _ in range(2000))
    assert 540 < hits < 660
    assert not any(Screen(words=("dog",)).matches(["cat"], chance) for _ in range(10))
