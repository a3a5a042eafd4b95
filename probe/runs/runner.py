"""Sends the trials of a run through the proxy, each route at its own pace, and resumes after ``kill -9``."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import aiohttp

from probe.config import Config, Route
from probe.errors import CredentialError, ModelError, ProbeError, RouteError, StoreError, UnreachableError
from probe.proxy.server import ProxyServer
from probe.proxy.tickets import TICKET_HEADER, Ticket
from probe.runs.answers import Answer, classify
from probe.runs.requests import build_request
from probe.runs.turns import Turn, Turns
from probe.store.rows import TrialRow, TrialState
from probe.store.writer import Writer
from probe.traces.values import Trace
from probe.wire.values import Exchange

ATTEMPTS = 3
"""Attempts per trial and start of the program, where nothing was answered."""

_BACKOFF_S = 0.5


class RecordingSink:
    """Hands exchanges from the proxy's thread to the store's writer; a ticket resolves after the commit."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.failure: StoreError | None = None

    def __call__(self, exchange: Exchange, ticket: Ticket | None) -> None:
        """Store one exchange."""
        state: TrialState = "answered" if ticket is not None and classify(exchange) is Answer.ANSWERED else "planned"
        try:
            done = self._writer.submit(exchange, state)
        except StoreError as error:
            self.failure = error
            if ticket is not None:
                ticket.recorded.set_exception(error)
            return

        def settle(future: Future[None]) -> None:
            error = future.exception()
            if isinstance(error, StoreError):
                self.failure = self.failure or error
            if ticket is None:
                return
            if error is not None:
                ticket.recorded.set_exception(error)
            else:
                ticket.recorded.set_result(exchange)

        done.add_done_callback(settle)


@dataclass
class RouteProgress:
    """How far a route is. ``spared`` trials nobody needs any more. ``stopped`` says why it goes on no further."""

    planned: int
    answered: int = 0
    failed: int = 0
    spared: int = 0
    retries: int = 0
    stopped: RouteError | None = None


@dataclass
class RunSummary:
    """What a run did, per route name."""

    routes: dict[str, RouteProgress] = field(default_factory=dict)

    @property
    def stopped(self) -> list[RouteError]:
        """Why routes stopped."""
        return [progress.stopped for progress in self.routes.values() if progress.stopped]


Progress = Callable[[RunSummary], None]


class Runner:
    """Runs the open trials of a plan.

    ``trials`` are those without an answer, in the order of the plan. A route that cannot be used stops with a
    ``RouteError``; the others go on. A store that cannot be written stops everything with its ``StoreError``.
    """

    def __init__(
        self,
        config: Config,
        proxy: ProxyServer,
        writer: Writer,
        progress: Progress | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._proxy = proxy
        self._turns = turns or Turns()
        self._writer = writer
        self._routes = {route.row.id: route for route in config.routes.values()}
        self._progress = progress or (lambda _: None)
        self._failed: list[str] = []
        self.spared: list[str] = []
        """Ids of trials that were not sent because nobody needs them any more."""
        self.summary = RunSummary()

    async def run(self, trials: list[TrialRow], traces: Mapping[str, Trace]) -> tuple[RunSummary, list[str]]:
        """Send all trials; return the summary and the ids of trials that were given up."""
        queues: dict[str, list[TrialRow]] = {route_id: [] for route_id in self._routes}
        for trial in trials:
            queues[trial.route_id].append(trial)
        for route_id, queue in queues.items():
            self.summary.routes[self._routes[route_id].name] = RouteProgress(planned=len(queue))
        connector = aiohttp.TCPConnector(limit=0)
        # A client that understands no compression gets none, so that stored bodies stay readable.
        headers = {"accept-encoding": "identity", "user-agent": "platform-effect-probe"}
        try:
            async with (
                aiohttp.ClientSession(connector=connector, headers=headers, auto_decompress=False) as session,
                asyncio.TaskGroup() as group,
            ):
                for route_id, queue in queues.items():
                    group.create_task(self._run_route(session, self._routes[route_id], queue, traces))
        except BaseExceptionGroup as group:
            raise _first(group) from None
        return self.summary, self._failed

    async def _run_route(
        self, session: aiohttp.ClientSession, route: Route, queue: list[TrialRow], traces: Mapping[str, Trace]
    ) -> None:
        progress = self.summary.routes[route.name]
        waiting = iter(queue)
        pacer = _Pacer(route.pace.requests_per_minute)

        async def work() -> None:
            # The iterator is shared: each worker takes the next open trial.
            for trial in waiting:
                if progress.stopped is not None:
                    return
                try:
                    turn, answer = await self._trial(session, route, trial, traces[trial.trace_id], pacer, progress)
                except RouteError as error:
                    progress.stopped = progress.stopped or error
                    # Those who wait for this route's answers need not.
                    await self._turns.leave(route.row.id)
                    self._progress(self.summary)
                    return
                if turn is Turn.SEND:
                    await self._turns.end(trial, answer)
                    progress.answered += answer is not None
                    progress.failed += answer is None
                    if answer is None:
                        self._failed.append(trial.id)
                elif turn is Turn.SPARE:
                    progress.spared += 1
                    self.spared.append(trial.id)
                self._progress(self.summary)

        async with asyncio.TaskGroup() as group:
            for _ in range(route.pace.concurrency):
                group.create_task(work())
        await self._turns.leave(route.row.id)

    async def _trial(
        self,
        session: aiohttp.ClientSession,
        route: Route,
        trial: TrialRow,
        trace: Trace,
        pacer: "_Pacer",
        progress: RouteProgress,
    ) -> tuple[Turn, Exchange | None]:
        """Try one trial until it is answered; return what became of it, and its answer where it has one."""
        last: Exchange | None = None
        abreast = route.pace.concurrency
        for attempt in range(1, ATTEMPTS + 1):
            if attempt > 1:
                progress.retries += 1
                await asyncio.sleep(_BACKOFF_S * 2 ** (attempt - 2))
            # Asked before the wait for this route's pace, so that what is spared waits for nothing, and again after it.
            turn = await self._turns.turn(trial, abreast, take=False)
            if turn is Turn.SEND:
                await pacer.wait()
                turn = await self._turns.turn(trial, abreast, take=True)
            if turn is not Turn.SEND:
                return turn, None
            last = await self._attempt(session, route, trial, trace, attempt)
            answer = classify(last)
            if answer is Answer.ANSWERED:
                return Turn.SEND, last
            if answer is Answer.REFUSED_KEY:
                raise CredentialError(
                    f"Route {route.name!r} refused its key (HTTP {last.status}): check the value of "
                    f"{route.key_env or 'its key variable'}."
                )
            if answer is Answer.UNKNOWN_MODEL:
                raise ModelError(
                    f"Route {route.name!r} does not know the model {route.model!r} (HTTP {last.status}): "
                    f"`probe routes --check` lists what it has."
                )
        if last is not None and last.state == "unreachable":
            raise UnreachableError(f"Route {route.name!r} cannot be reached at {route.url}: {last.error}.")
        return Turn.SEND, None

    async def _attempt(
        self, session: aiohttp.ClientSession, route: Route, trial: TrialRow, trace: Trace, attempt: int
    ) -> Exchange:
        request = build_request(route, trace)
        ticket = self._proxy.tickets.issue(trial.id, attempt)
        url = self._proxy.url + self._proxy.table.client_base(route.name) + request.path
        headers = {"content-type": "application/json", TICKET_HEADER: ticket.token}
        # Marked before we hang up: the proxy, in its own thread, must not take this for a client that left by itself.
        timer = asyncio.get_running_loop().call_later(route.pace.timeout_s, _mark_timed_out, ticket)
        try:
            async with asyncio.timeout(route.pace.timeout_s + 0.05):
                async with session.post(url, data=request.body, headers=headers) as response:
                    async for _ in response.content.iter_any():
                        pass  # the proxy keeps the bytes; the store is read later
        except (TimeoutError, aiohttp.ClientError):
            pass  # what happened on the wire is in the recording
        finally:
            timer.cancel()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(ticket.recorded), timeout=60)
        except TimeoutError:
            self._proxy.tickets.cancel(ticket)
            raise RouteError(
                f"Route {route.name!r}: the proxy recorded nothing for a request; this is a fault of the probe, not of "
                "the route, and the trial stays open."
            ) from None


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


def _mark_timed_out(ticket: Ticket) -> None:
    ticket.timed_out = True


class _Pacer:
    """Spaces requests evenly, so that a minute's worth does not leave in its first second."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        """Wait for this route's next turn."""
        if not self._gap:
            return
        now = time.monotonic()
        turn = max(now, self._next)
        self._next = turn + self._gap
        await asyncio.sleep(turn - now)
