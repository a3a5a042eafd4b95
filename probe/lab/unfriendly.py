"""A server of chat completions that fails in every way in which networks and providers fail, and keeps count.

Faults are on the wire and not in a library's idea of it, so this speaks HTTP/1.1 (RFC 9112) on plain sockets. It runs
in a process of its own (``python -m probe.lab.unfriendly``), outlives the runner that it is to annoy, and writes a line
per request into a log: what was asked, what was done, and what a provider would have billed for it.

Without faults it is an instant server, which shows what the runner itself costs.
"""

import asyncio
import contextlib
import hashlib
import json
import random
import socket
import ssl
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

FAULTS: Mapping[str, float] = {
    "rate_limited": 0.06,
    "server_error": 0.05,
    "overloaded": 0.02,
    "reset_before": 0.01,
    "reset_during": 0.015,
    "reset_after": 0.015,
    "stall_head": 0.005,
    "stall_body": 0.01,
    "half_line": 0.015,
    "long_length": 0.015,
    "short_length": 0.01,
    "error_in_stream": 0.015,
    "error_in_body": 0.015,
    "credit": 0.0005,
}
"""Faults and their shares of all requests; what is left is answered."""

_FREE = frozenset({"rate_limited", "storm", "server_error", "overloaded", "credit", "error_in_body", "refused"})
"""What no provider bills: nothing was generated, or an error took the answer's place."""

PROMPT_USD, COMPLETION_USD = 1.0, 2.0
"""Prices per million tokens."""

_TEXT = "Here is a short note about the brass kettle, as you asked for it. It stands on the shelf, and it sings."
_STORM_EVERY = 400
"""Requests after which the next storm begins."""
_STORM_S = 2.0
"""Seconds that a storm lasts: however slowly it is asked, it ends, as those of providers do."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the log has it. ``key`` is the hash of the last message, which tells the trial."""

    at: float
    key: str
    fault: str
    usd: float


@dataclass
class Unfriendly:
    """One listening server. ``faults`` are shares by name; ``seed`` makes the order of faults repeatable.

    Every ``_STORM_EVERY`` requests there is a storm: nothing but 429 for ``_STORM_S`` seconds.
    """

    faults: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    log: IO[str] | None = None
    count: int = 0

    def __post_init__(self) -> None:
        """Seed the draws."""
        self._chance = random.Random(self.seed)
        self._storm_until = 0.0

    async def serve(self, port: int = 0, tls: ssl.SSLContext | None = None) -> asyncio.Server:
        """Listen on loopback."""
        return await asyncio.start_server(self._client, "127.0.0.1", port, ssl=tls, limit=2**20)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client left, which is its right
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; return whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        if head[0].startswith("GET"):
            await _send(writer, 200, {"object": "list", "data": [{"id": "kettle", "object": "model"}]})
            return True
        request = json.loads(body)
        fault = self._draw()
        words = request["messages"][-1]["content"]
        tokens = sum(len(message["content"]) for message in request["messages"]) // 4 + 8
        usd = 0.0 if fault in _FREE else (tokens * PROMPT_USD + _tokens() * COMPLETION_USD) / 1e6
        if self.log is not None:
            key = hashlib.sha256(words.encode()).hexdigest()[:24]
            self.log.write(json.dumps(asdict(Asked(time.time(), key, fault, usd))) + "\n")
            self.log.flush()
        answer = _Answer(reader, writer, stream=bool(request.get("stream")), prompt_tokens=tokens)
        return await _DEEDS.get(fault, _answered)(answer)

    def _draw(self) -> str:
        self.count += 1
        now = time.monotonic()
        if self.faults and self.count % _STORM_EVERY == 0:
            self._storm_until = now + _STORM_S
        if now < self._storm_until:
            return "storm"
        left = self._chance.random()
        for fault, share in self.faults.items():
            left -= share
            if left < 0:
                return fault
        return "answered"


def _tokens() -> int:
    return len(_TEXT.split())


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer that a request would get, and where it goes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    stream: bool
    prompt_tokens: int

    @property
    def type(self) -> str:
        return "text/event-stream" if self.stream else "application/json"

    def body(self) -> bytes:
        """Return the whole body of a good answer."""
        usage = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": _tokens(),
            "total_tokens": self.prompt_tokens + _tokens(),
        }
        common = {"id": "chatcmpl-kettle", "created": 1, "model": "kettle"}
        if not self.stream:
            choice = {"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}
            return _dump({**common, "object": "chat.completion", "choices": [choice], "usage": usage})
        chunk = {**common, "object": "chat.completion.chunk"}
        words = _TEXT.split(" ")
        pieces = [" ".join(words[i : i + 5]) + (" " if i + 5 < len(words) else "") for i in range(0, len(words), 5)]
        events = [
            *({**chunk, "choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces),
            {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {**chunk, "choices": [], "usage": usage},
        ]
        return b"".join(b"data: " + _dump(event) + b"\n\n" for event in events) + b"data: [DONE]\n\n"


async def _answered(answer: _Answer) -> bool:
    await _raw(answer.writer, 200, answer.type, answer.body())
    return True


async def _rate_limited(answer: _Answer) -> bool:
    error = {"message": "Rate limit reached for kettle", "type": "requests", "code": "rate_limit_exceeded"}
    await _send(answer.writer, 429, {"error": error}, {"retry-after-ms": "40"})
    return True


async def _server_error(answer: _Answer) -> bool:
    await _raw(answer.writer, 502, "text/html", b"<html><head><title>502 Bad Gateway</title></head></html>")
    return True


async def _overloaded(answer: _Answer) -> bool:
    await _send(answer.writer, 503, {"error": {"message": "The kettle is overloaded", "type": "overloaded"}})
    return True


async def _credit(answer: _Answer) -> bool:
    await _send(answer.writer, 402, {"error": {"message": "Insufficient credits", "code": 402}})
    return True


async def _reset_before(answer: _Answer) -> bool:
    _reset(answer.writer)
    return False


async def _reset_during(answer: _Answer) -> bool:
    body = answer.body()
    await _raw(answer.writer, 200, answer.type, body[: len(body) // 2], length=len(body))
    _reset(answer.writer)
    return False


async def _reset_after(answer: _Answer) -> bool:
    await _raw(answer.writer, 200, answer.type, answer.body())
    # A reset throws away what the other side has not read yet, so it gets the time to.
    await asyncio.sleep(0.05)
    _reset(answer.writer)
    return False


async def _stall_head(answer: _Answer) -> bool:
    await _until_gone(answer)
    return False


async def _stall_body(answer: _Answer) -> bool:
    body = answer.body()
    await _raw(answer.writer, 200, answer.type, body[: len(body) // 2], length=len(body))
    await _until_gone(answer)
    return False


async def _half_line(answer: _Answer) -> bool:
    body = answer.body()
    await _raw(answer.writer, 200, answer.type, body[: int(len(body) * 0.6)], length=None)
    return False


async def _long_length(answer: _Answer) -> bool:
    body = answer.body()
    await _raw(answer.writer, 200, answer.type, body, length=len(body) + 37)
    return False


async def _short_length(answer: _Answer) -> bool:
    body = answer.body()
    await _raw(answer.writer, 200, answer.type, body, length=len(body) - 37)
    return False


async def _error_in_stream(answer: _Answer) -> bool:
    if not answer.stream:
        return await _server_error(answer)
    error = {"code": 502, "message": "Provider disconnected", "metadata": {"error_type": "provider_unavailable"}}
    event = {"id": "chatcmpl-kettle", "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}], "error": error}
    body = answer.body()
    cut = body.index(b"\n\n", len(body) // 3) + 2
    await _raw(answer.writer, 200, answer.type, body[:cut] + b"data: " + _dump(event) + b"\n\n")
    return True


async def _error_in_body(answer: _Answer) -> bool:
    error = {"code": 503, "message": "Provider returned error", "metadata": {"error_type": "provider_overloaded"}}
    await _send(answer.writer, 200, {"error": error})
    return True


_DEEDS: Mapping[str, Callable[[_Answer], Awaitable[bool]]] = {
    "rate_limited": _rate_limited,
    "storm": _rate_limited,
    "server_error": _server_error,
    "overloaded": _overloaded,
    "credit": _credit,
    "reset_before": _reset_before,
    "reset_during": _reset_during,
    "reset_after": _reset_after,
    "stall_head": _stall_head,
    "stall_body": _stall_body,
    "half_line": _half_line,
    "long_length": _long_length,
    "short_length": _short_length,
    "error_in_stream": _error_in_stream,
    "error_in_body": _error_in_body,
}


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


async def _send(
    writer: asyncio.StreamWriter, status: int, document: Any, headers: Mapping[str, str] | None = None
) -> None:
    await _raw(writer, status, "application/json", _dump(document), headers=headers)


async def _raw(
    writer: asyncio.StreamWriter,
    status: int,
    media_type: str,
    body: bytes,
    *,
    length: int | None = -1,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send a response; ``length`` is what it claims, -1 the truth, ``None`` nothing (the connection's end tells)."""
    claimed = len(body) if length == -1 else length
    lines = [f"HTTP/1.1 {status} X", f"content-type: {media_type}", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    lines += ["connection: close"] if claimed is None else [f"content-length: {claimed}"]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST instead of FIN (socket(7), SO_LINGER with a time of zero)."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _until_gone(answer: _Answer) -> None:
    while await answer.reader.read(4096):
        pass


async def _main(options: Mapping[str, Any], log: IO[str] | None) -> None:
    """Serve until standard input ends; print the port."""
    tls = None
    if options.get("certificate"):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options["certificate"])
    server = Unfriendly(options.get("faults", {}), options.get("seed", 0), log)
    listening = await server.serve(options.get("port", 0), tls)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    listening.close()


if __name__ == "__main__":
    stated = json.loads(sys.argv[1])
    with Path(stated["log"]).open("a", encoding="utf-8") if stated.get("log") else contextlib.nullcontext() as file:
        asyncio.run(_main(stated, file))
