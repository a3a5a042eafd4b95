"""One proxy per module (there can be one per process at a time) in front of an upstream that each test scripts."""

import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from probe.proxy.server import ProxyServer
from probe.proxy.table import RouteTable, Target

sys.path.insert(0, str(Path(__file__).parent))  # for proxy_kit, in whatever way pytest imports

from proxy_kit import KEY, KEY_ENV, UNSET_ENV, Recorder, Upstream, reply_nothing


@pytest.fixture(scope="module")
def listening() -> Iterator[Upstream]:
    upstream = Upstream.listen()
    yield upstream
    upstream.listener.close()


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def proxy(listening: Upstream, recorder: Recorder) -> Iterator[ProxyServer]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    table = RouteTable(
        [
            Target("r-plain", "plain", f"{listening.url}/v1"),
            Target("r-root", "root", listening.url),
            Target("r-keyed", "keyed", f"{listening.url}/api/v1", "Authorization", "Bearer", KEY_ENV),
            Target("r-gate", "gate", f"{listening.url}/v1", "X-Gate-Pass", "", KEY_ENV, (("X-Extra", "added"),)),
            Target("r-lost", "lost", f"{listening.url}/v1", "Authorization", "Bearer", UNSET_ENV),
            Target("r-open", "open", f"{listening.url}/v1", "Authorization", "Bearer", UNSET_ENV, key_required=False),
            Target("r-dead", "dead", f"http://127.0.0.1:{nobody}/v1"),
            Target("r-nowhere", "nowhere", "http://no-such-host.invalid/v1"),
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_ENV, KEY)
        patch.delenv(UNSET_ENV, raising=False)
        with ProxyServer(table, recorder) as server:
            yield server


@pytest.fixture
def port(proxy: ProxyServer) -> int:
    return int(proxy.url.rsplit(":", 1)[1])


@pytest_asyncio.fixture
async def upstream(listening: Upstream) -> AsyncIterator[Upstream]:
    listening.behave = reply_nothing
    async with listening as running:
        yield running


@pytest.fixture
def hosts_looked_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Names that anything in this process resolved during the test."""
    seen: list[str] = []
    original = socket.getaddrinfo

    def spy(host: str, *rest: object, **more: object) -> object:
        seen.append(host)
        return original(host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", spy)
    return lambda: seen
