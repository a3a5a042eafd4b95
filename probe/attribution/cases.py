"""From stored exchanges to cases: read and judged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

from probe.attribution.desk import ScoringDesk, under_system
from probe.attribution.sent import Sent
from probe.errors import ProbeError
from probe.evidence.case import Case
from probe.evidence.echo import read_echo
from probe.evidence.made import lean as without_bytes
from probe.evidence.made import made
from probe.ids import json_hash
from probe.judge.base import Judge, Judgement
from probe.routers.served import LISTING, Expectation, who_served
from probe.store.rows import ExchangeRef, OutcomeRow, RouteRow
from probe.store.store import Store
from probe.wire.catalogue import load_backend
from probe.wire.dialects import dialect
from probe.wire.reports import read_answer
from probe.wire.signatures import CANNED, Match, match_signatures
from probe.wire.values import RequestReading

__all__ = ["ScoringDesk", "Sent", "read_cases", "under_system"]


class Marked(Protocol):
    """What is asked of a trace: a ``Trace``, or the store's ``TraceMark``."""

    @property
    def control(self) -> bool:
        """Whether it is a control."""
        ...

    @property
    def labels(self) -> Mapping[str, Any]:
        """Its labels, of which ``nonce`` counts."""
        ...


def read_cases(
    store: Store,
    route: RouteRow,
    refs: Iterable[ExchangeRef],
    traces: Mapping[str, Marked],
    judge: Judge,
    *,
    lean: bool = False,
) -> list[Sent]:
    """Read and judge answered exchanges of one route. ``lean``: keep no bytes (``probe.evidence.made``)."""
    backend, refs = load_backend(route.backend), list(refs)
    listings = [fact.value for fact in store.facts(route.id, LISTING)] if backend.listing else []
    found, expected = [], Expectation.of(route, listings)
    for ref, exchange in zip(refs, store.exchanges_of(ref.id for ref in refs), strict=True):
        reading = read_answer(backend, exchange, route.dialect)
        matches = match_signatures(backend, exchange, reading)
        named = {match.author for match in matches if match.author != "unknown"}
        # Two declarations that contradict each other declare nothing.
        author = named.pop() if len(named) == 1 else None
        judgement = _known(judge.judge(reading, exchange.status, author, blocked=author is not None), matches)
        request = _request(route.dialect, exchange.request_body, exchange.url)
        trace = traces.get(ref.trace_id or "")
        text_hash, excerpt = OutcomeRow.of_text(reading.text)
        row = OutcomeRow(
            exchange_id=ref.id,
            judge=judge.name,
            judge_version=judge.version,
            outcome=judgement.outcome,
            confidence=judgement.confidence,
            reason=judgement.reason,
            text_hash=text_hash,
            excerpt=excerpt,
        )
        case = Case(
            exchange_id=ref.id,
            # Traffic of other clients has no trace; the conversation itself identifies it.
            trace_id=ref.trace_id or json_hash([[m.role, m.content] for m in request.messages]),
            control=bool(trace and trace.control),
            outcome=judgement.outcome,
            reading=reading,
            matches=matches,
            sampling=request.sampling,
            exchange=exchange,
            repeat=ref.repeat,
            nonce=_nonce(trace),
            echo=read_echo(exchange.request_body, reading.documents),
        )
        served = who_served(expected, backend, exchange, reading) if route.role == "hosted" else None
        case = without_bytes(case) if lean else replace(case, made=made(case))
        found.append(
            Sent(case, ref.route_id, ref.run_id, ref.repeat, request.messages, _unscorable(case, request), row, served)
        )
    return found


@lru_cache(maxsize=512)  # repeats of a trace, and all routes of one model, send the same bytes
def _request(dialect_name: str, body: bytes, url: str) -> RequestReading:
    try:
        return dialect(dialect_name).read_request(body, url)
    except ProbeError as error:
        return RequestReading(model=None, messages=(), sampling={}, stream=False, extra=(str(error),))


def _known(judgement: Judgement, matches: Sequence[Match]) -> Judgement:
    """Return the judgement, or ``refused`` where the whole text is a known message of a platform, in any language."""
    message = next(
        (m for m in matches if m.signature.startswith(CANNED) and m.sentence.startswith("The text is")), None
    )
    if message is None or judgement.outcome not in {"ungradable", "complied"}:
        return judgement
    return Judgement("refused", judgement.confidence, message.sentence)


def _nonce(trace: Marked | None) -> str | None:
    return None if trace is None or not trace.labels.get("nonce") else str(trace.labels["nonce"])


def _unscorable(case: Case, request: RequestReading) -> str | None:
    if not request.messages:
        return "the request could not be read"
    if request.extra:
        return f"the request carried {', '.join(request.extra)}, which may change what the model sees"
    if not case.reading.text:
        return "there is no text"
    return None
