"""The mitmproxy addon that routes and records; one small class, no global state."""

import ipaddress
import json
import logging
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from mitmproxy import http
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import TlsData

from probe.errors import CredentialError, ProbeError, RouteError
from probe.proxy.recording import Recording, header_pairs
from probe.proxy.redact import Redactor, client_values, without_credentials
from probe.proxy.signing import signed_headers
from probe.proxy.table import Destination, RouteTable
from probe.proxy.tickets import TICKET_HEADER, Ticket, Tickets
from probe.wire.values import Exchange

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes finished exchanges, in the proxy's thread; must not block for long."""

    def __call__(self, exchange: Exchange, ticket: Ticket | None) -> None:
        """Store the exchange and resolve the ticket once it is committed."""
        ...


class _Refused(Exception):  # noqa: N818 - an answer, not an error
    """The proxy answers by itself; nothing goes out."""

    def __init__(self, status: int, message: str, kind: type[ProbeError] = RouteError) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class RouteAndRecord:
    """Sends ``/<route>/…`` to the route's address with its credential, and records what crosses.

    The response is passed through chunk by chunk as it arrives; a copy of each chunk is kept with its time.
    ``was_reset`` says of a flow whether its upstream connection broke, which mitmproxy takes for an end.
    """

    def __init__(self, table: RouteTable, sink: Sink, tickets: Tickets, redactor: Redactor) -> None:
        self._table = table
        self._sink = sink
        self._tickets = tickets
        self._redactor = redactor
        self._running: dict[str, Recording] = {}
        self._stopped = False
        self.was_reset: Callable[[http.HTTPFlow], bool] = lambda _: False

    def request(self, flow: http.HTTPFlow) -> None:
        """Find the route, put the credential on, start the recording; or answer, and nothing goes out."""
        ticket = self._tickets.take(flow.request.headers.get(TICKET_HEADER))
        try:
            recording = self._running[flow.id] = self._route(flow, ticket)
            if ticket is not None:
                ticket.connected = recording.connected
        except _Refused as refused:
            self._answer(flow, refused.status, str(refused))
            if ticket is not None:
                ticket.recorded.set_exception(refused.kind(str(refused)))
        except Exception as error:  # mitmproxy would swallow it and send the request on as it came
            logger.exception("a request could not be routed")
            self._answer(flow, 500, "The proxy failed on this request; nothing was sent, and its log says why.")
            if ticket is not None:
                ticket.recorded.set_exception(error)

    def _route(self, flow: http.HTTPFlow, ticket: Ticket | None) -> Recording:
        request = flow.request
        if self._stopped:
            raise _Refused(503, "The proxy is stopping.")
        _check(request)
        path, values = without_credentials(request.path)
        destination = self._table.resolve(path)
        if destination is None:
            names = ", ".join(f"/{name}/" for name in self._table.names()) or "none"
            raise _Refused(404, f"No route at this path; configured are {names}.")
        problem = destination.target.key_problem()
        if problem is not None:
            raise _Refused(502, problem, CredentialError)
        values += client_values(header_pairs(request.headers), self._redactor)
        self._readdress(request, destination)
        # The key is read from the environment for each request, so it need not be the one of the start.
        redactor = self._redactor.also([*destination.target.secrets(), *values])
        return Recording(flow, destination, ticket, redactor)

    def _readdress(self, request: http.Request, destination: Destination) -> None:
        """Make the client's request the route's."""
        for name in {*request.headers}:
            # What a client sends as its key belongs to nobody else: it never reaches a route.
            if self._redactor.is_secret(name) or name.lower().startswith("x-probe-"):
                del request.headers[name]
        # Trailers are not passed on, so we must not ask for them.
        request.headers.pop("te", None)
        for name, value in destination.target.headers:
            request.headers[name] = value
        request.headers.setdefault("Host", "")
        request.scheme = destination.scheme
        request.host = destination.host
        request.port = destination.port
        request.path = destination.path
        credential = destination.target.credential()
        if credential is not None:
            request.headers[credential[0]] = credential[1]
        if destination.target.sign_for is not None:
            for name, value in signed_headers(destination.target.sign_for, request):
                request.headers[name] = value

    def server_connect(self, data: ServerConnectionHookData) -> None:
        """Let no connection go anywhere but to a configured route, whatever a request says."""
        address = data.server.address
        if address is None or not self._table.reaches(address[0], address[1]):
            data.server.error = "not a configured route"

    def tls_failed_server(self, data: TlsData) -> None:
        """Remember that a connection broke while it was being encrypted: nothing of the request went out."""
        for recording in self._running.values():
            # One request at a time crosses a client's connection (HTTP/1.1 without pipelining).
            if recording.flow.client_conn.id == data.context.client.id:
                recording.tls_failed = True

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Let the body through unbuffered, with a copy of each chunk for the record."""
        recording, response = self._running.get(flow.id), flow.response
        if recording is None or response is None:
            return
        recording.head(response)
        if response.status_code < 200:
            # mitmproxy takes an interim response for the final one, and an upgrade would go on unrecorded.
            recording.broken = "cut", f"The proxy cannot carry an interim response (HTTP {response.status_code})."
            flow.kill()  # type: ignore[no-untyped-call]
            return
        if "transfer-encoding" in response.headers:
            # RFC 9112 §6.1 and §6.3: who passes such a message on must remove what contradicts its framing.
            response.headers.pop("content-length", None)
            if response.status_code == 204:
                del response.headers["transfer-encoding"]
        response.stream = recording.chunk

    def response(self, flow: http.HTTPFlow) -> None:
        """Store a finished exchange."""
        recording = self._running.get(flow.id)
        if recording is not None and recording.ends_with_connection() and self.was_reset(flow):
            recording.broken = "cut", "The connection was reset before the end of the response."
        self._finish(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """Store an exchange that broke: it is a state of its own, never dropped."""
        self._finish(flow)

    def done(self) -> None:
        """Store what is still under way when the proxy stops."""
        self._stopped = True
        for recording in list(self._running.values()):
            recording.broken = "client_gone", "The proxy was stopped before the exchange had ended."
            self._finish(recording.flow)

    def _finish(self, flow: http.HTTPFlow) -> None:
        recording = self._running.pop(flow.id, None)
        if recording is None:
            return
        try:
            self._sink(recording.finish(), recording.ticket)
        except Exception as error:  # mitmproxy would swallow it, and a lost recording must stop the run
            logger.exception("an exchange could not be recorded")
            if recording.ticket is not None and not recording.ticket.recorded.done():
                recording.ticket.recorded.set_exception(error)

    @staticmethod
    def _answer(flow: http.HTTPFlow, status: int, message: str) -> None:
        body = json.dumps({"error": {"message": message, "type": "probe_proxy"}}).encode()
        flow.response = http.Response.make(
            status, b"" if flow.request.method == "HEAD" else body, {"content-type": "application/json"}
        )


def _check(request: http.Request) -> None:
    """Refuse what is not a plain request of a client on this machine."""
    if request.authority:
        raise _Refused(400, "This is not a forward proxy: use its address as the base URL, /<route>/ first.")
    if not _is_local(request.headers.get("host", "localhost")) or not _is_local_origin(request.headers.get("origin")):
        # A web page in a browser on this machine could spend the keys (by a plain form, or by DNS rebinding).
        raise _Refused(403, "Only clients on this machine that address the proxy by IP or as localhost are served.")
    if "upgrade" in request.headers:
        raise _Refused(501, "The proxy records HTTP requests and responses; it does not carry other protocols.")
    try:
        validate_headers(request)
    except ValueError as error:
        raise _Refused(400, f"The request's head is malformed: {error}.") from None


def _is_local(authority: str) -> bool:
    try:
        host = urlsplit(f"//{authority}").hostname or ""
        return host == "localhost" or bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _is_local_origin(origin: str | None) -> bool:
    """Whether a request comes from no page at all, from one of this machine, or from an application's own scheme."""
    if origin is None:
        return True
    return origin != "null" and (
        not origin.lower().startswith(("http://", "https://")) or _is_local(origin.split("//")[1])
    )
