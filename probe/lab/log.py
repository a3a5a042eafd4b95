"""What a lab platform really did, written by the platform itself; the probe never reads it before it has judged."""

import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Deed = Literal["none", "declared_block", "injected_text", "prompt_rewrite"]


@dataclass(frozen=True, slots=True)
class LabEntry:
    """One request as the platform handled it.

    ``request_id`` is the value of the ``x-request-id`` header of the response, which real providers send as well; it
    says nothing about the deed. ``author`` is who wrote what the client got.
    """

    request_id: str
    platform: str
    deed: Deed
    author: Literal["model", "platform"]
    detail: dict[str, Any] = field(default_factory=dict)


class LabLog:
    """An append-only log in memory, written to a JSON Lines file when asked."""

    def __init__(self) -> None:
        self._entries: dict[str, LabEntry] = {}
        self._lock = threading.Lock()

    def add(self, entry: LabEntry) -> None:
        """Append an entry."""
        with self._lock:
            self._entries[entry.request_id] = entry

    def find(self, request_id: str | None) -> LabEntry | None:
        """Return the entry of a request, or ``None`` for a request that no lab platform answered."""
        with self._lock:
            return self._entries.get(request_id or "")

    def save(self, path: Path) -> None:
        """Write all entries, one JSON object a line, in the order in which they came."""
        with self._lock:
            lines = [json.dumps(asdict(entry), ensure_ascii=False) for entry in self._entries.values()]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
