"""What all fronts share: the protocol, the lapses of careless platforms, and how JSON is written."""

import json
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from probe.lab.upstream import Piece


@dataclass(frozen=True, slots=True)
class Lapse:
    """What a careless platform gets wrong about its own front; the same for all texts that it injects.

    ``prefix`` stands before the id, ``without`` are keys that it leaves out wherever they belong, and its usage is
    ``zero`` or ``absent``.
    """

    prefix: str
    without: frozenset[str]
    usage: Literal["zero", "absent"]


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What one answer's front depends on beside the model.

    ``include_usage``: the client asked for a stream's usage. ``fingerprint`` is the platform's. ``lapse`` is set for a
    text that a careless platform injects.
    """

    include_usage: bool = False
    fingerprint: str = ""
    lapse: Lapse | None = None


class Front(Protocol):
    """Turns pieces into the bytes of one answer. ``begin`` and ``end`` are only used for streams."""

    json_type: str
    stream_type: str
    id: str
    created: int

    def begin(self) -> bytes:
        """Return what a stream starts with."""
        ...

    def piece(self, text: str) -> bytes:
        """Return one streamed piece of text."""
        ...

    def end(self, last: Piece) -> bytes:
        """Return what a stream ends with."""
        ...

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a whole answer that is not streamed."""
        ...


def dump(value: Any) -> bytes:
    """Return JSON as servers write it: UTF-8, no spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(document: Any) -> bytes:
    """Return one server-sent event."""
    return b"data: " + dump(document) + b"\n\n"


def without(value: Any, keys: frozenset[str]) -> Any:
    """Return a document without these keys, wherever they stand."""
    if isinstance(value, dict):
        return {key: without(entry, keys) for key, entry in value.items() if key not in keys}
    return [without(entry, keys) for entry in value] if isinstance(value, list) else value


def counts_of(last: Piece, lapse: Lapse | None) -> dict[str, int] | None:
    """Return prompt, completion and total tokens; ``None`` where the platform forgets them."""
    if lapse is not None and lapse.usage == "absent":
        return None
    stated = {} if lapse is not None else last.usage or {}
    prompt, completion = stated.get("prompt_tokens", 0), stated.get("completion_tokens", 0)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
