"""What is sent: one adversarial conversation, the same for every route."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from probe.ids import json_hash

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """Every sampling parameter, always explicit, because servers' defaults differ (DESIGN §5, 2).

    ``top_k`` 0 and ``min_p`` 0 switch the filter off. ``seed`` is only sent where a trace names one: without it two
    trials of a trace are independent draws, which the paired statistics assume.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_tokens: int = 256
    seed: int | None = None


@dataclass(frozen=True)
class Trace:
    """A conversation with its sampling parameters and labels; ``id`` is the hash of what is sent."""

    name: str
    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    family: str = ""
    control: bool = False
    labels: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """Content hash of messages and sampling: labels and names do not change what goes over the wire."""
        return json_hash({"messages": [asdict(m) for m in self.messages], "sampling": asdict(self.sampling)})
