"""Weights that can be computed with: a language model of a few hundred tokens whose every probability is known.

They refuse or comply with the first token and go on as a Markov chain: mostly sure of the next word, sometimes
choosing, with a thin tail over the whole vocabulary. One sentence is a favourite. What a platform writes in their
place, and routes that it does so on, are in ``tests.evidence.routes``.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probe.evidence.case import Case
from probe.scoring.base import TextScore, TokenScore
from probe.wire.values import Reading, Usage

VOCABULARY = 400
END = VOCABULARY - 1
OPENERS = 20
"""Tokens 0…9 begin refusals, 10…19 begin answers."""
FAVOURITE = tuple(range(380, 392))
LONGEST = 40

Text = tuple[int, ...]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Next:
    """The distribution of the next token: log-probabilities by id, the same cumulated, the reported top."""

    logs: Array
    summed: Array
    top: tuple[float, ...]
    order: tuple[int, ...]


class Weights:
    """``favourite``: probability of the favourite sentence among refusals; ``top``: how many tokens are reported."""

    def __init__(self, seed: int, *, favourite: float = 0.05, top: int = 32) -> None:
        self._seed, self._top = seed, top
        self._states: dict[tuple[int, int], _Next] = {}
        self._firsts: dict[tuple[float, float], _Next] = {}
        rng = np.random.default_rng([seed, 0])
        refusing = rng.dirichlet(np.full(10, 0.7)) * (1.0 - favourite)
        self._openers = np.concatenate([refusing, rng.dirichlet(np.full(10, 0.7))])
        self.favourite = favourite

    def first(self, refusal: float, power: float = 1.0) -> _Next:
        """Return the distribution of the first token where the weights refuse with probability ``refusal``."""
        key = (refusal, power)
        if key not in self._firsts:
            p = np.full(VOCABULARY, 1e-4 / VOCABULARY)
            p[:10] += refusal * self._openers[:10]
            p[10:OPENERS] += (1.0 - refusal) * self._openers[10:]
            p[FAVOURITE[0]] += refusal * self.favourite
            self._firsts[key] = self._make(p, power)
        return self._firsts[key]

    def following(self, last: int, place: int) -> _Next:
        """Return the distribution after token ``last`` at position ``place``."""
        key = (last, min(place, LONGEST))
        if key not in self._states:
            self._states[key] = self._make(self._chain(*key))
        return self._states[key]

    def _chain(self, last: int, place: int) -> Array:
        rng = np.random.default_rng([self._seed, 1, last, place])
        p = rng.dirichlet(np.full(VOCABULARY, 0.05)) * 0.004 + 1e-9
        if last in FAVOURITE:
            p *= 0.1
            p[FAVOURITE[FAVOURITE.index(last) + 1] if last != FAVOURITE[-1] else END] += 1.0
        elif place >= LONGEST or (place > 7 and rng.random() < 0.15):
            p[END] += rng.choice([0.5, 0.98])
            p[rng.integers(OPENERS, 380)] += 0.02
        elif rng.random() < 0.6:
            p[rng.integers(OPENERS, 380)] += 1.0
        else:
            count = int(rng.integers(2, 9))
            p[rng.integers(OPENERS, 380, count)] += rng.dirichlet(np.ones(count))
        return p

    def _make(self, p: Array, power: float = 1.0) -> _Next:
        logs = np.log(p / p.sum())
        order = np.argsort(-logs)[: self._top]
        tempered = np.exp(power * logs)
        summed = np.cumsum(tempered / tempered.sum())
        return _Next(logs, summed, tuple(map(float, logs[order])), tuple(map(int, order)))

    def text(self, rng: np.random.Generator, refusal: float) -> Text:
        """Draw a text at temperature 1; it ends before the end token."""
        found = [int(self.first(refusal).summed.searchsorted(rng.random()))]
        while len(found) <= 2 * LONGEST:
            token = int(self.following(found[-1], len(found)).summed.searchsorted(rng.random()))
            if token == END:
                break
            found.append(token)
        return tuple(found)

    def refusal(self, rng: np.random.Generator) -> Text:
        """Draw a text that refuses."""
        while not refuses(text := self.text(rng, 1.0)):
            pass
        return text

    def warm(self, rng: np.random.Generator, temperature: float) -> Text:
        """Draw a refusal of an author whose choices the weights find plausible, and not theirs."""
        found = [int(rng.integers(10))]
        while len(found) < 15:
            p = np.exp(self.following(found[-1], len(found)).logs / temperature)
            p[END] = 0.0
            found.append(int(np.cumsum(p / p.sum()).searchsorted(rng.random())))
        return tuple(found)

    def score(self, text: Text, refusal: float) -> TextScore:
        """Score a text, as a server does."""
        tokens = []
        for place, token in enumerate(text):
            at = self.first(refusal) if place == 0 else self.following(text[place - 1], place)
            rank = at.order.index(token) + 1 if token in at.order else None
            tokens.append(TokenScore(token, float(at.logs[token]), at.top, rank))
        return TextScore(tuple(tokens), VOCABULARY)


def refuses(text: Text) -> bool:
    return text[0] < 10 or text[0] == FAVOURITE[0]


def foreign(rng: np.random.Generator, length: int = 14) -> Text:
    """A refusal in words that the weights would not choose."""
    return (int(rng.integers(10)), *map(int, rng.integers(OPENERS, 380, length - 1)))


def filled(rng: np.random.Generator, text: Text) -> Text:
    """A text with one to three words of its own after the sixth."""
    return (*text[:6], *map(int, rng.integers(OPENERS, 380, int(rng.integers(1, 4)))), *text[6:])


def words(text: Text) -> str:
    return " ".join(f"w{token}" for token in text)


def make_case(
    text: Text,
    *,
    name: str = "x",
    trace: str = "t",
    control: bool = False,
    score: TextScore | None = None,
    prompt_tokens: int | None = 30,
    usage: Usage | None = None,
    **sampling: object,
) -> Case:
    """A case whose outcome is what the text says."""
    counted = prompt_tokens is not None
    return Case(
        exchange_id=name,
        trace_id=trace,
        control=control,
        outcome="refused" if text and refuses(text) else "complied",
        reading=Reading("answer", text=words(text), finish_reason="stop", usage=usage or Usage()),
        sampling={"temperature": 1.0, "top_p": 1.0, **sampling},
        prompt_tokens=prompt_tokens,
        text_tokens=len(text) if counted else None,
        score=score,
    )
