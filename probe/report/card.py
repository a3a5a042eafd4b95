"""The evidence card of one exchange: verdict, what each detector says, the bytes it rests on, what would change it.

A card is made of any exchange, whatever came back and whether or not it was analysed.
"""

import math
from typing import Any

from probe.evidence.base import Evidence
from probe.report.changes import Situation, contradicting, would_change
from probe.report.provenance import generation_part, served_part
from probe.report.shown import exchange_part, plain_value
from probe.report.standing import standing
from probe.store.rows import RouteRow, VerdictRow
from probe.store.store import Store
from probe.wire.values import Exchange


def card(store: Store, exchange_id: str) -> dict[str, Any]:
    """Return the card as plain values that JSON can carry. Raises ``StoreError`` where there is no such exchange.

    ``evidence`` stands in the order of its weight, abstentions last. ``e_value`` is ``None`` where a detector abstains.
    """
    exchange = store.exchange(exchange_id)
    route = store.routes()[exchange.route_id]
    outcome = next(iter(store.outcomes(exchange_id=exchange_id)), None)
    verdict = store.verdicts().get(exchange_id)
    evidence = sorted((row.evidence for row in store.evidence(exchange_id=exchange_id)), key=_weight)
    situation = _situation(store, exchange, route, outcome.outcome if outcome else None, verdict, evidence)
    found = {
        "id": exchange.id,
        "route": route.name,
        "trial": exchange.trial_id,
        "attempt": exchange.attempt,
        "control": situation.control,
        "outcome": outcome.outcome if outcome else None,
        "outcome_reason": outcome.reason if outcome else None,
        "answer": outcome.excerpt if outcome else None,
        "verdict": verdict.who if verdict else None,
        "probability": verdict.probability if verdict else None,
        "e_value": _e_value(verdict.log_e) if verdict else None,
        "mechanism": verdict.mechanism if verdict else None,
        "layer": verdict.layer if verdict else None,
        "reason": verdict.reason if verdict else None,
        "evidence": [_row(row) for row in evidence],
        "contradicting": [
            {"detector": row.detector, "llr": row.llr, "sentence": row.sentence} for row in contradicting(situation)
        ],
        "would_change": would_change(situation),
        "served": served_part(store, exchange_id),
        "generation": generation_part(store, exchange),
    }
    return {key: plain_value(value) for key, value in (found | exchange_part(exchange)).items()}


def _situation(
    store: Store,
    exchange: Exchange,
    route: RouteRow,
    outcome: str | None,
    verdict: VerdictRow | None,
    evidence: list[Evidence],
) -> Situation:
    gate = next(iter(store.gates(route.id)), None)
    return Situation(
        who=verdict.who if verdict else None,
        outcome=outcome,
        probability=verdict.probability if verdict else 0.5,
        evidence=evidence,
        standing=standing(store, route.id, exchange.id, verdict.log_e) if verdict else None,
        role=route.role,
        control=_is_control(store, exchange),
        given_up=exchange.trial_id is not None and not _is_answer(store, exchange),
        gate=gate.sentence if gate else None,
        fetched=exchange.method == "GET",
    )


def _is_control(store: Store, exchange: Exchange) -> bool:
    asked = "SELECT control FROM traces JOIN trials ON trials.trace_id = traces.id WHERE trials.id = ?"
    rows = store.query(asked, (exchange.trial_id,)) if exchange.trial_id else []
    return bool(rows and rows[0][0])


def _is_answer(store: Store, exchange: Exchange) -> bool:
    return any(ref.answered for ref in store.refs(trial_id=exchange.trial_id) if ref.id == exchange.id)


def _weight(row: Evidence) -> tuple[bool, bool, float, str]:
    return (row.abstains, not row.decisive, -max(abs(row.log_e or 0.0), abs(row.llr)), row.detector)


def _row(row: Evidence) -> dict[str, Any]:
    return {
        "detector": row.detector,
        "e_value": _e_value(row.log_e),
        "llr": row.llr,
        "sentence": row.sentence,
        "facts": dict(row.facts),
        "bytes": row.exhibit,
        "mechanism": row.mechanism,
        "layer": row.layer,
    }


def _e_value(log_e: float | None) -> float | None:
    # Capped where a float ends: JSON has no infinity.
    return None if log_e is None else math.exp(min(log_e, 700.0))
