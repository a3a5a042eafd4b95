"""What a verdict stands on: the merged e-value of one exchange, what it needed, and both without each detector.

Computed anew from the evidence of the whole route, because what may accuse one exchange depends on the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from probe.attribution.merging import TEXT, WIRE, Open, totals
from probe.attribution.verdicts import ALPHA
from probe.evidence.base import Evidence
from probe.evidence.case import NON_COMPLIANCES, REFUSALS
from probe.judge.rules import RulesJudge
from probe.store.store import Store

_CASES = f"""
SELECT evidence.exchange_id, coalesce(trials.trace_id, ''), outcomes.outcome, evidence.detector, evidence.log_e,
       evidence.llr, evidence.decisive, evidence.mechanism
FROM evidence
JOIN exchanges ON exchanges.id = evidence.exchange_id
JOIN outcomes ON outcomes.exchange_id = exchanges.id AND outcomes.judge = ?
LEFT JOIN trials ON trials.id = exchanges.trial_id
WHERE exchanges.route_id = ? AND outcomes.outcome IN ({", ".join("?" * len(NON_COMPLIANCES))})
ORDER BY exchanges.started_at, exchanges.attempt, exchanges.id, evidence.detector
"""  # noqa: S608 - question marks only

_SAME = 1e-3
"""Difference of logs up to which an e-value computed anew is the stored one."""


@dataclass(frozen=True, slots=True)
class Total:
    """A merged log e-value, the log e-value that accuses on this route, and whether this one does."""

    log_e: float
    needed: float
    accuses: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """``total`` as the verdict was made; ``without`` each detector that tested this exchange, as if never asked."""

    total: Total
    without: Mapping[str, Total] = field(default_factory=dict)


def standing(store: Store, route_id: str, exchange_id: str, log_e: float) -> Standing | None:
    """Return what the verdict of an exchange stands on.

    ``log_e`` is the one stored with the verdict. ``None`` where it does not come out of the stored evidence: a
    declaration decided, or the evidence is newer or from another version.
    """
    cases = _open_cases(store, route_id)
    mine = next((case for case in cases if case.exchange_id == exchange_id), None)
    if mine is None:
        return None
    total = _total(cases, mine)
    if abs(total.log_e - log_e) > _SAME:
        return None
    asked = [name for name in (*TEXT, *WIRE) if name in mine.evidence and mine.evidence[name].log_e is not None]
    return Standing(total, {name: _total(cases, mine, without=name) for name in asked})


def _open_cases(store: Store, route_id: str) -> list[Open]:
    found: dict[str, Open] = {}
    evidence: dict[str, dict[str, Evidence]] = {}
    decided = set()
    for key, trace, outcome, name, log_e, llr, decisive, mechanism in store.query(
        _CASES, (RulesJudge.name, route_id, *sorted(NON_COMPLIANCES))
    ):
        about = evidence.setdefault(key, {})
        about[name] = Evidence(name, "", log_e, llr, "", mechanism=mechanism)
        found.setdefault(key, Open(key, trace or key, about, silent=outcome not in REFUSALS))
        if decisive:
            decided.add(key)
    return [case for key, case in found.items() if key not in decided]


def _total(cases: Sequence[Open], mine: Open, *, without: str | None = None) -> Total:
    left = [
        replace(case, evidence={name: one for name, one in case.evidence.items() if name != without}) for case in cases
    ]
    found = totals(left, ALPHA)
    return Total(found.log_es[mine.exchange_id], found.needed, mine.exchange_id in found.selected)
