"""One exchange as the detectors see it: bytes read, judged, and scored under the twin where that was possible."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from probe.scoring.base import TextScore
from probe.wire.signatures import Match
from probe.wire.values import Reading

REFUSALS = frozenset({"refused", "partial"})
"""Outcomes whose text somebody wrote in order to decline."""

NON_COMPLIANCES = REFUSALS | {"blocked", "cut", "empty"}
"""Outcomes that somebody is behind; ``error`` and ``ungradable`` are missing data (DESIGN §5, 3)."""


@dataclass(frozen=True, slots=True)
class Case:
    """An answered trial of one route.

    ``prompt_tokens`` and ``text_tokens`` are counts under the twin's tokenizer and template, ``None`` where no twin can
    count. ``score`` is the text under the twin, or ``None`` with the reason in ``unscored``. ``sampling`` is what the
    request stated.
    """

    exchange_id: str
    trace_id: str
    control: bool
    outcome: str
    reading: Reading
    matches: tuple[Match, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    prompt_tokens: int | None = None
    text_tokens: int | None = None
    score: TextScore | None = None
    unscored: str = "no twin scores texts"

    @property
    def refused(self) -> bool:
        """Whether the text declines."""
        return self.outcome in REFUSALS

    @property
    def text(self) -> str:
        """The text of the answer, or of its refusal field."""
        return self.reading.text or self.reading.refusal or ""


def normalised(text: str) -> str:
    """Return a text as copies of it are recognised: case, punctuation at the ends and runs of blanks do not count."""
    return " ".join(text.split()).strip(" .!\"'*_`").casefold()
