"""A connection that does not come about has a reason, and nothing of the request went out."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from proxy_kit import Recorder, connect, recorded, request_bytes

from probe.proxy.server import ProxyServer
from probe.proxy.table import RouteTable, Target
from probe.proxy.tickets import NOT_FOUND, TLS_FAILED
from tests.network_kit import Silent


@dataclass
class Ports:
    """Servers that cannot be talked to."""

    self_signed: int
    no_tls: int
    silent: int
    late: int


def self_signed(folder: Path) -> ssl.SSLContext:
    """Make a server's certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    encodings = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(*encodings) + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.fixture(scope="module")
def silent() -> Iterator[Silent]:
    with Silent() as server:
        yield server


@pytest_asyncio.fixture
async def ports(tmp_path: Path, silent: Silent) -> AsyncIterator[Ports]:
    async def nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 plain text here\r\n\r\n")
        writer.close()

    shut = await asyncio.start_server(nothing, "127.0.0.1", 0, ssl=self_signed(tmp_path))
    plain = await asyncio.start_server(nothing, "127.0.0.1", 0)
    late = await asyncio.start_server(nothing, "127.0.0.1", 0)
    found = [server.sockets[0].getsockname()[1] for server in (shut, plain, late)]
    late.close()
    await late.wait_closed()
    async with shut, plain:
        yield Ports(found[0], found[1], silent.port, found[2])


@pytest.fixture
def proxy(ports: Ports) -> Iterator[ProxyServer]:
    table = RouteTable(
        [
            Target("r-signed", "signed", f"https://localhost:{ports.self_signed}/v1"),
            Target("r-no-tls", "no-tls", f"https://127.0.0.1:{ports.no_tls}/v1"),
            Target("r-silent", "silent", f"http://127.0.0.1:{ports.silent}/v1"),
            Target("r-nowhere", "nowhere", "http://no-such-host.invalid/v1"),
            Target("r-late", "late", f"http://127.0.0.1:{ports.late}/v1"),
        ]
    )
    with ProxyServer(table, Recorder()) as server:
        yield server


@pytest.mark.parametrize(
    ("route", "begins", "names"),
    [
        ("signed", TLS_FAILED, "Certificate verify failed: self-signed certificate"),
        ("no-tls", TLS_FAILED, "does not speak TLS"),
        ("nowhere", NOT_FOUND, "[Errno -"),
        ("late", "", "Connect call failed"),
    ],
)
async def test_each_failure_to_connect_has_its_own_reason(
    proxy: ProxyServer, route: str, begins: str, names: str
) -> None:
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(int(proxy.url.rsplit(":", 1)[1])) as client:
        await client.send(request_bytes(f"/{route}/x", body=b"hello", ticket=ticket))
        received = await client.message(response=True)
    exchange = await recorded(ticket)
    assert received.first_line.startswith("HTTP/1.1 502 ")
    assert (exchange.state, exchange.status, exchange.response_body) == ("unreachable", None, b"")
    assert exchange.error is not None
    assert exchange.error.startswith(begins)
    assert names in exchange.error
    assert ticket.connected() is None
    assert exchange.sent_at is None, "nothing went out"


async def test_a_connection_that_never_comes_is_unreachable_and_not_a_late_answer(proxy: ProxyServer) -> None:
    ticket = proxy.tickets.issue("trial", 1)
    async with await connect(int(proxy.url.rsplit(":", 1)[1])) as client:
        await client.send(request_bytes("/silent/x", body=b"hello", ticket=ticket))
        while ticket.token in proxy.tickets._open:  # noqa: ASYNC110 - another thread takes it
            await asyncio.sleep(0)
        assert ticket.connected() is None
        ticket.timed_out, ticket.waited = True, "No connection within 0.1 s."
    exchange = await recorded(ticket)
    assert (exchange.state, exchange.error) == ("unreachable", "No connection within 0.1 s.")


async def test_a_route_that_comes_up_is_reached_again_over_the_same_client_connection(
    proxy: ProxyServer, ports: Ports
) -> None:
    """The proxy must not remember a failure: a retry is a new attempt."""
    first, second = (proxy.tickets.issue("trial", number) for number in (1, 2))
    port = int(proxy.url.rsplit(":", 1)[1])
    async with await connect(port) as client:
        await client.send(request_bytes("/late/x", body=b"hello", ticket=first))
        await client.message(response=True)
        assert (await recorded(first)).state == "unreachable"

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"hello")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            writer.close()

        async with await asyncio.start_server(behave, "127.0.0.1", ports.late):
            try:
                await client.send(request_bytes("/late/x", body=b"hello", ticket=second))
                await client.message(response=True)
            except (asyncio.IncompleteReadError, ConnectionError):
                async with await connect(port) as fresh:  # the proxy closed the connection with its 502
                    await fresh.send(request_bytes("/late/x", body=b"hello", ticket=second))
                    await fresh.message(response=True)
            exchange = await recorded(second)
    assert (exchange.state, exchange.response_body) == ("complete", b"ok")
    assert second.connected() is not None
