"""A context-free grammar in one notation, with a voice that prefers some words to others.

`(a|b|c)` is a choice, `$name` is a rule or a slot. A real model does not choose uniformly between its phrases, and two
models prefer different ones; a `Voice` gives every choice its own fixed, skewed weights, so that a second model trained
on the same grammar speaks recognisably otherwise.
"""

import math
import random
import re
from collections.abc import Mapping
from functools import cache
from itertools import accumulate
from typing import NamedTuple

SLOT = re.compile(r"\$([a-z_]+)")


class Choice(NamedTuple):
    """The alternatives of one pair of parentheses and the text that names them."""

    source: str
    options: tuple["Sequence", ...]


Sequence = tuple["str | Choice", ...]


def _parse_sequence(text: str, at: int, stops: str) -> tuple[Sequence, int]:
    """Read until one of `stops` at depth 0; a hand-written parser is shorter than a dependency."""
    parts: list[str | Choice] = []
    literal = ""
    while at < len(text) and text[at] not in stops:
        if text[at] != "(":
            literal += text[at]
            at += 1
            continue
        if literal:
            parts.append(literal)
            literal = ""
        start = at
        options = []
        while True:
            option, at = _parse_sequence(text, at + 1, "|)")
            options.append(option)
            if at >= len(text):
                raise ValueError(f"unbalanced parentheses in {text!r}")
            if text[at] == ")":
                break
        at += 1
        parts.append(Choice(text[start:at], tuple(options)))
    if literal:
        parts.append(literal)
    return tuple(parts), at


@cache
def parse(template: str) -> Sequence:
    """Read one template. A top-level `|` is text (tables need it); choices live inside parentheses."""
    return _parse_sequence(template, 0, "")[0]


class Voice:
    """Fixed preferences between alternatives, drawn once from a seed. `skew` 0 is a uniform speaker."""

    def __init__(self, seed: int, skew: float = 0.5) -> None:
        self.seed = seed
        self.skew = skew
        self._weights: dict[str, list[float]] = {}

    def weights(self, choice: Choice) -> list[float]:
        """Cumulative weights of the alternatives: log-normal, the same for each appearance of the same choice."""
        known = self._weights.get(choice.source)
        if known is None:
            rng = random.Random(f"{self.seed}:{choice.source}")
            known = list(accumulate(math.exp(self.skew * rng.gauss(0, 1)) for _ in choice.options))
            self._weights[choice.source] = known
        return known


class Speaker:
    """A voice, a source of randomness and the rules it may use."""

    def __init__(self, rules: Mapping[str, str], voice: Voice, rng: random.Random) -> None:
        self.rules = rules
        self.voice = voice
        self.rng = rng

    def say(self, template: str, **slots: str) -> str:
        """Expand a template to text. Slots win over rules and are inserted as they are."""
        out: list[str] = []
        self._walk(parse(template), slots, out)
        return "".join(out)

    def _walk(self, sequence: Sequence, slots: Mapping[str, str], out: list[str]) -> None:
        for part in sequence:
            if isinstance(part, Choice):
                chosen = self.rng.choices(part.options, cum_weights=self.voice.weights(part))[0]
                self._walk(chosen, slots, out)
                continue
            end = 0
            for match in SLOT.finditer(part):
                out.append(part[end : match.start()])
                end = match.end()
                name = match.group(1)
                if name in slots:
                    out.append(slots[name])
                else:
                    self._walk(parse(self.rules[name]), slots, out)
            out.append(part[end:])
