"""Ties an exchange that crosses the proxy to the trial that asked for it, and tells the runner when it is committed."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from probe.ids import new_id
from probe.wire.values import Exchange

TICKET_HEADER = "x-probe-ticket"


@dataclass(slots=True)
class Ticket:
    """One attempt at one trial.

    ``recorded`` resolves with the exchange once it is committed to the store. The runner sets ``timed_out`` before it
    hangs up, so that its own time-out is not mistaken for a client that left.
    """

    token: str
    trial_id: str
    attempt: int
    recorded: Future[Exchange] = field(default_factory=Future)
    timed_out: bool = False


class Tickets:
    """Open tickets by token; the runner's thread issues them and the proxy's thread takes them."""

    def __init__(self) -> None:
        self._open: dict[str, Ticket] = {}
        self._lock = threading.Lock()

    def issue(self, trial_id: str, attempt: int) -> Ticket:
        """Open a ticket. Tokens are random: another client of the proxy cannot guess itself into a trial."""
        ticket = Ticket(token=new_id(), trial_id=trial_id, attempt=attempt)
        with self._lock:
            self._open[ticket.token] = ticket
        return ticket

    def take(self, token: str | None) -> Ticket | None:
        """Return and close the ticket of this token; ``None`` for a client that is not the runner."""
        if token is None:
            return None
        with self._lock:
            return self._open.pop(token, None)

    def cancel(self, ticket: Ticket) -> None:
        """Close a ticket that never reached the proxy."""
        with self._lock:
            self._open.pop(ticket.token, None)
