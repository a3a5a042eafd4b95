"""Routes that do as a test says, byte by byte, and a clock that leaps over every wait."""

import asyncio
import json
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from probe.config import load_config
from probe.runs.execute import Asked, Executed, execute, load_packs
from probe.store.store import Store
from tests.kit import completion, delta, sse
from tests.study_kit import write_config, write_pack


class LeapClock:
    """Whoever sleeps has slept at once; both clocks leap forward by as much."""

    def __init__(self, start: float | None = None) -> None:
        self._leapt = 0.0
        self._start = (time.time() if start is None else start) - time.monotonic()
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return time.monotonic() + self._leapt

    def wall(self) -> float:
        return self._start + self.monotonic()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._leapt += max(0.0, seconds)
        await asyncio.sleep(0)


class Call:
    """One request as a scripted server got it, and the ways to answer it."""

    def __init__(self, connection: socket.socket, number: int, body: bytes) -> None:
        self._connection = connection
        self.number = number
        """From 0, over all requests to this server."""
        self.body = body
        self.open = True

    @property
    def text(self) -> str:
        """The last message of the conversation."""
        return str(json.loads(self.body)["messages"][-1]["content"])

    def raw(self, data: bytes) -> None:
        """Send bytes."""
        self._connection.sendall(data)

    def head(self, status: int, headers: str = "", kind: str = "application/json") -> None:
        """Send the head of a response; ``headers`` are whole lines."""
        self.raw(f"HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\n{headers}\r\n".encode())

    def reply(self, status: int = 200, body: Any = None, headers: str = "") -> None:
        """Answer as a whole; without a body like a model."""
        content = json.dumps(completion("A song.") if body is None else body).encode()
        self.head(status, f"{headers}Content-Length: {len(content)}\r\n")
        self.raw(content)

    def stream(self, data: bytes | None = None) -> None:
        """Answer with an event stream."""
        data = sse(delta("A "), delta("song."), delta(finish_reason="stop")) if data is None else data
        self.head(200, f"Content-Length: {len(data)}\r\n", "text/event-stream")
        self.raw(data)

    def reset(self) -> None:
        """Break the connection (RST)."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self.open = False


Behave = Callable[[Call], None]


class Scripted:
    """A server whose answers a test writes. ``texts`` are the last messages that it got, ``paths`` where to."""

    def __init__(self, behave: Behave | None = None) -> None:
        self.behave: Behave = behave or (lambda call: call.reply())
        self.texts: list[str] = []
        self.paths: list[str] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while outer._one(self.rfile, self.connection):
                    pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # clients that leave are what is tested here

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _one(self, file: Any, connection: socket.socket) -> bool:
        length = 0
        if file.peek(1)[:1] == b"\x16":  # the first byte of a TLS handshake
            connection.sendall(b"HTTP/1.1 400 Plain text only\r\n\r\n")
            return False
        first = file.readline()
        if not first:
            return False
        while (line := file.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not first.startswith(b"POST"):
            connection.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
            return True
        body = file.read(length)
        with self._lock:
            self.paths.append(first.split()[1].decode())
            call = Call(connection, len(self.texts), body)
            self.texts.append(call.text)
        self.behave(call)
        return call.open

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def scripted(*behaviours: Behave | None) -> Iterator[list[Scripted]]:
    """Start a server for each behaviour."""
    servers = [Scripted(behave) for behave in behaviours]
    for server in servers:
        server.__enter__()
    try:
        yield servers
    finally:
        for server in servers:
            server.__exit__()


def hosted(url: str, **more: Any) -> dict[str, Any]:
    """A hosted route of the OpenAI family to a scripted server, without a key."""
    route = {"backend": "openai", "url": f"{url}/v1", "model": "toy", "weights": "toy", "key_env": "", "stream": False}
    return {**route, **more}


def local(url: str, **more: Any) -> dict[str, Any]:
    """A local route to a scripted server."""
    return hosted(url, backend="llamacpp", role="local", **more)


def study(folder: Path, traces: int, **routes: dict[str, Any]) -> Path:
    """Write a pack and a configuration; return the folder."""
    write_pack(folder / "pack.jsonl", traces)
    write_config(folder / "probe.toml", routes)
    return folder


def start(folder: Path, **asked: Any) -> Executed:
    """Start the run of a study, or take it up."""
    config = load_config(folder / "probe.toml")
    packs = load_packs([str(folder / "pack.jsonl")])
    asked = {"clock": LeapClock(), **asked}
    more = {name: asked.pop(name) for name in ("progress", "aa") if name in asked}
    return execute(config, folder / "probe.db", packs, seed=1, repeats=1, asked=Asked(**asked), **more)


def reasons(folder: Path, route: str) -> Counter[str]:
    """Count a route's trials by ``state`` or ``state reason``."""
    with Store.open(folder / "probe.db") as store:
        trials = store.trials(route_id=store.route_named(route).id)
        return Counter(f"{trial.state} {trial.reason}".strip() for trial in trials)
