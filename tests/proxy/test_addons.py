"""Where requests may go: to a configured route, and nowhere else."""

import json
from collections.abc import Callable

import aiohttp
import pytest
from mitmproxy.connection import Client, Server
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow
from proxy_kit import (
    THEIRS,
    UNSET_ENV,
    Received,
    Recorder,
    Upstream,
    answer,
    ask,
    connect,
    recorded,
    request_bytes,
    resolved,
    response_bytes,
)

from probe.errors import CredentialError, RouteError
from probe.proxy.addons import RouteAndRecord
from probe.proxy.redact import Redactor
from probe.proxy.server import ProxyServer
from probe.proxy.table import RouteTable, Target
from probe.proxy.tickets import TICKET_HEADER, Tickets
from probe.wire.values import HeaderPairs


def sentence(received: Received) -> str:
    """Return the message of an answer of the proxy's own, which must be one sentence."""
    assert received.values("content-type") == ["application/json"]
    document = json.loads(received.body)
    assert document["error"]["type"] == "probe_proxy"
    message = document["error"]["message"]
    assert isinstance(message, str)
    assert message.endswith(".")
    return message


# --- refusals: nothing goes out --------------------------------------------------------------------------------------


async def test_a_missing_key_is_named_and_nothing_is_sent(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    ticket = proxy.tickets.issue("trial", 1)
    headers = (("Authorization", f"Bearer {THEIRS}"),)
    received = await ask(port, request_bytes("/lost/v1/chat", headers=headers, body=b"{}", ticket=ticket))
    assert received.first_line.startswith("HTTP/1.1 502 ")
    assert UNSET_ENV in sentence(received)
    with pytest.raises(CredentialError, match=UNSET_ENV):  # whoever waits for the recording learns of it
        await resolved(ticket.recorded)
    assert (upstream.connections, upstream.requests) == (0, [])


async def test_a_key_with_a_line_break_is_not_sent(
    proxy: ProxyServer, port: int, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(UNSET_ENV, "sk-0123456789\r\nX-Injected: 1")
    received = await ask(port, request_bytes("/lost/v1/chat"))
    assert received.first_line.startswith("HTTP/1.1 502 ")
    assert UNSET_ENV in sentence(received)
    assert "0123456789" not in sentence(received)
    assert upstream.connections == 0


async def test_a_route_that_can_do_without_a_key_does(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    ticket = proxy.tickets.issue("trial", 1)
    received = await ask(port, request_bytes("/open/v1/chat", ticket=ticket))
    assert received.first_line.startswith("HTTP/1.1 204 ")
    assert upstream.requests[0].values("authorization") == []
    assert (await recorded(ticket)).redactions == 0


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/other/v1",
        "/Plain/v1",
        "//plain/v1",
        "/plain/../keyed/v1",
        "/plain/%2e%2e/keyed/v1",
        "/plain/%2E./keyed",
        "/plain/%252e%252e/keyed",
        "/plain/..%2fkeyed",
        "/plain/..\\keyed",
        "/./plain",
        "/plain/v1/..",
        "*",
    ],
)
async def test_other_paths_are_refused_and_the_routes_are_named(
    proxy: ProxyServer, port: int, upstream: Upstream, target: str
) -> None:
    ticket = proxy.tickets.issue("trial", 1)
    received = await ask(port, request_bytes(target, body=b"{}", ticket=ticket))
    assert received.first_line.startswith("HTTP/1.1 404 ")
    assert all(f"/{name}/" in sentence(received) for name in proxy.table.names())
    with pytest.raises(RouteError):
        await resolved(ticket.recorded)
    assert upstream.connections == 0


@pytest.mark.parametrize("host", ["evil.invalid", "127.0.0.1:9", "127.0.0.1"])
@pytest.mark.parametrize("path", ["/", "/plain/v1/chat", "/keyed/v1/chat"])
async def test_it_is_no_forward_proxy(
    proxy: ProxyServer,
    port: int,
    upstream: Upstream,
    hosts_looked_up: Callable[[], list[str]],
    host: str,
    path: str,
) -> None:
    received = await ask(port, request_bytes(f"http://{host}{path}"))
    assert received.first_line.startswith("HTTP/1.1 400 ")
    assert "base URL" in sentence(received)
    assert upstream.connections == 0
    assert "evil.invalid" not in hosts_looked_up()


@pytest.mark.parametrize("authority", ["evil.invalid:443", "127.0.0.1:{port}"])
async def test_connect_is_refused(
    proxy: ProxyServer,
    port: int,
    upstream: Upstream,
    hosts_looked_up: Callable[[], list[str]],
    authority: str,
) -> None:
    authority = authority.format(port=upstream.port)
    async with await connect(port) as client:
        await client.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        first, _ = await client.head()
        assert first.startswith("HTTP/1.1 400 ")
        await client.closed()
    assert upstream.connections == 0
    assert "evil.invalid" not in hosts_looked_up()


async def test_the_client_does_not_choose_the_host(
    proxy: ProxyServer, port: int, upstream: Upstream, hosts_looked_up: Callable[[], list[str]]
) -> None:
    ticket = proxy.tickets.issue("trial", 1)
    forwarded = (("X-Forwarded-Host", "evil.invalid"), ("Forwarded", "host=evil.invalid"))
    await ask(port, request_bytes("/plain/v1/chat", host="localhost:1", headers=forwarded, ticket=ticket))
    exchange = await recorded(ticket)
    assert upstream.requests[0].values("host") == [f"127.0.0.1:{upstream.port}"]
    assert exchange.url == f"{upstream.url}/v1/chat"
    assert "evil.invalid" not in hosts_looked_up()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "127.0.0.1"])
async def test_clients_of_this_machine_are_served(proxy: ProxyServer, port: int, upstream: Upstream, host: str) -> None:
    origin = (("Origin", "http://localhost:3000"),)
    received = await ask(port, request_bytes("/keyed/v1/chat", host=host, headers=origin))
    assert received.first_line.startswith("HTTP/1.1 204 ")


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("evil.example", ()),
        ("evil.example:8080", ()),
        ("localhost.evil.example", ()),
        ("", ()),
        ("[::1", ()),
        ("127.0.0.1", (("Origin", "https://evil.example"),)),
        ("127.0.0.1", (("Origin", "HTTP://evil.example"),)),
        ("127.0.0.1", (("Origin", "null"),)),
        ("localhost", (("Origin", "https://localhost.evil.example"),)),
        ("localhost", (("Origin", "https://127.0.0.1@evil.example"),)),
    ],
)
async def test_a_web_page_cannot_spend_the_keys(
    proxy: ProxyServer, port: int, upstream: Upstream, host: str, headers: HeaderPairs
) -> None:
    received = await ask(port, request_bytes("/keyed/v1/chat", host=host, headers=headers, body=b"{}"))
    assert received.first_line.startswith("HTTP/1.1 403 ")
    assert sentence(received)
    assert upstream.connections == 0


async def test_a_websocket_is_refused(proxy: ProxyServer, upstream: Upstream) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{proxy.url}/keyed/v1/realtime")
    assert caught.value.status == 501
    assert upstream.connections == 0


async def test_an_offer_of_http2_is_not_taken_up(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    offer = (
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
    )
    received = await ask(port, request_bytes("/plain/v1/chat", headers=offer))
    assert received.first_line.startswith("HTTP/1.1 204 ")
    assert not upstream.requests[0].values("upgrade")
    async with await connect(port) as client:
        await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await client.closed()
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "headers",
    [
        (("Content-Length", "2"), ("Transfer-Encoding", "chunked")),
        (("X bad", "name"),),
        (("Content-Length", "0"), ("Content-Length", "0")),
        (("Transfer-Encoding", "nonsense"),),
    ],
)
async def test_a_malformed_head_is_refused(
    proxy: ProxyServer, port: int, upstream: Upstream, headers: HeaderPairs
) -> None:
    async with await connect(port) as client:
        await client.send(request_bytes("/keyed/v1/chat", headers=headers) + b"0\r\n\r\n")
        first, _ = await client.head()
    assert first.startswith("HTTP/1.1 400 ")
    assert upstream.connections == 0


async def test_a_request_with_a_fault_inside_the_proxy_is_not_sent(
    proxy: ProxyServer, port: int, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: RouteTable, path: str) -> None:
        raise RuntimeError("made up")

    monkeypatch.setattr(RouteTable, "resolve", fail)
    ticket = proxy.tickets.issue("trial", 1)
    received = await ask(port, request_bytes("/keyed/v1/chat", ticket=ticket))
    assert received.first_line.startswith("HTTP/1.1 500 ")
    assert sentence(received)
    with pytest.raises(RuntimeError, match="made up"):
        await resolved(ticket.recorded)
    assert upstream.connections == 0


@pytest.mark.parametrize("address", [("evil.invalid", 80), ("127.0.0.1", 9), ("127.0.0.1", 8001), None])
def test_no_connection_goes_to_an_address_that_is_no_routes(address: tuple[str, int] | None) -> None:
    """Behind all checks of requests: the connection itself is refused."""
    table = RouteTable([Target("r", "local", "http://127.0.0.1:8000/v1")])
    addon = RouteAndRecord(table, Recorder(), Tickets(), Redactor())
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    data = ServerConnectionHookData(server=Server(address=address), client=client)
    addon.server_connect(data)
    assert data.server.error
    data = ServerConnectionHookData(server=Server(address=("127.0.0.1", 8000)), client=client)
    addon.server_connect(data)
    assert data.server.error is None


def test_an_answer_of_the_proxy_is_json_whatever_the_routes_are_called() -> None:
    table = RouteTable([Target("r", 'a"b\\c\nd', "http://127.0.0.1:8000/v1")])
    flow = tflow.tflow()
    flow.request.authority = ""
    flow.request.headers["Host"] = "localhost"
    flow.request.path = "/x"
    RouteAndRecord(table, Recorder(), Tickets(), Redactor()).request(flow)
    assert flow.response is not None
    assert flow.response.status_code == 404
    assert 'a"b\\c\nd' in json.loads(flow.response.content or b"")["error"]["message"]


# --- what is passed on -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_a_redirect_is_passed_on_and_not_followed(
    proxy: ProxyServer,
    port: int,
    upstream: Upstream,
    hosts_looked_up: Callable[[], list[str]],
    status: str,
) -> None:
    upstream.behave = answer(response_bytes(b"", (("Location", "http://evil.invalid/x"),), status=status))
    ticket = proxy.tickets.issue("trial", 1)
    received = await ask(port, request_bytes("/keyed/v1/chat", body=b"{}", ticket=ticket))
    exchange = await recorded(ticket)
    assert received.first_line == f"HTTP/1.1 {status}"
    assert received.values("location") == ["http://evil.invalid/x"]
    assert (exchange.status, exchange.state) == (int(status[:3]), "complete")
    assert ("Location", "http://evil.invalid/x") in exchange.response_headers
    assert len(upstream.requests) == 1
    assert "evil.invalid" not in hosts_looked_up()


async def test_a_strangers_ticket_binds_to_no_trial(
    proxy: ProxyServer, port: int, upstream: Upstream, recorder: Recorder
) -> None:
    ticket = proxy.tickets.issue("trial", 1)
    for number, token in enumerate(("trial", ticket.token[:-1] + "?", "", None)):
        headers = () if token is None else ((TICKET_HEADER, token),)
        await ask(port, request_bytes(f"/plain/v1/strange-{number}", headers=headers))
        exchange = await recorder.stranger(f"/strange-{number}")
        assert (exchange.trial_id, exchange.attempt, exchange.route_id) == (None, 1, "r-plain")
    assert not ticket.recorded.done()
    await ask(port, request_bytes("/plain/v1/chat", ticket=ticket))
    assert (await recorded(ticket)).trial_id == "trial"
    await ask(port, request_bytes("/plain/v1/used", ticket=ticket))  # a used ticket is a stranger's
    assert (await recorder.stranger("/used")).trial_id is None


async def test_a_sink_that_fails_is_told_to_who_waits(
    proxy: ProxyServer, port: int, upstream: Upstream, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "failure", OSError("disk full"))
    ticket = proxy.tickets.issue("trial", 1)
    await ask(port, request_bytes("/plain/v1/chat", ticket=ticket))
    with pytest.raises(OSError, match="disk full"):
        await resolved(ticket.recorded)


async def test_a_refusal_of_a_head_request_has_no_body(proxy: ProxyServer, port: int, upstream: Upstream) -> None:
    async with await connect(port) as client:
        for _ in range(2):
            await client.send(request_bytes("/other", method="HEAD"))
            first, _headers = await client.head()
            assert first.startswith("HTTP/1.1 404 ")
