"""Genuine responses and requests, and mutants of them: of their JSON nodes, framing, bytes and headers."""

import contextlib
import copy
import gzip
import json
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import brotli
import zstandard

from probe.wire.eventstream import EventStreamParser, looks_like_messages
from probe.wire.values import ExchangeState, HeaderPairs
from tests.kit import JSON, NDJSON, SSE, completion, delta, ndjson, sse
from tests.wire.dialects_kit import AWS, REQUEST_BODIES, genuine, message
from tests.wire.strategies import KEYS

SAMPLES = Path(__file__).resolve().parent.parent / "backends" / "samples"
LARGEST = 1_000_000
"""Bytes of a mutant, about."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input: a response, or the body of a request."""

    kind: Literal["response", "request"]
    body: bytes
    status: int | None = 200
    headers: HeaderPairs = JSON
    state: ExchangeState = "complete"

    def with_body(self, body: bytes) -> "Input":
        """Return the same input around another body."""
        return replace(self, body=body)


def seeds() -> list[Input]:
    """Return what genuine traffic looks like: the samples of the signatures, and whole answers of all dialects."""
    found = []
    for path in sorted(SAMPLES.glob("*/*.json")):
        sample = json.loads(path.read_text(encoding="utf-8"))
        for entry in [*sample["matches"], *sample["near_misses"]]:
            extra = tuple(entry.get("headers", {}).items())
            if "events" in entry:
                found.append(Input("response", sse(*entry["events"]), entry["status"], (*SSE, *extra)))
            else:
                body = json.dumps(entry["body"]).encode()
                found.append(Input("response", body, entry["status"], (*JSON, *extra)))
    whole = [Input("response", body, 200, headers) for body, headers in genuine()]
    return [*found, *whole, *_answers(), *_requests()]


def _answers() -> list[Input]:
    token = {"token": "I", "logprob": -0.1, "top_logprobs": [{"token": "I", "logprob": -0.1}]}
    text = "I'm sorry, but I can't help with that.\n\n> **No** `x`\n- a\n| b |\n```\n{}\n```"
    whole = completion(text, logprobs={"content": [token]})
    whole["usage"]["completion_tokens_details"] = {"reasoning_tokens": 2}
    whole |= {"timings": {"prompt_ms": 3.0, "predicted_ms": 9}, "metrics": {"queue_time_ms": 1}, "provider": "x"}
    stream = [
        delta("<think>so</think>I ", logprobs={"content": [token]}),
        delta("can't."),
        delta(finish_reason="stop"),
        {"choices": [], "usage": whole["usage"]},
    ]
    parts = completion(None)
    parts["choices"][0]["message"] |= {
        "content": [{"type": "text", "text": "Yes."}, {"type": "thinking", "thinking": [{"text": "hm"}]}],
        "reasoning_details": [{"type": "reasoning.text", "text": "so"}],
        "refusal": "No.",
    }
    chat = {
        "model": "toy",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": '{"answer": ["I cannot assist."]}', "thinking": "hm"},
        "done": False,
    }
    last = chat | {"done": True, "done_reason": "stop", "eval_count": 9, "prompt_eval_count": 4, "eval_duration": 12345}
    page = b"<!doctype html><html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
    html = (("Content-Type", "text/html; charset=iso-8859-1"),)
    wrapped = {"error": {"message": "x", "metadata": {"raw": json.dumps({"error": json.dumps({"code": "1301"})})}}}
    bodies = [
        (json.dumps(whole).encode(), 200, JSON),
        (json.dumps(parts).encode(), 200, JSON),
        (sse(*stream), 200, SSE),
        (sse(*stream, newline="\r\n"), 200, SSE),
        (b': ping\n\nevent: error\ndata: {"error": "x"}\n\n', 200, SSE),
        (ndjson(chat, last), 200, NDJSON),
        (json.dumps(last).encode(), 200, JSON),
        (json.dumps(wrapped).encode(), 400, JSON),
        (page, 502, html),
    ]
    return [Input("response", body, status, headers) for body, status, headers in bodies]


def _requests() -> list[Input]:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello?"}]},
    ]
    bodies: list[dict[str, Any]] = [
        {"model": "toy", "messages": messages, "temperature": 0.7, "top_k": -1, "max_tokens": 9, "seed": 1},
        {"model": "toy", "messages": messages, "options": {"num_predict": 9, "mirostat": 1}, "think": False},
        {"messages": messages, "plugins": [{"id": "x", "enabled": False}], "transforms": [], "stream": True},
        *(body for _, body in REQUEST_BODIES),
    ]
    return [Input("request", json.dumps(body).encode()) for body in bodies for _ in range(3)]


def mutant(rng: random.Random, genuine: Sequence[Input]) -> Input:
    """Return one input: a genuine one, changed once or several times."""
    found = rng.choice(genuine)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        found = rng.choice(_CHANGES)(rng, found, genuine)
    return found.with_body(found.body[: 2 * LARGEST])


def _nodes(rng: random.Random, given: Input, genuine: Sequence[Input]) -> Input:
    """Change nodes of the JSON, in a document, in an event, or in a line."""
    text = given.body.decode("utf-8", "replace")
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    mark = "data: " if lines[at].startswith("data: ") else ""
    try:
        value = json.loads(lines[at][len(mark) :])
    except (ValueError, RecursionError):
        return _bytes(rng, given, genuine)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _changed(rng, value)
    lines[at] = mark + json.dumps(value, ensure_ascii=rng.random() < 0.5)
    return given.with_body("\n".join(lines).encode("utf-8", "surrogatepass"))


def _messages(rng: random.Random, given: Input, genuine: Sequence[Input]) -> Input:
    """Change the payloads and headers of an AWS event stream, with checksums that are right again."""
    if not looks_like_messages(given.body):
        return _nodes(rng, given, genuine)
    body = b""
    for found in EventStreamParser().feed(given.body):
        payload, headers = found.payload, dict(found.headers)
        if rng.random() < 0.4:
            with contextlib.suppress(ValueError, RecursionError):
                changed = json.dumps(_changed(rng, json.loads(payload)))
                payload = changed.encode("utf-8", "surrogatepass")
        if headers and rng.random() < 0.1:
            headers[rng.choice([*headers])] = rng.choice(("", "error", "exception", "metadata", b"x", 7, True))
        body += message(headers, payload) * rng.choice((1, 1, 1, 1, 0, 2))
    return given.with_body(body[:LARGEST])


def _changed(rng: random.Random, value: Any) -> Any:
    """Replace, delete, retype, wrap or move one node."""
    holder: list[Any] = [copy.deepcopy(value)]
    places: list[tuple[Any, Any]] = [(holder, 0)]
    for container, key in places:
        inner = container[key]
        if isinstance(inner, dict):
            places += [(inner, name) for name in inner]
        elif isinstance(inner, list):
            places += [(inner, number) for number in range(len(inner))]
        if len(places) > 400:
            break
    container, key = rng.choice(places)
    match rng.randrange(7):
        case 0 if container is not holder:
            del container[key]
        case 1:
            container[key] = [container[key]]
        case 2:
            container[key] = {rng.choice(KEYS): container[key]}
        case 3 if isinstance(container, dict):
            container[rng.choice(KEYS)] = _value(rng)
        case 4:
            other, name = rng.choice(places)
            container[key] = copy.deepcopy(other[name]) if other is not holder else _value(rng)
        case 5 if isinstance(container[key], str):
            container[key] = json.dumps(container[key]) if rng.random() < 0.3 else _text(rng, container[key])
        case _:
            container[key] = _value(rng)
    return holder[0]


def _value(rng: random.Random) -> Any:
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: rng.choice((True, False)),
        lambda: rng.choice((0, -1, 1, 2**53, 2**63, 10**400, -(10**30), 0.5, 1e308, -0.0)),
        lambda: rng.choice((float("nan"), float("inf"), float("-inf"))),
        lambda: _text(rng, ""),
        lambda: rng.choice(([], {}, [[]], [{}], [None], {"": None}, "", "0", "stop", "error")),
        lambda: {rng.choice(KEYS): _value(rng) for _ in range(3)},
        lambda: [_value(rng) for _ in range(3)],
    )
    return rng.choice(kinds)()


_PHRASES = (
    "I can't help with that.", "I'm sorry, but ", "it is not ", "against our policy ", "<think>", "</think>",
    "\n</think>\n", "```", "```json\n", "[K7Q2] ", "{", "[", '"', "|", " ", "\t", "\n", "\r", "\x00", "\ufeff",
    "\ud83d", "\udc4d", "\u2028", "\u202e", "\x1b[31m", "你好", "é", "a", "A-1", ".", "'", ":", "- ", "> ", "# ",
    "**", "_", "and ", "not ",
    "really ", "request ", "content was blocked ", "violates ", "data: ", "[DONE]", "<title", "<html", "ing is ",
)  # fmt: skip


def _text(rng: random.Random, start: str) -> str:
    words = start + "".join(rng.choice(_PHRASES) for _ in range(rng.randrange(6)))
    if rng.random() < 0.04:
        piece = "".join(rng.choice(_PHRASES) for _ in range(rng.randrange(1, 4)))
        words += piece * (rng.choice((1_000, 30_000, 300_000)) // len(piece)) + rng.choice(_PHRASES)
    return words


def _bytes(rng: random.Random, given: Input, _genuine: Sequence[Input]) -> Input:
    """Change bytes: flip, delete, insert, repeat, cut."""
    body = bytearray(given.body)
    start = rng.randrange(len(body) + 1)
    end = min(start + rng.choice((1, 1, 2, 5, 20, 200)), len(body))
    match rng.randrange(6):
        case 0 if start < len(body):
            body[start] ^= 1 << rng.randrange(8)
        case 1:
            del body[start:end]
        case 2:
            body[start:start] = rng.randbytes(rng.randrange(1, 9))
        case 3:
            body[start:start] = rng.choice(_PIECES)
        case 4:
            piece = bytes(body[start:end]) or b"\n"
            times = rng.choice((2, 10, 1000, 300_000 if rng.random() < 0.1 else 3)) // len(piece) + 2
            body[start:start] = piece * times
        case _:
            del body[start:]
    return given.with_body(bytes(body))


_PIECES = (
    b"\n", b"\r\n", b"\r", b"\n\n", b"data: ", b"data:\n", b"event: error\n", b": x\n", b"id: 1\n", b"[DONE]", b"\x00",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\xbd", b"\xc3", b"{", b"[" * 300, b'{"a":' * 300, b"[" * 50_000, b'"',
    b"\\u", b'"\\ud83d"', b"1e999", b"NaN", b"-", b"1" * 5000, b",", b"null", b"<html>", b"<title", b"<think>",
    b"\x1f\x8b",
)  # fmt: skip


def _spliced(rng: random.Random, given: Input, genuine: Sequence[Input]) -> Input:
    """Join the beginning of one body and the end of another."""
    other = rng.choice(genuine).body
    return given.with_body(given.body[: rng.randrange(len(given.body) + 1)] + other[rng.randrange(len(other) + 1) :])


def _envelope(rng: random.Random, given: Input, _genuine: Sequence[Input]) -> Input:
    """Change what stands around the body: status, state, content type and coding, without the body following."""
    match rng.randrange(5):
        case 0:
            return replace(given, status=rng.choice((None, 100, 200, 204, 302, 400, 403, 429, 446, 500, 502, 599, 999)))
        case 1:
            states: tuple[ExchangeState, ...] = ("complete", "cut", "timeout", "unreachable", "client_gone")
            return replace(given, state=rng.choice(states))
        case 2:
            kind = rng.choice(
                (*(pair[0][1] for pair in (JSON, SSE, NDJSON, AWS)), "text/html", "", "\xff", "a/b; charset=utf-16")
            )
            return replace(given, headers=(("content-type", kind), *given.headers[1:]))
        case 3:
            coding = rng.choice(
                ("gzip", "br", "zstd", "deflate", "gzip, gzip", "x" * 9000, "identity", "gzip,,br,a,b,c")
            )
            return replace(given, headers=(*given.headers, ("Content-Encoding", coding)))
        case _:
            name, value = rng.choice((("x-a", "y" * 70_000), ("", ""), ("\x00", "\x1b[2J"), ("X-Request-Id", "\xe9")))
            return replace(given, headers=(*given.headers, (name, value)) * rng.choice((1, 1, 1, 200)))


def _coded(rng: random.Random, given: Input, _genuine: Sequence[Input]) -> Input:
    """Encode the body: another text encoding, or a content coding, once or twice, whole or cut."""
    body = given.body
    if rng.random() < 0.3:
        text = body.decode("utf-8", "replace")
        return given.with_body(
            text.encode(rng.choice(("utf-16", "utf-16-le", "latin-1", "utf-32", "utf-8-sig")), "replace")
        )
    name, encode = rng.choice(_CODINGS)
    times = rng.choice((1, 1, 2, 3))
    for _ in range(times):
        body = encode(body)
    if rng.random() < 0.2:
        body *= rng.choice((2, 1000)) if len(body) < 1000 else 2
    if rng.random() < 0.3:
        body = body[: rng.randrange(len(body) + 1)]
    return replace(given, body=body, headers=(*given.headers, ("Content-Encoding", ", ".join([name] * times))))


_CODINGS: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("gzip", lambda body: gzip.compress(body, 1)),
    ("deflate", zlib.compress),
    ("br", lambda body: brotli.compress(body, quality=1)),
    ("zstd", zstandard.compress),
    ("gzip", lambda _: gzip.compress(b"", 1)),
    ("zstd", lambda _: zstandard.compress(b"")),
    ("gzip", lambda body: gzip.compress(body[:100] * 20_000, 1)),
    ("br", lambda body: brotli.compress(body[:100] * 20_000, quality=1)),
)

_CHANGES = (_nodes, _nodes, _nodes, _messages, _bytes, _bytes, _spliced, _envelope, _coded)
