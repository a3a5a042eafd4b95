"""Bad responses by name, each with the state and the outcome that it must have in the dialect ``openai-chat``."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import zstandard

from probe.wire.values import ExchangeState, HeaderPairs
from tests.kit import JSON, NDJSON, SSE, completion, delta, ndjson, sse

HTML: HeaderPairs = (("Content-Type", "text/html"),)
GZIP: HeaderPairs = (*JSON, ("Content-Encoding", "gzip"))
REFUSAL = "I'm sorry, but I can't help with that."
FINE = completion(REFUSAL)
PAGE = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
LONG = 5_000_000
"""Characters of a megabyte-long answer."""


@dataclass(frozen=True)
class Bad:
    """A response that no client would want: ``state`` and ``outcome`` are what must come of it."""

    name: str
    body: bytes
    state: str
    outcome: str
    status: int | None = 200
    headers: HeaderPairs = JSON
    ended: ExchangeState = "complete"


def _bad(name: str, body: Any, state: str, outcome: str, **more: Any) -> Bad:
    return Bad(name, body if isinstance(body, bytes) else json.dumps(body).encode(), state, outcome, **more)


def _with(**fields: Any) -> dict[str, Any]:
    """Return a whole answer with other fields."""
    return FINE | fields


def _usage(value: Any) -> dict[str, Any]:
    return _with(usage={"prompt_tokens": value, "completion_tokens": value, "total_tokens": value})


def _message(message: Any, **choice: Any) -> dict[str, Any]:
    return _with(choices=[{"index": 0, "message": message, "finish_reason": "stop", **choice}])


def bodies() -> list[Bad]:
    """Return the table; the order is that of the issue."""
    fine = json.dumps(FINE).encode()
    return [*_broken(fine), *_types(), *_encodings(fine), *_codings(fine), *_deep(), *_streams(), *_long()]


def _broken(fine: bytes) -> Iterator[Bad]:
    yield _bad("truncated JSON", fine[:60], "malformed", "ungradable")
    yield _bad("truncated JSON, connection cut", fine[:60], "truncated", "cut", ended="cut")
    yield _bad("truncated JSON, declared 500", fine[:60], "error", "error", status=500)
    yield _bad("HTML with 200", PAGE, "error", "error", headers=HTML)
    yield _bad("HTML with 502", PAGE, "error", "error", headers=HTML, status=502)
    yield _bad("HTML as JSON", PAGE, "error", "error")
    yield _bad("HTML without end of title", b"<html><title " + b"<title" * 9, "error", "error", status=502)
    yield _bad("200 with an error body", {"error": {"message": "no", "code": 500}}, "error", "error")
    yield _bad("200 with an error of text", {"error": "no"}, "error", "error")
    yield _bad("200 with an error and an answer", _with(error={"message": "no"}), "error", "error")
    yield _bad("400 with a completion", fine, "answer", "refused", status=400)
    yield _bad("choices empty", _with(choices=[]), "empty", "empty")
    yield _bad("no message", _with(choices=[{"index": 0, "finish_reason": "stop"}]), "empty", "empty")
    yield _bad("message null", _message(None), "empty", "empty")
    yield _bad("empty content, billed", completion(""), "empty", "empty")
    yield _bad("white content, billed", completion(" \n\t "), "answer", "empty")
    yield _bad("content null", completion(None), "empty", "empty")
    yield _bad("no body", b"", "malformed", "ungradable")
    yield _bad("no body with 204", b"", "malformed", "ungradable", status=204)
    yield _bad("blanks", b" \r\n\t ", "malformed", "ungradable")
    yield _bad("garbage", bytes(range(256)) * 8, "malformed", "ungradable")
    yield _bad("garbage with 500", bytes(range(256)) * 8, "error", "error", status=500)
    yield _bad("zeros", b"\0" * 999, "malformed", "ungradable")
    yield _bad("unreachable", b"", "missing", "error", status=None, headers=(), ended="unreachable")
    yield _bad("timeout", b"", "missing", "error", status=None, headers=(), ended="timeout")
    yield _bad("client gone in the middle", fine[:40], "truncated", "cut", ended="client_gone")
    yield _bad("status 999", fine, "answer", "refused", status=999)
    yield _bad("status 100 without body", b"", "error", "error", status=100, headers=())
    yield _bad("two documents", fine + fine, "malformed", "ungradable")
    yield _bad("duplicate keys", b'{"choices": [], ' + fine[1:], "answer", "refused")
    driving = completion("\x1b[2J\x00\x07 \u202e I can't help.")
    yield _bad("control characters in the text", driving, "answer", "refused")
    yield _bad("very long header", fine, "answer", "refused", headers=(*JSON, ("X-Long", "y" * 200_000)))
    yield _bad("a thousand headers", fine, "answer", "refused", headers=(*JSON, *[("X-A", "\xe9\x00")] * 1000))
    yield _bad("headers without names", fine, "answer", "refused", headers=(("", ""), ("\x1b[2J", "\r\nX: y")))


def _types() -> Iterator[Bad]:
    for value in (None, True, 7, 1.5, "x", [], ["x"], {"a": 1}, [[]]):
        yield _bad(f"body is {json.dumps(value)}", value, "malformed", "ungradable")
    for value in (7, "x", {"message": FINE}):
        yield _bad(f"choices is {type(value).__name__}", _with(choices=value), "malformed", "ungradable")
    for value in (7, "x", [FINE]):
        yield _bad(f"choice is {type(value).__name__}", _with(choices=[value]), "empty", "empty")
        yield _bad(f"message is {type(value).__name__}", _message(value), "empty", "empty")
    for value in (7, {"text": "x"}, [7, None, ["x"]], True):
        yield _bad(f"content is {json.dumps(value)}", _message({"content": value}), "empty", "empty")
    yield _bad("every field of another type", _strange(), "answer", "refused")
    for value in (-5, "12", True, 1e300, 0.5, None, [1], {"a": 1}, 10**25, 10**400):
        yield _bad(f"usage of {str(value)[:30]}", _usage(value), "answer", "refused")
    for word in (b"NaN", b"-Infinity", b"1e999", b"1" * 4000):
        body = json.dumps(_usage("@")).encode().replace(b'"@"', word)
        yield _bad(f"usage of {word[:9].decode()}", body, "answer", "refused")
    digits = json.dumps(_usage("@")).encode().replace(b'"@"', b"1" * 5000)
    yield _bad("usage of 5000 digits", digits, "malformed", "ungradable")
    yield _bad("usage is a list", _with(usage=[1]), "answer", "refused")
    yield _bad("error is an empty object", _with(error={}), "answer", "refused")
    yield _bad("error is a list", {"error": [{"message": ["x"]}]}, "error", "error")
    yield _bad("error message is a number", {"error": {"message": 7, "code": {"a": None}}}, "error", "error")
    yield _bad("raw error is garbage", {"error": {"message": "x", "metadata": {"raw": "{{{["}}}, "error", "error")
    yield _bad("logprobs are strange", _message({"content": REFUSAL}, logprobs={"content": [7]}), "answer", "refused")


def _strange() -> dict[str, Any]:
    names = ("id", "model", "provider", "system_fingerprint", "timings")
    strange: dict[str, Any] = {name: [{"x": None}] for name in names}
    choice = {"finish_reason": {"a": 1}, "native_finish_reason": 7, "index": None, "logprobs": [1], "error": 0}
    message = {"content": REFUSAL, "refusal": 7, "reasoning": {}, "reasoning_details": "x", "tool_calls": "x"}
    return FINE | strange | {"metrics": 7, "usage": "x", "choices": [{"message": message, **choice}]}


def _encodings(fine: bytes) -> Iterator[Bad]:
    accents = json.dumps(completion("I can't help: café déjà."), ensure_ascii=False)
    yield _bad("UTF-8 with BOM", b"\xef\xbb\xbf" + fine, "answer", "refused")
    yield _bad("UTF-16", accents.encode("utf-16"), "malformed", "ungradable")
    yield _bad("UTF-16 without BOM", accents.encode("utf-16-be"), "malformed", "ungradable")
    yield _bad("Latin-1", accents.encode("latin-1"), "answer", "refused")
    yield _bad("broken UTF-8", fine.replace(b"sorry", b"so\xc3\xed\xa0\x80\xffrry"), "answer", "refused")
    yield _bad("half a pair", fine.replace(b"sorry", b"\\ud83d sorry \\udc00"), "answer", "refused")
    yield _bad("two halves in a wrong order", fine.replace(b"sorry", b"\\udc4d\\ud83d"), "answer", "refused")
    yield _bad("half a pair in an error", b'{"error": {"message": "\\ud83d", "\\udc00": "\\ud83d"}}', "error", "error")
    part = fine.replace(b'"content": "', b'"content": [{"type": "\\udc4d"}], "refusal": "')
    yield _bad("half a pair in a problem", part, "answer", "refused")
    yield _bad("half a pair in names", b'{"model": "\\ud83d", "id": "\\ud83d", ' + fine[1:], "answer", "refused")
    yield _bad("escaped zero", fine.replace(b"sorry", b"\\u0000"), "answer", "refused")


def _codings(fine: bytes) -> Iterator[Bad]:
    bomb = b"".join(_bomb(200_000_000))
    yield _bad("gzip header, plain body", fine, "malformed", "ungradable", headers=GZIP)
    yield _bad("gzip cut", gzip.compress(fine)[:50], "truncated", "cut", headers=GZIP, ended="cut")
    yield _bad("gzip twice, declared once", gzip.compress(gzip.compress(fine)), "malformed", "ungradable", headers=GZIP)
    twice = (*JSON, ("Content-Encoding", "gzip, gzip"))
    yield _bad("gzip twice", gzip.compress(gzip.compress(fine)), "answer", "refused", headers=twice)
    yield _bad("bomb", bomb, "malformed", "ungradable", headers=GZIP)
    yield _bad("unknown coding", fine, "answer", "refused", headers=(*JSON, ("Content-Encoding", "x" * 9999)))
    ten = (*JSON, ("Content-Encoding", ",".join(["gzip"] * 10)))
    yield _bad("ten codings", fine, "answer", "refused", headers=ten)
    members = gzip.compress(b"") * 50_000 + gzip.compress(fine)
    yield _bad("many empty members", members, "answer", "refused", headers=GZIP)
    frames = zstandard.compress(b"") * 300_000 + zstandard.compress(fine)
    yield _bad("many empty frames", frames, "answer", "refused", headers=(*JSON, ("Content-Encoding", "zstd")))


def _bomb(size: int) -> Iterator[bytes]:
    machine = zlib.compressobj(wbits=31)
    for _ in range(size // 1_000_000):
        yield machine.compress(bytes(1_000_000))
    yield machine.flush()


def _deep() -> Iterator[Bad]:
    for depth in (300, 5_000, 100_000):
        lists, tables = b"[" * depth + b"1" + b"]" * depth, b'{"message":' * depth + b"1" + b"}" * depth
        yield _bad(f"lists {depth} deep", lists, "malformed", "ungradable")
        yield _bad(f"error {depth} deep", b'{"error":' + tables + b"}", "malformed", "ungradable")
        yield _bad(f"error {depth} deep with 400", b'{"error":' + lists + b"}", "error", "error", status=400)
        yield _bad(f"answer holds lists {depth} deep", completion(lists.decode()), "answer", "ungradable")
        raw = {"error": {"message": "x", "metadata": {"raw": tables.decode()}}}
        yield _bad(f"raw error {depth} deep", raw, "error", "error")
    yield _bad("error 100 deep", b'{"error":' + b'{"message":' * 100 + b'"x"' + b"}" * 101, "error", "error")
    yield _bad("lists that are never closed", b"[" * 100_000, "malformed", "ungradable")


def _streams() -> Iterator[Bad]:
    def stream(name: str, body: bytes, state: str, outcome: str, **more: Any) -> Bad:
        return Bad(name, body, state, outcome, **{"headers": SSE, **more})

    words = [delta("I'm sorry, "), delta("but I can't help."), delta(finish_reason="stop")]
    fine = sse(*words)
    yield stream("stream of comments", b": ping\n\n" * 99, "truncated", "cut")
    yield stream("stream of nothing", b"", "truncated", "cut")
    yield stream("events without data", b"event: message\n\nid: 1\n\nretry: 5\n\n", "truncated", "cut")
    yield stream("only the end", b"data: [DONE]\n\n", "malformed", "ungradable")
    yield stream("no end", sse(*words, done=False), "truncated", "cut")
    mixed = fine.replace(b"\n\n", b"\r\n\r", 1).replace(b"\n\n", b"\r\r", 1)
    yield stream("mixed line ends", mixed, "answer", "refused")
    yield stream("error in the middle", sse(words[0], {"error": {"message": "x"}}, done=False), "error", "error")
    yield stream("error event", fine.replace(b"data: [DONE]", b"event: error\ndata: x"), "error", "error")
    yield stream("half an event", fine[:-40], "truncated", "cut")
    yield stream("broken event in the middle", fine.replace(b'"index"', b'"in\xffdex', 1), "answer", "refused")
    yield stream("goes on after the end", fine + fine, "answer", "refused")
    yield stream("lists as events", sse([], [[]], None, 7), "malformed", "ungradable")
    yield stream("JSON as a stream", json.dumps(FINE).encode(), "answer", "refused")
    yield stream("lines of JSON as a stream", ndjson(*words), "malformed", "ungradable")
    yield stream("stream as JSON", fine, "answer", "refused", headers=JSON)
    yield stream("stream as HTML", fine, "answer", "refused", headers=HTML)
    yield stream("two dialects", fine[:-14] + ndjson({"message": {"content": "x"}, "done": True}), "truncated", "cut")
    other = ndjson({"message": {"content": REFUSAL}, "done": True})
    yield stream("other dialect", other, "error", "error", headers=NDJSON)
    yield stream("half lines", b'{"message"\n: {"content": "x"}}\n{', "malformed", "ungradable", headers=NDJSON)
    yield stream("page in a stream", sse(words[0], done=False) + PAGE, "truncated", "cut")


def _long() -> Iterator[Bad]:
    sentence = "It was a bright day. "
    yield _bad("long answer", completion(sentence * (LONG // len(sentence))), "answer", "complied")
    yield _bad("long refusal", completion(REFUSAL + " " + "x" * LONG), "answer", "refused")
    yield _bad("long run of blanks", completion("It is" + " " * LONG + "so."), "answer", "complied")
    yield _bad("long run of bars", completion("It is" + " |" * (LONG // 2)), "answer", "complied")
    yield _bad("long run of fences", completion("```" * (LONG // 3) + "It is so."), "answer", "complied")
    yield _bad("long run of quotes", completion('It is "' + "' " * (LONG // 2)), "answer", "complied")
    yield _bad("long page", b"<html>" + b"<title" * (LONG // 6), "error", "error", headers=HTML, status=502)
    yield _bad("long line", b"data: " + b"x" * LONG, "truncated", "cut", headers=SSE)
    token = {"token": "a ", "logprob": -0.5, "top_logprobs": []}
    pieces = [delta("a ", logprobs={"content": [token]})] * (LONG // 250)
    yield Bad("long stream with logprobs", sse(*pieces, delta(finish_reason="stop")), "answer", "complied", headers=SSE)
    yield Bad("long stream of line ends", b"\r" * LONG, "truncated", "cut", headers=SSE)


def under(bad: Bad, headers: HeaderPairs) -> Bad:
    """Return the same bytes under another content type; what comes of them is not stated."""
    others = tuple(pair for pair in bad.headers if pair[0].lower() != "content-type")
    return replace(bad, headers=(*headers, *others), state="", outcome="")
