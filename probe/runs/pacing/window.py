"""Limits per minute and per day.

Requests are spaced evenly, tokens are counted in a sliding window, and both hold for every window of 60 seconds, not
only for those that begin with a minute. Even spacing is the generic cell rate algorithm without burst tolerance (ITU-T
I.371, annex A): a burst that a server counts in shorter windows than it documents is never sent.
"""

from collections import deque
from dataclasses import dataclass

from probe.store.rows import Counted

MINUTE_S = 60.0
DAY_S = 86_400.0

MARGIN = 0.01
"""Requests are spaced wider by this, because they do not all take equally long to arrive where they are counted."""


def day_start(wall: float) -> float:
    """Return when the UTC day of a Unix time began. Unix time has no leap seconds, so every day has 86,400."""
    return wall - wall % DAY_S


def next_day(wall: float) -> float:
    """Return when the next UTC day begins."""
    return day_start(wall) + DAY_S


class Spacing:
    """At most ``per_minute`` requests (rounded up) in any 60 seconds, evenly spaced; times are monotonic seconds."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = MINUTE_S / per_minute * (1 + MARGIN) if per_minute else 0.0
        self._next = float("-inf")

    def wait_s(self, now: float) -> float:
        """Return seconds until the next request may be sent."""
        return max(0.0, self._next - now)

    def take(self, now: float) -> None:
        """Note a request."""
        self._next = now + self._gap


@dataclass(slots=True, eq=False)
class Entry:
    """Tokens of one request in a window: what it may need until it has ended, what it needed after."""

    at: float
    tokens: int


class TokenWindow:
    """At most ``per_minute`` tokens in any 60 seconds; times are monotonic seconds.

    A request that may need more than that by itself is sent when nothing else is in the window: it would never be sent
    otherwise, and it rarely needs what it may.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._limit = per_minute
        self._entries: deque[Entry] = deque()
        self._sum = 0

    def wait_s(self, tokens: int, now: float) -> float:
        """Return seconds until a request with so many tokens may be sent."""
        if self._limit is None:
            return 0.0
        self._forget(now)
        most = self._limit - min(tokens, self._limit)
        left, wait = self._sum, 0.0
        for entry in self._entries:
            if left <= most:
                break
            left -= entry.tokens
            wait = entry.at + MINUTE_S - now
        return max(0.0, wait)

    def take(self, tokens: int, now: float) -> Entry:
        """Note a request with the most that it may need."""
        entry = Entry(now, tokens)
        if self._limit is not None:
            self._forget(now)
            self._entries.append(entry)
            self._sum += tokens
        return entry

    def settle(self, entry: Entry, tokens: int) -> None:
        """Note what a request needed."""
        if any(entry is known for known in self._entries):
            self._sum += tokens - entry.tokens
        entry.tokens = tokens

    def _forget(self, now: float) -> None:
        while self._entries and self._entries[0].at + MINUTE_S <= now:
            self._sum -= self._entries.popleft().tokens


class DayCount:
    """Requests and tokens of the current UTC day; times are Unix seconds.

    ``today`` is what was counted before this process began.
    """

    def __init__(self, requests: int | None, tokens: int | None, today: Counted, wall: float) -> None:
        self._limits = (requests, tokens)
        self._day = day_start(wall)
        self._requests = today.requests
        self._tokens = today.tokens

    def full(self, tokens: int, wall: float) -> str:
        """Return which limit a request with so many tokens would exceed today, in words; empty where none.

        A request that may need more than a whole day's tokens is sent when nothing was sent yet.
        """
        self._turn(wall)
        requests, most = self._limits
        if requests is not None and self._requests + 1 > requests:
            return f"its {requests:,} requests of the day are used up"
        if most is not None and self._tokens + min(tokens, most) > most:
            return f"its {most:,} tokens of the day are used up"
        return ""

    def take(self, tokens: int, wall: float) -> None:
        """Note a request with the most that it may need."""
        self._turn(wall)
        self._requests += 1
        self._tokens += tokens

    def settle(self, taken: int, tokens: int, sent_at: float, wall: float) -> None:
        """Note what a request needed for which ``taken`` was noted at ``sent_at``."""
        self._turn(wall)
        if sent_at >= self._day:
            self._tokens += tokens - taken

    def give_back(self, taken: int, sent_at: float, wall: float) -> None:
        """Note that a request never left."""
        self.settle(taken, 0, sent_at, wall)
        if sent_at >= self._day:
            self._requests -= 1

    def _turn(self, wall: float) -> None:
        # A wall clock that is set back does not bring yesterday's count back.
        if day_start(wall) > self._day:
            self._day, self._requests, self._tokens = day_start(wall), 0, 0
