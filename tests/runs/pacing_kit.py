"""Time for tests of pacing: an event loop whose clock jumps to what is due next, so that hours take no time."""

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from probe.config import Pace
from probe.runs.pacing.breaker import Breaker
from probe.runs.pacing.route_pace import RoutePace
from probe.store.rows import Counted
from probe.wire.backend import Limits

MORNING = 1_790_000_000.0 - 1_790_000_000.0 % 86_400 + 6 * 3600
"""A Unix time at 06:00 UTC."""


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Where the loop would sleep, its clock jumps instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing is due: a deadlock")
        self.now += max(0.0, timeout)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in its own time."""

    def __init__(self) -> None:
        self.selector = _JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


class LoopClock:
    """The clock of a ``JumpingLoop``; the wall clock began at ``start``."""

    def __init__(self, start: float = MORNING) -> None:
        self._start = start

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return self._start + self.monotonic() - 1000.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run[Result](main: Callable[[LoopClock], Coroutine[Any, Any, Result]], start: float = MORNING) -> Result:
    """Run a coroutine in jumping time."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main(LoopClock(start)))


def make_pace(
    clock: LoopClock,
    *,
    limits: Limits | None = None,
    today: Counted | None = None,
    breaker: Breaker | None = None,
    seed: int = 1,
    **pace: Any,
) -> RoutePace:
    """Make the pace of a route; keywords are fields of ``Pace``."""
    return RoutePace(
        Pace(**pace),
        limits or Limits(),
        clock=clock,
        chance=random.Random(seed),
        today=today,
        name="hosted",
        breaker=breaker,
    )
