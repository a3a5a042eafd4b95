"""The outer shapes of lab platforms: OpenRouter, plain chat completions and Ollama, named as in the vendors' documents.

Sources: OpenRouter API reference (chat completions, errors, streaming); OpenAI API reference (the chat completion and
chat completion chunk objects; ``stream_options``), openai/openai-python@e43b422 ``types/chat``; Ollama ``docs/api.md``
and ``api/types.go``.
"""

import json
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
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


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _event(document: Any) -> bytes:
    return b"data: " + _dump(document) + b"\n\n"


def _without(value: Any, keys: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(entry, keys) for key, entry in value.items() if key not in keys}
    return [_without(entry, keys) for entry in value] if isinstance(value, list) else value


def _counts(last: Piece, lapse: Lapse | None) -> dict[str, int] | None:
    """Return prompt, completion and total tokens; ``None`` where the platform forgets them."""
    if lapse is not None and lapse.usage == "absent":
        return None
    stated = {} if lapse is not None else last.usage or {}
    prompt, completion = stated.get("prompt_tokens", 0), stated.get("completion_tokens", 0)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class OpenRouterFront:
    """The shape of OpenRouter's ``/api/v1/chat/completions``. The usage comes without being asked for."""

    json_type = "application/json"
    stream_type = "text/event-stream"

    def __init__(self, model: str, settings: "FrontSettings") -> None:
        self._model = model
        self._lapse = settings.lapse
        self.created = int(time.time())
        prefix = self._lapse.prefix if self._lapse else f"gen-{self.created}-"
        self.id = prefix + uuid.uuid4().hex[:20]

    def _document(self, kind: str, choice: dict[str, Any], last: Piece | None) -> dict[str, Any]:
        document = {
            "id": self.id,
            "provider": "Lab",
            "model": self._model,
            "object": kind,
            "created": self.created,
            "choices": [choice],
        }
        counts = _counts(last, self._lapse) if last is not None else None
        if counts is not None:
            document["usage"] = {**counts, "cost": 0, "is_byok": False}
        return _without(document, self._lapse.without) if self._lapse else document

    def _chunk(self, text: str, finish: str | None, last: Piece | None = None) -> bytes:
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": text},
            "finish_reason": finish,
            "native_finish_reason": finish,
            "logprobs": None,
        }
        return _event(self._document("chat.completion.chunk", choice, last))

    def begin(self) -> bytes:
        """Return the keep-alive comment that precedes the first event."""
        return b": OPENROUTER PROCESSING\n\n"

    def piece(self, text: str) -> bytes:
        """Return one delta."""
        return self._chunk(text, None)

    def end(self, last: Piece) -> bytes:
        """Return the final chunk, the same again with usage, and the terminator."""
        first, again = self._chunk("", last.finish_reason), self._chunk("", last.finish_reason, last)
        return (first if first == again else first + again) + b"data: [DONE]\n\n"

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a chat.completion object."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None, "reasoning": None},
            "finish_reason": last.finish_reason,
            "native_finish_reason": last.finish_reason,
            "logprobs": None,
        }
        return _dump(self._document("chat.completion", choice, last))


class OpenAiFront:
    """The shape of OpenAI's ``/v1/chat/completions``, as vLLM and most hosts of open weights send it too.

    Where a stream's usage is asked for, every chunk has ``usage: null``, and one more chunk without choices has it.
    """

    json_type = "application/json"
    stream_type = "text/event-stream; charset=utf-8"

    def __init__(self, model: str, settings: "FrontSettings") -> None:
        self._model = model
        self._lapse = settings.lapse
        self._include_usage = settings.include_usage
        self._fingerprint = settings.fingerprint
        self.created = int(time.time())
        self.id = (self._lapse.prefix if self._lapse else "chatcmpl-") + uuid.uuid4().hex

    def _document(self, kind: str, choices: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:
        document = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self._model,
            "choices": choices,
            **rest,
            "system_fingerprint": self._fingerprint,
        }
        return _without(document, self._lapse.without) if self._lapse else document

    def _chunk(self, delta: Mapping[str, Any], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish}
        no_usage = {"usage": None} if self._include_usage else {}
        return _event(self._document("chat.completion.chunk", [choice], **no_usage))

    def begin(self) -> bytes:
        """Return the chunk that names the role."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def piece(self, text: str) -> bytes:
        """Return one delta."""
        return self._chunk({"content": text}, None)

    def end(self, last: Piece) -> bytes:
        """Return the final chunk, the usage where it was asked for, and the terminator."""
        data = self._chunk({}, last.finish_reason)
        counts = _counts(last, self._lapse) if self._include_usage else None
        if counts is not None:
            data += _event(self._document("chat.completion.chunk", [], usage=counts))
        return data + b"data: [DONE]\n\n"

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a chat.completion object."""
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish_reason}
        counts = _counts(last, self._lapse)
        return _dump(self._document("chat.completion", [choice], **({"usage": counts} if counts is not None else {})))


class OllamaFront:
    """The shape of Ollama's ``/api/chat``: newline-delimited JSON, durations in nanoseconds."""

    json_type = "application/json; charset=utf-8"
    stream_type = "application/x-ndjson"

    def __init__(self, model: str, settings: "FrontSettings") -> None:
        self._model = model
        self._lapse = settings.lapse
        self._started = time.monotonic_ns()
        self.created = int(time.time())
        self.id = ""

    def _object(self, text: str, **rest: Any) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        document = {"model": self._model, "created_at": now, "message": {"role": "assistant", "content": text}, **rest}
        return _without(document, self._lapse.without) if self._lapse else document

    def _final(self, text: str, last: Piece) -> dict[str, Any]:
        timings, counts = last.timings or {}, _counts(last, self._lapse)
        stated = {
            "total_duration": time.monotonic_ns() - self._started,
            "load_duration": 0,
            "prompt_eval_count": None if counts is None else counts["prompt_tokens"],
            "prompt_eval_duration": int(1e6 * timings.get("prompt_ms", 0)),
            "eval_count": None if counts is None else counts["completion_tokens"],
            "eval_duration": int(1e6 * timings.get("predicted_ms", 0)),
        }
        told = {key: value for key, value in stated.items() if value is not None}
        return self._object(text, done=True, done_reason=last.finish_reason or "stop", **told)

    def begin(self) -> bytes:
        """Return nothing: the stream starts with the first object."""
        return b""

    def piece(self, text: str) -> bytes:
        """Return one object with a piece of the text."""
        return _dump(self._object(text, done=False)) + b"\n"

    def end(self, last: Piece) -> bytes:
        """Return the final object."""
        return _dump(self._final("", last)) + b"\n"

    def whole(self, text: str, last: Piece) -> bytes:
        """Return the one object of an answer that is not streamed."""
        return _dump(self._final(text, last))


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What one answer's front depends on beside the model.

    ``include_usage``: the client asked for a stream's usage. ``fingerprint`` is the platform's. ``lapse`` is set for a
    text that a careless platform injects.
    """

    include_usage: bool = False
    fingerprint: str = ""
    lapse: Lapse | None = None


FRONTS: Mapping[str, type[OpenRouterFront] | type[OpenAiFront] | type[OllamaFront]] = {
    "openrouter": OpenRouterFront,
    "openai": OpenAiFront,
    "ollama": OllamaFront,
}

_LEFT_OUT: Mapping[str, tuple[frozenset[str], ...]] = {
    "openrouter": (
        frozenset({"provider"}),
        frozenset({"native_finish_reason", "logprobs"}),
        frozenset({"refusal", "reasoning", "logprobs", "is_byok"}),
    ),
    "openai": (
        frozenset({"system_fingerprint"}),
        frozenset({"system_fingerprint", "logprobs"}),
        frozenset({"logprobs", "refusal", "annotations"}),
    ),
    "ollama": (
        frozenset({"total_duration", "load_duration"}),
        frozenset({"load_duration", "prompt_eval_duration", "eval_duration"}),
    ),
}

_PREFIXES = ("cmpl-", "resp_", "msg_", "")


def lapse_of(front: str, chance: random.Random) -> Lapse:
    """Draw what a careless platform with this front gets wrong."""
    usage: Literal["zero", "absent"] = chance.choice(("zero", "absent"))
    return Lapse(chance.choice(_PREFIXES), chance.choice(_LEFT_OUT[front]), usage)
