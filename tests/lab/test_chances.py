"""Draws depend on the seed, the platform, the request and its repeat; on nothing else."""

import random

from hypothesis import given
from hypothesis import strategies as st

from probe.lab.chances import Chances


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def draws(chances: Chances, texts: list[str]) -> list[tuple[str, float]]:
    return sorted((text, chances.of(asked(text), {"temperature": 1.0}).of("screen").random()) for text in texts)


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.integers())
def test_the_order_of_requests_changes_nothing(texts: list[str], seed: int) -> None:
    shuffled = random.Random(seed).sample(texts, len(texts))
    assert draws(Chances(seed, "p"), texts) == draws(Chances(seed, "p"), shuffled)


def test_repeats_platforms_seeds_purposes_and_sampling_are_drawn_apart() -> None:
    values = [
        Chances(0, "p").of(asked("a"), {}).of("screen").random(),
        Chances(1, "p").of(asked("a"), {}).of("screen").random(),
        Chances(0, "q").of(asked("a"), {}).of("screen").random(),
        Chances(0, "p").of(asked("b"), {}).of("screen").random(),
        Chances(0, "p").of(asked("a"), {"temperature": 0}).of("screen").random(),
        Chances(0, "p").of(asked("a"), {}).of("text").random(),
    ]
    twice = Chances(0, "p")
    values += [twice.of(asked("a"), {}).of("screen").random() for _ in range(2)][1:]
    assert len(set(values)) == len(values)


def test_a_platforms_own_draws_do_not_depend_on_requests() -> None:
    chances = Chances(0, "p")
    before = chances.of_platform().of("lapse").random()
    chances.of(asked("a"), {})
    assert chances.of_platform().of("lapse").random() == before
