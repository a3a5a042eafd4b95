"""A raw upstream, a raw client and a sink: what the proxy stands between, with control over each byte."""

import asyncio
import contextlib
import queue
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from probe.proxy.redact import MASK
from probe.proxy.tickets import TICKET_HEADER, Ticket
from probe.wire.values import Exchange, HeaderPairs

KEY_ENV = "PROXY_TEST_PLATFORM_SECRET"
KEY = "sk-test-4f9c1d7e2b8a6053"
THEIRS = "sk-client-77aa88bb99cc"
"""A credential that a client sends of its own."""
UNSET_ENV = "PROXY_TEST_UNSET_SECRET"
PATIENCE_S = 10.0
"""How long a test waits for what must come before it fails; nothing sleeps this long where things work."""

Behaviour = Callable[["Connection", "Received"], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """A message as it came off the wire: its first line, header pairs and body after transfer-coding."""

    first_line: str
    headers: HeaderPairs
    body: bytes

    def values(self, name: str) -> list[str]:
        """Return the values of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class Connection:
    """One end of an HTTP/1.1 connection, without any library in between."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Write and flush."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[str, HeaderPairs]:
        """Read a message head."""
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        return first, tuple((name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines))

    async def pieces(self, headers: HeaderPairs, *, response: bool) -> AsyncIterator[bytes]:
        """Yield body bytes as they arrive, without the framing. Raises ``IncompleteReadError`` where they break off."""
        fields = {name.lower(): value for name, value in headers}
        if "chunked" in fields.get("transfer-encoding", ""):
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                yield await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readuntil(b"\r\n")
        elif "content-length" in fields:
            left = int(fields["content-length"])
            while left:
                piece = await self.reader.read(left)
                if not piece:
                    raise asyncio.IncompleteReadError(b"", left)
                left -= len(piece)
                yield piece
        elif response:
            while piece := await self.reader.read(65536):
                yield piece

    async def message(self, *, response: bool) -> Received:
        """Read a whole message."""
        first, headers = await self.head()
        body = b""
        if response and first.split()[1] in {"204", "304"}:
            return Received(first, headers, body)
        async with asyncio.timeout(PATIENCE_S):
            async for piece in self.pieces(headers, response=response):
                body += piece
        return Received(first, headers, body)

    def reset(self) -> None:
        """Break the connection with RST."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def closed(self) -> None:
        """Wait until the other side has hung up."""
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(self.reader.read(), PATIENCE_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def reply_nothing(connection: Connection, request: Received) -> None:
    """Answer 204."""
    await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")


@dataclass
class Upstream:
    """A server on a socket that outlives the test's event loop, so that one proxy can serve many tests.

    ``behave`` gets each request that arrives, with its connection, and does with it what the test is about.
    """

    listener: socket.socket
    behave: Behaviour = reply_nothing
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    _server: asyncio.Server | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    @classmethod
    def listen(cls) -> "Upstream":
        """Take a free port."""
        return cls(socket.create_server(("127.0.0.1", 0), backlog=64))

    @property
    def port(self) -> int:
        """The port that routes point to."""
        return int(self.listener.getsockname()[1])

    @property
    def url(self) -> str:
        """The address that routes point to."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self.requests, self.connections = [], 0
        self._server = await asyncio.start_server(self._serve, sock=self.listener.dup())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(reader, writer)
        try:
            while True:
                request = await connection.message(response=False)
                self.requests.append(request)
                await self.behave(connection, request)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError, TimeoutError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)


@dataclass
class Recorder:
    """A sink: keeps what the proxy hands over and resolves tickets, as the writer does after its commit."""

    strangers: "queue.SimpleQueue[Exchange]" = field(default_factory=queue.SimpleQueue)
    failure: Exception | None = None

    def __call__(self, exchange: Exchange, ticket: Ticket | None) -> None:
        """Take one exchange, in the proxy's thread."""
        if self.failure is not None:
            raise self.failure
        if ticket is None:
            self.strangers.put(exchange)
        else:
            ticket.recorded.set_result(exchange)

    async def stranger(self, end: str) -> Exchange:
        """Return the exchange that came without a ticket and whose URL ends so."""
        while True:
            exchange = await asyncio.to_thread(self.strangers.get, timeout=PATIENCE_S)
            if exchange.url.endswith(end):
                return exchange


async def recorded(ticket: Ticket) -> Exchange:
    """Wait for the recording of a ticket's exchange."""
    return await resolved(ticket.recorded)


async def resolved(future: Future[Exchange]) -> Exchange:
    """Wait for a future of another thread."""
    return await asyncio.wait_for(asyncio.wrap_future(future), PATIENCE_S)


async def connect(port: int) -> Connection:
    """Open a raw connection to a port of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    return Connection(reader, writer)


async def ask(port: int, raw: bytes) -> Received:
    """Send a request on a connection of its own and read the answer."""
    async with await connect(port) as client:
        await client.send(raw)
        return await client.message(response=True)


def request_bytes(
    target: str,
    *,
    method: str = "POST",
    host: str = "127.0.0.1",
    headers: HeaderPairs = (),
    body: bytes = b"",
    ticket: Ticket | None = None,
) -> bytes:
    """Spell a request; with a body it says its length."""
    pairs = [("Host", host), *headers]
    if ticket is not None:
        pairs.append((TICKET_HEADER, ticket.token))
    if body:
        pairs.append(("Content-Length", str(len(body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def response_bytes(body: bytes, headers: HeaderPairs = (), *, status: str = "200 OK") -> bytes:
    """Spell a response that says its length."""
    head = "".join(f"{name}: {value}\r\n" for name, value in (*headers, ("Content-Length", str(len(body)))))
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body


def http_chunk(data: bytes) -> bytes:
    """Spell one chunk of the chunked transfer-coding; empty data spell the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(raw: bytes, *, close: bool = False) -> Behaviour:
    """Return a behaviour that sends these bytes, whatever was asked."""

    async def behave(connection: Connection, request: Received) -> None:
        await connection.send(raw)
        if close:
            connection.writer.close()

    return behave


def masked(headers: HeaderPairs, *names: str) -> HeaderPairs:
    """Return header pairs with the values of some replaced as the record replaces them."""
    return tuple((name, MASK if name.lower() in names else value) for name, value in headers)


def check_times(exchange: Exchange) -> None:
    """Sizes of chunks add up, and no time runs backwards."""
    assert sum(chunk.size for chunk in exchange.chunks) == len(exchange.response_body)
    assert all(chunk.size > 0 for chunk in exchange.chunks)
    assert exchange.sent_at is not None
    assert exchange.head_at is not None
    assert exchange.ended_at is not None
    times = [0.0, exchange.sent_at, exchange.head_at, *(chunk.at for chunk in exchange.chunks), exchange.ended_at]
    assert times == sorted(times)
