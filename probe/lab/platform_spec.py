"""What a lab platform does to a request: a specification, so that truth is known beforehand."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from probe.lab.fronts.catalogue import FRONT_NAMES
from probe.lab.providers import Provider
from probe.lab.shapes import BLOCK_SHAPES

FrontName = str
"""One of ``FRONT_NAMES``."""
ActionKind = Literal[
    "declared_block", "injected_text", "redaction", "refuse_more", "output_cut", "output_replaced", "flag"
]
Writer = Literal["texts", "template", "model"]
Envelope = Literal["matched", "sloppy"]
Pacing = Literal["pool", "shadow"]
Closed = Literal["region", "account", "data_policy"]

REDACTED = "[REDACTED]"
"""What stands in the place of a redacted word, as OpenRouter's guardrails write it (docs, sensitive-info.mdx)."""

SUBJECT = "{subject}"
"""The slot of a templated text: the word of the screen that the request holds, else the request's own subject."""


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
        # Longer words first: the regular expression takes the first that fits.
        return re.compile(r"(?i)\b(?:" + "|".join(map(re.escape, sorted(self.words, key=len, reverse=True))) + r")\b")

    def find(self, user_texts: Sequence[str]) -> str | None:
        """Return the first word that these user turns hold, as it stands there; ``""`` where no word is asked for."""
        if not self.words:
            return ""
        found = (self._pattern.search(text) for text in user_texts)
        return next((match[0] for match in found if match is not None), None)

    def matches(self, user_texts: Sequence[str], chance: random.Random) -> bool:
        """Tell whether the platform acts on a conversation with these user turns."""
        return (chance.random() < self.rate) and self.find(user_texts) is not None

    def redacted(self, text: str) -> str:
        """Return a text with the words blotted out; all of it where no word is named."""
        return self._pattern.sub(REDACTED, text) if self.words else REDACTED


@dataclass(frozen=True)
class LabLimits:
    """What a platform allows its clients, all of them together; ``None`` is no limit.

    ``tokens_per_minute`` counts prompts and completions. ``credits_usd`` is what the account holds at the start.
    ``key`` is the only one that is let in. ``closed`` refuses everything: the client's ``region`` is not served, its
    ``account`` is suspended, or its ``data_policy`` excludes every host. Every so many requests
    (``overloaded_every``, 0 for none) the host has no capacity.
    """

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    credits_usd: float | None = None
    key: str | None = None
    closed: Closed | None = None
    overloaded_every: int = 0


@dataclass(frozen=True)
class Platform:
    """A serving layer of known behaviour in front of a local server.

    ``front`` is the outer shape. ``screen`` decides on which requests ``action`` is taken:

    - ``declared_block`` answers the shape ``block`` of ``BLOCK_SHAPES``;
    - ``injected_text`` answers a text of the ``writer``; the model is not asked;
    - ``redaction`` blots the screen's words out of what the model sees; the model answers;
    - ``refuse_more`` draws the model's answer anew until it is a refusal: the trap, every word is the model's;
    - ``output_cut`` ends the model's answer early;
    - ``output_replaced`` has the model write, and delivers a text of the ``writer`` instead;
    - ``flag`` says in the way of the front that a check failed, and passes on what the model writes all the same.

    ``writer`` takes one of ``texts`` (``texts``), fills ``{subject}`` in one of them (``template``), or asks the
    upstream ``paraphraser`` the same conversation until it refuses (``model``; after eight tries one of ``texts``).

    ``envelope`` tells how well a deed is hidden. ``matched``: keys, ids, usage, pieces and timing are those of the
    platform's own genuine answers. ``sloppy``: at once, in one piece, with another id, other keys, and a usage of zero
    or none.

    ``hidden_system`` is put before every conversation. ``template_space``: the chat template makes the model see one
    space more than was sent, at the end of the last user turn. ``counts_hidden`` false bills the prompt that the client
    sent.
    ``upstream`` names the server of genuine answers; ``temperature`` overrides what the client asked for. ``buffered``
    sends every answer in one write at its end. ``jitter_s`` is the mean of an exponential delay before the first byte,
    and ten times that of one before each further piece. ``hold_s``: seconds that every answer of a platform waits
    whose deed takes time before its first piece (``waits``), so that the wait tells nothing. ``pacing`` of a matched
    injection: ``shadow`` has the model write an answer that nobody sees, and delivers the text at its pace, which no
    load of the machine betrays; ``pool`` draws from the timings of genuine answers and, once there are some, asks
    nothing of the model. On a busy machine a replay comes later and less evenly than what it replays.

    ``providers`` are the hosts that a router has, ``surprise`` the probability that another one serves a request than
    the client allowed. ``echo_hidden``: where the front tells what it sent upstream, it shows what the client sent.
    ``asynchronous``: an Azure filter that marks text which it has let through. ``keep_alive_s``: seconds of waiting
    after which a stream gets the front's keep-alive, again and again. ``stream_fault``: the probability that the host
    fails within an answer. ``generation_after_s``: seconds after which the router knows an answer's figures.
    ``free``: the model is a free variant, of which the router never tells any. ``limits`` are what it allows.
    """

    name: str
    front: FrontName = "openrouter"
    screen: Screen | None = None
    action: ActionKind | None = None
    texts: tuple[str, ...] = ()
    hidden_system: str | None = None
    template_space: bool = False
    what: str = ""
    family: str = ""
    block: str = "openrouter-moderation"
    writer: Writer = "texts"
    envelope: Envelope = "matched"
    counts_hidden: bool = True
    upstream: str = "toy"
    paraphraser: str | None = None
    temperature: float | None = None
    buffered: bool = False
    jitter_s: float = 0.0
    hold_s: float = 0.3
    pacing: Pacing = "shadow"
    providers: tuple[Provider, ...] = (Provider(),)
    surprise: float = 0.0
    echo_hidden: bool = False
    asynchronous: bool = False
    keep_alive_s: float = 5.0
    stream_fault: float = 0.0
    generation_after_s: float = 0.0
    free: bool = False
    limits: LabLimits = LabLimits()

    def __post_init__(self) -> None:
        """Refuse a specification that contradicts itself."""
        wrong = next((says for is_wrong, says in self._contradictions() if is_wrong), None)
        if wrong is not None:
            raise ValueError(f"lab platform {self.name!r}: {wrong}")

    def _contradictions(self) -> list[tuple[bool, str]]:
        kinds: Mapping[str, tuple[object, object]] = {
            "action": (self.action, ActionKind | None),
            "writer": (self.writer, Writer),
            "envelope": (self.envelope, Envelope),
            "pacing": (self.pacing, Pacing),
        }
        shape = BLOCK_SHAPES.get(self.block)
        blocks = self.action == "declared_block"
        return [
            (self.front not in FRONT_NAMES, f"{self.front!r} is no front"),
            *((value not in _choices(kind), f"{value!r} is no {key}") for key, (value, kind) in kinds.items()),
            ((self.screen is None) != (self.action is None), "screen and action belong together"),
            (self.writes and not self.texts, f"{self.action} needs texts"),
            (self.writes and self.writer == "model" and self.paraphraser is None, "this writer needs a paraphraser"),
            (blocks and shape is None, f"there is no block shape {self.block!r}"),
            (
                blocks and shape is not None and shape.backend != self.front,
                f"the block {self.block!r} is of the front {shape.backend if shape else ''!r}, not {self.front!r}",
            ),
            (self.jitter_s < 0 or self.hold_s < 0 or self.keep_alive_s < 0, "delays are not negative"),
            (not self.providers, "it has no provider"),
            (not 0 <= self.surprise <= 1 or not 0 <= self.stream_fault <= 1, "probabilities are from 0 to 1"),
        ]

    @property
    def writes(self) -> bool:
        """Whether the action delivers a text that the model did not write."""
        return self.action in {"injected_text", "output_replaced"}

    @property
    def waits(self) -> bool:
        """Whether all answers are held back for ``hold_s``, to hide that some take longer to make."""
        paraphrases = self.writes and self.writer == "model" and self.envelope == "matched"
        return self.action == "refuse_more" or paraphrases


def _choices(kind: object) -> tuple[object, ...]:
    found: list[object] = []
    for entry in get_args(kind) or (None,):
        found += get_args(entry) or ([None] if entry is type(None) else [entry])
    return tuple(found)
