"""Between the proxy and the store: says what an exchange means for its trial and commits both in one piece."""

import time
from concurrent.futures import Future
from dataclasses import replace

from probe.config import Price
from probe.errors import StoreError
from probe.proxy.tickets import Ticket
from probe.runs.answers import UNANSWERED, Classified, classify
from probe.runs.attempt import Attempt
from probe.runs.money.ledger import Reservation
from probe.runs.money.price import NOTHING, Cost, charge, cost_of
from probe.runs.pacing.told import told_of
from probe.store.rows import AttemptEnd, TrialState
from probe.store.writer import Writer
from probe.wire.values import Exchange

_UNSENT = frozenset({"unreachable", "dns", "tls"})
"""Reasons for which nothing of a request left this machine."""

_UNKNOWN = frozenset({"timeout", "reset", "malformed", "interrupted"})
"""Reasons for which nobody knows what the route did and billed."""


class RecordingSink:
    """Hands exchanges from the proxy's thread to the store's writer; a ticket resolves after the commit.

    ``failure`` is why an exchange could not be written, if that happened.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._last: Future[None] | None = None
        self.failure: StoreError | None = None

    def __call__(self, exchange: Exchange, ticket: Ticket | None) -> None:
        """Store one exchange."""
        try:
            done = self._submit(exchange, ticket)
        except StoreError as error:
            self.failure = error
            if ticket is not None:
                ticket.recorded.set_exception(error)
            return

        def settle(future: Future[None]) -> None:
            error = future.exception()
            if isinstance(error, StoreError):
                self.failure = self.failure or error
            if ticket is None:
                return
            if error is not None:
                ticket.recorded.set_exception(error)
            else:
                ticket.recorded.set_result(exchange)

        self._last = done
        done.add_done_callback(settle)

    def flush(self) -> None:
        """Wait for the commit of all exchanges so far: the writer commits them in their order."""
        error = self._last.exception() if self._last is not None else None
        if isinstance(error, StoreError):
            self.failure = self.failure or error

    def _submit(self, exchange: Exchange, ticket: Ticket | None) -> Future[None]:
        attempt = ticket.context if ticket is not None else None
        if not isinstance(attempt, Attempt):
            return self._writer.submit(exchange, "planned")
        found = classify(exchange, attempt.route.backend)
        attempt.told = told_of(exchange, time.time())
        if found.reason == "rate_limited" and attempt.told.until_tomorrow:
            found = replace(found, reason="daily_limit")
        attempt.found = found
        attempt.cost = cost_of_attempt(found, attempt.reservation, attempt.price)
        state: TrialState = "planned" if attempt.again and found.reason in UNANSWERED else found.state
        return self._writer.submit(exchange, state, reason=found.reason, cost=ending(attempt))


def ending(attempt: Attempt) -> AttemptEnd | None:
    """Return the row that ends an attempt in the journal; ``None`` for a local route, which has none."""
    if attempt.row is None:
        return None
    if attempt.cost is None:
        return AttemptEnd(attempt.row.id, 0, 0, None, "unsent")
    return attempt.cost.end(attempt.row.id)


def cost_of_attempt(found: Classified, reservation: Reservation | None, price: Price | None) -> Cost | None:
    """Return what an attempt cost, and never less than it may have; ``None``: nothing left this machine.

    A block or another refusal before any generation costs its prompt at most: some providers bill for that (Azure's
    documentation of its content filter says so), and some report usage with it.
    """
    if reservation is None or found.reason in _UNSENT:
        return None
    if found.reason and found.reason not in _UNKNOWN:
        return NOTHING
    usage = found.reading.usage
    if found.answered and (found.status or 0) >= 400 and usage.completion_tokens is None:
        tokens = replace(reservation.tokens, completion=0)
        return Cost(tokens.prompt, 0, None if price is None else charge(price, tokens), "reserved")
    return cost_of(price, usage, found.reading, reservation.tokens)
