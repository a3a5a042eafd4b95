"""How an exchange ended has a name, and what had crossed until then is kept."""

import asyncio

import aiohttp
import pytest
from proxy_kit import (
    Connection,
    Received,
    Upstream,
    answer,
    check_times,
    connect,
    http_chunk,
    recorded,
    request_bytes,
    response_bytes,
)

from probe.proxy.server import ProxyServer
from probe.proxy.tickets import TICKET_HEADER


@pytest.mark.parametrize(
    ("how", "head", "body"),
    [
        ("reset", b"Content-Length: 1000", b"half an"),
        ("closed", b"Content-Length: 1000", b"half an"),
        ("reset", b"Transfer-Encoding: chunked", b"7\r\nhalf an\r\n"),
        ("closed", b"Transfer-Encoding: chunked", b"7\r\nhalf an\r\n"),
        ("reset", b"Transfer-Encoding: chunked", b"ff\r\nhalf an"),
        ("closed", b"Transfer-Encoding: chunked", b"ff\r\nhalf an"),
        # Where the end of the connection ends the body, closing it is the proper end, and resetting it is not.
        ("reset", b"Connection: close", b"half an"),
    ],
)
async def test_a_body_that_breaks_off_is_cut(
    proxy: ProxyServer, port: int, upstream: Upstream, how: str, head: bytes, body: bytes
) -> None:
    arrived = asyncio.Event()

    async def behave(connection: Connection, request: Received) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)
        await arrived.wait()
        if how == "reset":
            connection.reset()
        else:
            connection.writer.close()

    upstream.behave = behave
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", body=b"hello", ticket=ticket))
        await client.head()
        assert await asyncio.wait_for(client.reader.readuntil(b"an"), 10)
        arrived.set()
        exchange = await recorded(ticket)
        await client.closed()  # the client learns of it, too
    assert (exchange.state, exchange.status, exchange.response_body) == ("cut", 200, b"half an")
    assert exchange.request_body == b"hello"
    assert exchange.error
    check_times(exchange)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 O",
        b"not http\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: minus\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: nonsense\r\n\r\nx",
    ],
)
async def test_an_answer_that_is_no_http_is_cut(proxy: ProxyServer, port: int, upstream: Upstream, raw: bytes) -> None:
    upstream.behave = answer(raw, close=True)
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", body=b"hello", ticket=ticket))
        received = await client.message(response=True)
    exchange = await recorded(ticket)
    assert received.first_line.startswith("HTTP/1.1 502 ")
    assert (exchange.state, exchange.status, exchange.head_at) == ("cut", None, None)
    assert (exchange.request_body, exchange.response_body, exchange.chunks) == (b"hello", b"", ())
    assert exchange.sent_at is not None
    assert exchange.error
    if raw:
        assert repr(raw.partition(b"\r\n")[0])[2:-1] in exchange.error or "header" in exchange.error


async def test_a_broken_chunk_is_cut(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    upstream.behave = answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n")
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", ticket=ticket))
        await client.closed()
    exchange = await recorded(ticket)
    assert (exchange.state, exchange.response_body) == ("cut", b"hello")


@pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints", "101 Switching Protocols"])
async def test_an_interim_response_is_never_taken_for_the_answer(
    proxy: ProxyServer, port: int, upstream: Upstream, status: str
) -> None:
    interim = f"HTTP/1.1 {status}\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n".encode()
    upstream.behave = answer(interim + response_bytes(b"the answer"))
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", ticket=ticket))
        await client.closed()
    exchange = await recorded(ticket)
    assert exchange.state == "cut"
    assert exchange.error is not None
    assert status[:3] in exchange.error


async def test_an_upstream_cannot_pretend_that_the_client_left(
    proxy: ProxyServer, port: int, upstream: Upstream
) -> None:
    upstream.behave = answer(b"client disconnected", close=True)
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", ticket=ticket))
        await client.closed()
    assert (await recorded(ticket)).state == "cut"


@pytest.mark.parametrize("route", ["dead", "nowhere"])
async def test_where_nobody_answers_it_is_unreachable(proxy: ProxyServer, port: int, route: str) -> None:
    ticket = proxy.tickets.issue("trial", 2)
    async with await connect(port) as client:
        await client.send(request_bytes(f"/{route}/v1/x", body=b"hello", ticket=ticket))
        received = await client.message(response=True)
    exchange = await recorded(ticket)
    assert received.first_line.startswith("HTTP/1.1 502 ")
    assert (exchange.state, exchange.status, exchange.reason) == ("unreachable", None, None)
    assert (exchange.http_version, exchange.sent_at, exchange.head_at) == (None, None, None)
    assert (exchange.request_body, exchange.response_headers, exchange.response_body) == (b"hello", (), b"")
    assert exchange.error
    assert exchange.trial_id == "trial"
    assert exchange.ended_at is not None


async def test_a_server_that_comes_up_later_is_reached(proxy: ProxyServer, listening: Upstream, port: int) -> None:
    """A failed connection is not remembered: the next request tries again."""
    ticket = proxy.tickets.issue("trial", 1)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{proxy.url}/dead/v1/x", headers={TICKET_HEADER: ticket.token}) as response:
            assert response.status == 502
        assert (await recorded(ticket)).state == "unreachable"
        dead = next(target for target in proxy.table.targets() if target.name == "dead")
        server = await asyncio.start_server(_hello, "127.0.0.1", int(dead.url.split(":")[2].split("/")[0]))
        again = {TICKET_HEADER: proxy.tickets.issue("trial", 2).token}
        async with server, session.get(f"{proxy.url}/dead/v1/x", headers=again) as response:
            assert await response.read() == b"hello"


async def _hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(response_bytes(b"hello", (("Connection", "close"),)))
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("when", ["before the head", "after the head", "in the body"])
@pytest.mark.parametrize("timed_out", [False, True])
async def test_a_client_that_hangs_up(
    proxy: ProxyServer, port: int, upstream: Upstream, when: str, timed_out: bool
) -> None:
    upstream_lost_it = asyncio.Event()
    asked = asyncio.Event()

    async def behave(connection: Connection, request: Received) -> None:
        asked.set()
        if when != "before the head":
            await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if when == "in the body":
            await connection.send(http_chunk(b"half an"))
        await connection.closed()
        upstream_lost_it.set()

    upstream.behave = behave
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", body=b"hello", ticket=ticket))
        await asyncio.wait_for(asked.wait(), 10)
        if when != "before the head":
            await client.head()
        if when == "in the body":
            await asyncio.wait_for(client.reader.readuntil(b"an"), 10)
        ticket.timed_out = timed_out
    exchange = await recorded(ticket)
    await asyncio.wait_for(upstream_lost_it.wait(), 10)  # nobody generates for a client that has gone
    assert exchange.state == ("timeout" if timed_out else "client_gone")
    assert exchange.status == (None if when == "before the head" else 200)
    assert exchange.response_body == (b"half an" if when == "in the body" else b"")
    assert exchange.request_body == b"hello"
    assert exchange.sent_at is not None


async def test_a_time_out_that_comes_after_the_end_changes_nothing(
    proxy: ProxyServer, port: int, upstream: Upstream
) -> None:
    upstream.behave = answer(response_bytes(b"done"))
    ticket = proxy.tickets.issue("trial", 1)
    ticket.timed_out = True
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", ticket=ticket))
        await client.message(response=True)
    assert (await recorded(ticket)).state == "complete"
