"""mitmproxy in this process: reverse mode on loopback, in a thread with its own event loop."""

import asyncio
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from probe.errors import ProxyError
from probe.lifecycle import Startable
from probe.proxy.addons import RouteAndRecord, Sink
from probe.proxy.redact import Redactor
from probe.proxy.table import RouteTable
from probe.proxy.tickets import Tickets

if TYPE_CHECKING:
    from mitmproxy import http
    from mitmproxy.addons.proxyserver import Proxyserver

_DAY_S = 24 * 60 * 60
_PATIENCE_S = 10.0


class _Ready:
    """An addon that tells the starting thread that mitmproxy is up, and where it listens or why it does not."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.addresses: list[Any] = []
        self.problem = ""
        self.servers: Callable[[], list[Any]] = list

    def running(self) -> None:
        for server in self.servers():
            self.addresses += server.listen_addrs
            number = getattr(server.last_exception, "errno", None)
            self.problem = os.strerror(number) if number else str(server.last_exception or "")
        self.event.set()


class ProxyServer(Startable):
    """The recording proxy; a context manager.

    ``port`` 0 takes a free one. ``url`` is ``http://127.0.0.1:PORT`` once started. Raises ``ProxyError`` where the
    port is taken, and where this process runs a proxy already: mitmproxy keeps its state in a global, and the hooks of
    a first instance fall silent when a second one starts (seen with 12.2), which would lose recordings.
    """

    _one = threading.Lock()

    def __init__(self, table: RouteTable, sink: Sink, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host = host
        self._port = port
        self.table = table
        self.tickets = Tickets()
        keys = [value for target in table.targets() for value in target.secrets()]
        names = [target.auth_header for target in table.targets() if target.auth_header]
        self.redactor = Redactor.of(keys, names)
        self._sink = sink
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shutdown: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self.url = ""

    def start(self) -> str:
        """Start listening; return the base URL."""
        if not ProxyServer._one.acquire(blocking=False):
            raise ProxyError("A proxy runs in this process already: stop it first, or start another process.")
        self._failure = None
        ready = _Ready()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="probe-proxy", daemon=True)
        self._thread.start()
        while not ready.event.wait(0.05):
            if not self._thread.is_alive():
                break
        if self._failure is None and ready.addresses:
            self.url = f"http://{self._host}:{ready.addresses[0][1]}"
            return self.url
        self.stop()
        if self._failure is not None:
            raise ProxyError(f"The proxy did not start: {self._failure}.") from self._failure
        raise ProxyError(
            f"The proxy cannot listen on {self._host}:{self._port} ({ready.problem or 'no reason given'}); "
            "choose another port with --port."
        )

    def stop(self) -> None:
        """Stop listening; what is under way is recorded as it stands. Twice is fine."""
        if self._thread is None:
            return
        if self._loop is not None and self._shutdown is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._shutdown.set)
        self._thread.join(timeout=_PATIENCE_S)
        if self._thread.is_alive():
            # It hangs in the sink. A second proxy would silence it, so its place stays taken.
            return
        self._thread = self._loop = self._shutdown = None
        ProxyServer._one.release()

    def _run(self, ready: _Ready) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="probe-proxy-") as folder:
                asyncio.run(self._serve(folder, ready))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - handed to the thread that started us
            self._failure = error
            ready.event.set()

    async def _serve(self, folder: str, ready: _Ready) -> None:
        from mitmproxy.options import Options
        from mitmproxy.tools.dump import DumpMaster

        from probe.proxy.trailers import drop_trailers

        drop_trailers()
        # mitmproxy reports failed upstream connections as log lines; here they are states of exchanges.
        logging.getLogger("mitmproxy").setLevel(logging.CRITICAL)
        options = Options(
            # The address is a placeholder: the addon names the real one for each request, or answers itself.
            mode=["reverse:http://127.0.0.1:9/"],
            listen_host=self._host,
            listen_port=self._port,
            confdir=folder,
            # Only plain HTTP/1.1 is carried, and bytes as they come.
            http2=False,
            http3=False,
            websocket=False,
            rawtcp=False,
            # The runner has the time-outs; a model on a slow machine may think for long before its first byte.
            tcp_timeout=_DAY_S,
        )
        self._loop = asyncio.get_running_loop()
        master: Any = DumpMaster(options, loop=self._loop, with_termlog=False, with_dumper=False)
        # errorcheck ends the whole process when the port is taken; we say it in a sentence instead.
        master.addons.remove(master.addons.get("errorcheck"))
        master.options.update(
            connection_strategy="lazy",
            keep_alt_svc_header=True,
            # The addon looks at the client's Host, then sets the route's.
            keep_host_header=True,
            onboarding=False,
            # The addon checks requests itself. A response is recorded as it came, also a malformed one.
            validate_inbound_headers=False,
        )
        trusted = os.environ.get("SSL_CERT_FILE")
        if trusted:
            master.options.update(ssl_verify_upstream_trusted_ca=trusted)
        proxyserver: Proxyserver = master.addons.get("proxyserver")
        addon = RouteAndRecord(self.table, self._sink, self.tickets, self.redactor)
        addon.was_reset = lambda flow: _was_reset(proxyserver, flow)
        ready.servers = lambda: list(proxyserver.servers)
        master.addons.add(addon, ready)
        self._shutdown = master.should_exit
        try:
            await master.run()
        finally:
            # mitmproxy leaves its sockets to the garbage collector: until then clients would connect to nobody.
            await proxyserver.servers.update([])


def _was_reset(proxyserver: "Proxyserver", flow: "http.HTTPFlow") -> bool:
    """Whether a flow's upstream connection ended with an error; to mitmproxy each end of a connection is the same."""
    handler = proxyserver.connections.get(flow.client_conn.id)
    upstream = handler.transports.get(flow.server_conn) if handler is not None else None
    reader = upstream.reader if upstream is not None else None
    return isinstance(reader, asyncio.StreamReader) and reader.exception() is not None
