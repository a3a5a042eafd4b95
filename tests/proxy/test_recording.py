"""What crosses the proxy is what is recorded, byte for byte and piece by piece."""

import asyncio
import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy_kit import (
    Connection,
    Received,
    Recorder,
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
from probe.wire.values import HeaderPairs

# --- bytes -----------------------------------------------------------------------------------------------------------

_TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VISIBLE = "".join(map(chr, [*range(0x21, 0x7F), *range(0xA0, 0x100)]))
# The last letter keeps them from being names of credentials; the probe's own marks are taken off requests.
_names = (
    st.text(_TOKEN, min_size=1, max_size=12)
    .map(lambda text: f"X-{text}z")
    .filter(lambda name: not name.lower().startswith("x-probe-"))
)
_values = st.text(_VISIBLE + " \t", max_size=30).map(lambda text: text.strip(" \t"))
_headers = st.lists(st.tuples(_names, _values), max_size=6).map(tuple)

_lines = st.one_of(
    st.text("aä漢🙂 \u2028{}\"'\\", max_size=20).map(lambda text: f'data: {{"choices":[{{"delta":"{text}"}}]}}'),
    st.just("data:[DONE]"),
    st.just("data: [DONE]"),
    st.just(": OPENROUTER PROCESSING"),
    st.just(": ping"),
    st.just("event: error"),
    st.just(""),
)
_streams = st.builds(
    lambda lines, end, last: (end.join(lines) + (end if last else "")).encode(),
    st.lists(_lines, max_size=12),
    st.sampled_from(["\n", "\r\n", "\n\n", "\r\n\r\n"]),
    st.booleans(),
)
_bodies = st.one_of(st.binary(max_size=400), _streams, _streams.map(lambda body: gzip.compress(body, mtime=0)))


@dataclass(frozen=True)
class Case:
    """One exchange: what is sent each way, and where the writes are split."""

    sent: HeaderPairs
    request: bytes
    request_cuts: tuple[int, ...] | None
    status: str
    headers: HeaderPairs
    response: bytes
    framing: str
    chunk_cuts: tuple[int, ...]
    write_cuts: tuple[int, ...]


def pieces(data: bytes, cuts: tuple[int, ...]) -> list[bytes]:
    """Split data at places given in thousandths of its length."""
    edges = sorted({0, len(data), *(len(data) * cut // 1000 for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


def spelt(case: Case) -> bytes:
    """Spell the response of a case."""
    if case.framing == "length":
        return response_bytes(case.response, case.headers, status=case.status)
    head = "".join(f"{name}: {value}\r\n" for name, value in case.headers)
    if case.framing == "close":
        return f"HTTP/1.1 {case.status}\r\n{head}\r\n".encode("latin-1") + case.response
    head += "Transfer-Encoding: chunked\r\n"
    chunks = b"".join(map(http_chunk, pieces(case.response, case.chunk_cuts)))
    return f"HTTP/1.1 {case.status}\r\n{head}\r\n".encode("latin-1") + chunks + b"0\r\n\r\n"


_cuts = st.lists(st.integers(1, 999), max_size=6).map(tuple)
_cases = st.builds(
    Case,
    sent=_headers,
    request=_bodies,
    request_cuts=st.none() | _cuts,
    status=st.sampled_from(["200 OK", "200 ", "400 Bad Request", "429 Slow down, b\xe4ck off", "500 x", "302 Found"]),
    headers=_headers,
    response=_bodies,
    framing=st.sampled_from(["length", "chunked", "close"]),
    chunk_cuts=_cuts,
    write_cuts=_cuts,
)


@given(case=_cases)
@settings(max_examples=60, deadline=None)
def test_what_is_recorded_is_what_was_sent_and_received(proxy: ProxyServer, listening: Upstream, case: Case) -> None:
    async def run() -> None:
        async def behave(connection: Connection, request: Received) -> None:
            for piece in pieces(spelt(case), case.write_cuts):
                await connection.send(piece)
            if case.framing == "close":
                connection.writer.close()

        ticket = proxy.tickets.issue("trial", 3)
        listening.behave = behave
        async with listening, await connect(int(proxy.url.rsplit(":", 1)[1])) as client:
            if case.request_cuts is None:
                await client.send(request_bytes("/plain/v1/x?q=1", headers=case.sent, body=case.request, ticket=ticket))
            else:
                chunked = (*case.sent, ("Transfer-Encoding", "chunked"))
                await client.send(request_bytes("/plain/v1/x?q=1", headers=chunked, ticket=ticket))
                for piece in pieces(case.request, case.request_cuts):
                    await client.send(http_chunk(piece))
                await client.send(http_chunk(b""))
            received = await client.message(response=True)
            exchange = await recorded(ticket)
            (arrived,) = listening.requests

        assert arrived.body == case.request == exchange.request_body
        assert received.body == case.response == exchange.response_body
        assert arrived.headers == exchange.request_headers
        assert arrived.headers[1 : len(case.sent) + 1] == case.sent
        assert received.headers == exchange.response_headers
        assert received.headers[: len(case.headers)] == case.headers
        assert received.first_line == f"HTTP/1.1 {exchange.status} {exchange.reason}"
        assert f"{exchange.status} {exchange.reason}" == case.status
        assert arrived.first_line == f"{exchange.method} {exchange.url[len(listening.url) :]} HTTP/1.1"
        assert (exchange.state, exchange.error, exchange.redactions) == ("complete", None, 0)
        assert (exchange.route_id, exchange.trial_id, exchange.attempt) == ("r-plain", "trial", 3)
        assert exchange.http_version == "HTTP/1.1"
        check_times(exchange)

    asyncio.run(run())


async def test_a_compressed_body_is_recorded_as_it_crossed(proxy: ProxyServer, upstream: Upstream) -> None:
    packed = gzip.compress(b'{"choices": []}', mtime=0)
    sent = (("content-TYPE", "application/json"), ("Content-Encoding", "gzip"), ("Alt-Svc", 'h3=":443"'))
    upstream.behave = answer(response_bytes(packed, sent))
    ticket = proxy.tickets.issue("trial", 1)
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(f"{proxy.url}/plain/v1/models", headers={TICKET_HEADER: ticket.token}) as response,
    ):
        assert await response.read() == packed
        assert response.headers["Alt-Svc"] == 'h3=":443"'
    exchange = await recorded(ticket)
    assert exchange.response_body == packed
    assert exchange.response_headers[:3] == sent
    assert ("Accept-Encoding", upstream.requests[0].values("accept-encoding")[0]) in exchange.request_headers


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
        (b"HTTP/1.1 500\r\nContent-Length: 0\r\n\r\n", 500),
    ],
)
async def test_a_response_without_body(
    proxy: ProxyServer, port: int, upstream: Upstream, raw: bytes, status: int
) -> None:
    upstream.behave = answer(raw)
    async with await connect(port) as client:
        for _ in range(2):  # the connection stays good for the next request
            ticket = proxy.tickets.issue("trial", 1)
            await client.send(request_bytes("/plain/x", ticket=ticket))
            received = await client.message(response=True)
            assert (int(received.first_line.split()[1]), received.body) == (status, b"")
            exchange = await recorded(ticket)
            assert (exchange.status, exchange.response_body, exchange.chunks) == (status, b"", ())
            assert exchange.response_headers == received.headers
            assert exchange.state == "complete"
    assert upstream.connections == 1


async def test_a_head_request_is_answered_without_body(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    upstream.behave = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    async with await connect(port) as client:
        for _ in range(2):
            ticket = proxy.tickets.issue("trial", 1)
            await client.send(request_bytes("/plain/x", method="HEAD", ticket=ticket))
            await client.head()
            exchange = await recorded(ticket)
            assert (exchange.method, exchange.status, exchange.response_body) == ("HEAD", 200, b"")
            assert exchange.state == "complete"


async def test_a_request_without_host_gets_the_routes(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(f"GET /plain/x HTTP/1.0\r\n{TICKET_HEADER}: {ticket.token}\r\n\r\n".encode())
        exchange = await recorded(ticket)
    assert exchange.request_headers == upstream.requests[0].headers == (("Host", f"127.0.0.1:{upstream.port}"),)


async def test_an_old_server_closes_to_end_its_answer(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    upstream.behave = answer(b"HTTP/1.0 200 OK\r\n\r\nold", close=True)
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", ticket=ticket))
        assert (await client.message(response=True)).body == b"old"
    exchange = await recorded(ticket)
    assert (exchange.http_version, exchange.response_body, exchange.state) == ("HTTP/1.0", b"old", "complete")


async def test_two_lengths_are_recorded_and_one_is_passed_on(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    """Some servers say both; clients refuse such a head, so the proxy removes what does not count (RFC 9112 §6.3)."""
    head = (("Content-Length", "5"), ("Transfer-Encoding", "chunked"))
    upstream.behave = answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    )
    ticket = proxy.tickets.issue("trial", 1)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{proxy.url}/plain/x", headers={TICKET_HEADER: ticket.token}) as response,
    ):
        assert await response.read() == b"hello"
        assert "Content-Length" not in response.headers
    exchange = await recorded(ticket)
    assert (exchange.response_headers, exchange.response_body, exchange.state) == (head, b"hello", "complete")


async def test_an_empty_response_with_a_framing_leaves_nothing_behind(
    proxy: ProxyServer, port: int, upstream: Upstream
) -> None:
    upstream.behave = answer(b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n")
    async with await connect(port) as client:
        for _ in range(2):
            ticket = proxy.tickets.issue("trial", 1)
            await client.send(request_bytes("/plain/x", ticket=ticket))
            received = await client.message(response=True)
            assert received.first_line == "HTTP/1.1 204 No Content"
            assert (await recorded(ticket)).response_headers == (("Transfer-Encoding", "chunked"),)


async def test_trailers_do_not_stop_a_response(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    upstream.behave = answer(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nServer-Timing: 1\r\n\r\n"
    )
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", headers=(("TE", "trailers"),), ticket=ticket))
        assert (await client.message(response=True)).body == b"hello"
    exchange = await recorded(ticket)
    assert (exchange.response_body, exchange.state) == (b"hello", "complete")
    assert not upstream.requests[0].values("te")


async def test_chunk_extensions_are_no_part_of_the_body(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    upstream.behave = answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n")
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", ticket=ticket))
        assert (await client.message(response=True)).body == b"hello"
    assert (await recorded(ticket)).response_body == b"hello"


async def test_a_large_body_crosses_whole(proxy: ProxyServer, upstream: Upstream) -> None:
    body = bytes(range(256)) * 32768  # 8 MiB each way
    file = io.BytesIO(body)
    upstream.behave = answer(response_bytes(body))
    ticket = proxy.tickets.issue("trial", 1)
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{proxy.url}/plain/x", data=file, headers={TICKET_HEADER: ticket.token}) as response,
    ):
        assert await response.read() == body
    exchange = await recorded(ticket)
    assert exchange.request_body == upstream.requests[0].body == body
    assert exchange.response_body == body
    check_times(exchange)


async def test_a_client_that_waits_for_100_continue_is_served(
    proxy: ProxyServer, port: int, upstream: Upstream
) -> None:
    upstream.behave = answer(response_bytes(b"done"))
    ticket = proxy.tickets.issue("trial", 1)
    expecting = (("Expect", "100-continue"), ("Content-Length", "5"))
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", headers=expecting, ticket=ticket))
        assert (await client.head())[0] == "HTTP/1.1 100 Continue"
        assert upstream.requests == []
        await client.send(b"hello")
        assert (await client.message(response=True)).body == b"done"
    exchange = await recorded(ticket)
    assert (exchange.request_body, exchange.response_body, exchange.status) == (b"hello", b"done", 200)
    assert not upstream.requests[0].values("expect")


# --- streaming -------------------------------------------------------------------------------------------------------

_STREAM = 'data: {"t":"ä漢🙂"}\n\ndata: [DONE]\n\n'.encode()
_FRAMINGS: dict[str, tuple[bytes, Callable[[bytes], bytes], bytes]] = {
    "chunked": (b"Transfer-Encoding: chunked", http_chunk, b"0\r\n\r\n"),
    "length": (b"Content-Length: %d" % len(_STREAM), bytes, b""),
    "close": (b"X-No: framing", bytes, b""),
}


@pytest.mark.parametrize("framing", _FRAMINGS)
async def test_each_piece_reaches_the_client_before_the_next_is_sent(
    proxy: ProxyServer, port: int, upstream: Upstream, framing: str
) -> None:
    """The upstream holds each piece back until the client has the one before; one byte per piece splits characters."""
    head, frame, end = _FRAMINGS[framing]
    arrived = asyncio.Semaphore(0)

    async def behave(connection: Connection, request: Received) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        for at in range(len(_STREAM)):
            await arrived.acquire()
            await connection.send(frame(_STREAM[at : at + 1]))
        await connection.send(end)
        if framing == "close":
            connection.writer.close()

    upstream.behave = behave
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", ticket=ticket))
        _, headers = await client.head()  # the head alone comes through too
        arrived.release()
        got = b""
        async with asyncio.timeout(10):
            async for piece in client.pieces(headers, response=True):
                got += piece
                arrived.release()
    exchange = await recorded(ticket)
    assert got == exchange.response_body == _STREAM
    assert [chunk.size for chunk in exchange.chunks] == [1] * len(_STREAM)
    check_times(exchange)


async def test_a_compressed_stream_is_not_held_back(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    packed = gzip.compress(_STREAM)
    arrived = asyncio.Event()

    async def behave(connection: Connection, request: Received) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
        await connection.send(http_chunk(packed[:5]))
        await arrived.wait()
        await connection.send(http_chunk(packed[5:]) + http_chunk(b""))

    upstream.behave = behave
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/plain/x", ticket=ticket))
        _, headers = await client.head()
        stream = client.pieces(headers, response=True)
        assert await asyncio.wait_for(anext(stream), 10) == packed[:5]
        arrived.set()
        assert await asyncio.wait_for(anext(stream), 10) == packed[5:]
    exchange = await recorded(ticket)
    assert [chunk.size for chunk in exchange.chunks] == [5, len(packed) - 5]


# --- more than one ---------------------------------------------------------------------------------------------------


async def test_requests_on_one_connection_are_separate_exchanges(
    proxy: ProxyServer, port: int, upstream: Upstream, recorder: Recorder
) -> None:
    async def echo(connection: Connection, request: Received) -> None:
        await connection.send(response_bytes(request.body))

    upstream.behave = echo
    tickets = [proxy.tickets.issue(f"trial-{number}", 1) for number in range(3)]
    async with await connect(port) as client:
        for number, ticket in enumerate(tickets):  # pipelined: all are sent before the first answer is read
            await client.send(request_bytes("/plain/x", body=b"body %d" % number, ticket=ticket))
        for number in range(3):
            assert (await client.message(response=True)).body == b"body %d" % number
    for number, ticket in enumerate(tickets):
        exchange = await recorded(ticket)
        assert exchange.trial_id == f"trial-{number}"
        assert exchange.request_body == exchange.response_body == b"body %d" % number
    assert recorder.strangers.empty()


async def test_streams_side_by_side_do_not_mix(proxy: ProxyServer, upstream: Upstream) -> None:
    everyone = asyncio.Barrier(10)

    async def behave(connection: Connection, request: Received) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            await everyone.wait()
            await connection.send(http_chunk(request.body))
        await connection.send(http_chunk(b""))

    async def send(session: aiohttp.ClientSession, number: int) -> None:
        ticket = proxy.tickets.issue(f"trial-{number}", 1)
        body = b"<%d>" % number
        async with session.post(f"{proxy.url}/plain/x", data=body, headers={TICKET_HEADER: ticket.token}) as response:
            assert await response.read() == body * 5
        exchange = await recorded(ticket)
        assert (exchange.trial_id, exchange.request_body) == (f"trial-{number}", body)
        assert exchange.response_body == body * 5
        check_times(exchange)

    upstream.behave = behave
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(send(session, number))
