"""Routes whose weights can be computed with: answers to controls as the gate gets them, scored under the twin."""

from dataclasses import replace
from functools import cache

import numpy as np

from probe.evidence.case import Case
from probe.evidence.sampler import Sampler
from probe.wire.values import Reading, Usage
from tests.evidence.test_estimate import WEIGHTS, draw
from tests.evidence.world import Text, Weights, make_case

HOT, COLD = Sampler(), Sampler(0.0)
OTHER = Weights(12)
REFUSAL = 0.001


def text_of(case: Case) -> Text:
    return tuple(int(word[1:]) for word in case.reading.text.split())


def answer(text: Text, prompt: int, temperature: float, *, name: str = "x", surplus: int | None = 0) -> Case:
    """A control's answer; ``surplus``: reported less sent prompt tokens, ``None``: nothing reported."""
    usage = Usage() if surplus is None else Usage(30 + surplus, len(text) + 1)
    heat = {"temperature": temperature}
    case = make_case(
        text,
        name=name,
        trace=f"p{prompt}",
        control=True,
        score=WEIGHTS.score(text, REFUSAL) if text else None,
        usage=usage,
        **heat,
    )
    return replace(case, outcome="complied")


def _text(rng: np.random.Generator, sampler: Sampler, weights: Weights, noise: float) -> Text:
    if sampler == HOT and not noise:
        return weights.text(rng, REFUSAL)
    if sampler == COLD and not noise:
        return _first_choice(weights)
    return draw(rng, sampler, weights=weights, noise=noise)


@cache
def _first_choice(weights: Weights) -> Text:
    return draw(np.random.default_rng(0), COLD, weights=weights)


CITIES = ("Pell is the capital.", "It is Pell.", "The capital is Pell, of course.", "Pell.")
RIVERS = ("The Oaken is the river.", "It is the Oaken.", "They call it the Oaken.", "Oaken.")


def spoken(seed: int, n: int, texts: tuple[str, ...], *, repeats: int = 1, temperature: float = 1.0) -> list[Case]:
    """Answers in words, without scores: each prompt's are drawn evenly from ``texts``."""
    rng = np.random.default_rng([seed, 6])
    return [
        replace(
            answer((), prompt, temperature, name=f"{seed}-{prompt}-{number}", surplus=None),
            reading=Reading("answer", text=texts[int(rng.integers(len(texts)))]),
            score=None,
            prompt_tokens=None,
        )
        for prompt in range(n)
        for number in range(repeats)
    ]


def answers(
    seed: int,
    n: int,
    asked: Sampler = HOT,
    *,
    real: Sampler | None = None,
    weights: Weights = WEIGHTS,
    noise: float = 0.0,
    repeats: int = 1,
    surplus: int | None = 0,
) -> list[Case]:
    """Answers to ``n`` prompts, of other weights, precision (``noise``) or sampler where these are given."""
    rng = np.random.default_rng([seed, 5])
    found = []
    for prompt in range(n):
        for number in range(repeats):
            text = _text(rng, real or asked, weights, noise)
            found.append(answer(text, prompt, asked.temperature, name=f"{seed}-{prompt}-{number}", surplus=surplus))
    return found


def route(seed: int, n: int, **how: object) -> list[Case]:
    """One answer to each prompt above temperature 0 and one at 0."""
    return [*answers(seed, n, **how), *answers(seed + 10_000, n, COLD, **how)]  # type: ignore[arg-type]


@cache
def _twin(seed: int, n: int, repeats: int) -> tuple[Case, ...]:
    hot = answers(seed + 20_000, n, repeats=repeats, surplus=None)
    return (*hot, *answers(seed + 30_000, n, COLD, surplus=None))


def twin(seed: int, n: int, repeats: int = 2) -> list[Case]:
    """The twin's own answers; drawing them takes time, so that there are only a few sets."""
    return list(_twin(seed % 4, n, repeats))
