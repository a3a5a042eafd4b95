"""One exchange as the detectors see it: bytes read, judged, and scored under the twin where that was possible."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from probe.scoring.base import Score
from probe.wire.signatures import Match
from probe.wire.values import Exchange, Reading

if TYPE_CHECKING:
    from probe.evidence.echo import Echo
    from probe.evidence.made import Made

REFUSALS = frozenset({"refused", "partial"})
"""Outcomes whose text somebody wrote in order to decline."""

NON_COMPLIANCES = REFUSALS | {"blocked", "cut", "empty"}
"""Outcomes that somebody is behind; ``error`` and ``ungradable`` are missing data (DESIGN §5, 3)."""

GRADED = REFUSALS | {"complied"}
"""Outcomes of texts that a refusal rate is a share of."""

COLDEST = 0.1
"""Below this temperature a difference in the last digits of the logits decides about words: nothing is tested there."""

_FILTERS = {"top_p": 1.0, "top_k": 0.0, "min_p": 0.0}
_PENALTIES = {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


@dataclass(frozen=True, slots=True)
class Case:
    """An answered trial of one route.

    ``prompt_tokens`` and ``text_tokens`` are counts under the twin's tokenizer and template, ``None`` where no twin can
    count. ``score`` is the text under the twin, or ``None`` with the reason in ``unscored``. ``sampling`` is what the
    request stated. ``exchange`` are the raw bytes and times. ``repeat`` numbers the trials of one trace. ``nonce`` is
    what the trace asks any reply to carry. ``ending`` is the log of the probability that the twin stops where the text
    stops, or ``None`` where that was not asked. ``made`` says how the answer is made, where its bytes are read already;
    a case of a large study keeps nothing else of them (``probe.evidence.made``). ``echo``: what a router's echo of the
    request that it sent on shows, ``None`` where there is none.
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
    score: Score | None = None
    unscored: str = "no twin scores texts"
    exchange: Exchange | None = None
    repeat: int | None = None
    nonce: str | None = None
    ending: float | None = None
    made: "Made | None" = None
    echo: "Echo | None" = None

    @property
    def refused(self) -> bool:
        """Whether the text declines."""
        return self.outcome in REFUSALS

    @property
    def text(self) -> str:
        """The text of the answer, or of its refusal field."""
        return self.reading.text or self.reading.refusal or ""

    @property
    def power(self) -> float | None:
        """1/temperature, the power to which the sampler raises probabilities; ``None`` where that cannot be tested.

        That is greedy sampling, and a temperature that is no number. One that is not stated is taken as 1: a server's
        lower default makes its texts less surprising, which accuses nobody.
        """
        temperature = number_or(self.sampling.get("temperature"), 1.0)
        return None if temperature is None or temperature < COLDEST else 1.0 / temperature

    @property
    def filtered(self) -> tuple[str, ...]:
        """Names of the sampling parameters that cut off improbable tokens (or may: what is no number)."""
        return self._active(_FILTERS)

    @property
    def penalised(self) -> tuple[str, ...]:
        """Names of the sampling parameters that change probabilities by what was said before (or may)."""
        return self._active(_PENALTIES)

    def _active(self, neutral: Mapping[str, float]) -> tuple[str, ...]:
        # -1 is another way to switch top_k off (vLLM).
        return tuple(n for n, off in neutral.items() if number_or(self.sampling.get(n), off) not in {off, -1.0})


def number_or(value: object, default: float) -> float | None:
    """Return a stated number, the default where nothing is stated, ``None`` where it is no finite number."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def normalised(text: str) -> str:
    """Return a text as copies of it are recognised: only white space does not count.

    Anything laxer would compare the copies of several spellings with the probability of one of them.
    """
    return " ".join(text.split())
