"""When the pieces of an answer come: measured on genuine answers, and drawn from these for texts that nobody generated.

A platform that hides its own words behind the timing of the model has to draw from what its own model just did, on the
same load; nothing simpler is the same.
"""

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise

ENOUGH = 8
"""Genuine answers that a pool holds before anything is drawn from it."""

_KEEP = 128
"""Newest answers that a pool keeps: the load changes."""

_NEAR = 4
"""One in so many answers, those with the nearest length of prompt, may give a timing: prompts take time to read."""

_LATE_S = 0.0001
"""How much later than it was due a thread wakes and its loop hears of it, on an idle machine; learnt from there on."""

_STEP = 0.02
"""How fast the median lateness is learnt: the share by which each tick moves it, up or down."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """When an answer's pieces came, in seconds: the first after the request, each after the one before, and the end.

    ``size`` is the number of characters of the prompt, ``finish`` the finish reason; ``prompt_ms`` and ``predicted_ms``
    are what the server itself says it took.
    """

    size: int
    finish: str
    first: float
    gaps: tuple[float, ...]
    end: float
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0

    @classmethod
    def measured(
        cls, size: int, start: float, arrivals: Sequence[float], end: float, finish: str, timings: dict[str, float]
    ) -> "Timeline":
        """Make one from the monotonic times of the request, the pieces (at least one) and the end."""
        gaps = tuple(later - earlier for earlier, later in pairwise(arrivals))
        return cls(
            size,
            finish,
            arrivals[0] - start,
            gaps,
            end - arrivals[-1],
            timings.get("prompt_ms", 0.0),
            timings.get("predicted_ms", 0.0),
        )

    @property
    def writing(self) -> float:
        """Seconds from the first piece to the end."""
        return sum(self.gaps) + self.end

    @property
    def timings(self) -> dict[str, float]:
        """What the server would say it took, in milliseconds."""
        return {"prompt_ms": self.prompt_ms, "predicted_ms": self.predicted_ms}

    def dues(self, start: float) -> list[float]:
        """Return when each piece and the end are due, for a request at ``start``."""
        return list(accumulate([self.first, *self.gaps, self.end], initial=start))[1:]


class TimingPool:
    """The timelines of a platform's newest genuine answers."""

    def __init__(self) -> None:
        self._kept: deque[Timeline] = deque(maxlen=_KEEP)
        self.late_s = _LATE_S

    def learn(self, late_s: float) -> None:
        """Learn how late the ticks of this platform come (the median), so that they are sent so much earlier."""
        self.late_s *= 1 + _STEP if late_s > 0 else 1 - _STEP
        self.late_s = min(max(self.late_s, 1e-5), 0.05)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, timeline: Timeline) -> None:
        """Keep a timeline; the oldest goes where there are too many."""
        self._kept.append(timeline)

    def lengths(self) -> list[int]:
        """Return the numbers of pieces of the answers."""
        return [len(timeline.gaps) + 1 for timeline in self._kept]

    def draw(self, chance: random.Random, size: int, finish: str, pieces: int) -> Timeline:
        """Draw a timeline for ``pieces`` (at least one) pieces after a prompt of ``size`` characters.

        The time to the first piece and the first gaps are those of one genuine answer to a prompt of about that length,
        which ended the same way where there is one. Where it was shorter, another answer goes on from the same place.
        """
        fitting = [timeline for timeline in self._kept if timeline.finish == finish] or list(self._kept)
        fitting.sort(key=lambda timeline: abs(timeline.size - size))
        donor = chance.choice(fitting[: max(ENOUGH, len(fitting) // _NEAR)])
        gaps = self.gaps(chance, pieces - 1, donor.gaps)
        unaccounted = donor.predicted_ms - 1000 * donor.writing
        drawn = Timeline(size, finish, donor.first, gaps, donor.end, donor.prompt_ms)
        predicted_ms = max(0.0, 1000 * drawn.writing + unaccounted)
        return Timeline(size, finish, drawn.first, gaps, drawn.end, drawn.prompt_ms, predicted_ms)

    def gaps(self, chance: random.Random, wanted: int, begun: Sequence[float] = ()) -> tuple[float, ...]:
        """Draw gaps that go on after ``begun``, each stretch from one answer; zeros where no answer has any."""
        gaps = list(begun)[:wanted]
        while len(gaps) < wanted:
            longer = [timeline.gaps[len(gaps) :] for timeline in self._kept if len(timeline.gaps) > len(gaps)]
            stretches = longer or [timeline.gaps for timeline in self._kept if timeline.gaps] or [(0.0,) * wanted]
            gaps += chance.choice(stretches)[: wanted - len(gaps)]
        return tuple(gaps)


async def ticks(dues: Sequence[float], *, early_s: float = _LATE_S) -> AsyncGenerator[float]:
    """Yield each due time, ascending on the monotonic clock, when it has come; the thread behind it wakes so early.

    A thread sleeps, because the sleep of an event loop is rounded up to a millisecond, three tokens of a small model.
    """
    loop = asyncio.get_running_loop()
    came: asyncio.Queue[float] = asyncio.Queue()
    left = threading.Event()

    def tick() -> None:
        for due in dues:
            wait = due - early_s - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            if left.is_set():
                return
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(came.put_nowait, due)

    threading.Thread(target=tick, name="probe-lab-pace", daemon=True).start()
    try:
        for _ in dues:
            yield await came.get()
    finally:
        left.set()
