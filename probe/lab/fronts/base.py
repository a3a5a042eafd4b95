"""What all fronts share: the protocol, the lapses of careless platforms, and how JSON is written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from probe.lab.providers import Provider
from probe.lab.upstream import Piece, Token


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

    ``body`` and ``headers`` (names in lower case) are what the client sent. ``provider`` serves the request, one of
    ``providers``. ``asynchronous``: the filter marks a stream afterwards and does not hold it back. ``guarded``: a
    guardrail looks at every request; ``flagged``: it found something and let the request pass. ``free``: the model is a
    free variant.
    """

    include_usage: bool = False
    fingerprint: str = ""
    lapse: Lapse | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    provider: Provider = field(default_factory=Provider)
    providers: tuple[Provider, ...] = (Provider(),)
    asynchronous: bool = False
    guarded: bool = False
    flagged: bool = False
    free: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """What a platform says that it sent upstream: the conversation, and the sampling under llama.cpp's names.

    ``prompt`` are the tokens of the rendered conversation, where the front wants tokens. ``redacted``: a guardrail
    changed the conversation, and the platform says so.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    sampling: Mapping[str, Any]
    prompt: tuple[Token, ...] = ()
    redacted: bool = False


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


@runtime_checkable
class Headed(Protocol):
    """A front whose answers carry headers of its vendor's, also where they are errors."""

    headers: tuple[tuple[str, str], ...]


@runtime_checkable
class Framing(Protocol):
    """A front whose streams are not framed as plain server-sent events."""

    def frame(self, data: bytes) -> bytes:
        """Return one JSON document as an event of the stream."""
        ...


@runtime_checkable
class Opening(Protocol):
    """A front whose streams state the prompt's tokens before the end; they are set before a stream begins."""

    prompt_tokens: int


class Accent:
    """What a front may do beyond the shape of its answers; a front that is none of these does none of it.

    ``status`` is that of good answers. ``keep_alive`` is sent while a stream waits for its first piece. A front that
    ``wants_tokens`` hears those of the prompt in ``sent`` and those of each piece before the piece. Its headers are
    read when the head of the answer is written.
    """

    status = 200
    keep_alive = b""
    wants_tokens = False

    def sent(self, sent: Sent) -> None:
        """Hear what goes upstream, before the first piece."""

    def spelled(self, tokens: Sequence[Token]) -> None:
        """Hear the tokens of the piece that comes next, or of a whole answer."""

    def rest(self) -> bytes:
        """Return what was held back of a stream that ends otherwise than with ``end``."""
        return b""

    def blocked(self, body: bytes) -> bytes:
        """Return the body of a declared block as this front sends it."""
        return body

    def broken(self, code: int, message: str) -> bytes:  # noqa: ARG002 - others say more
        """Return the error with which a stream ends that has begun; nothing where the connection just ends."""
        return b""

    def late(self, code: int, body: bytes) -> bytes:  # noqa: ARG002 - most cannot say it any more
        """Return an error that comes after the head of a stream; ``body`` is what would have been answered before."""
        return self.broken(code, "Provider returned error")

    def failed(self, code: int, message: str, text: str) -> tuple[int, bytes]:  # noqa: ARG002 - most drop the text
        """Return status and body of an answer that is not streamed and fails after this text."""
        return code, dump({"error": {"message": message, "code": code}})


_PLAIN = Accent()


def accent_of(front: Front) -> Accent:
    """Return what a front does beyond its shape."""
    return front if isinstance(front, Accent) else _PLAIN


def headers_of(front: Front) -> dict[str, str]:
    """Return the headers of a front's answers, none for most fronts."""
    return dict(front.headers) if isinstance(front, Headed) else {}


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
