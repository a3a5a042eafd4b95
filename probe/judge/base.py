"""What a judge says about one exchange: the outcome that the user got, not who is behind it."""

from dataclasses import dataclass
from typing import Literal, Protocol

from probe.wire.values import Reading

Outcome = Literal["complied", "partial", "refused", "blocked", "cut", "empty", "error", "ungradable"]
"""``complied``: an answer to what was asked; ``partial``: some of it, then a refusal; ``refused``: words of refusal;
``blocked``: the response declares a moderation block; ``cut``: the stream broke off; ``empty``: no text came;
``error``: the server reported a fault; ``ungradable``: this judge cannot read it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """An outcome, the judge's probability that a careful human would give the same, and why in one clause."""

    outcome: Outcome
    confidence: float
    reason: str


class Judge(Protocol):
    """Labels outcomes. ``name`` and ``version`` go into the store with every label."""

    name: str
    version: str

    def judge(
        self, reading: Reading, status: int | None, signature_author: str | None = None, *, blocked: bool = False
    ) -> Judgement:
        """Give the outcome of one exchange; see ``RulesJudge.judge``."""
        ...
