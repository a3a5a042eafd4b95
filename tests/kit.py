"""Exchanges for tests: one call makes a whole one, and every field can be set."""

import json
from typing import Any

from probe.wire.values import Chunk, Exchange, HeaderPairs

JSON: HeaderPairs = (("Content-Type", "application/json"),)
SSE: HeaderPairs = (("Content-Type", "text/event-stream; charset=utf-8"),)
NDJSON: HeaderPairs = (("Content-Type", "application/x-ndjson"),)


def make_exchange(**overrides: Any) -> Exchange:
    """Return an exchange that was answered with ``{"choices": …}``; keywords are fields of ``Exchange``.

    A ``response_body`` may be bytes, a text, or anything that JSON can write; so may a ``request_body``. Where no
    chunks are given the body came in one, 0.3 s after the start.
    """
    values: dict[str, Any] = {
        "id": "01900000-0000-7000-8000-000000000001",
        "route_id": "r1",
        "trial_id": "t1",
        "attempt": 1,
        "started_at": 1_790_000_000.0,
        "method": "POST",
        "url": "http://127.0.0.1:8080/v1/chat/completions",
        "request_headers": JSON,
        "request_body": {"model": "toy", "messages": [{"role": "user", "content": "Hello?"}]},
        "http_version": "HTTP/1.1",
        "status": 200,
        "reason": "OK",
        "response_headers": JSON,
        "response_body": completion("Hello."),
        "sent_at": 0.01,
        "head_at": 0.2,
        "ended_at": 0.4,
        "state": "complete",
        **overrides,
    }
    for key in ("request_body", "response_body"):
        values[key] = _bytes(values[key])
    body = values["response_body"]
    values.setdefault("chunks", (Chunk(len(body), 0.3),) if body else ())
    return Exchange(**values)


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value, ensure_ascii=False).encode()


def completion(text: str | None, **choice: Any) -> dict[str, Any]:
    """Return a chat.completion object; keywords are fields of its choice."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "toy",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }


def delta(text: str | None = None, **choice: Any) -> dict[str, Any]:
    """Return a chat.completion.chunk object; keywords are fields of its choice."""
    piece = {} if text is None else {"content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "toy",
        "choices": [{"index": 0, "delta": piece, "finish_reason": None, **choice}],
    }


def sse(*documents: Any, done: bool = True, newline: str = "\n") -> bytes:
    """Return an event stream of these documents, with ``[DONE]`` at its end unless told otherwise."""
    data = [d if isinstance(d, str) else json.dumps(d, ensure_ascii=False) for d in documents]
    return "".join(f"data: {entry}{newline}{newline}" for entry in [*data, *(["[DONE]"] if done else [])]).encode()


def ndjson(*documents: Any) -> bytes:
    """Return lines of JSON."""
    return "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents).encode()
