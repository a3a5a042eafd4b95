"""Requests to lab platforms over plain sockets, with headers of the test's own, and readers of what came."""

import json
import socket
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.lab.raw import QUESTION, Answered, documents

METADATA = {"X-OpenRouter-Metadata": "enabled"}
ECHO = {"debug": {"echo_upstream_body": True}}


def request(
    lab: str, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> Answered:
    """Send one request over a connection of its own."""
    address = urlsplit(lab)
    assert address.hostname is not None
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: lab", f"Content-Length: {len(data)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    received = b""
    with socket.create_connection((address.hostname, address.port or 80), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + data)
        while more := connection.recv(65536):
            received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    named = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in fields))
    chunked = any(value == "chunked" for name, value in named if name.lower() == "transfer-encoding")
    writes, whole = _unchunk(rest) if chunked else ([rest], True)
    return Answered(int(first.split()[1]), named, tuple(writes), whole)


def _unchunk(rest: bytes) -> tuple[list[bytes], bool]:
    writes = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            return writes, True
        writes.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return writes, False


def chat(
    lab: str,
    platform: str,
    question: str = QUESTION,
    *,
    stream: bool = True,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Answered:
    """Ask a platform that speaks chat completions one question."""
    body = {
        "model": "toy",
        "messages": [{"role": "user", "content": question}],
        "stream": stream,
        "max_tokens": 48,
        "temperature": 1.0,
        "stream_options": {"include_usage": True},
        **more,
    }
    return request(lab, "POST", f"/{platform}/v1/chat/completions", body, headers)


def get(lab: str, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """Return status and document of a GET."""
    answer = request(lab, "GET", path, None, headers)
    return answer.status, json.loads(answer.body)


def events(answer: Answered) -> list[Any]:
    """All documents of a stream in order; comments first, ``[DONE]`` as text."""
    return documents(answer.body)


def chunks(answer: Answered) -> list[dict[str, Any]]:
    """All JSON documents of a stream in order."""
    return [event for event in events(answer) if isinstance(event, dict)]


def deltas(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """The texts of the choices' deltas, those that are there."""
    texts = [
        choice["delta"]["content"]
        for chunk in found
        for choice in chunk.get("choices") or []
        if "content" in choice.get("delta", {})
    ]
    return [text for text in texts if text]
