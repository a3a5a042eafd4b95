"""The seam between detectors and servers that can score a given text."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from probe.traces.values import Message


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One token of a given text under the twin's raw distribution (temperature 1, no filter), before it was drawn.

    ``logprob``: natural log of its probability. ``top``: logprobs of the most probable tokens, descending; the rest
    of the vocabulary shares the remaining mass. ``rank``: 1 for the most probable token, ``None`` where it lies below
    ``top``. ``text``: what the token spells, where the server says so; a part of a character is U+FFFD.
    """

    token_id: int
    logprob: float
    top: tuple[float, ...]
    rank: int | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class TextScore:
    """A continuation scored token by token. ``vocabulary``: number of tokens the weights know (for the tail)."""

    tokens: tuple[TokenScore, ...]
    vocabulary: int

    @property
    def count(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    def columns(self) -> "ScoreColumns":
        """Return the same by columns."""
        tokens = self.tokens
        return ScoreColumns(
            [token.token_id for token in tokens],
            [token.logprob for token in tokens],
            [len(token.top) for token in tokens],
            [value for token in tokens for value in token.top],
        )

    @property
    def logprob(self) -> float:
        """Natural log of P(continuation | prompt)."""
        return sum(token.logprob for token in self.tokens)

    @property
    def probability(self) -> float:
        """P(continuation | prompt), not counting that it ends there; 0 where it underflows."""
        return math.exp(self.logprob)


@dataclass(frozen=True, slots=True)
class ScoreColumns:
    """A score by columns: ids and log-probabilities of the tokens, how many alternatives each has, and all of these."""

    ids: Sequence[int]
    logprobs: Sequence[float]
    lengths: Sequence[int]
    top: Sequence[float]


class Packed(Protocol):
    """A score as the store keeps it."""

    def columns(self) -> ScoreColumns:
        """Return ids, log-probabilities and alternatives."""
        ...

    def score(self) -> TextScore:
        """Return the score itself."""
        ...


@dataclass(frozen=True, slots=True)
class KeptScore:
    """A score that stays packed in the store until it is looked at, and afterwards: a large study has too many.

    Can be used in the place of a ``TextScore``; ``load`` fetches it each time.
    """

    count: int
    vocabulary: int
    load: Callable[[], Packed]

    @property
    def tokens(self) -> tuple[TokenScore, ...]:
        """The tokens one by one; ``columns`` is much faster."""
        return self.load().score().tokens

    def columns(self) -> ScoreColumns:
        """Return the score by columns."""
        return self.load().columns()

    @property
    def logprob(self) -> float:
        """Natural log of P(continuation | prompt)."""
        return float(sum(self.columns().logprobs))

    @property
    def probability(self) -> float:
        """P(continuation | prompt), not counting that it ends there; 0 where it underflows."""
        return math.exp(self.logprob)


Score = TextScore | KeptScore


class Tokens(Protocol):
    """Counts and ids of tokens under the weights, as their own server makes them: template, special tokens and all.

    All methods raise ``ScoringError`` (one sentence) when the server cannot.
    """

    async def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the token ids of a conversation through the chat template, up to where the answer begins."""
        ...

    async def text_ids(self, text: str) -> tuple[int, ...]:
        """Return the token ids of plain text; what looks like a special token in it is not one."""
        ...

    async def answer_ids(self, messages: Sequence[Message], text: str, reasoning: str) -> tuple[int, ...]:
        """Return the token ids of what was generated after ``prompt_ids(messages)``, up to the end of ``text``.

        ``reasoning`` stands where the chat template puts it, between the marks that the model writes; without any,
        these are the ids of ``text``. A template that leaves the reasoning out raises.
        """
        ...


class Scorer(Tokens, Protocol):
    """Scores a continuation under local weights.

    ``name`` and ``version`` go into the store beside every score; ``vocabulary`` is the number of tokens the weights
    know. ``score`` raises ``ScoringError`` when the server cannot; it never returns a guess.
    """

    name: str
    version: str
    vocabulary: int

    async def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        """Score token ids ``continuation`` given token ids ``prompt``."""
        ...

    async def ends(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        """Return one ``TokenScore``: that of the token that ends the generation, standing after ``continuation``.

        Weights may know several such tokens; it is the most probable one, so that the probability of ending there is
        larger by a factor of at most their number.
        """
        ...

    async def aclose(self) -> None:
        """Release the connection."""
        ...
