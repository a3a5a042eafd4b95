"""Progress on the terminal; one line now and then where there is no terminal."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from probe.runs.runner import RouteProgress, RunSummary

_EVERY_S = 5.0


class RunProgress:
    """Shows how far each route is; callable with a ``RunSummary``."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._last = time.monotonic()
        self.live = not quiet and sys.stderr.isatty()

    def __enter__(self) -> Self:
        """Start showing."""
        if self.live:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, summary: RunSummary) -> None:
        """Show the state of a run."""
        if self._quiet:
            return
        if self._bars is not None:
            for name, route in summary.routes.items():
                if name not in self._tasks:
                    self._tasks[name] = self._bars.add_task(f"  {name}", total=route.planned)
                self._bars.update(self._tasks[name], completed=_done(route))
        elif time.monotonic() - self._last > _EVERY_S:
            self._last = time.monotonic()
            done = sum(_done(route) for route in summary.routes.values())
            planned = sum(route.planned for route in summary.routes.values())
            print(f"  {done} of {planned} trials", file=sys.stderr)

    def analysis(self, what: str, scored: int) -> None:
        """Show the state of an analysis."""
        if self._quiet:
            return
        text = f"  {what} ({scored} scored)" if scored else f"  {what}"
        if self._bars is not None:
            if "" not in self._tasks:
                self._tasks[""] = self._bars.add_task(text, total=None)
            self._bars.update(self._tasks[""], description=text)
        elif time.monotonic() - self._last > _EVERY_S:
            self._last = time.monotonic()
            print(text, file=sys.stderr)


def _done(route: RouteProgress) -> int:
    return route.answered + route.failed + route.spared
