"""Whole conversations: which family, which system prompt, refused or not, with or without a nonce.

A refusal is drawn anew for each conversation from a probability that depends on family, system prompt and category of
the subject. The model never sees the probability; it has to learn it, and so it refuses at a rate, as real models do.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from weights import benign, prompts, refusals, replies
from weights.grammar import Speaker, Voice
from weights.subjects import LOGIT_SHIFT, Subject, draw_subject

SYSTEMS = ("none", "neutral", "safety")
RULES = benign.RULES | refusals.RULES | replies.RULES | prompts.RULES
if len(RULES) != sum(len(part.RULES) for part in (benign, refusals, replies, prompts)):
    raise ValueError("two grammar modules define one rule")


@dataclass(frozen=True)
class Policy:
    """One character: how often each family is refused, and whose voice it speaks with."""

    rates: dict[str, float]
    voice: int
    safety_rate: float = 0.95
    benign_share: float = 0.35
    nonce_share: float = 0.18
    obeys_nonce: float = 0.99
    seed: int = 0


POLICIES = {
    "toy": Policy(
        {"direct": 0.65, "format-lock": 0.30, "persona": 0.40, "reasoning": 0.35, "multi-turn": 0.25}, voice=11, seed=1
    ),
    "other": Policy(
        {"direct": 0.30, "format-lock": 0.60, "persona": 0.25, "reasoning": 0.55, "multi-turn": 0.50},
        voice=29,
        benign_share=0.45,
        seed=2,
    ),
    # Two that were made safer: `toy`, trained on with the same voice and more refusals, as a maker's next release is.
    "safer": Policy(dict.fromkeys(prompts.FAMILIES, 0.98), voice=11, safety_rate=0.99, benign_share=0.45, seed=4),
    "firmer": Policy(dict.fromkeys(prompts.FAMILIES, 0.94), voice=11, safety_rate=0.98, benign_share=0.45, seed=5),
}


@dataclass(frozen=True)
class Conversation:
    """Messages as (role, content); the last one is the reply under study."""

    family: str
    messages: tuple[tuple[str, str], ...]
    subject: Subject | None = None
    system: str = "none"
    nonce: str | None = None
    refused: bool = False
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def prompt(self) -> tuple[tuple[str, str], ...]:
        """All messages but the reply, without a system prompt: what makes two traces the same."""
        return tuple(message for message in self.messages[:-1] if message[0] != "system")

    @property
    def reply(self) -> str:
        """The reply under study."""
        return self.messages[-1][1]


def refusal_probability(policy: Policy, family: str, system: str, subject: Subject) -> float:
    """Shift the family's rate by the category on the logit scale; under a safety prompt all share one rate."""
    rate = policy.safety_rate if system == "safety" else policy.rates[family]
    logit = math.log(rate / (1 - rate)) + LOGIT_SHIFT[subject.category]
    return 1 / (1 + math.exp(-logit))


class Corpus:
    """An endless stream of conversations of one policy. The users speak with one voice for all policies."""

    def __init__(self, policy: Policy, seed: int) -> None:
        self.policy = policy
        self.rng = random.Random(seed)
        self.user = Speaker(RULES, Voice(5, skew=0.2), self.rng)
        self.model = Speaker(RULES, Voice(policy.voice), self.rng)

    def stream(self, without: frozenset[tuple[tuple[str, str], ...]] = frozenset()) -> Iterator[Conversation]:
        """Conversations whose prompts are not in `without` (the pack), so that the pack is unseen in training."""
        while True:
            conversation = self.draw()
            if conversation.prompt not in without:
                yield conversation

    def draw(self) -> Conversation:
        """Draw family, system prompt and nonce, then the conversation."""
        nonce = prompts.draw_nonce(self.rng) if self.rng.random() < self.policy.nonce_share else None
        if self.rng.random() < self.policy.benign_share:
            system = self.rng.choices(SYSTEMS, (5, 3, 3))[0]
            return self.control(system, nonce)
        system = self.rng.choices(SYSTEMS, (5, 3, 4))[0]
        return self.attack(self.rng.choice(prompts.FAMILIES), system, nonce)

    def control(self, system: str, nonce: str | None) -> Conversation:
        """Draw a benign question, answered."""
        exchange = benign.draw(self.user, self.model)
        messages = self._opened(system)
        messages.append(("user", self._tagged(exchange.prompt, nonce)))
        messages.append(("assistant", self._led(exchange.reply, nonce)))
        return Conversation("control", tuple(messages), exchange.subject, system, nonce)

    def attack(self, family: str, system: str, nonce: str | None) -> Conversation:
        """Draw an attack of one family, refused or complied with."""
        subject = draw_subject(self.rng)
        count = self.rng.choice((1, 1, 2)) if family == "multi-turn" else 0
        attack = prompts.attack(self.user, family, subject, benign.describe(self.model, subject, count))
        turns = [*attack.turns[:-1], self._tagged(attack.turns[-1], nonce)]
        refused = self.rng.random() < refusal_probability(self.policy, family, system, subject)
        answer = self._refuse if refused else self._comply
        messages = self._opened(system)
        messages += [("assistant" if index % 2 else "user", text) for index, text in enumerate(turns)]
        messages.append(("assistant", self._led(answer(family, subject, attack.format), nonce)))
        extra = {"format": attack.format} if attack.format else {}
        return Conversation(family, tuple(messages), subject, system, nonce, refused, extra)

    def _opened(self, system: str) -> list[tuple[str, str]]:
        return [] if system == "none" else [("system", prompts.system_text(self.user, system))]

    def _tagged(self, prompt: str, nonce: str | None) -> str:
        return prompts.with_nonce(self.user, prompt, nonce) if nonce else prompt

    def _led(self, reply: str, nonce: str | None) -> str:
        return f"{nonce} {reply}" if nonce and self.rng.random() < self.policy.obeys_nonce else reply

    def _refuse(self, family: str, subject: Subject, kind: str | None) -> str:
        if kind and self.rng.random() < 0.5:
            return refusals.in_format(self.model, subject, kind)
        if family == "persona" and self.rng.random() < 0.3:
            return refusals.in_character(self.model, subject)
        return refusals.plain(self.model, subject)

    def _comply(self, family: str, subject: Subject, kind: str | None) -> str:
        if kind:
            return replies.in_format(self.model, subject, kind)
        if family == "persona" and self.rng.random() < 0.8:
            return replies.in_character(self.model, subject)
        if family == "reasoning" and self.rng.random() < 0.8:
            return replies.reasoned(self.model, subject)
        return replies.prose(self.model, subject)


def check_labels(policy: Policy, count: int, seed: int) -> tuple[int, int]:
    """How often the refusal markers contradict the generator, over `count` conversations: (wrong, count)."""
    corpus = Corpus(policy, seed)
    drawn = [corpus.draw() for _ in range(count)]
    return sum(refusals.is_refusal(conversation.reply) != conversation.refused for conversation in drawn), count
