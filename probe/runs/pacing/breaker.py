"""A circuit breaker: a route that fails again and again is left alone for a while, then tried with one request.

Nygard, "Release It!" (2007), chapter 5; https://martinfowler.com/bliki/CircuitBreaker.html. Closed: requests pass, and
faults in a row are counted. Open: nothing passes until a wait is over. Half-open: one request passes; it closes the
breaker or opens it again for twice as long.
"""

from typing import Literal

FAULTS = 5
"""Faults in a row that open the breaker."""

FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 300.0
PROBES = 7
"""Failed single requests in a row after which the route is given up: after some ten minutes."""

State = Literal["closed", "open", "half-open", "given up"]


class Breaker:
    """Times are monotonic seconds."""

    def __init__(self, faults: int = FAULTS, first_wait_s: float = FIRST_WAIT_S, probes: int = PROBES) -> None:
        self._faults = faults
        self._first_wait = first_wait_s
        self._probes = probes
        self._in_a_row = 0
        self._failed_probes = 0
        self._open_until: float | None = None
        self._probing = False
        self._ever = False
        self._given_up = False

    @property
    def faults(self) -> int:
        """Faults in a row so far."""
        return self._in_a_row

    def state(self, now: float) -> State:
        """Return the state at a time."""
        if self._given_up:
            return "given up"
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half-open"

    def wait_s(self, now: float) -> float | None:
        """Return seconds until a request may pass; ``None``: when the one that is under way has ended."""
        if self._open_until is None:
            return 0.0
        if self._probing:
            return None
        return max(0.0, self._open_until - now)

    def take(self) -> bool:
        """Note a request; return whether it is the single one that tries the route."""
        self._probing = self._open_until is not None
        return self._probing

    def succeed(self) -> None:
        """Note that the route answered, also with a limit: it is there."""
        self._ever = True
        self._in_a_row = self._failed_probes = 0
        self._open_until, self._probing = None, False

    def fail(self, now: float, *, probe: bool, hopeless: bool) -> None:
        """Note a fault.

        ``hopeless``: one that does not pass by itself if it is there from the start (nobody answers at all). A route
        that shows nothing else and has never answered is given up when the breaker would open.
        """
        self._in_a_row += 1
        if probe:
            self._probing = False
            self._failed_probes += 1
            self._given_up = self._failed_probes >= self._probes
        elif self._open_until is not None or self._in_a_row < self._faults:
            return  # it was under way when the breaker opened, or it is not enough
        if hopeless and not self._ever:
            self._given_up = True
        wait = min(LONGEST_WAIT_S, self._first_wait * 2.0 ** min(self._failed_probes, 32))
        self._open_until = now + wait

    def forget(self, *, probe: bool) -> None:
        """Note that a request was cancelled: it says nothing of the route."""
        if probe:
            self._probing = False
