"""What a lab platform really did, written by the platform itself; the probe never reads it before it has judged."""

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Deed = Literal[
    "none",
    "declared_block",
    "injected_text",
    "cut_stream",
    "output_replaced",
    "redaction",
    "prompt_rewrite",
    "refuse_more",
    "other_weights",
    "sampling",
]

BY_PLATFORM = frozenset({"declared_block", "injected_text", "cut_stream", "output_replaced"})
"""Deeds by which the client gets something that the model did not write, or not that way."""

MECHANISMS: Mapping[Deed, str] = {
    "declared_block": "declared_block",
    "injected_text": "injected_text",
    "cut_stream": "cut_stream",
    "output_replaced": "injected_text",
    "redaction": "redaction",
    "prompt_rewrite": "prompt_rewrite",
    "refuse_more": "model_refusal",
    "other_weights": "other_weights",
}
"""The probe's word for each deed (DESIGN §2), where it has one."""


@dataclass(frozen=True, slots=True)
class LabEntry:
    """One request as the platform handled it.

    ``request_id`` is the value of the ``x-request-id`` header of the response, which real providers send as well; it
    says nothing about the deed. ``author`` is who wrote what the client got. ``detail`` holds the platform's
    ``family``, the ``mechanism`` where DESIGN has a word for the deed, and what the deed was made of.
    """

    request_id: str
    platform: str
    deed: Deed
    author: Literal["model", "platform"]
    detail: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, request_id: str, platform: str, family: str, deed: Deed, **detail: Any) -> "LabEntry":
        """Make an entry; author and mechanism follow from the deed, and ``detail`` may name another mechanism."""
        known = {"family": family} | ({"mechanism": MECHANISMS[deed]} if deed in MECHANISMS else {})
        author: Literal["model", "platform"] = "platform" if deed in BY_PLATFORM else "model"
        return cls(request_id, platform, deed, author, known | detail)


class LabLog:
    """An append-only log in memory, written to a JSON Lines file when asked."""

    def __init__(self) -> None:
        self._entries: dict[str, LabEntry] = {}
        self._lock = threading.Lock()

    def add(self, entry: LabEntry) -> None:
        """Append an entry; a second one for a request takes the place of the first."""
        with self._lock:
            self._entries[entry.request_id] = entry

    def find(self, request_id: str | None) -> LabEntry | None:
        """Return the entry of a request, or ``None`` for a request that no lab platform answered."""
        with self._lock:
            return self._entries.get(request_id or "")

    def all(self) -> tuple[LabEntry, ...]:
        """Return all entries in the order in which they came."""
        with self._lock:
            return tuple(self._entries.values())

    def save(self, path: Path) -> None:
        """Write all entries, one JSON object a line, in the order in which they came."""
        lines = [json.dumps(asdict(entry), ensure_ascii=False) for entry in self.all()]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
