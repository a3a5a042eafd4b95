"""What a lab platform does to a request: a specification, so that truth is known beforehand."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Front = Literal["openrouter", "ollama"]
ActionKind = Literal["declared_block", "injected_text"]


@dataclass(frozen=True)
class Screen:
    """An input filter: it looks for words in what the user wrote, and finds them as reliably as ``rate`` says.

    ``words`` are matched without regard to case, as whole words; an empty tuple matches every request. ``rate`` is the
    probability that a request with such a word is acted on (a real classifier misses some).
    """

    words: tuple[str, ...] = ()
    rate: float = 1.0

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(r"(?i)\b(?:" + "|".join(map(re.escape, self.words)) + r")\b")

    def matches(self, user_texts: Sequence[str], chance: random.Random) -> bool:
        """Tell whether the platform acts on a conversation with these user turns."""
        found = not self.words or any(self._pattern.search(text) for text in user_texts)
        # Drawn in any case, so that the sequence of draws depends on the number of requests only.
        return (chance.random() < self.rate) and found


@dataclass(frozen=True)
class Platform:
    """A serving layer of known behaviour in front of a local server.

    ``screen`` decides on which requests ``action`` is taken: ``declared_block`` answers an error in the shape of the
    front, ``injected_text`` answers one of ``texts`` as if the model had written it, with the token counts, ids and
    cadence of an ordinary answer. ``hidden_system`` is put before every conversation.
    """

    name: str
    front: Front = "openrouter"
    screen: Screen | None = None
    action: ActionKind | None = None
    texts: tuple[str, ...] = ()
    hidden_system: str | None = None
    what: str = ""

    def __post_init__(self) -> None:
        """Refuse a specification that contradicts itself."""
        if (self.screen is None) != (self.action is None):
            raise ValueError(f"lab platform {self.name!r}: screen and action belong together")
        if self.action == "injected_text" and not self.texts:
            raise ValueError(f"lab platform {self.name!r}: injected_text needs texts")
