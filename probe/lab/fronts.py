"""The outer shapes of lab platforms: an OpenRouter-like and an Ollama-like one, named as in the vendors' documents.

Sources: OpenRouter API reference (chat completions, errors, streaming), Ollama ``docs/api.md`` and ``api/types.go``.
"""

import json
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from probe.lab.upstream import Piece


class Front(Protocol):
    """Turns pieces into the bytes of one answer. ``begin`` and ``end`` are only used for streams."""

    json_type: str
    stream_type: str

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

    def block(self, flagged: str) -> tuple[int, bytes]:
        """Return status and body of a declared block."""
        ...


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class OpenRouterFront:
    """The shape of OpenRouter's ``/api/v1/chat/completions``."""

    json_type = "application/json"
    stream_type = "text/event-stream"

    def __init__(self, model: str, provider: str) -> None:
        self._model = model
        self._provider = provider
        self._id = f"gen-{int(time.time())}-{uuid.uuid4().hex[:20]}"
        self._created = int(time.time())

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "provider": self._provider,
            "model": self._model,
            "object": kind,
            "created": self._created,
            "choices": choices,
        }

    def _event(self, delta: Mapping[str, Any], finish: str | None, usage: Mapping[str, Any] | None = None) -> bytes:
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": "", **delta},
            "finish_reason": finish,
            "native_finish_reason": finish,
            "logprobs": None,
        }
        document = self._envelope("chat.completion.chunk", [choice])
        if usage is not None:
            document["usage"] = usage
        return b"data: " + _dump(document) + b"\n\n"

    def begin(self) -> bytes:
        """Return the keep-alive comment that precedes the first event."""
        return b": OPENROUTER PROCESSING\n\n"

    def piece(self, text: str) -> bytes:
        """Return one delta."""
        return self._event({"content": text}, None)

    def end(self, last: Piece) -> bytes:
        """Return the final chunk, the same again with usage, and the terminator."""
        first = self._event({}, last.finish_reason)
        return first + self._event({}, last.finish_reason, self._usage(last)) + b"data: [DONE]\n\n"

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a chat.completion object."""
        message = {"role": "assistant", "content": text, "refusal": None, "reasoning": None}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": last.finish_reason,
            "native_finish_reason": last.finish_reason,
            "logprobs": None,
        }
        return _dump({**self._envelope("chat.completion", [choice]), "usage": self._usage(last)})

    def block(self, flagged: str) -> tuple[int, bytes]:
        """Return OpenRouter's moderation error (docs: errors and debugging, ``ModerationErrorMetadata``)."""
        short = flagged if len(flagged) <= 100 else f"{flagged[:48]}...{flagged[-48:]}"
        message = (
            f'{self._model} requires moderation on {self._provider}. Your input was flagged for "violence". '
            "No credits were charged."
        )
        metadata = {
            "reasons": ["violence"],
            "flagged_input": short,
            "provider_name": self._provider,
            "model_slug": self._model,
        }
        return 403, _dump({"error": {"code": 403, "message": message, "metadata": metadata}, "user_id": "user_lab"})

    @staticmethod
    def _usage(last: Piece) -> dict[str, Any]:
        usage = last.usage or {}
        prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "cost": 0,
            "is_byok": False,
        }


class OllamaFront:
    """The shape of Ollama's ``/api/chat``: newline-delimited JSON, durations in nanoseconds."""

    json_type = "application/json; charset=utf-8"
    stream_type = "application/x-ndjson"

    def __init__(self, model: str, provider: str) -> None:
        del provider
        self._model = model
        self._started = time.monotonic_ns()

    def _object(self, text: str, **rest: Any) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {"model": self._model, "created_at": now, "message": {"role": "assistant", "content": text}, **rest}

    def _final(self, text: str, last: Piece) -> dict[str, Any]:
        usage, timings = last.usage or {}, last.timings or {}
        return self._object(
            text,
            done=True,
            done_reason=last.finish_reason or "stop",
            total_duration=time.monotonic_ns() - self._started,
            load_duration=0,
            prompt_eval_count=usage.get("prompt_tokens", 0),
            prompt_eval_duration=int(1e6 * timings.get("prompt_ms", 0)),
            eval_count=usage.get("completion_tokens", 0),
            eval_duration=int(1e6 * timings.get("predicted_ms", 0)),
        )

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

    def block(self, flagged: str) -> tuple[int, bytes]:
        """Return an error as a gateway before Ollama would: Ollama itself has no moderation."""
        del flagged
        return 403, _dump({"error": "request blocked by content policy"})


FRONTS: Mapping[str, type[OpenRouterFront] | type[OllamaFront]] = {"openrouter": OpenRouterFront, "ollama": OllamaFront}
