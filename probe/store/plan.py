"""The plan of a study: weights, routes and what they said of themselves, packs, traces, runs and trials."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import batched
from typing import Any

from probe.errors import StoreError
from probe.store.columns import from_json, plain, plain_or_none, to_json
from probe.store.rows import FactRow, PackRow, ReasonCount, RouteRow, RunRow, TrialRow, TrialState, WeightsRow
from probe.store.session import Session
from probe.traces.values import Message, Sampling, Trace

_TRACES_AT_ONCE = 1000
"""Traces of a pack that are in memory at once."""

_KINDS = "SELECT id, family, control FROM traces"
_KEEP = "ON CONFLICT DO NOTHING"
_WEIGHTS = ("id", "name", "revision", "quantization", "file_sha256")
_ROUTE = ("id", "name", "backend", "dialect", "url", "model", "weights_id", "role", "twin", "request")
_FACT = ("id", "route_id", "at", "kind", "value")
_PACK = ("id", "name", "source", "licence", "card")
_TRACE = ("id", "name", "family", "control", "messages", "sampling", "labels")
_RUN = ("id", "started_at", "ended_at", "seed", "manifest")
_TRIAL = ("id", "run_id", "trace_id", "route_id", "repeat", "position", "state", "dropped", "reason")


def _select(columns: Sequence[str], table: str) -> str:
    return f"SELECT {', '.join(f'{table}.{column}' for column in columns)} FROM {table}"  # noqa: S608


class PlanTables(Session):
    """Reading and writing the plan. Adding what is already there changes nothing."""

    def add_weights(self, weights: WeightsRow) -> None:
        """Add one set of weights."""
        row = (
            weights.id,
            plain(weights.name),
            plain(weights.revision),
            plain(weights.quantization),
            weights.file_sha256,
        )
        self._put("weights", _WEIGHTS, [row], known=_KEEP)

    def weights(self) -> dict[str, WeightsRow]:
        """Return all weights by id."""
        return {row[0]: WeightsRow(*row[1:]) for row in self.query(_select(_WEIGHTS, "weights"))}

    def add_route(self, route: RouteRow) -> None:
        """Add a route; its weights must be there."""
        row = (
            route.id,
            plain(route.name),
            route.backend,
            route.dialect,
            plain(route.url),
            plain(route.model),
            route.weights_id,
            route.role,
            plain_or_none(route.twin),
            to_json(route.request),
        )
        self._put("routes", _ROUTE, [row], known=_KEEP)

    def routes(self) -> dict[str, RouteRow]:
        """Return all routes by id, those of earlier definitions too, in the order in which they were added."""
        rows = self.query(_select(_ROUTE, "routes") + " ORDER BY routes.rowid")
        return {row[0]: _route_of(row) for row in rows}

    def route_named(self, name: str) -> RouteRow:
        """Return the newest definition of a route; raises ``StoreError`` where the study knows no such name."""
        rows = self.query(_select(_ROUTE, "routes") + " WHERE name = ? ORDER BY routes.rowid DESC LIMIT 1", (name,))
        if not rows:
            raise StoreError(f"There is no route {name!r} in {self.path}.")
        return _route_of(rows[0])

    def add_facts(self, facts: Iterable[FactRow]) -> None:
        """Add what servers said of themselves."""
        rows = [(fact.id, fact.route_id, fact.at, plain(fact.kind), to_json(fact.value)) for fact in facts]
        self._put("route_facts", _FACT, rows, known=_KEEP)

    def facts(self, route_id: str, kind: str | None = None) -> list[FactRow]:
        """Return what a route's server said of itself, oldest first."""
        where = " WHERE route_id = ? AND (? IS NULL OR kind = ?) ORDER BY at, id"
        return [
            FactRow(route, at, name, from_json(value), id=fact_id)
            for fact_id, route, at, name, value in self.query(
                _select(_FACT, "route_facts") + where, (route_id, kind, kind)
            )
        ]

    def add_pack(self, pack: PackRow, traces: Iterable[Trace]) -> None:
        """Add a pack with its traces, in one commit; a trace that it holds twice counts where it comes first."""
        row = (pack.id, plain(pack.name), plain(pack.source), plain(pack.licence), to_json(pack.card))
        with self.transaction():
            self._put("packs", _PACK, [row], known=_KEEP)
            for batch in batched(enumerate(traces), _TRACES_AT_ONCE):
                self.add_traces(trace for _, trace in batch)
                members = [(pack.id, trace.id, position) for position, trace in batch]
                self._put("pack_traces", ("pack_id", "trace_id", "position"), members, known=_KEEP)

    def packs(self) -> dict[str, PackRow]:
        """Return all packs by id."""
        rows = self.query(_select(_PACK, "packs") + " ORDER BY packs.rowid")
        return {key: PackRow(key, name, source, licence, from_json(card)) for key, name, source, licence, card in rows}

    def add_traces(self, traces: Iterable[Trace]) -> None:
        """Add traces. Where one is there, its name, family, control and labels are those given last."""
        rows = [
            (
                trace.id,
                plain(trace.name),
                plain(trace.family),
                int(trace.control),
                to_json([asdict(message) for message in trace.messages]),
                to_json(asdict(trace.sampling)),
                to_json(trace.labels),
            )
            for trace in traces
        ]
        known = "ON CONFLICT (id) DO UPDATE SET " + ", ".join(
            f"{column} = excluded.{column}" for column in ("name", "family", "control", "labels")
        )
        self._put("traces", _TRACE, rows, known=known)

    def traces(self, *, pack_id: str | None = None, run_id: str | None = None) -> dict[str, Trace]:
        """Return traces by id: all, those of a pack in its order, or those of a run."""
        sql, values = _select(_TRACE, "traces"), []
        if pack_id is not None:
            sql += " JOIN pack_traces ON trace_id = traces.id AND pack_id = ?"
            values.append(pack_id)
        if run_id is not None:
            sql += " WHERE traces.id IN (SELECT trace_id FROM trials WHERE run_id = ?)"
            values.append(run_id)
        sql += " ORDER BY traces.rowid" if pack_id is None else " ORDER BY pack_traces.position"
        return {row[0]: trace_of(row) for row in self.query(sql, values)}

    def trace(self, trace_id: str) -> Trace:
        """Return one trace; raises ``StoreError`` where there is none."""
        rows = self.query(_select(_TRACE, "traces") + " WHERE id = ?", (trace_id,))
        if not rows:
            raise StoreError(f"There is no trace {trace_id} in {self.path}.")
        return trace_of(rows[0])

    def trace_kinds(self) -> dict[str, tuple[str, bool]]:
        """Return family and control of all traces by id, without their messages."""
        return {key: (family, bool(control)) for key, family, control in self.query(_KINDS)}

    def add_run(self, run: RunRow) -> None:
        """Add a run."""
        row = (run.id, run.started_at, run.ended_at, run.seed, to_json(run.manifest))
        self._put("runs", _RUN, [row], known=_KEEP)

    def end_run(self, run_id: str, at: float | None) -> None:
        """Record when a run came to its end; ``None`` when it is taken up again."""
        self._write("UPDATE runs SET ended_at = ? WHERE id = ?", [(at, run_id)])

    def runs(self) -> list[RunRow]:
        """Return all runs, oldest first."""
        rows = self.query(_select(_RUN, "runs") + " ORDER BY runs.started_at, runs.id")
        return [RunRow(started, seed, from_json(manifest), ended, run) for run, started, ended, seed, manifest in rows]

    def add_trials(self, trials: Iterable[TrialRow]) -> None:
        """Add planned trials. One that is there under another id (same run, trace, route and repeat) is kept as it is.

        Their run, traces and routes must be there.
        """
        rows = [
            (
                trial.id,
                trial.run_id,
                trial.trace_id,
                trial.route_id,
                trial.repeat,
                trial.position,
                trial.state,
                to_json(trial.dropped),
                plain(trial.reason),
            )
            for trial in trials
        ]
        self._put("trials", _TRIAL, rows, known=_KEEP)

    def trials(
        self, run_id: str | None = None, *, route_id: str | None = None, state: TrialState | None = None
    ) -> list[TrialRow]:
        """Return the matching trials in the order of sending."""
        wanted = {"run_id": run_id, "route_id": route_id, "state": state}
        given = {column: value for column, value in wanted.items() if value is not None}
        where = " AND ".join(f"{column} = ?" for column in given) or "1"
        rows = self.query(f"{_select(_TRIAL, 'trials')} WHERE {where} ORDER BY run_id, position", list(given.values()))
        return [_trial_of(row) for row in rows]

    def page(
        self, run_id: str, route_id: str, after_position: int, limit: int, *, state: TrialState = "planned"
    ) -> list[TrialRow]:
        """Return the next trials of a route in one state, in the order of sending: those behind ``after_position``.

        Begin with -1 and go on with the position of the last one; at most ``limit`` come at once, so that a long run
        needs no more memory than a short one.
        """
        rows = self.query(
            f"{_select(_TRIAL, 'trials')} WHERE route_id = ? AND run_id = ? AND state = ? AND position > ? "
            "ORDER BY position LIMIT ?",
            (route_id, run_id, state, after_position, limit),
        )
        return [_trial_of(row) for row in rows]

    def count_trials(self, run_id: str) -> dict[TrialState, int]:
        """Return how many trials of a run are in each state."""
        counted: dict[TrialState, int] = {"planned": 0, "answered": 0, "failed": 0, "spared": 0}
        counted.update(self.query("SELECT state, count(*) FROM trials WHERE run_id = ? GROUP BY state", (run_id,)))
        return counted

    def count_reasons(self, run_id: str) -> list[ReasonCount]:
        """Return how many trials of a run are in each state for each reason, by route."""
        sql = """
        SELECT route_id, state, reason, count(*) FROM trials WHERE run_id = ?
        GROUP BY route_id, state, reason ORDER BY route_id, state, reason
        """
        return [ReasonCount(*row) for row in self.query(sql, (run_id,))]

    def mark_trials(self, trial_ids: Iterable[str], state: TrialState, reason: str = "") -> None:
        """Give trials up (``failed``), spare them or open them again (``planned``); an answered one stays answered.

        ``reason`` is one word that says why. ``answered`` is refused with ``ValueError``: only the commit of the answer
        itself can say so.
        """
        if state == "answered":
            raise ValueError("a trial is answered by saving its exchange")
        self._write(
            "UPDATE trials SET state = ?, reason = ? WHERE id = ? AND state <> 'answered'",
            [(state, plain(reason), trial) for trial in trial_ids],
        )


def _route_of(row: Sequence[Any]) -> RouteRow:
    values = dict(zip(_ROUTE[1:], row[1:], strict=True))
    return RouteRow(**values | {"request": from_json(values["request"])})


def _trial_of(row: Sequence[Any]) -> TrialRow:
    values = dict(zip(_TRIAL, row, strict=True))
    return TrialRow(**values | {"dropped": tuple(from_json(values["dropped"]))})


def trace_of(row: Sequence[Any]) -> Trace:
    """Return the trace that a row of the table holds, in the order of its columns."""
    _, name, family, control, messages, sampling, labels = row
    return Trace(
        name=name,
        messages=tuple(Message(**message) for message in from_json(messages)),
        sampling=Sampling(**from_json(sampling)),
        family=family,
        control=bool(control),
        labels=from_json(labels),
    )
