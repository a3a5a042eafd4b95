"""Progress on the terminal; some lines now and then where there is no terminal."""

import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from probe.runs.summary import RouteProgress, RunSummary

if TYPE_CHECKING:
    from rich.table import Table

_EVERY_S = 5.0
_PER_SECOND = 4
_NARROW = 100
"""Columns of a terminal below which the table leaves out what can wait for the end."""


class RunProgress:
    """Shows how far each route is; callable with a ``RunSummary``."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._shown: Any = None
        """What is on the terminal now: rich's table of a run, or its bar of an analysis."""
        self._summary: RunSummary | None = None
        self._task: Any = None
        self._last = time.monotonic()
        self._said_ending = False
        self._over: set[str] = set()
        self.live = not quiet and sys.stderr.isatty()

    def __enter__(self) -> Self:
        """Start showing."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        self._stop()

    def _stop(self) -> None:
        if self._shown is not None:
            self._shown.stop()
            self._shown = None

    def __call__(self, summary: RunSummary) -> None:
        """Show the state of a run."""
        if self._quiet:
            return
        ending = summary.interrupted is not None and not self._said_ending
        if self.live:
            if self._summary is None:
                self._show_table()
            self._summary = summary
        elif ending:
            print(f"  {_ending(summary)}", file=sys.stderr)
        elif time.monotonic() - self._last > _EVERY_S:
            self._last = time.monotonic()
            for line in route_lines(summary, self._over):
                print(f"  {line}", file=sys.stderr)
        self._said_ending = self._said_ending or ending

    def _show_table(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._stop()
        # Drawn by the clock and not by the calls: rates and waits change while nothing happens.
        console = Console(stderr=True)
        self._shown = Live(
            get_renderable=lambda: run_table(self._summary or RunSummary(), narrow=console.width < _NARROW),
            console=console,
            refresh_per_second=_PER_SECOND,
            transient=True,
        )
        self._shown.start()

    def analysis(self, what: str, scored: int) -> None:
        """Show the state of an analysis."""
        if self._quiet:
            return
        text = f"  {what} ({scored} scored)" if scored else f"  {what}"
        if self.live:
            if self._task is None:
                self._show_bar(text)
            self._shown.update(self._task, description=text)
        elif time.monotonic() - self._last > _EVERY_S:
            self._last = time.monotonic()
            print(text, file=sys.stderr)

    def _show_bar(self, text: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._stop()
        self._shown = Progress(
            TextColumn("{task.description}"), BarColumn(), console=Console(stderr=True), transient=True
        )
        self._shown.start()
        self._task = self._shown.add_task(text, total=None)


def run_table(summary: RunSummary, *, narrow: bool = False) -> "Table":
    """Return the state of a run as a table, a line per route; ``narrow``: with fewer columns."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, caption=_ending(summary) or None, caption_justify="left")
    table.add_column("route", no_wrap=True)
    for heading in (
        ("done", "answered", "left")
        if narrow
        else ("done", "a minute", "answered", "blocked", "retried", "no answer", "US$", "left")
    ):
        table.add_column(heading, justify="right", no_wrap=narrow)
    table.add_column("pace")
    for name, route in summary.routes.items():
        if narrow:
            table.add_row(name, f"{route.done}/{route.planned}", str(route.answered), _left(route), _state(route))
            continue
        rate = route.per_minute
        table.add_row(
            name,
            f"{route.done}/{route.planned}",
            "" if rate is None else f"{rate:.0f}",
            *(str(count) for count in (route.answered, route.blocked, route.retries)),
            _reasons(route) or "0",
            f"{route.nanousd / 1e9:.4f}" if route.hosted else "",
            _left(route),
            _state(route),
        )
    return table


def route_lines(summary: RunSummary, over: set[str] | None = None) -> Iterator[str]:
    """Yield the state of a run as text, a line per route that has anything to send.

    Routes in ``over`` are left out, and those that have come to their end are added to it.
    """
    for name, route in summary.routes.items():
        if not route.planned or (over is not None and name in over):
            continue
        if over is not None and route.finished:
            over.add(name)
        parts = [f"{name}: {route.done} of {route.planned}"]
        if route.per_minute is not None:
            parts.append(f"{route.per_minute:.0f} a minute")
        parts.append(f"{route.answered} answered")
        parts += [
            f"{count} {what}" for what, count in (("blocked", route.blocked), ("retried", route.retries)) if count
        ]
        if route.reasons:
            parts.append(f"no answer: {_reasons(route)}")
        if route.nanousd:
            parts.append(f"{route.nanousd / 1e9:.4f} US dollars")
        if _left(route):
            parts.append(f"{_left(route)} left")
        if _state(route) not in {"", "open"}:
            parts.append(_state(route))
        yield ", ".join(parts)


def _reasons(route: RouteProgress) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in route.reasons.most_common())


def _left(route: RouteProgress) -> str:
    seconds = route.left_s
    if seconds is None:
        return ""
    hours, minutes = int(seconds // 3600), int(seconds % 3600 // 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _state(route: RouteProgress) -> str:
    if route.stopped is not None:
        return "stopped"
    if route.note:
        return "pauses"
    if route.resumes:
        return route.resumes
    return "done" if route.finished else route.look()


def _ending(summary: RunSummary) -> str:
    """Say that a run is being ended, where it is."""
    if summary.interrupted is None:
        return ""
    if summary.at_once:
        return "Leaving at once."
    return "Ending: what is under way comes to its end; the same signal once more leaves at once."
