"""How far a run is: what its progress display and its end message are made of."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from probe.errors import RouteError

_RATE_OVER = 200
"""Trials that the rate is taken over: recent ones, so that it shows what is going on now."""

_SHORTEST_S = 1.0
"""A rate over less than this is nonsense: two trials that fail at once are no ten thousand a minute."""


@dataclass
class RouteProgress:
    """How far a route is in this start. ``planned`` trials were open when it began; a local route costs nothing.

    ``answered`` trials have an answer, ``blocked`` of them a declared block; ``reasons`` counts those that came to an
    end without one, ``words`` quotes the last one of each. ``spared`` trials nobody needs any more. ``retries`` are
    attempts after the first. ``stopped`` says why it goes on no further, ``note`` why it went on no further though
    nothing is wrong (a daily limit, a budget). ``look`` says how its pace stands now. ``tokens`` and ``nanousd`` are
    those of this start and earlier ones; ``unreported`` requests count with the most that they can have cost.
    ``unexplained`` answers are HTTP errors that the catalogue does not know; ``unexplained_words`` quotes the last one.
    """

    planned: int
    hosted: bool = False
    answered: int = 0
    blocked: int = 0
    spared: int = 0
    retries: int = 0
    requests: int = 0
    tokens: int = 0
    nanousd: int = 0
    unreported: int = 0
    unexplained: int = 0
    unexplained_words: str = ""
    reasons: Counter[str] = field(default_factory=Counter)
    words: dict[str, str] = field(default_factory=dict)
    stopped: RouteError | None = None
    note: str = ""
    resumes: str = ""
    """Until when it sleeps, in words; empty where it does not."""
    look: Callable[[], str] = lambda: ""
    finished: bool = False
    gap_s: float | None = None
    """Median time between the two sides of a pair of this hosted route and its twin, in seconds."""
    pairs: int = 0
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_OVER), repr=False)

    @property
    def failed(self) -> int:
        """Trials that ended without an answer in this start, for whatever reason."""
        return self.reasons.total()

    @property
    def done(self) -> int:
        """Trials that came to an end in this start."""
        return self.answered + self.failed + self.spared

    def tick(self) -> None:
        """Note that a trial came to its end."""
        self._ends.append(time.monotonic())

    @property
    def per_minute(self) -> float | None:
        """Trials that end in a minute, lately; ``None`` where there is too little to tell."""
        # Up to now, not up to the last end: a route that hangs slows down. One that has finished does not.
        if len(self._ends) < 2:
            return None
        span = (self._ends[-1] if self.finished else time.monotonic()) - self._ends[0]
        return 60.0 * (len(self._ends) - 1) / span if span >= _SHORTEST_S else None

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest takes at this rate."""
        rate = self.per_minute
        return None if self.finished or not rate else 60.0 * max(0, self.planned - self.done) / rate


@dataclass
class RunSummary:
    """What a start of a run did, per route name.

    ``in_flight`` requests were under way when an earlier start was killed. ``interrupted`` is the number of the signal
    that ended this one, ``at_once``: without waiting for what was under way.
    """

    routes: dict[str, RouteProgress] = field(default_factory=dict)
    in_flight: int = 0
    interrupted: int | None = None
    at_once: bool = False

    @property
    def stopped(self) -> list[RouteError]:
        """Why routes stopped."""
        return [progress.stopped for progress in self.routes.values() if progress.stopped]

    @property
    def notes(self) -> list[str]:
        """Why routes pause, each sentence once."""
        return list(dict.fromkeys(progress.note for progress in self.routes.values() if progress.note))


Progress = Callable[[RunSummary], None]
