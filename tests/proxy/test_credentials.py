"""Credentials: they go out with a request, and into no record."""

import asyncio
import dataclasses
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli
import pytest
import zstandard
from proxy_kit import (
    KEY,
    KEY_ENV,
    THEIRS,
    UNSET_ENV,
    Connection,
    Received,
    Recorder,
    Upstream,
    answer,
    ask,
    connect,
    http_chunk,
    masked,
    recorded,
    request_bytes,
    response_bytes,
)

from probe.proxy.redact import MASK
from probe.proxy.server import ProxyServer
from probe.wire.values import Exchange, HeaderPairs


def every_byte(value: Any) -> Iterator[bytes]:
    """Yield all text and bytes in a value, and what its compressed parts hold."""
    if isinstance(value, bytes):
        yield value
        for unpack in (
            lambda data: zlib.decompressobj(47).decompress(data),
            lambda data: zlib.decompressobj(-15).decompress(data),
            brotli.decompress,
            lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
        ):
            try:
                yield unpack(value)
            except (zlib.error, brotli.error, zstandard.ZstdError):
                continue
    elif isinstance(value, str):
        yield value.encode("utf-8", "surrogateescape")
    elif isinstance(value, tuple):
        for item in value:
            yield from every_byte(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from every_byte(getattr(value, field.name))


def assert_clean(exchange: Exchange, *secrets: str) -> None:
    """No secret in any field, in the ``repr``, or inside a compressed body."""
    for secret in secrets:
        assert secret not in repr(exchange)
        for data in every_byte(exchange):
            assert secret.encode() not in data


async def test_the_key_is_added_on_the_way_out_and_not_recorded(
    proxy: ProxyServer, port: int, upstream: Upstream
) -> None:
    ticket = proxy.tickets.issue("trial", 1)
    await ask(port, request_bytes("/keyed/v1/chat", body=b"{}", ticket=ticket))
    exchange = await recorded(ticket)
    (arrived,) = upstream.requests
    assert arrived.first_line == "POST /api/v1/chat HTTP/1.1"
    assert arrived.values("authorization") == [f"Bearer {KEY}"]
    assert exchange.request_headers == masked(arrived.headers, "authorization")
    assert exchange.redactions == 1
    assert_clean(exchange, KEY)


async def test_a_route_has_its_own_header_and_scheme(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    ticket = proxy.tickets.issue("trial", 1)
    theirs = (("x-gate-pass", THEIRS), ("x-extra", "theirs"), ("X-EXTRA", "twice"))
    await ask(port, request_bytes("/gate/v1/chat", headers=theirs, ticket=ticket))
    exchange = await recorded(ticket)
    (arrived,) = upstream.requests
    assert arrived.values("x-gate-pass") == [KEY]
    assert arrived.values("x-extra") == ["added"]
    assert ("x-extra", "added") in exchange.request_headers
    assert ("X-Gate-Pass", MASK) in exchange.request_headers
    assert_clean(exchange, KEY, THEIRS)


@pytest.mark.parametrize("route", ["plain", "keyed", "open"])
@pytest.mark.parametrize(
    "headers",
    [
        (("Authorization", f"Bearer {THEIRS}"),),
        (("authorization", THEIRS), ("AUTHORIZATION", f"Basic {THEIRS}")),
        (("x-api-key", THEIRS),),
        (("API-Key", THEIRS), ("X-Goog-Api-Key", THEIRS), ("Proxy-Authorization", f"Bearer {THEIRS}")),
        (("Cookie", f"theme=dark; session={THEIRS}"), ("cookie", f"a={THEIRS}")),
        (("X-Gate-Pass", THEIRS), ("X-LiteLLM-API-Key", THEIRS), ("OpenAI-Organization", THEIRS)),
    ],
    ids=lambda headers: headers[0][0],
)
async def test_what_a_client_sends_as_its_key_reaches_nobody(
    proxy: ProxyServer, port: int, upstream: Upstream, route: str, headers: HeaderPairs
) -> None:
    async def echo(connection: Connection, request: Received) -> None:
        await connection.send(response_bytes(repr(request).encode()))

    upstream.behave = echo
    ticket = proxy.tickets.issue("trial", 1)
    await ask(port, request_bytes(f"/{route}/v1/chat", headers=(*headers, ("X-Other", "stays")), ticket=ticket))
    exchange = await recorded(ticket)
    assert THEIRS not in repr(upstream.requests)
    assert upstream.requests[0].values("x-other") == ["stays"]
    assert upstream.requests[0].values("authorization") == ([f"Bearer {KEY}"] if route == "keyed" else [])
    assert_clean(exchange, KEY, THEIRS)


async def test_a_key_in_the_query_reaches_nobody(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    ticket = proxy.tickets.issue("trial", 1)
    body = json.dumps({"leaked": THEIRS}).encode()
    await ask(port, request_bytes(f"/plain/v1/models?alt=sse&key={THEIRS}&a=%20", body=body, ticket=ticket))
    exchange = await recorded(ticket)
    assert upstream.requests[0].first_line == "POST /v1/models?alt=sse&a=%20 HTTP/1.1"
    assert exchange.url == f"{upstream.url}/v1/models?alt=sse&a=%20"
    assert_clean(exchange, THEIRS)


async def test_marks_of_the_probe_stay_inside(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    ticket = proxy.tickets.issue("trial", 1)
    marks = (("X-Probe-Trial", "t1"), ("x-probe-ticket-2", "t2"), ("X-PROBE-", "t3"), ("X-Probation", "stays"))
    await ask(port, request_bytes("/plain/v1/chat", headers=marks, ticket=ticket))
    exchange = await recorded(ticket)
    names = {name.lower() for name, _ in (*upstream.requests[0].headers, *exchange.request_headers)}
    assert not {name for name in names if name.startswith("x-probe-")}
    assert "x-probation" in names
    assert_clean(exchange, ticket.token)


ECHO = f'{{"error": {{"message": "Incorrect API key provided: {KEY}. You sent Bearer {KEY}"}}}}'
BLOTTED = ECHO.replace(KEY, "*" * len(KEY)).encode()


def echoing(status: str, coding: str, pack: Callable[[bytes], bytes]) -> bytes:
    return response_bytes(pack(ECHO.encode()), (("Content-Encoding", coding),), status=status)


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized"])
async def test_an_echoed_key_is_blotted_out_of_a_body(
    proxy: ProxyServer, port: int, upstream: Upstream, status: str
) -> None:
    raw = response_bytes(ECHO.encode(), (("Content-Type", "application/json"),), status=status)
    upstream.behave = answer(raw)
    ticket = proxy.tickets.issue("trial", 1)
    received = await ask(port, request_bytes("/keyed/v1/chat", body=ECHO.encode(), ticket=ticket))
    exchange = await recorded(ticket)
    assert received.body == ECHO.encode()  # what crosses is not touched
    assert exchange.response_body == BLOTTED
    assert exchange.request_body == BLOTTED
    assert exchange.redactions == 5
    assert sum(chunk.size for chunk in exchange.chunks) == len(exchange.response_body)
    assert_clean(exchange, KEY)


async def test_an_echoed_key_is_masked_in_the_head(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    upstream.behave = answer(
        f"HTTP/1.1 401 Bad key {KEY}\r\nX-Echo: Bearer {KEY}\r\nLocation: /x?k={KEY}\r\n"
        f"Set-Cookie: session=abcdefghijk\r\nX-Api-Key: other\r\n{KEY}: name\r\nContent-Length: 0\r\n\r\n".encode()
    )
    ticket = proxy.tickets.issue("trial", 1)
    await ask(port, request_bytes("/keyed/v1/chat", ticket=ticket))
    exchange = await recorded(ticket)
    assert exchange.reason == f"Bad key {MASK}"
    assert exchange.response_headers[:4] == (
        ("X-Echo", f"Bearer {MASK}"),
        ("Location", f"/x?k={MASK}"),
        ("Set-Cookie", MASK),
        ("X-Api-Key", MASK),
    )
    assert_clean(exchange, KEY, "abcdefghijk")


async def test_an_echoed_key_is_masked_in_an_error_and_in_the_url(
    proxy: ProxyServer, port: int, upstream: Upstream
) -> None:
    upstream.behave = answer(f"bad key {KEY}".encode(), close=True)
    ticket = proxy.tickets.issue("trial", 1)
    await ask(port, request_bytes(f"/keyed/v1/{KEY}?x={KEY}", ticket=ticket))
    exchange = await recorded(ticket)
    assert (exchange.state, exchange.status) == ("cut", None)
    assert exchange.error is not None
    assert MASK in exchange.error
    assert_clean(exchange, KEY)


@pytest.mark.parametrize(
    ("coding", "pack", "unpack"),
    [
        ("gzip", gzip.compress, gzip.decompress),
        ("deflate", zlib.compress, zlib.decompress),
        ("br", brotli.compress, brotli.decompress),
        ("zstd", zstandard.compress, zstandard.decompress),
    ],
)
async def test_an_echoed_key_is_blotted_out_of_a_compressed_body(
    proxy: ProxyServer,
    port: int,
    upstream: Upstream,
    coding: str,
    pack: Callable[[bytes], bytes],
    unpack: Callable[[bytes], bytes],
) -> None:
    upstream.behave = answer(echoing("401 Unauthorized", coding, pack))
    ticket = proxy.tickets.issue("trial", 1)
    received = await ask(port, request_bytes("/keyed/v1/chat", ticket=ticket))
    exchange = await recorded(ticket)
    assert unpack(received.body) == ECHO.encode()
    assert unpack(exchange.response_body) == BLOTTED
    assert exchange.redactions == 3
    assert sum(chunk.size for chunk in exchange.chunks) == len(exchange.response_body)
    assert_clean(exchange, KEY)


@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_an_echoed_key_is_blotted_out_where_it_is_split(
    proxy: ProxyServer, port: int, upstream: Upstream, framing: str
) -> None:
    body, half = ECHO.encode(), ECHO.index(KEY) + len(KEY) // 2
    arrived = asyncio.Event()

    async def behave(connection: Connection, request: Received) -> None:
        if framing == "chunked":
            await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + http_chunk(body[:half]))
            await arrived.wait()
            await connection.send(http_chunk(body[half:]) + http_chunk(b""))
        else:
            await connection.send(response_bytes(body)[: -len(body[half:])])
            await arrived.wait()
            await connection.send(body[half:])

    upstream.behave = behave
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/keyed/v1/chat", ticket=ticket))
        _, headers = await client.head()
        stream = client.pieces(headers, response=True)
        assert await asyncio.wait_for(anext(stream), 10) == body[:half]
        arrived.set()
        assert await asyncio.wait_for(anext(stream), 10) == body[half:]
    exchange = await recorded(ticket)
    assert exchange.response_body == BLOTTED
    assert [chunk.size for chunk in exchange.chunks] == [half, len(body) - half]  # blots keep the length
    assert_clean(exchange, KEY)


async def test_half_a_compressed_answer_keeps_no_key(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    packed = gzip.compress(ECHO.encode() + bytes(range(256)))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    upstream.behave = answer(head + packed[:-9], close=True)
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(port) as client:
        await client.send(request_bytes("/keyed/v1/chat", ticket=ticket))
        await client.closed()
    exchange = await recorded(ticket)
    assert exchange.state == "cut"
    assert gzip.decompress(exchange.response_body).startswith(BLOTTED)
    assert_clean(exchange, KEY)


async def test_a_key_that_was_set_after_the_start_is_no_exception(
    proxy: ProxyServer, port: int, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(UNSET_ENV, "sk-late-5566778899\n")

    async def echo(connection: Connection, request: Received) -> None:
        await connection.send(response_bytes(repr(request).encode()))

    upstream.behave = echo
    ticket = proxy.tickets.issue("trial", 1)
    await ask(port, request_bytes("/lost/v1/chat", ticket=ticket))
    exchange = await recorded(ticket)
    assert upstream.requests[0].values("authorization") == ["Bearer sk-late-5566778899"]
    assert_clean(exchange, "sk-late-5566778899")


async def test_the_log_holds_no_key(
    proxy: ProxyServer, port: int, upstream: Upstream, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.behave = answer(ECHO.encode(), close=True)
    with caplog.at_level(0):
        recorder.failure = OSError("disk full")
        try:
            headers = (("Authorization", f"Bearer {THEIRS}"),)
            await ask(port, request_bytes("/keyed/v1/chat", headers=headers, body=ECHO.encode()))
        finally:
            recorder.failure = None
    assert "could not be recorded" in caplog.text
    assert KEY not in caplog.text
    assert THEIRS not in caplog.text


async def test_the_key_variable_is_read_for_each_request(
    proxy: ProxyServer, port: int, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, "sk-rotated-0123456789")
    ticket = proxy.tickets.issue("trial", 1)
    await ask(port, request_bytes("/keyed/v1/chat", body=b"sk-rotated-0123456789", ticket=ticket))
    assert upstream.requests[0].values("authorization") == ["Bearer sk-rotated-0123456789"]
    assert_clean(await recorded(ticket), "sk-rotated-0123456789")
