"""mitmproxy in this process: reverse mode on loopback, in a thread with its own event loop."""

import asyncio
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from probe.errors import ProxyError
from probe.proxy.addons import RouteAndRecord, Sink
from probe.proxy.redact import Redactor, environment_values
from probe.proxy.table import RouteTable
from probe.proxy.tickets import Tickets


class _Ready:
    """An addon that tells the starting thread that mitmproxy is up, and where it listens."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.addresses: list[Any] = []
        self.listening: Callable[[], list[Any]] = list

    def running(self) -> None:
        self.addresses = self.listening()
        self.event.set()


class ProxyServer:
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
        keys = environment_values(target.key_env for target in table.targets())
        names = [target.auth_header for target in table.targets() if target.auth_header]
        self.redactor = Redactor.of(keys, names)
        self._addon = RouteAndRecord(table, sink, self.tickets, self.redactor)
        self._ready = _Ready()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shutdown: asyncio.Event | None = None
        self._holds = False
        self._failure: BaseException | None = None
        self.url = ""

    def start(self) -> str:
        """Start listening; return the base URL."""
        if not ProxyServer._one.acquire(blocking=False):
            raise ProxyError("A proxy runs in this process already: stop it first, or start another process.")
        self._holds = True
        self._thread = threading.Thread(target=self._run, name="probe-proxy", daemon=True)
        self._thread.start()
        while not self._ready.event.wait(0.05):
            if not self._thread.is_alive():
                break
        if self._failure is not None or not self._ready.addresses:
            self.stop()
            raise ProxyError(
                f"The proxy cannot listen on {self._host}:{self._port}: the port is in use or not allowed; "
                "choose another with --port."
            ) from self._failure
        self.url = f"http://{self._host}:{self._ready.addresses[0][1]}"
        return self.url

    def stop(self) -> None:
        """Stop listening; what is under way is recorded as it stands."""
        if self._thread is None:
            return
        if self._loop is not None and self._shutdown is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._shutdown.set)
        self._thread.join(timeout=10)
        self._thread = None
        if self._holds:
            self._holds = False
            ProxyServer._one.release()

    def _run(self) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="probe-proxy-") as folder:
                asyncio.run(self._serve(folder))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - handed to the thread that started us
            self._failure = error
            self._ready.event.set()

    async def _serve(self, folder: str) -> None:
        from mitmproxy.options import Options
        from mitmproxy.tools.dump import DumpMaster

        # mitmproxy reports failed upstream connections as log lines; here they are states of exchanges.
        logging.getLogger("mitmproxy").setLevel(logging.CRITICAL)
        options = Options(
            # The address is a placeholder: the addon names the real one for each request, or answers itself.
            mode=["reverse:http://127.0.0.1:9/"],
            listen_host=self._host,
            listen_port=self._port,
            confdir=folder,
        )
        self._loop = asyncio.get_running_loop()
        master: Any = DumpMaster(options, loop=self._loop, with_termlog=False, with_dumper=False)
        # errorcheck ends the whole process when the port is taken; we say it in a sentence instead.
        master.addons.remove(master.addons.get("errorcheck"))
        master.options.update(connection_strategy="lazy", keep_alt_svc_header=True)
        trusted = os.environ.get("SSL_CERT_FILE")
        if trusted:
            master.options.update(ssl_verify_upstream_trusted_ca=trusted)
        master.addons.add(self._addon, self._ready)
        self._shutdown = master.should_exit
        self._ready.listening = lambda: list(master.addons.get("proxyserver").listen_addrs())
        await master.run()

    def __enter__(self) -> Self:
        """Start the proxy."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the proxy."""
        self.stop()
