"""Sends the open trials of a run through the proxy: every route at its own pace, all of them side by side.

A route that cannot be used stops with one sentence, and the others go on; a store that cannot be written stops all.
How the sides of a pair stay close in time says ``probe.runs.pairing``. The first Ctrl-C hands out no more trials and
lets what is under way come to its end, which its time-outs bound; the second leaves at once.
"""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from probe.config import Config, Price, Route
from probe.errors import ProbeError
from probe.proxy.server import ProxyServer
from probe.runs.attempt import connector
from probe.runs.pacing.clock import Clock, SystemClock
from probe.runs.pacing.route_pace import RoutePace, limits_for
from probe.runs.pacing.window import day_start
from probe.runs.pairing import gap_of
from probe.runs.requests import Requests, build_request
from probe.runs.route_work import RouteWork, Shared
from probe.runs.sink import RecordingSink
from probe.runs.summary import Progress, RouteProgress, RunSummary
from probe.runs.turns import Turns
from probe.store.rows import Counted
from probe.store.store import Store
from probe.store.writer import Writer

__all__ = ["Progress", "RecordingSink", "RouteProgress", "RunSummary", "Runner"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _nothing(_: RunSummary) -> None:
    pass


@dataclass
class Runner:
    """Runs what is open of one run. ``prices`` by route id; ``wait``: sleep over a daily limit instead of stopping.

    ``in_flight`` requests were under way when an earlier start was killed; they are said in the summary.
    """

    config: Config
    proxy: ProxyServer
    store: Store
    writer: Writer
    run_id: str
    turns: Turns
    prices: dict[str, Price | None] = field(default_factory=dict)
    progress: Progress = _nothing
    clock: Clock = field(default_factory=SystemClock)
    chance: random.Random = field(default_factory=random.Random)
    wait: bool = False
    in_flight: int = 0
    requests: Requests = build_request
    summary: RunSummary = field(default_factory=RunSummary)
    _works: list[RouteWork] = field(default_factory=list)

    async def run(self) -> RunSummary:
        """Send all open trials; return what came of it. Raises ``StoreError``."""
        self.summary.in_flight = self.in_flight
        planned: Counter[str] = Counter()
        for count in self.store.count_reasons(self.run_id):
            planned[count.route_id] += count.trials if count.state == "planned" else 0
        async with connector() as session:
            shared = Shared(
                session,
                self.proxy,
                self.store,
                self.writer,
                self.turns,
                self.clock,
                run_id=self.run_id,
                summary=self.summary,
                show=self.progress,
                wait=self.wait,
                requests=self.requests,
            )
            self._works = [self._work(route, shared, planned) for route in self.config.routes.values()]
            self.turns.pairing.expect(route_id for route_id, count in planned.items() if count)
            self.progress(self.summary)
            try:
                with self._signals(shared):
                    async with asyncio.TaskGroup() as group:
                        for work in self._works:
                            group.create_task(work.run())
            except BaseExceptionGroup as group:
                raise _first(group) from None
        self._gaps()
        return self.summary

    def _work(self, route: Route, shared: Shared, planned: Mapping[str, int]) -> RouteWork:
        route_id, hosted = route.row.id, route.role == "hosted"
        progress = RouteProgress(planned=planned.get(route_id, 0), hosted=hosted)
        spent = self.turns.ledger.spent_on(route_id)
        progress.tokens, progress.nanousd = spent.tokens, spent.nanousd
        self.summary.routes[route.name] = progress
        midnight = day_start(self.clock.wall())
        today = self.store.counted_since(route_id, midnight) if hosted else Counted()
        chance = random.Random(self.chance.random())
        pace = RoutePace(route.pace, limits_for(route), clock=self.clock, chance=chance, today=today, name=route.name)
        return RouteWork(route, pace, self.prices.get(route_id), shared, progress)

    @contextmanager
    def _signals(self, shared: Shared) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as a wish to end in order, and the second one as an order to leave."""
        loop, taken = asyncio.get_running_loop(), []

        def asked(number: int) -> None:
            self.summary.at_once = self.summary.interrupted is not None
            self.summary.interrupted = number
            shared.halted = True
            for work in self._works:
                work.halt(at_once=self.summary.at_once)
            self.progress(self.summary)

        for number in _SIGNALS:
            try:
                loop.add_signal_handler(number, asked, number)
                taken.append(number)
            except (ValueError, RuntimeError, NotImplementedError):
                break  # not in the main thread: whoever started us has the signals
        try:
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)

    def _gaps(self) -> None:
        for route in self.config.hosted():
            progress = self.summary.routes[route.name]
            twin = self.config.routes.get(route.twin or "")
            if twin is not None:
                gap = gap_of(self.store, self.run_id, route.row.id, twin.row.id)
                progress.pairs, progress.gap_s = gap.pairs, gap.median_s


def _first(group: "BaseExceptionGroup[BaseException]") -> BaseException:
    """Return what ended a run: an error with a sentence before any other (several workers meet the same full disk)."""
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((error for error in leaves if isinstance(error, ProbeError)), leaves[0])
