"""The clock, so that a test can have one of its own."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Two times and a way to wait."""

    def monotonic(self) -> float:
        """Return seconds that only ever grow, from any start."""
        ...

    def wall(self) -> float:
        """Return Unix seconds (UTC)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; a cancelled sleeper wakes up at once with ``CancelledError``."""
        ...


class SystemClock:
    """The real clock."""

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()

    def wall(self) -> float:
        """Return Unix seconds (UTC)."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
