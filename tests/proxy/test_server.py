"""Starting and stopping the proxy."""

import asyncio
import datetime as dt
import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from proxy_kit import (
    Connection,
    Received,
    Recorder,
    Upstream,
    answer,
    connect,
    http_chunk,
    recorded,
    request_bytes,
    response_bytes,
)

from probe.errors import ProxyError
from probe.proxy.server import ProxyServer
from probe.proxy.table import RouteTable, Target
from probe.wire.values import Exchange

EMPTY = RouteTable([])


@pytest.fixture
def sink() -> Recorder:
    return Recorder()


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as other:
        return int(other.getsockname()[1])


def test_a_port_in_use_is_said_in_a_sentence(sink: Recorder, taken: int) -> None:
    with pytest.raises(ProxyError) as caught:
        ProxyServer(EMPTY, sink, port=taken).start()
    message = str(caught.value)
    assert f"127.0.0.1:{taken}" in message
    assert "in use" in message
    assert "--port" in message
    assert message.endswith(".")
    assert "\n" not in message


def test_after_a_port_in_use_another_can_be_taken(sink: Recorder, taken: int) -> None:
    server = ProxyServer(EMPTY, sink, port=taken)
    for _ in range(2):
        with pytest.raises(ProxyError, match="in use"):
            server.start()
    with ProxyServer(EMPTY, sink) as other:
        assert other.url.startswith("http://127.0.0.1:")


def test_another_fault_is_not_called_a_port_in_use(
    sink: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.setattr("tempfile.TemporaryDirectory", _no_folder)
    with pytest.raises(ProxyError, match="no space") as caught:
        ProxyServer(EMPTY, sink).start()
    assert "in use" not in str(caught.value)


def _no_folder(prefix: str) -> None:
    raise OSError("no space")


async def test_one_proxy_at_a_time_and_the_first_goes_on(sink: Recorder, free: Upstream) -> None:
    table = RouteTable([Target("r", "local", free.url)])
    with ProxyServer(table, sink) as first:
        with pytest.raises(ProxyError, match="already"):
            ProxyServer(table, sink).start()
        with pytest.raises(ProxyError, match="already"):
            first.start()
        ticket = first.tickets.issue("trial", 1)
        async with free, await connect(_port(first)) as client:
            await client.send(request_bytes("/local/x", ticket=ticket))
            await client.message(response=True)
            assert (await recorded(ticket)).state == "complete"
    with ProxyServer(table, sink) as second:
        assert second.url


@pytest.fixture
def free() -> Iterator[Upstream]:
    upstream = Upstream.listen()
    yield upstream
    upstream.listener.close()


def _port(server: ProxyServer) -> int:
    return int(server.url.rsplit(":", 1)[1])


async def test_a_stopped_proxy_can_start_again(sink: Recorder, free: Upstream) -> None:
    server = ProxyServer(RouteTable([Target("r", "local", free.url)]), sink, port=free_port())
    urls = set()
    for number in range(2):
        urls.add(server.start())
        ticket = server.tickets.issue(f"trial-{number}", 1)
        async with free, await connect(_port(server)) as client:
            await client.send(request_bytes("/local/x", ticket=ticket))
            await client.message(response=True)
            assert (await recorded(ticket)).trial_id == f"trial-{number}"
        await asyncio.to_thread(server.stop)
        server.stop()  # twice is fine
        with pytest.raises(ConnectionRefusedError):
            await connect(_port(server))
    assert len(urls) == 1


def test_stopping_what_never_started_takes_nobodys_place(sink: Recorder) -> None:
    with ProxyServer(EMPTY, sink):
        ProxyServer(EMPTY, sink).stop()
        with pytest.raises(ProxyError, match="already"):
            ProxyServer(EMPTY, sink).start()


def test_it_listens_on_loopback_only(sink: Recorder) -> None:
    with ProxyServer(EMPTY, sink) as server:
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        rows = [line.split() for line in listening.splitlines() if ":" in line]
        local = {row[1].split(":")[0] for row in rows if len(row) > 3 and row[3] == "0A" and _is(row[1], _port(server))}
        assert local == {"0100007F"}


def _is(address: str, port: int) -> bool:
    return address.endswith(f":{port:04X}")


@pytest.mark.parametrize("part", ["nothing", "the head", "half"])
async def test_what_is_under_way_when_it_stops_is_recorded_as_it_stands(
    sink: Recorder, free: Upstream, part: str
) -> None:
    """Neither complete, for more was to come, nor cut, for no platform did it."""
    asked = asyncio.Event()

    async def behave(connection: Connection, request: Received) -> None:
        if part != "nothing":
            await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if part == "half":
            await connection.send(http_chunk(b"half an"))
        asked.set()
        await connection.closed()

    free.behave = behave
    with ProxyServer(RouteTable([Target("r", "local", free.url)]), sink) as server:
        tickets = [server.tickets.issue("trial", number) for number in range(2)]
        tickets[1].timed_out = True
        async with free, await connect(_port(server)) as one, await connect(_port(server)) as two:
            for client, ticket in zip((one, two), tickets, strict=True):
                asked.clear()
                await client.send(request_bytes("/local/x", body=b"hello", ticket=ticket))
                await asyncio.wait_for(asked.wait(), 10)
                if part != "nothing":
                    await client.head()
                if part == "half":
                    await asyncio.wait_for(client.reader.readuntil(b"an"), 10)
            await asyncio.to_thread(server.stop)
            exchanges = [await recorded(ticket) for ticket in tickets]
            await one.closed()
            await two.closed()
    assert [exchange.state for exchange in exchanges] == ["client_gone", "timeout"]
    for exchange in exchanges:
        assert exchange.error is not None
        assert "stopped" in exchange.error
        assert exchange.status == (None if part == "nothing" else 200)
        assert exchange.response_body == (b"half an" if part == "half" else b"")


async def test_a_sink_that_hangs_keeps_the_place(free: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second mitmproxy would silence the first, which still has something to record."""
    entered, leave = threading.Event(), threading.Event()

    def hang(exchange: Exchange, ticket: object) -> None:
        entered.set()
        leave.wait(10)

    monkeypatch.setattr("probe.proxy.server._PATIENCE_S", 0.01)
    server = ProxyServer(RouteTable([Target("r", "local", free.url)]), hang)
    server.start()
    async with free, await connect(_port(server)) as client:
        await client.send(request_bytes("/local/x"))
        assert await asyncio.to_thread(entered.wait, 10)
        server.stop()
        with pytest.raises(ProxyError, match="already"):
            ProxyServer(EMPTY, hang).start()
        leave.set()
        monkeypatch.setattr("probe.proxy.server._PATIENCE_S", 10)
        await asyncio.to_thread(server.stop)
    with ProxyServer(EMPTY, hang):
        pass


def test_it_leaves_nothing_behind(sink: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    before = {thread.name for thread in threading.enumerate()}
    with ProxyServer(EMPTY, sink):
        assert "probe-proxy" in {thread.name for thread in threading.enumerate()}
    assert list(tmp_path.iterdir()) == []
    assert "probe-proxy" not in {thread.name for thread in threading.enumerate()} - before


# --- TLS -------------------------------------------------------------------------------------------------------------


def _certificate(folder: Path, name: str = "localhost") -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "probe test")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize("trusted", [True, False])
async def test_an_upstream_with_tls(
    sink: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trusted: bool
) -> None:
    path = _certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    context.set_alpn_protocols(["h2", "http/1.1"])
    agreed: list[str | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agreed.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response_bytes(b"hello"))
        await writer.drain()

    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
    else:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    upstream = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = upstream.sockets[0].getsockname()[1]
    async with upstream:
        with ProxyServer(RouteTable([Target("r", "local", f"https://localhost:{port}/v1")]), sink) as server:
            ticket = server.tickets.issue("trial", 1)
            async with await connect(_port(server)) as client:
                await client.send(request_bytes("/local/v1/x", ticket=ticket))
                received = await client.message(response=True)
            exchange = await recorded(ticket)
            await asyncio.to_thread(server.stop)
    assert exchange.url == f"https://localhost:{port}/v1/x"
    if trusted:
        assert received.body == exchange.response_body == b"hello"
        assert agreed == [None]  # HTTP/1.1: header names cross as they are sent
        assert exchange.sent_at is not None
        assert exchange.sent_at > 0
        assert ("Host", f"localhost:{port}") in exchange.request_headers
    else:
        assert received.first_line.startswith("HTTP/1.1 502 ")
        assert (exchange.state, exchange.status, exchange.sent_at) == ("unreachable", None, None)
        assert "ertificate" in (exchange.error or "")


# --- options of mitmproxy --------------------------------------------------------------------------------------------


def test_no_option_of_mitmproxy_alters_what_crosses_or_ends_it(sink: Recorder) -> None:
    with ProxyServer(EMPTY, sink):
        from mitmproxy import ctx

        options = ctx.options
        assert options.tcp_timeout >= 24 * 60 * 60  # a slow model may think for longer than mitmproxy's ten minutes
        assert not any([options.anticache, options.anticomp, options.stickyauth, options.stickycookie])
        assert not any([options.onboarding, options.websocket, options.rawtcp, options.http2])
        assert not any([options.stream_large_bodies, options.body_size_limit, options.store_streamed_bodies])
        assert not any([options.modify_body, options.modify_headers, options.map_remote, options.map_local])
        assert not options.ssl_insecure
        assert options.keep_alt_svc_header


def test_it_does_not_write_into_the_log_of_the_program(
    sink: Recorder, caplog: pytest.LogCaptureFixture, taken: int
) -> None:
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(ProxyError):
            ProxyServer(EMPTY, sink, port=taken).start()
        with ProxyServer(EMPTY, sink):
            pass
    assert not [record for record in caplog.records if record.name.startswith("mitmproxy")]


def test_the_environments_proxies_are_not_used(
    sink: Recorder, monkeypatch: pytest.MonkeyPatch, taken: int, free: Upstream
) -> None:
    """A route's request goes to the route, also where the environment names another proxy."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{taken}")

    async def run() -> None:
        free.behave = answer(response_bytes(b"direct"))
        with ProxyServer(RouteTable([Target("r", "local", free.url)]), sink) as server:
            async with free, aiohttp.ClientSession() as session, session.get(f"{server.url}/local/x") as response:
                assert await response.read() == b"direct"
            await asyncio.to_thread(server.stop)

    asyncio.run(run())
