"""One attempt: each time-out by itself, and requests that do not even reach the proxy."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from runner_kit import Call, local, scripted, study

from probe.config import load_config
from probe.errors import RouteError
from probe.proxy.server import ProxyServer
from probe.proxy.table import RouteTable
from probe.proxy.tickets import Ticket
from probe.runs.attempt import Attempt, connector, send
from probe.store.rows import TrialRow
from probe.wire.values import BuiltRequest, Exchange
from tests.network_kit import Silent

REQUEST = BuiltRequest("/chat/completions", b'{"messages": [{"role": "user", "content": "Hello?"}]}')


def keep(exchange: Exchange, ticket: Ticket | None) -> None:
    """Be the sink."""
    assert ticket is not None
    ticket.recorded.set_result(exchange)


@contextmanager
def proxied(folder: Path, url: str, **pace: float) -> Iterator[tuple[ProxyServer, Attempt]]:
    """Start a proxy with one route, and make an attempt at it."""
    config = load_config(study(folder, 1, own=local(url, pace=pace)) / "probe.toml")
    route = config.routes["own"]
    with ProxyServer(RouteTable([route.target]), keep) as proxy:
        yield proxy, Attempt(route, TrialRow("run", "trace", route.row.id, 1, 0), 1)


def sent(proxy: ProxyServer, attempt: Attempt) -> Exchange:
    async def scene() -> Exchange:
        async with connector() as session:
            return await send(session, proxy, attempt, REQUEST)

    return asyncio.run(scene())


class Late:
    """Does something, and then nothing until the test is over."""

    def __init__(self, first: Callable[[Call], None]) -> None:
        self._first = first
        self.over = threading.Event()

    def __call__(self, call: Call) -> None:
        """Behave."""
        self._first(call)
        self.over.wait(60)
        call.close()


def head_and_half(call: Call) -> None:
    call.head(200, "Content-Length: 100\r\n")
    call.raw(b'{"choices": ')


def drip(call: Call) -> None:
    call.head(200, "", "text/event-stream")
    for _ in range(200):
        call.raw(b": PROCESSING\n\n")
        if threading.Event().wait(0.02):
            break


@pytest.mark.parametrize(
    ("first", "pace", "error", "body"),
    [
        (lambda _: None, {"first_byte_timeout_s": 0.2}, "Nothing came within 0.2 s of the request.", b""),
        (head_and_half, {"chunk_timeout_s": 0.2}, "Nothing more came within 0.2 s.", b'{"choices": '),
        (drip, {"chunk_timeout_s": 1.5, "timeout_s": 0.6}, "The whole took longer than 0.6 s.", b": PROCESSING\n\n"),
    ],
)
def test_each_time_out_says_what_it_waited_for_and_keeps_what_came(
    tmp_path: Path, first: Callable[[Call], None], pace: dict[str, float], error: str, body: bytes
) -> None:
    late = Late(first)
    with scripted(late) as (server,), proxied(tmp_path, server.url, **pace) as (proxy, attempt):
        exchange = sent(proxy, attempt)
        late.over.set()
    assert (exchange.state, exchange.error) == ("timeout", error)
    assert exchange.response_body.startswith(body)
    assert bool(exchange.response_body) == bool(body)


def test_the_time_for_the_connection_is_its_own(tmp_path: Path) -> None:
    with Silent() as silent:
        pace = {"connect_timeout_s": 0.2, "first_byte_timeout_s": 60.0}
        with proxied(tmp_path, f"http://127.0.0.1:{silent.port}", **pace) as (proxy, attempt):
            exchange = sent(proxy, attempt)
    assert (exchange.state, exchange.error) == ("unreachable", "No connection within 0.2 s.")


def test_a_slow_answer_is_not_held_against_the_connection(tmp_path: Path) -> None:
    """The connection is there at once, so its time-out is over long before the first byte's."""

    def behave(call: Call) -> None:
        threading.Event().wait(0.5)
        call.reply()

    with scripted(behave) as (server,), proxied(tmp_path, server.url, connect_timeout_s=0.1) as (proxy, attempt):
        exchange = sent(proxy, attempt)
    assert (exchange.state, exchange.status) == ("complete", 200)


def test_a_path_goes_out_as_it_is_spelt(tmp_path: Path) -> None:
    """Ids of models stand in paths, encoded (Bedrock), and signatures are over the bytes of the path."""
    spelt = BuiltRequest("/model/toy%3A0%2Fx/converse", REQUEST.body)

    async def scene(proxy: ProxyServer, attempt: Attempt) -> Exchange:
        async with connector() as session:
            return await send(session, proxy, attempt, spelt)

    with scripted(None) as (server,), proxied(tmp_path, server.url) as (proxy, attempt):
        exchange = asyncio.run(scene(proxy, attempt))
    assert server.paths == ["/v1/model/toy%3A0%2Fx/converse"]
    assert exchange.url.endswith(server.paths[0])


def test_a_request_that_did_not_reach_the_proxy_is_handed_over_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the proxy closes the connection that the client is about to use."""
    post, failures = aiohttp.ClientSession.post, [aiohttp.ServerDisconnectedError(), aiohttp.ServerDisconnectedError()]

    def flaky(session: aiohttp.ClientSession, *arguments: object, **more: object) -> object:
        if failures:
            raise failures.pop()
        return post(session, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(aiohttp.ClientSession, "post", flaky)
    with scripted(None) as (server,), proxied(tmp_path, server.url) as (proxy, attempt):
        assert sent(proxy, attempt).status == 200
        assert len(server.texts) == 1
        failures += [aiohttp.ServerDisconnectedError() for _ in range(3)]
        with pytest.raises(RouteError, match="recorded nothing"):
            sent(proxy, attempt)
        assert len(server.texts) == 1
