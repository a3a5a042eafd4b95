"""Everything that decides when a route may send its next request.

``enter`` waits until all of this holds, and ``leave`` tells how it went: one of the route's requests at once is free
(adaptive), its minute and its day allow another one, no wait that the route asked for is running, and its breaker is
closed. Who came first goes first; a large request is not overtaken by small ones for ever. One event loop; a cancelled
waiter has taken nothing.

A wait of more than an hour, and a limit of the day, is a pause: ``PausedForDay`` says until when. A route that pauses
again before anything was answered is tried every hour: its day does not begin at 00:00 UTC.
"""

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from probe.config import Pace, Route
from probe.errors import RouteError
from probe.runs.pacing.backoff import full_jitter
from probe.runs.pacing.breaker import Breaker
from probe.runs.pacing.clock import Clock
from probe.runs.pacing.concurrency import Window
from probe.runs.pacing.told import Told
from probe.runs.pacing.window import DayCount, Entry, Spacing, TokenWindow, next_day
from probe.store.rows import Counted
from probe.wire.backend import Limits

PAUSE_S = 3600.0
"""A wait that is longer than this is a pause."""

TRUSTED = 3
"""Waits in a row that are believed to be long enough; where asking again fails once more, they are made longer."""

_SHORTEST_S = 0.001
"""Floating-point times a nanosecond apart may be equal; a sleeper must not wake up too early for ever."""

Kind = Literal["answered", "limited", "overloaded", "fault", "cancelled"]
"""``answered``: the route works, whatever it said (also a 400); ``limited``: it said that this was too much (429);
``overloaded``: it could not (5xx, 529); ``fault``: no connection, a reset, a time-out; ``cancelled``: the request never
left, or we broke it off."""


@dataclass(frozen=True, slots=True)
class Left:
    """How a request ended; ``tokens`` is what it needed, ``None`` where nobody knows."""

    kind: Kind
    told: Told = field(default_factory=Told)
    tokens: int | None = None


class PausedForDay(Exception):  # noqa: N818 - no error: the caller goes on with other routes, or waits
    """Nothing more may be sent before ``until`` (Unix seconds); ``reason`` is the end of a sentence."""

    def __init__(self, until: float, reason: str) -> None:
        super().__init__(f"paused until {_utc(until)}: {reason}")
        self.until = until
        self.reason = reason


class RouteGivenUp(RouteError):  # noqa: N818 - a sentence for the user, as every ``RouteError``
    """A route failed so often in a row that it is asked no more."""


@dataclass(slots=True, eq=False)
class Slot:
    """One request that may be sent: what was noted for it, to be given back by ``leave``."""

    tokens: int
    sent_at: float
    sent_wall: float
    entry: Entry
    probe: bool
    left: bool = False


def limits_for(route: Route) -> Limits:
    """Return the documented limits that hold for a route's model; none where they are for other models."""
    limits = route.backend.limits
    return limits if limits.only is None or limits.only.search(route.model) else Limits()


class _Allowance:
    """What a server said is left of something, until a reset. Newer words replace older ones."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._until = float("-inf")

    def tell(self, left: int | None, reset_s: float | None, now: float) -> None:
        if left is not None and reset_s is not None:
            self._left, self._until = left, now + reset_s

    def wait_s(self, need: int, now: float) -> float:
        if self._left is None or now >= self._until or self._left >= need:
            return 0.0
        return self._until - now

    def take(self, need: int) -> None:
        if self._left is not None:
            self._left -= need


class RoutePace:
    """The pace of one route."""

    def __init__(
        self,
        pace: Pace,
        limits: Limits,
        *,
        clock: Clock,
        chance: random.Random,
        today: Counted | None = None,
        name: str = "",
        breaker: Breaker | None = None,
    ) -> None:
        """``pace`` goes before the backend's documented ``limits``; ``today``: what this UTC day has seen already."""
        self._clock = clock
        self._chance = chance
        self._name = f"Route {name!r}" if name else "The route"
        most = min(pace.concurrency, limits.concurrency or pace.concurrency)
        self._window = Window(most)
        self._spacing = Spacing(_first(pace.requests_per_minute, limits.requests_per_minute))
        self._tokens = TokenWindow(_first(pace.tokens_per_minute, limits.tokens_per_minute))
        self._day = DayCount(
            _first(pace.requests_per_day, limits.requests_per_day),
            _first(pace.tokens_per_day, limits.tokens_per_day),
            today or Counted(),
            clock.wall(),
        )
        self._breaker = breaker or Breaker()
        self._requests_told = _Allowance()
        self._tokens_told = _Allowance()
        self._told_until = float("-inf")
        self._told_by_route = False
        self._paused_until = float("-inf")
        self._pause_reason = ""
        self._paused_in_vain = False
        self._failures = 0
        self._in_flight = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._changed = asyncio.Event()

    @property
    def concurrency(self) -> int:
        """How many requests may be under way at once now."""
        return self._window.size

    @property
    def in_flight(self) -> int:
        """How many are."""
        return self._in_flight

    @property
    def state(self) -> str:
        """What the route does now, for people."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        breaker = self._breaker.state(now)
        if breaker == "given up":
            return "given up"
        if wall < self._paused_until:
            return f"paused until {_utc(self._paused_until)}: {self._pause_reason}"
        if breaker == "open":
            return f"failed {self._breaker.faults} times in a row, next try in {self._breaker.wait_s(now) or 0:.0f} s"
        if breaker == "half-open":
            return "trying with one request"
        wait = self._told_wait(0, now)
        if wait > 0:
            told = self._told_by_route or wait > self._told_until - now
            return f"waiting {wait:.0f} s: {'told by the route' if told else 'after an overload'}"
        return "slow" if self._window.size < self._window.most and self._failures else "open"

    async def enter(self, tokens: int) -> Slot:
        """Wait until a request that may need so many tokens can be sent; hand the slot back with ``leave``.

        Raises ``PausedForDay`` and ``RouteGivenUp``.
        """
        await self._turn()
        try:
            while True:
                wait = self._wait_s(tokens)
                if wait == 0:
                    return self._take(tokens)
                await self._until_changed(wait)
        finally:
            self._next()

    def leave(self, slot: Slot, result: Left) -> None:
        """Give a slot back and tell how it went; twice is fine."""
        if slot.left:
            return
        slot.left = True
        self._in_flight -= 1
        now, wall = self._clock.monotonic(), self._clock.wall()
        used = 0 if result.kind == "cancelled" else slot.tokens if result.tokens is None else max(0, result.tokens)
        self._tokens.settle(slot.entry, used)
        if result.kind == "cancelled":
            self._day.give_back(slot.tokens, slot.sent_wall, wall)
            self._breaker.forget(probe=slot.probe)
        else:
            self._day.settle(slot.tokens, used, slot.sent_wall, wall)
            self._judge(slot, result, now, wall)
        self._changed.set()

    def backoff_s(self, attempt: int, told: Told) -> float:
        """Return how long a trial waits after its ``attempt``-th failure (from 1): what was told, or full jitter."""
        # A server that says "now" says nothing: it has just refused.
        return told.retry_after_s or full_jitter(attempt, self._chance)

    def _judge(self, slot: Slot, result: Left, now: float, wall: float) -> None:
        told = result.told
        # Requests that are still under way may not be in what is left.
        left = None if told.requests_left is None else max(0, told.requests_left - self._in_flight)
        self._requests_told.tell(left, told.requests_reset_s, now)
        self._tokens_told.tell(told.tokens_left, told.tokens_reset_s, now)
        match result.kind:
            case "answered":
                self._breaker.succeed()
                self._window.grow()
                self._failures = 0
                self._paused_in_vain = False
            case "limited":
                self._breaker.succeed()
                self._hold(slot, told, now, wall)
            case "overloaded":
                self._breaker.fail(now, probe=slot.probe, hopeless=False)
                self._hold(slot, told, now, wall)
            case _:
                self._breaker.fail(now, probe=slot.probe, hopeless=True)

    def _hold(self, slot: Slot, told: Told, now: float, wall: float) -> None:
        """Slow down, and wait for as long as the route says, or longer and longer where it says nothing."""
        first = self._window.shrink(slot.sent_at, now)
        self._failures += first
        if told.until_tomorrow:
            self._pause(told, wall)
            return
        asked = told.retry_after_s or 0.0
        if asked:
            self._wait_until(now + asked, told=True)
        if first and (not asked or self._failures > TRUSTED):
            self._wait_until(now + asked + full_jitter(self._failures, self._chance), told=asked > 0)

    def _wait_until(self, at: float, *, told: bool) -> None:
        if at >= self._told_until:
            self._told_until, self._told_by_route = at, told

    def _pause(self, told: Told, wall: float) -> None:
        if wall < self._paused_until:
            return  # others that were under way say the same
        until = next_day(wall)
        if told.requests_left == 0 and (told.requests_reset_s or 0) > PAUSE_S:  # a shorter one is of another limit
            until = wall + (told.requests_reset_s or 0)
        if self._paused_in_vain:
            until = min(until, wall + PAUSE_S)
        self._paused_until, self._paused_in_vain = until, True
        self._pause_reason = "its limit of the day is used up, as it says"

    def _told_wait(self, tokens: int, now: float) -> float:
        left = max(self._requests_told.wait_s(1, now), self._tokens_told.wait_s(tokens, now))
        return max(0.0, self._told_until - now, left)

    def _wait_s(self, tokens: int) -> float | None:
        """Return how long the first in the queue waits: 0 not at all, ``None`` until something changes."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        if self._breaker.state(now) == "given up":
            raise RouteGivenUp(
                f"{self._name} failed {self._breaker.faults} times in a row and is asked no more: its open trials are "
                "sent by the next start."
            )
        if wall < self._paused_until:
            raise PausedForDay(self._paused_until, self._pause_reason)
        if reason := self._day.full(tokens, wall):
            if self._in_flight and not self._day.full(0, wall):
                return None  # those under way may need less than was noted
            raise PausedForDay(next_day(wall), reason)
        told = self._told_wait(tokens, now)
        if told > PAUSE_S:
            if self._in_flight and self._told_until - now <= PAUSE_S:
                return None  # those under way bring newer words of what is left
            raise PausedForDay(wall + told, "it asked for a wait of more than an hour")
        probe = self._breaker.wait_s(now)
        if probe is None or self._in_flight >= self._window.size:
            return None
        return max(told, probe, self._spacing.wait_s(now), self._tokens.wait_s(tokens, now))

    def _take(self, tokens: int) -> Slot:
        now, wall = self._clock.monotonic(), self._clock.wall()
        self._in_flight += 1
        self._spacing.take(now)
        self._day.take(tokens, wall)
        self._requests_told.take(1)
        self._tokens_told.take(tokens)
        return Slot(tokens, now, wall, self._tokens.take(tokens, now), self._breaker.take())

    async def _turn(self) -> None:
        """Wait for the head of the queue; the caller then calls ``_next``."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        if self._queue[0] is turn:
            return
        try:
            await turn
        except asyncio.CancelledError:
            first = self._queue[0] is turn  # it has become ours between the cancelling and now
            self._queue.remove(turn)
            if first:
                self._wake()
            raise

    def _next(self) -> None:
        self._queue.popleft()
        self._wake()

    def _wake(self) -> None:
        if self._queue and not self._queue[0].done():
            self._queue[0].set_result(None)

    async def _until_changed(self, wait: float | None) -> None:
        self._changed.clear()
        changed = asyncio.ensure_future(self._changed.wait())
        waits = [changed]
        if wait is not None:
            waits.append(asyncio.ensure_future(_true_after(self._clock, max(wait, _SHORTEST_S))))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()


async def _true_after(clock: Clock, seconds: float) -> Literal[True]:
    await clock.sleep(seconds)
    return True


def _first[Value](own: Value | None, documented: Value | None) -> Value | None:
    return documented if own is None else own


def _utc(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")
