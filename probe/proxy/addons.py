"""The mitmproxy addon that routes and records; one small class, no global state."""

import logging
from typing import Protocol

from mitmproxy import http

from probe.proxy.recording import Recording, header_pairs
from probe.proxy.redact import SECRET_HEADERS, Redactor, bearer_values
from probe.proxy.table import RouteTable
from probe.proxy.tickets import TICKET_HEADER, Ticket, Tickets
from probe.wire.values import Exchange

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes finished exchanges, in the proxy's thread; must not block for long."""

    def __call__(self, exchange: Exchange, ticket: Ticket | None) -> None:
        """Store the exchange and resolve the ticket once it is committed."""
        ...


class RouteAndRecord:
    """Sends ``/<route>/…`` to the route's address with its credential, and records what crosses.

    The response is passed through chunk by chunk as it arrives; a copy of each chunk is kept with its time.
    """

    def __init__(self, table: RouteTable, sink: Sink, tickets: Tickets, redactor: Redactor) -> None:
        self._table = table
        self._sink = sink
        self._tickets = tickets
        self._redactor = redactor
        self._running: dict[str, Recording] = {}

    def request(self, flow: http.HTTPFlow) -> None:
        """Find the route, put the credential on, start the recording."""
        token = flow.request.headers.get(TICKET_HEADER)
        destination = self._table.resolve(flow.request.path)
        if destination is None:
            names = ", ".join(f"/{name}/" for name in self._table.names())
            self._answer(flow, 404, f"No route at this path; configured are {names}.")
            return
        if destination.target.key_env and destination.target.auth_header and not destination.target.credential():
            self._answer(
                flow,
                502,
                f"Route {destination.target.name!r} needs the environment variable {destination.target.key_env}.",
            )
            return
        redactor = self._redactor.also(bearer_values(header_pairs(flow.request.headers)))
        for name in [
            n for n in flow.request.headers if n.lower() in SECRET_HEADERS or n.lower().startswith("x-probe-")
        ]:
            # What a client sends as its key belongs to nobody else: it never reaches a route.
            flow.request.headers.pop(name, None)
        for name, value in destination.target.headers:
            flow.request.headers[name] = value
        flow.request.scheme = destination.scheme
        flow.request.host = destination.host
        flow.request.port = destination.port
        flow.request.path = destination.path
        credential = destination.target.credential()
        if credential is not None:
            flow.request.headers[credential[0]] = credential[1]
        self._running[flow.id] = Recording(flow, destination, self._tickets.take(token), redactor)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Let the body through unbuffered, with a copy of each chunk for the record."""
        recording = self._running.get(flow.id)
        if recording is not None and flow.response is not None:
            recording.head()
            flow.response.stream = recording.chunk

    def response(self, flow: http.HTTPFlow) -> None:
        """Store a finished exchange."""
        self._finish(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """Store an exchange that broke: it is a state of its own, never dropped."""
        self._finish(flow)

    def done(self) -> None:
        """Store what is still under way when the proxy stops."""
        for recording in list(self._running.values()):
            self._finish(recording.flow)

    def _finish(self, flow: http.HTTPFlow) -> None:
        recording = self._running.pop(flow.id, None)
        if recording is None:
            return
        try:
            self._sink(recording.finish(), recording.ticket)
        except Exception as error:  # mitmproxy would swallow it, and a lost recording must stop the run
            logger.exception("an exchange could not be recorded")
            if recording.ticket is not None:
                recording.ticket.recorded.set_exception(error)

    @staticmethod
    def _answer(flow: http.HTTPFlow, status: int, message: str) -> None:
        body = b'{"error":{"message":"' + message.replace('"', "'").encode() + b'","type":"probe_proxy"}}'
        flow.response = http.Response.make(status, body, {"content-type": "application/json"})
