"""Exchanges: from a value to columns and back, and the checksum over them."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import batched
from typing import Any

import zstandard

from probe.errors import StoreError
from probe.ids import json_hash
from probe.store.blobs import Blobs, unpack
from probe.store.columns import from_json, plain, plain_or_none, to_json
from probe.store.failures import mapped
from probe.store.rows import ExchangeRef, TrialState
from probe.store.session import Session
from probe.wire.values import Chunk, Exchange, HeaderPairs

COLUMNS = (
    "id",
    "trial_id",
    "route_id",
    "attempt",
    "answered",
    "started_at",
    "method",
    "url",
    "request_headers",
    "request_body",
    "http_version",
    "status",
    "reason",
    "response_headers",
    "response_body",
    "chunks",
    "sent_at",
    "head_at",
    "ended_at",
    "state",
    "error",
    "redactions",
)
"""All columns but the checksum, in the order it is taken over."""

_INSERT = f"INSERT INTO exchanges ({', '.join(COLUMNS)}, checksum) VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"  # noqa: S608
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM exchanges WHERE id = ?"  # noqa: S608
_MANY = f"""
SELECT {", ".join(f"exchanges.{column}" for column in COLUMNS)},
  request.codec, request.size, request.data, response.codec, response.size, response.data
FROM exchanges
LEFT JOIN blobs AS request ON request.hash = exchanges.request_body
LEFT JOIN blobs AS response ON response.hash = exchanges.response_body
WHERE exchanges.id IN (MARKS)
"""  # noqa: S608
_BATCH = 200
"""Exchanges that are read with one query."""

_REFS = """
SELECT exchanges.id, exchanges.route_id, answered, attempt, exchanges.started_at, trial_id, run_id, trace_id, repeat
FROM exchanges LEFT JOIN trials ON trials.id = exchanges.trial_id
"""


@dataclass(frozen=True, slots=True)
class TraceMark:
    """What the analysis asks of a trace beside its answers, without its messages."""

    control: bool
    labels: Mapping[str, Any]


def checksum(columns: tuple[Any, ...]) -> str:
    """Return the content hash of an exchange's columns, as they are in the database, in the order of ``COLUMNS``."""
    return json_hash(list(columns))


def save(connection: sqlite3.Connection, blobs: Blobs, exchange: Exchange, state: TrialState, reason: str = "") -> None:
    """Write an exchange, its bodies and the state of its trial, inside the caller's transaction.

    ``reason`` is one word that says why the exchange is no answer.

    The first answer of a trial stays its answer: a second one (a mirror, a race at resume) is kept as bytes, unmarked,
    and the trial stays answered. Chunks that do not add up to the body are no reason to lose it: ``verify`` says so.
    Raises ``sqlite3.Error``.
    """
    answered = state == "answered"
    if answered and exchange.trial_id is not None:
        known = "SELECT 1 FROM exchanges WHERE trial_id = ? AND answered = 1"
        answered = connection.execute(known, (exchange.trial_id,)).fetchone() is None
    columns = _columns(exchange, answered, blobs.put(exchange.request_body), blobs.put(exchange.response_body))
    connection.execute(_INSERT, (*columns, checksum(columns)))
    now = (state, "" if state == "answered" else plain(reason))
    connection.execute(
        "UPDATE trials SET state = ?, reason = ? WHERE id = ? AND state <> 'answered' AND (state, reason) <> (?, ?)",
        (*now, exchange.trial_id, *now),
    )


def load(connection: sqlite3.Connection, blobs: Blobs, exchange_id: str) -> Exchange:
    """Return one exchange. Raises ``StoreError`` where there is none, ``sqlite3.Error`` where the database fails."""
    row = connection.execute(_SELECT, (exchange_id,)).fetchone()
    if row is None:
        raise StoreError(f"There is no exchange {exchange_id} in the database.")
    got = dict(zip(COLUMNS, row, strict=True))
    return _exchange(got, blobs.get(got["request_body"]), blobs.get(got["response_body"]))


def _load_many(
    connection: sqlite3.Connection, ids: Sequence[str], decompressor: zstandard.ZstdDecompressor
) -> Iterator[Exchange]:
    """Yield exchanges in the order of their ids, with one query. Raises like ``load``."""
    rows = connection.execute(_MANY.replace("MARKS", ",".join("?" * len(ids))), ids).fetchall()
    found = {row[0]: row for row in rows}
    for exchange_id in ids:
        row = found.get(exchange_id)
        if row is None:
            raise StoreError(f"There is no exchange {exchange_id} in the database.")
        got, width = dict(zip(COLUMNS, row, strict=False)), len(COLUMNS)
        bodies = []
        for name, packed in (("request_body", row[width : width + 3]), ("response_body", row[width + 3 :])):
            if packed[0] is None:
                raise StoreError(f"The body {got[name]} is missing from the database.")
            bodies.append(unpack(got[name], *packed, decompressor=decompressor))
        yield _exchange(got, *bodies)


def _exchange(got: dict[str, Any], request: bytes, response: bytes) -> Exchange:
    del got["answered"]
    return Exchange(
        **got
        | {
            "request_headers": _pairs(got["request_headers"]),
            "response_headers": _pairs(got["response_headers"]),
            "request_body": request,
            "response_body": response,
            "chunks": tuple([Chunk(size, at / 1e6) for size, at in from_json(got["chunks"])]),
        }
    )


def _columns(exchange: Exchange, answered: bool, request_body: str, response_body: str) -> tuple[Any, ...]:
    return (
        exchange.id,
        exchange.trial_id,
        exchange.route_id,
        exchange.attempt,
        int(answered),
        _micro(exchange.started_at),
        plain(exchange.method),
        plain(exchange.url),
        to_json(exchange.request_headers),
        request_body,
        plain_or_none(exchange.http_version),
        exchange.status,
        plain_or_none(exchange.reason),
        to_json(exchange.response_headers),
        response_body,
        to_json([(chunk.size, round(chunk.at * 1e6)) for chunk in exchange.chunks]),
        _micro(exchange.sent_at),
        _micro(exchange.head_at),
        _micro(exchange.ended_at),
        exchange.state,
        plain_or_none(exchange.error),
        exchange.redactions,
    )


def _micro(seconds: float | None) -> float | None:
    """Round to the microsecond, like the chunks: rounding all times alike keeps their order."""
    return None if seconds is None else round(seconds * 1e6) / 1e6


@lru_cache(maxsize=256)
def _pairs(text: str) -> HeaderPairs:
    return tuple((name, value) for name, value in from_json(text))


@lru_cache(maxsize=4096)
def _labels(text: str) -> Mapping[str, Any]:
    found = from_json(text)
    # Only the nonce is asked for, and a study has as many labels as traces.
    return {"nonce": found["nonce"]} if found.get("nonce") else {}


class ExchangeTable(Session):
    """Reading and writing exchanges."""

    def __init__(self, connection: sqlite3.Connection, path: Any) -> None:
        super().__init__(connection, path)
        self._blobs = Blobs(connection)
        self._decompressor = zstandard.ZstdDecompressor()

    def save_exchange(self, exchange: Exchange, state: TrialState, reason: str = "") -> None:
        """Write an exchange and what it makes of its trial, in one commit; a run uses ``Writer`` instead.

        ``answered``: this exchange is the answer; ``planned``: the attempt failed and another will follow;
        ``failed``: the trial is given up; ``reason`` says in one word why. Times are kept to the microsecond.
        """
        with self.transaction():
            save(self._connection, self._blobs, exchange, state, reason)

    def exchange(self, exchange_id: str) -> Exchange:
        """Return one exchange; raises ``StoreError`` where there is none."""
        with self._lock, mapped(self.path):
            return load(self._connection, self._blobs, exchange_id)

    def exchanges_of(self, ids: Iterable[str]) -> Iterator[Exchange]:
        """Yield the exchanges with these ids, in their order; raises ``StoreError`` where one is missing."""
        for some in batched(ids, _BATCH):
            with self._lock, mapped(self.path):
                found = list(_load_many(self._connection, some, self._decompressor))
            yield from found

    def trace_marks(self) -> dict[str, TraceMark]:
        """Return by id what the analysis asks of traces: whether they are controls, and their labels."""
        rows = self.query("SELECT id, control, labels FROM traces")
        return {key: TraceMark(bool(control), _labels(labels)) for key, control, labels in rows}

    def exchange_by_prefix(self, prefix: str) -> Exchange:
        """Return the one exchange whose id begins with ``prefix``.

        Raises ``StoreError`` where there is none, or more than one.
        """
        prefix = prefix.lower()
        # A range and not LIKE: it uses the index, and `%` and `_` mean themselves. `~` sorts after all of an id.
        found = self.query("SELECT id FROM exchanges WHERE id >= ? AND id < ? LIMIT 3", (prefix, prefix + "~"))
        if not found:
            raise StoreError(f"No exchange in {self.path} has an id that begins with {prefix!r}.")
        if len(found) > 1:
            raise StoreError(f"More than one exchange in {self.path} begins with {prefix!r}: give more of the id.")
        return self.exchange(found[0][0])

    def refs(
        self,
        *,
        run_id: str | None = None,
        route_id: str | None = None,
        trace_id: str | None = None,
        trial_id: str | None = None,
        answered: bool | None = None,
    ) -> list[ExchangeRef]:
        """Return where the matching exchanges belong, without their bytes, in the order of time."""
        wanted = {
            "run_id": run_id,
            "exchanges.route_id": route_id,
            "trace_id": trace_id,
            "trial_id": trial_id,
            "answered": answered,
        }
        given = {column: value for column, value in wanted.items() if value is not None}
        where = " AND ".join(f"{column} = ?" for column in given) or "1"
        order = "exchanges.started_at, attempt, exchanges.id"
        rows = self.query(f"{_REFS} WHERE {where} ORDER BY {order}", list(given.values()))
        return [ExchangeRef(row[0], row[1], bool(row[2]), *row[3:]) for row in rows]

    def exchanges(
        self,
        *,
        run_id: str | None = None,
        route_id: str | None = None,
        trace_id: str | None = None,
        trial_id: str | None = None,
        answered: bool | None = None,
    ) -> Iterator[Exchange]:
        """Yield the matching exchanges one by one, in the order of time.

        Which ones is settled at the first step; the store may be written to in between.
        """
        refs = self.refs(run_id=run_id, route_id=route_id, trace_id=trace_id, trial_id=trial_id, answered=answered)
        for ref in refs:
            yield self.exchange(ref.id)
