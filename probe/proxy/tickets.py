"""Ties an exchange that crosses the proxy to the trial that asked for it, and tells the runner when it is committed."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from probe.ids import new_id
from probe.wire.values import Exchange

TICKET_HEADER = "x-probe-ticket"

NOT_FOUND = "The name of the host was not found: "
"""How the error of an exchange begins whose host name could not be resolved."""

TLS_FAILED = "The encrypted connection (TLS) could not be set up: "
"""How the error of an exchange begins whose TLS handshake failed, or whose certificate was refused."""


@dataclass(slots=True)
class Ticket:
    """One attempt at one trial.

    ``recorded`` resolves with the exchange once it is committed to the store. The runner sets ``timed_out`` before it
    hangs up, so that its own time-out is not mistaken for a client that left; ``waited`` says for what it waited too
    long. ``context`` is what the runner wants the sink to know; the proxy does not look at it.

    ``connected`` says, in any thread, since when the request has had a connection to the route (with TLS, where it is
    encrypted), on the clock of ``time.monotonic``; ``None``: it has none yet, so nothing of it went out.
    """

    token: str
    trial_id: str
    attempt: int
    recorded: Future[Exchange] = field(default_factory=Future)
    timed_out: bool = False
    waited: str = ""
    context: Any = None
    connected: Callable[[], float | None] = lambda: None


class Tickets:
    """Open tickets by token; the runner's thread issues them and the proxy's thread takes them."""

    def __init__(self) -> None:
        self._open: dict[str, Ticket] = {}
        self._lock = threading.Lock()

    def issue(self, trial_id: str, attempt: int, context: Any = None) -> Ticket:
        """Open a ticket. Tokens are random: another client of the proxy cannot guess itself into a trial."""
        ticket = Ticket(token=new_id(), trial_id=trial_id, attempt=attempt, context=context)
        with self._lock:
            self._open[ticket.token] = ticket
        return ticket

    def take(self, token: str | None) -> Ticket | None:
        """Return and close the ticket of this token; ``None`` for a client that is not the runner."""
        if token is None:
            return None
        with self._lock:
            return self._open.pop(token, None)

    def cancel(self, ticket: Ticket) -> bool:
        """Close a ticket; return whether it was still open: its request has not reached the proxy, and never will."""
        with self._lock:
            return self._open.pop(ticket.token, None) is not None
