"""What is derived: outcomes, evidence, verdicts, gates, effects, and who served.

A row with the same key replaces the older one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, get_args

from probe.evidence.base import Evidence
from probe.store.columns import from_json, plain, to_json
from probe.store.rows import EffectRow, EvidenceRow, GateRow, OutcomeRow, VerdictRow
from probe.store.served import SERVED
from probe.store.session import Session

DerivedTable = Literal["outcomes", "evidence", "verdicts", "gates", "effects", "served"]
TABLES: tuple[DerivedTable, ...] = get_args(DerivedTable)


def _names(kind: type, table: DerivedTable) -> tuple[str, ...]:
    names = tuple(field.name for field in fields(kind))
    return ("id", *names) if table in {"gates", "effects"} else names


_OUTCOME = _names(OutcomeRow, "outcomes")
_EVIDENCE = ("exchange_id", *_names(Evidence, "evidence"))
_VERDICT = _names(VerdictRow, "verdicts")
_GATE = _names(GateRow, "gates")
_EFFECT = _names(EffectRow, "effects")

_COLUMNS: Mapping[DerivedTable, tuple[str, ...]] = {
    "outcomes": _OUTCOME,
    "evidence": _EVIDENCE,
    "verdicts": _VERDICT,
    "gates": _GATE,
    "effects": _EFFECT,
    "served": SERVED,
}

_OF_ROUTE = "exchange_id IN (SELECT id FROM exchanges WHERE route_id = ?)"


class DerivedTables(Session):
    """Reading and writing what is derived. Exchanges and routes that a row names must be there."""

    def clear_derived(self, *tables: DerivedTable) -> None:
        """Empty the given derived tables, or all of them; scores of texts are a cache and stay (``clear_scores``).

        Inside ``transaction()`` together with the new rows, a rebuild is one commit.
        """
        with self.transaction():
            for table in tables or TABLES:
                if table not in TABLES:
                    raise ValueError(f"{table} is not a derived table")
                self._write(f"DELETE FROM {table}", [()])  # noqa: S608

    def replace_outcomes(self, outcomes: Iterable[OutcomeRow]) -> None:
        """Write outcomes; one per exchange and judge."""
        self._replace("outcomes", _OUTCOME, [_values(row, _OUTCOME) for row in outcomes], ("exchange_id", "judge"))

    def outcomes(
        self, *, judge: str | None = None, exchange_id: str | None = None, route_id: str | None = None
    ) -> list[OutcomeRow]:
        """Return outcomes in the order of exchanges."""
        wanted = {"judge": judge, "exchange_id": exchange_id, _OF_ROUTE: route_id}
        rows = self._find("outcomes", _OUTCOME, wanted, "exchange_id, judge")
        return [OutcomeRow(**row) for row in rows]

    def replace_evidence(self, evidence: Iterable[EvidenceRow]) -> None:
        """Write findings; one per exchange and detector."""
        rows = [evidence_values(row.exchange_id, row.evidence) for row in evidence]
        self._replace("evidence", _EVIDENCE, rows, ("exchange_id", "detector"))

    def evidence(self, *, exchange_id: str | None = None, detector: str | None = None) -> list[EvidenceRow]:
        """Return findings in the order of exchanges."""
        wanted = {"exchange_id": exchange_id, "detector": detector}
        rows = self._find("evidence", _EVIDENCE, wanted, "exchange_id, detector")
        return [
            EvidenceRow(row.pop("exchange_id"), Evidence(**row | {"decisive": bool(row["decisive"])})) for row in rows
        ]

    def replace_verdicts(self, verdicts: Iterable[VerdictRow]) -> None:
        """Write verdicts; one per exchange."""
        self._replace("verdicts", _VERDICT, [_values(row, _VERDICT) for row in verdicts], ("exchange_id",))

    def verdicts(self, *, route_id: str | None = None) -> dict[str, VerdictRow]:
        """Return all verdicts, or those on one route, by exchange id."""
        rows = self._find("verdicts", _VERDICT, {_OF_ROUTE: route_id}, "exchange_id")
        return {row["exchange_id"]: VerdictRow(**row) for row in rows}

    def replace_gates(self, gates: Iterable[GateRow]) -> None:
        """Write answers of the same-weights gate; one per pair of routes."""
        self._replace("gates", _GATE, [_values(row, _GATE) for row in gates], ("id",))

    def gates(self, route_id: str | None = None) -> list[GateRow]:
        """Return the answers of the gate for all hosted routes, or for one."""
        rows = self._find("gates", _GATE, {"route_id": route_id}, "route_id, twin_id")
        return [GateRow(**_without_id(row)) for row in rows]

    def replace_effects(self, effects: Iterable[EffectRow]) -> None:
        """Write effects; one per pair of routes and scope."""
        self._replace("effects", _EFFECT, [_values(row, _EFFECT) for row in effects], ("id",))

    def effects(self, route_id: str | None = None) -> list[EffectRow]:
        """Return the effects of all hosted routes, or of one."""
        rows = self._find("effects", _EFFECT, {"route_id": route_id}, "route_id, twin_id, scope")
        return [EffectRow(**_without_id(row)) for row in rows]

    def put_derived(self, table: DerivedTable, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows of values to a table that has none of these yet, as after ``clear_derived``."""
        columns = _COLUMNS[table]
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        self._write(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608

    def _replace(
        self, table: DerivedTable, columns: Sequence[str], rows: list[tuple[Any, ...]], key: Sequence[str]
    ) -> None:
        others = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
        self._put(table, columns, rows, known=f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {others}")

    def _find(
        self, table: DerivedTable, columns: Sequence[str], wanted: dict[str, str | None], order: str
    ) -> list[dict[str, Any]]:
        given = {column: value for column, value in wanted.items() if value is not None}
        where = " AND ".join(column if "?" in column else f"{column} = ?" for column in given) or "1"
        sql = f"SELECT {', '.join(columns)} FROM {table} WHERE {where} ORDER BY {order}"  # noqa: S608
        found = [dict(zip(columns, row, strict=True)) for row in self.query(sql, list(given.values()))]
        for row in found:
            for column in {"detail", "facts"} & row.keys():
                row[column] = from_json(row[column])
        return found


def outcome_values(row: OutcomeRow) -> tuple[Any, ...]:
    """Return an outcome as ``put_derived`` takes it."""
    return _values(row, _OUTCOME)


def evidence_values(exchange_id: str, evidence: Evidence) -> tuple[Any, ...]:
    """Return a finding as ``put_derived`` takes it."""
    found = evidence
    facts = to_json(found.facts) if found.facts else "{}"
    return (
        exchange_id,
        found.detector,
        found.version,
        _number(found.log_e),
        _number(found.llr),
        plain(found.sentence),
        facts,
        plain(found.exhibit),
        found.decisive,
        found.mechanism,
        found.layer,
    )


def verdict_values(row: VerdictRow) -> tuple[Any, ...]:
    """Return a verdict as ``put_derived`` takes it."""
    return _values(row, _VERDICT)


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _values(row: object, columns: Sequence[str]) -> tuple[Any, ...]:
    """Return the columns of a dataclass: JSON for mappings, text that SQLite can hold, numbers of plain types."""
    return tuple(_value(getattr(row, column), column) for column in columns)


def _value(value: Any, column: str) -> Any:
    if column in {"detail", "facts"}:
        return to_json(value)
    if isinstance(value, str):
        return plain(value)
    # NumPy's integers and booleans are not numbers to SQLite (its floats are).
    return value.item() if hasattr(value, "item") else value


def _without_id(row: dict[str, Any]) -> dict[str, Any]:
    return {column: value for column, value in row.items() if column != "id"}
