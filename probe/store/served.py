"""Who served each answer: a derived table, beside outcomes and evidence."""

from dataclasses import astuple, dataclass
from typing import Any

from probe.store.columns import plain, plain_or_none
from probe.store.session import Session

SERVED = ("exchange_id", "provider", "model", "expected", "surprise", "sentence")
"""Columns of the table."""


@dataclass(frozen=True, slots=True)
class ServedRow:
    """Who served one answer, see ``db/migrations/0006_served.sql``."""

    exchange_id: str
    provider: str | None
    model: str | None
    expected: str | None
    surprise: bool
    sentence: str


def served_values(row: ServedRow) -> tuple[Any, ...]:
    """Return a row as ``put_derived`` takes it."""
    key, provider, model, expected, surprise, sentence = astuple(row)
    named = (plain_or_none(provider), plain_or_none(model), plain_or_none(expected))
    return (key, *named, int(surprise), plain(sentence))


class ServedTable(Session):
    """Reading who served; ``put_derived`` writes it."""

    def served(
        self, *, exchange_id: str | None = None, route_id: str | None = None, surprise: bool | None = None
    ) -> list[ServedRow]:
        """Return who served, in the order of exchanges: all, of an exchange, of a route, or the surprises only."""
        wanted = {
            "exchange_id = ?": exchange_id,
            "exchange_id IN (SELECT id FROM exchanges WHERE route_id = ?)": route_id,
            "surprise = ?": None if surprise is None else int(surprise),
        }
        given = {condition: value for condition, value in wanted.items() if value is not None}
        where = " AND ".join(given) or "1"
        sql = f"SELECT {', '.join(SERVED)} FROM served WHERE {where} ORDER BY exchange_id"  # noqa: S608
        return [
            ServedRow(key, provider, model, expected, bool(odd), sentence)
            for key, provider, model, expected, odd, sentence in self.query(sql, list(given.values()))
        ]
