"""One route's trials of a run: page by page from the store, each tried until it is answered or has a named reason.

Nothing of a trial is kept after its end, so a run of a hundred thousand needs no more memory than one of a hundred.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import aiohttp

from probe.config import Price, Route
from probe.errors import RouteError
from probe.proxy.server import ProxyServer
from probe.runs import messages
from probe.runs.answers import RETRIED, UNANSWERED, Classified, Reason
from probe.runs.attempt import Attempt, send
from probe.runs.money.ledger import Reservation
from probe.runs.money.price import Tokens, worst_case
from probe.runs.pacing.backoff import CAP_S
from probe.runs.pacing.clock import Clock
from probe.runs.pacing.route_pace import Left, PausedForDay, RouteGivenUp, RoutePace, Slot
from probe.runs.pacing.told import Told
from probe.runs.requests import Requests
from probe.runs.sink import ending
from probe.runs.summary import RouteProgress, RunSummary
from probe.runs.turns import Turn, Turns
from probe.store.rows import TrialRow
from probe.store.store import Store
from probe.store.writer import Writer
from probe.traces.values import Trace
from probe.wire.values import BuiltRequest, Exchange

ATTEMPTS = 5
"""Attempts per trial and start of the program, where nothing was answered."""

_PAGE = 200
"""Trials that are read at once."""

_TRACES = 256
"""Traces that are kept: the routes of a run are at about the same ones."""

_BAD_REQUESTS = 5
"""Requests in a row that a route does not understand, before any answer: then it understands none."""


class Shared:
    """What the routes of a run have in common."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        proxy: ProxyServer,
        store: Store,
        writer: Writer,
        turns: Turns,
        clock: Clock,
        *,
        run_id: str,
        summary: RunSummary,
        show: Callable[[RunSummary], None],
        wait: bool,
        requests: Requests,
    ) -> None:
        self.session = session
        self.proxy = proxy
        self.store = store
        self.writer = writer
        self.turns = turns
        self.clock = clock
        self.run_id = run_id
        self.wait = wait
        self.requests = requests
        self.halted = False
        self._summary = summary
        self._show = show
        self.trace: Callable[[str], Trace] = lru_cache(maxsize=_TRACES)(store.trace)

    def show(self) -> None:
        """Show how far the run is."""
        self._show(self._summary)


@dataclass(slots=True)
class _Admitted:
    """Whether a trial may be sent now; where it may, with its slot and with what is put aside for it."""

    turn: Turn
    slot: Slot | None = None
    reservation: Reservation | None = None


@dataclass
class RouteWork:
    """Works off the open trials of one route. ``stop`` and ``halt`` end it early; what is under way ends by itself."""

    route: Route
    pace: RoutePace
    price: Price | None
    shared: Shared
    progress: RouteProgress
    cause: Reason | None = None
    _after: int = -1
    _page: Iterator[TrialRow] = field(default_factory=lambda: iter(()))
    _held: dict[str, TrialRow] = field(default_factory=dict)
    _workers: set[asyncio.Task[None]] = field(default_factory=set)
    _sending: set[asyncio.Task[None]] = field(default_factory=set)
    _reached: bool = False
    _fault: Classified | None = None
    _misunderstood: int = 0

    async def run(self) -> None:
        """Send all open trials.

        Raises ``StoreError`` where nothing more can be written; a route's faults stop it.
        """
        self.progress.look = lambda: self.pace.state
        async with asyncio.TaskGroup() as group:
            for _ in range(self.route.pace.concurrency):
                self._workers.add(group.create_task(self._work()))
        await self.shared.turns.leave(self.route.row.id)
        if self.cause is not None and not self.shared.halted:
            await self._name_the_rest(self.cause)
        self.progress.finished = True
        self.shared.show()

    def halt(self, *, at_once: bool = False) -> None:
        """Hand out no more trials; ``at_once``: leave what is under way, too."""
        for task in self._workers if at_once else self._workers - self._sending:
            task.cancel()

    async def stop(self, cause: Reason, error: RouteError | None = None, note: str = "") -> None:
        """End this route with a reason for its open trials; what is under way still ends."""
        if self.cause is not None:
            return
        self.cause, self.progress.stopped, self.progress.note = cause, error, note
        # Those who wait for this route's answers need not.
        await self.shared.turns.leave(self.route.row.id)
        me = asyncio.current_task()
        for task in self._workers - self._sending:
            if task is not me:
                task.cancel()
        self.shared.show()

    async def _work(self) -> None:
        while (trial := self._take()) is not None:
            await self._trial(trial)
            self.shared.turns.drop(trial)
            self.shared.show()

    def _take(self) -> TrialRow | None:
        """Return the next open trial; ``None`` where there is none or no more are handed out."""
        if self.cause is not None or self.shared.halted:
            return None
        trial = next(self._page, None)
        if trial is None:
            page = self.shared.store.page(self.shared.run_id, self.route.row.id, self._after, _PAGE)
            self._page = iter(page)
            trial = next(self._page, None)
        if trial is not None:
            self._after = trial.position
            self._held[trial.id] = trial
            self.shared.turns.hold(trial)
        return trial

    async def _trial(self, trial: TrialRow) -> None:
        """Try one trial until it is answered, has a reason that no further attempt can change, or is not to be sent."""
        trace = self.shared.trace(trial.trace_id)
        request = self.shared.requests(self.route, trace)
        worst = worst_case(request.body, trace.sampling.max_tokens)
        for number in range(1, ATTEMPTS + 1):
            try:
                admitted = await self._admit(trial, worst)
            except RouteGivenUp as given_up:
                await self.stop("stopped", self._given_up(given_up))
                return
            if admitted.slot is None or admitted.reservation is None:
                await self._not_sent(trial, admitted.turn)
                return
            attempt = self._attempt(trial, number, admitted.reservation)
            try:
                exchange = await self._send(attempt, admitted.slot, request)
            except RouteError as error:
                await self.stop("stopped", error)
                return
            if not await self._again(attempt, exchange):
                return
            self.progress.retries += 1
            # Longer waits that were told are the pace's business: it knows which of them are pauses.
            backoff = self.pace.backoff_s(number, attempt.told or Told())
            await self.shared.clock.sleep(min(backoff, CAP_S))

    async def _admit(self, trial: TrialRow, worst: Tokens) -> _Admitted:
        """Wait until a trial may be sent, or need not be. Raises ``RouteGivenUp``."""
        turns, abreast = self.shared.turns, self.route.pace.concurrency
        while True:
            # Asked before the wait for this route's pace, so that what is spared waits for nothing, and again after it.
            turn = await turns.turn(trial, abreast, take=False, tokens=worst)
            if turn is not Turn.SEND:
                return _Admitted(turn)
            try:
                slot = await self.pace.enter(worst.total)
            except PausedForDay as paused:
                await self._day_is_over(paused.until)
                continue
            turn = turns.now(trial, abreast, take=True, tokens=worst)
            if turn is Turn.SEND and not self.shared.halted:
                return _Admitted(turn, slot, turns.ledger.reserve(self.route.row.id, worst))
            self.pace.leave(slot, Left("cancelled"))
            if turn is not Turn.WAIT:
                return _Admitted(turn)

    async def _day_is_over(self, until: float) -> None:
        clock, turns, route_id = self.shared.clock, self.shared.turns, self.route.row.id
        if not self.shared.wait:
            await self.stop("daily_limit", note=messages.day_note(self.route, until))
            return
        turns.pause(route_id, paused=True)
        self.progress.resumes = messages.sleeps_until(until)
        self.shared.show()
        await clock.sleep(max(0.0, until - clock.wall()))
        self.progress.resumes = ""
        turns.pause(route_id, paused=False)

    async def _not_sent(self, trial: TrialRow, turn: Turn) -> None:
        if turn is Turn.SPARE:
            self.progress.spared += 1
            self.progress.tick()
            self.shared.store.mark_trials([trial.id], "spared")
            self._held.pop(trial.id, None)
        elif self.cause is None and not self.shared.halted:
            await self.stop("budget", note=self.shared.turns.spent_up.get(self.route.row.id, ""))

    def _attempt(self, trial: TrialRow, number: int, reservation: Reservation) -> Attempt:
        counts = self.shared.turns.ledger.counts(self.route.row.id)
        return Attempt(
            self.route,
            trial,
            number,
            self.price,
            reservation if counts else None,
            reservation.attempt(trial.id, number, self.shared.clock.wall()) if counts else None,
            again=number < ATTEMPTS and self._retries_unanswered(),
        )

    def _retries_unanswered(self) -> bool:
        return self.route.role == "local" or self.route.pace.retry_unanswered

    async def _send(self, attempt: Attempt, slot: Slot, request: BuiltRequest) -> Exchange:
        """Note the request in the journal, send it, and settle what it cost, whatever happens."""
        task, shared = asyncio.current_task(), self.shared
        assert task is not None
        self._sending.add(task)
        left = Left("cancelled")
        try:
            if attempt.row is not None:
                await shared.writer.begun(attempt.row)
            try:
                exchange = await send(shared.session, shared.proxy, attempt, request)
            except RouteError:
                # The proxy answered by itself, and nothing left; or it recorded nothing, and all of it counts.
                if (end := ending(attempt)) is not None:
                    await shared.writer.finished(end)
                raise
            if attempt.found is not None:
                left = Left(attempt.found.kind, attempt.told or Told(), _used(attempt))
            return exchange  # noqa: TRY300 - "finally" is no place to return from
        except asyncio.CancelledError:
            if attempt.found is None and attempt.reservation is not None:
                attempt.cost = attempt.reservation.in_full  # it may have left; the journal counts it, and so do we
            raise
        finally:
            self._sending.discard(task)
            self.pace.leave(slot, left)
            if attempt.reservation is not None:
                shared.turns.ledger.settle(attempt.reservation, attempt.cost)
            self._count(attempt)
            shared.turns.wake()

    def _count(self, attempt: Attempt) -> None:
        progress, ledger = self.progress, self.shared.turns.ledger
        progress.requests += 1
        spent = ledger.spent_on(self.route.row.id)
        progress.tokens, progress.nanousd = spent.tokens, spent.nanousd
        progress.unreported += attempt.cost is not None and attempt.cost.source == "reserved"

    async def _again(self, attempt: Attempt, exchange: Exchange) -> bool:
        """Note what came of an attempt; return whether there is to be another one."""
        found = attempt.found or Classified("interrupted")
        self._reached = self._reached or exchange.status is not None
        self._fault = found if found.kind in {"fault", "overloaded"} else None
        if found.answered:
            self._misunderstood = 0
            self.progress.answered += 1
            self.progress.blocked += found.blocked
            if found.unexplained:
                self.progress.unexplained += 1
                self.progress.unexplained_words = f"HTTP {found.status} {found.words}".strip()
            await self._end(attempt.trial, exchange)
            return False
        if found.stops_route:
            await self.stop("stopped", messages.stop_error(self.route, found))
        elif found.reason == "bad_request":
            self._misunderstood += self.progress.answered == 0
            if self._misunderstood >= _BAD_REQUESTS:
                error = messages.bad_requests_error(self.route, found, self._misunderstood)
                await self.stop("stopped", error)
        elif found.reason in RETRIED or (found.reason in UNANSWERED and self._retries_unanswered()):
            if attempt.number < ATTEMPTS and not self.shared.halted and self.cause is None:
                return True
            if found.kind == "fault" and found.reason in RETRIED and not self._reached:
                await self.stop("stopped", messages.unreachable_error(self.route, found))
        self.progress.reasons[found.reason] += 1
        self.progress.words[found.reason] = messages.said(found)
        await self._end(attempt.trial, None)
        return False

    def _given_up(self, given_up: RouteGivenUp) -> RouteError:
        fault = self._fault
        if fault is None:
            return given_up
        if fault.reason in RETRIED and not self._reached:
            return messages.unreachable_error(self.route, fault)
        return messages.given_up_error(str(given_up), fault)

    async def _end(self, trial: TrialRow, exchange: Exchange | None) -> None:
        self.progress.tick()
        self._held.pop(trial.id, None)
        await self.shared.turns.end(trial, exchange)

    async def _name_the_rest(self, cause: Reason) -> None:
        """Give the trials that were not sent the reason why; those that were tried keep their own."""
        store, run_id, route_id = self.shared.store, self.shared.run_id, self.route.row.id
        store.mark_trials([trial.id for trial in self._held.values()], "planned", cause)
        after = self._after
        while page := store.page(run_id, route_id, after, _PAGE):
            after = page[-1].position
            store.mark_trials([trial.id for trial in page], "planned", cause)
            await asyncio.sleep(0)  # the other routes go on meanwhile


def _used(attempt: Attempt) -> int | None:
    """Return the tokens that an attempt used; ``None`` where nobody knows."""
    if attempt.cost is not None:
        return attempt.cost.tokens.total
    usage = attempt.found.reading.usage if attempt.found is not None else None
    if usage is None or usage.prompt_tokens is None:
        return None
    return usage.prompt_tokens + (usage.completion_tokens or 0)
