"""Sends what is open of a run that is planned: proxy, sink, ledger, prices and runner put together.

``probe run`` and ``probe gate`` plan differently and send alike.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from probe.config import Config, Route
from probe.proxy.server import ProxyServer
from probe.proxy.table import RouteTable
from probe.routers.followup import follow_up, unasked
from probe.routers.listing import Endpoint
from probe.routers.served import LISTING
from probe.runs.money.ledger import Ledger, RouteLimits, Totals
from probe.runs.money.price import price_of
from probe.runs.pacing.clock import Clock, SystemClock
from probe.runs.pairing import WINDOW, Pairing
from probe.runs.requests import Requests, build_request
from probe.runs.runner import RecordingSink, Runner
from probe.runs.summary import Progress, RunSummary
from probe.runs.turns import Turns
from probe.runs.until import Questions
from probe.store.rows import AttemptEnd
from probe.store.store import Store
from probe.store.writer import Writer


@dataclass(frozen=True)
class Sending:
    """How a run is sent.

    ``totals`` limit all starts of the run together; ``wait``: sleep over a daily limit; ``follow_up``: ask routers
    afterwards what became of each generation.
    """

    totals: Totals = field(default_factory=Totals)
    progress: Progress | None = None
    wait: bool = False
    follow_up: bool = False
    clock: Clock = field(default_factory=SystemClock)
    requests: Requests = build_request


@dataclass(frozen=True)
class Sent:
    """What came of a start, and the ledger of all starts."""

    summary: RunSummary
    ledger: Ledger


def send_open(
    store: Store,
    writer: Writer,
    config: Config,
    run_id: str,
    how: Sending,
    *,
    questions: Questions | None = None,
) -> Sent:
    """Send the open trials of a run.

    Raises ``ConfigError`` where money is limited and a price unknown, before anything is sent; ``StoreError``.
    """
    in_flight = close_attempts(store, writer, run_id)
    prices = {route.row.id: price_of(route, endpoints_of(store, route)) for route in config.routes.values()}
    limits = {route.row.id: RouteLimits.of_route(route, prices[route.row.id]) for route in config.routes.values()}
    ledger = Ledger(how.totals, limits, store.spent(run_id))
    turns = Turns(ledger, questions, pairing_of(store, config, run_id))
    sink = RecordingSink(writer)
    table = RouteTable(route.target for route in config.routes.values())
    with ProxyServer(table, sink) as proxy:
        runner = Runner(config, proxy, store, writer, run_id, turns, prices, clock=how.clock)
        runner.wait, runner.in_flight, runner.requests = how.wait, in_flight, how.requests
        if how.progress is not None:
            runner.progress = how.progress
        summary = asyncio.run(runner.run())
        if how.follow_up and summary.interrupted is None:
            _follow_up(store, config, run_id, proxy)
    # The proxy, too, records what was broken off: counts that are read from here on are those of the file.
    sink.flush()
    if sink.failure is not None:
        raise sink.failure
    return Sent(summary, ledger)


def _follow_up(store: Store, config: Config, run_id: str, proxy: ProxyServer) -> None:
    """Ask routers about the answers of a run, through the proxy, so that what they tell is recorded."""
    waiting = unasked(store, config, run_id)
    if any(waiting.values()):
        asyncio.run(follow_up(config, lambda route: proxy.url + proxy.table.client_base(route.name), waiting))


def close_attempts(store: Store, writer: Writer, run_id: str) -> int:
    """End the attempts that were under way when an earlier start was killed; return how many there were.

    They keep all that was reserved for them: nobody knows whether they were billed.
    """
    killed = store.in_flight(run_id)
    ended = [
        writer.finish(
            AttemptEnd(row.id, row.reserved_prompt, row.reserved_completion, row.reserved_nanousd, "reserved")
        )
        for row in killed
    ]
    for future in ended:
        future.result()
    return len(killed)


def endpoints_of(store: Store, route: Route) -> list[Endpoint]:
    """Return what the newest listing says of the endpoints that serve a route's model; none where none was stored."""
    facts = store.facts(route.row.id, LISTING)
    if not facts:
        return []
    value = facts[-1].value
    entries = value.get("endpoints", []) if isinstance(value, Mapping) else value
    return [Endpoint.from_json(entry) for entry in entries]


def pairing_of(store: Store, config: Config, run_id: str) -> Pairing:
    """Return the rule that keeps the pairs of a run close in time; its window counts in traces of this run."""
    # A study may be sent in parts: a twin that is not in this one is nobody to wait for.
    twins = {
        route.row.id: config.routes[route.twin].row.id
        for route in config.hosted()
        if route.twin is not None and route.twin in config.routes
    }
    counted: Counter[str] = Counter()
    for count in store.count_reasons(run_id):
        counted[count.route_id] += count.trials
    # Every trace is sent over every route: once per repeat, and once more over a twin.
    traces = store.query("SELECT count(DISTINCT trace_id) FROM trials WHERE run_id = ?", (run_id,))[0][0]
    per_trace = -(-counted.total() // max(1, traces))
    abreast = max((route.pace.concurrency for route in config.routes.values()), default=1)
    return Pairing(twins, (WINDOW + abreast) * per_trace)
