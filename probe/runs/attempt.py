"""One attempt at one trial: a request through the proxy, with a time-out for each thing that may be late.

The client talks to the proxy on this machine, so it cannot see whether the proxy reached the route; it asks the ticket.
The head of the answer and each piece of its body cross the proxy as they arrive, so for these it watches its own end.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from probe.config import Pace, Price, Route
from probe.errors import RouteError
from probe.proxy.server import ProxyServer
from probe.proxy.tickets import TICKET_HEADER, Ticket
from probe.runs.answers import Classified
from probe.runs.money.ledger import Reservation
from probe.runs.money.price import Cost
from probe.runs.pacing.told import Told
from probe.store.rows import AttemptRow, TrialRow
from probe.wire.values import BuiltRequest, Exchange

_LOCAL_TRIES = 3
"""How often a request is handed to the proxy that did not reach it."""

_RECORDING_S = 60.0
"""How long the proxy and the disk may take for an exchange that has ended."""


@dataclass(slots=True)
class Attempt:
    """What goes with a request through the proxy to the sink, and comes back from there.

    ``row`` is its line in the journal (hosted routes only). ``again``: a request that went out and was not answered
    will be tried again, so that its trial is not given up. The sink fills in the rest before it commits the exchange.
    """

    route: Route
    trial: TrialRow
    number: int
    price: Price | None = None
    reservation: Reservation | None = None
    row: AttemptRow | None = None
    again: bool = False
    found: Classified | None = None
    told: Told | None = None
    cost: Cost | None = None


@dataclass(slots=True)
class _Watch:
    """The next moment at which patience ends; moved on by whatever arrives."""

    ticket: Ticket
    pace: Pace
    loop: asyncio.AbstractEventLoop
    scope: asyncio.Timeout
    _begun: float = 0.0
    _whole: float = 0.0
    _timer: asyncio.TimerHandle | None = field(default=None)

    def __post_init__(self) -> None:
        """Wait for the connection first."""
        self._begun = self.loop.time()
        self._whole = self._begun + self.pace.timeout_s
        self._beginning()

    def _at(self, when: float, what: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(min(when, self._whole), what)

    def _beginning(self) -> None:
        """Wait for the connection and for what comes first; asked again before either can be overdue."""
        now, since = self.loop.time(), self.ticket.connected()
        if now >= self._whole:
            self._expire("")
        elif since is not None:
            overdue = max(since, self._begun) + self.pace.first_byte_timeout_s
            if now >= overdue:
                self._expire(f"Nothing came within {_seconds(self.pace.first_byte_timeout_s)} of the request.")
            else:
                self._at(overdue, self._beginning)
        elif now >= self._begun + self.pace.connect_timeout_s:
            self._expire(f"No connection within {_seconds(self.pace.connect_timeout_s)}.")
        else:
            asked_again = min(self._begun + self.pace.connect_timeout_s, now + self.pace.first_byte_timeout_s)
            self._at(asked_again, self._beginning)

    def arrived(self) -> None:
        """Note that bytes came; now the next ones are waited for."""
        self._at(self.loop.time() + self.pace.chunk_timeout_s, self._stalled)

    def _stalled(self) -> None:
        self._expire(f"Nothing more came within {_seconds(self.pace.chunk_timeout_s)}.")

    def _expire(self, what: str) -> None:
        if self.loop.time() >= self._whole:
            what = f"The whole took longer than {_seconds(self.pace.timeout_s)}."
        # Marked before we hang up: the proxy, in its own thread, must not take this for a client that left by itself.
        self.ticket.timed_out, self.ticket.waited = True, what
        self.scope.reschedule(self.loop.time())

    def end(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()


def _seconds(value: float) -> str:
    return f"{value:g} s"


def connector() -> aiohttp.ClientSession:
    """Return the client of a run. Routes do not share connections, and it asks for bodies as they are."""
    # A client that understands no compression gets none, so that stored bodies stay readable.
    headers = {"accept-encoding": "identity", "user-agent": "platform-effect-probe"}
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers=headers,
        auto_decompress=False,
        # Ours are finer; the library's own whole limit of five minutes would end long answers.
        timeout=aiohttp.ClientTimeout(total=None),
    )


async def send(session: aiohttp.ClientSession, proxy: ProxyServer, attempt: Attempt, request: BuiltRequest) -> Exchange:
    """Send a request and return what was recorded of it, after its commit.

    Raises ``RouteError`` where the proxy recorded nothing, and what the recording itself raised (``StoreError``, a
    refusal of the proxy).
    """
    for _ in range(_LOCAL_TRIES):
        ticket = proxy.tickets.issue(attempt.trial.id, attempt.number, attempt)
        # Where the proxy closed a connection that we were about to use, the request has not even left this process.
        lost = not await _cross(session, proxy, attempt, request, ticket) and proxy.tickets.cancel(ticket)
        if not lost:
            break
    try:
        async with asyncio.timeout(_RECORDING_S if not lost else 0.0):
            return await asyncio.wrap_future(ticket.recorded)
    except TimeoutError:
        proxy.tickets.cancel(ticket)
        if attempt.reservation is not None and not lost:
            attempt.cost = attempt.reservation.in_full  # nobody knows what became of it
        raise RouteError(
            f"Route {attempt.route.name!r}: the proxy recorded nothing for a request; this is a fault of the probe, "
            "not of the route, and the trial stays open."
        ) from None


async def _cross(
    session: aiohttp.ClientSession, proxy: ProxyServer, attempt: Attempt, request: BuiltRequest, ticket: Ticket
) -> bool:
    """Send a request through the proxy and read its answer to the end; return whether that went without an error.

    What went wrong on the wire is in the recording, which the caller waits for.
    """
    route = attempt.route
    # As it is spelt: the path of a dialect may hold an encoded model id (Bedrock's "%3A").
    url = URL(proxy.url + proxy.table.client_base(route.name) + request.path, encoded=True)
    headers = {"content-type": "application/json", TICKET_HEADER: ticket.token}
    try:
        async with asyncio.timeout(None) as scope:
            watch = _Watch(ticket, route.pace, asyncio.get_running_loop(), scope)
            try:
                async with session.post(url, data=request.body, headers=headers, allow_redirects=False) as response:
                    watch.arrived()
                    async for _ in response.content.iter_any():
                        watch.arrived()  # the proxy keeps the bytes; the store is read later
            finally:
                watch.end()
    except (TimeoutError, aiohttp.ClientError):
        return False
    return True
