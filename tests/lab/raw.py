"""A client that hides nothing: header lines in order, and every write of a chunked body as the server made it."""

import json
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from probe.wire.dialects import dialect
from probe.wire.framing import SseParser
from probe.wire.values import Exchange, Reading
from tests.kit import make_exchange
from tests.lab.dialect_kit import DIALECTS, body_of, frames, path_of

QUESTION = "How do I brew glimmerdust tonic?"
HOSTILE = 'Say "glimmerdust" {model} \\ back\nand on a new line: {id}'
"""Quotes, a line break and slots: nothing that a template may stumble over."""


@dataclass(frozen=True)
class Answered:
    """One response. ``writes`` are the chunks of a chunked body, or the one body; ``whole`` tells of its proper end."""

    status: int
    headers: tuple[tuple[str, str], ...]
    writes: tuple[bytes, ...]
    whole: bool
    front: str = "openrouter"

    @property
    def names(self) -> list[str]:
        return [name.lower() for name, _ in self.headers]

    def header(self, name: str) -> str:
        return next(value for key, value in self.headers if key.lower() == name)

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    @property
    def exchange(self) -> Exchange:
        return make_exchange(
            status=self.status,
            response_headers=self.headers,
            response_body=self.body,
            state="complete" if self.whole else "cut",
        )

    @property
    def reading(self) -> Reading:
        return dialect(DIALECTS.get(self.front, "openai-chat")).read(self.exchange)


def ask(
    lab: str,
    platform: str,
    question: str = QUESTION,
    *,
    front: str = "openrouter",
    stream: bool = True,
    max_tokens: int = 64,
    **more: Any,
) -> Answered:
    """Ask a platform one question over a connection of its own."""
    body = body_of(front, question, stream=stream, max_tokens=max_tokens)
    return _send(lab, f"/{platform}{path_of(front, stream=stream)}", {**body, **more}, front)


def ask_all(lab: str, asked: Sequence[tuple[str, str]], *, at_once: int, **more: Any) -> list[Answered]:
    """Ask (platform, question) pairs, ``at_once`` together; answers in the order of the questions."""
    found: dict[int, Answered] = {}
    todo = iter(list(enumerate(asked)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                entry = next(todo, None)
            if entry is None:
                return
            number, (platform, question) = entry
            found[number] = ask(lab, platform, question, **more)

    threads = [threading.Thread(target=work) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(len(asked))]


def _send(lab: str, path: str, body: Mapping[str, Any], front: str) -> Answered:
    address = urlsplit(lab)
    assert address.hostname is not None
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: lab\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    received = b""
    with socket.create_connection((address.hostname, address.port or 80), timeout=60) as connection:
        connection.sendall(head.encode() + data)
        while more := connection.recv(65536):
            received += more
    lines, _, rest = received.partition(b"\r\n\r\n")
    first, *fields = lines.decode("latin-1").split("\r\n")
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in fields))
    names = {name.lower(): value for name, value in headers}
    if names.get("transfer-encoding") == "chunked":
        writes, whole = _chunks(rest)
    else:
        writes, whole = [rest], len(rest) == int(names["content-length"])
    return Answered(int(first.split()[1]), headers, tuple(writes), whole, front)


def _chunks(rest: bytes) -> tuple[list[bytes], bool]:
    writes = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            return writes, True
        writes.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return writes, False


def documents(data: bytes) -> list[Any]:
    """All JSON documents in a write or a body; comments and terminators as texts."""
    if data[:1] == b"\x00":  # the length of a binary frame; texts do not begin so
        return [{headers[":event-type"]: json.loads(payload)} for headers, payload in frames(data)]
    text = data.decode()
    if text.startswith("{\n"):
        return [json.loads(text)]
    if text.startswith("{"):
        return [json.loads(line) for line in text.splitlines() if line]
    found: list[Any] = [line for line in text.splitlines() if line.startswith(":")]
    parser = SseParser()
    events = [*parser.feed(data), *parser.close()]
    return found + [event.data if event.data == "[DONE]" else json.loads(event.data) for event in events]


def structure(answer: Answered) -> set[tuple[Any, ...]]:
    """What can be told of an answer's form: its distinct writes, each as the key paths and types of its documents."""
    return {tuple(tuple(_paths(document)) for document in documents(write)) for write in answer.writes}


def _paths(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, entry in value.items():  # the order of keys is a part of the form
            yield from _paths(entry, f"{path}.{key}")
    elif path == ".context":
        yield path, f"list of {type(value[0]).__name__}"  # tokens: as many as the answer has
    elif isinstance(value, list):
        yield path, f"list of {len(value)}"
        for entry in value:
            yield from _paths(entry, f"{path}[]")
    elif path in {"", ".object", ".model", ".system_fingerprint", ".provider"} or path.endswith("finish_reason"):
        yield path, repr(value)
    elif path.endswith(".id"):
        yield path, re.sub(r"[0-9a-f]", "h", value)
    elif isinstance(value, str) and ("content" in path or path.endswith((".text", ".response"))):
        yield path, "text" if value else "no text"
    else:
        yield path, type(value).__name__


def union(answers: Iterable[Answered]) -> set[tuple[Any, ...]]:
    """The forms of all writes of several answers."""
    return set().union(*(structure(answer) for answer in answers))
