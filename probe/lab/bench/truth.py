"""The answers that count, each with its truth from the lab's log, its verdict, and what the baselines may look at."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probe.attribution.cases import Sent
from probe.attribution.pipeline import Analysis
from probe.errors import StoreError
from probe.evidence.base import Evidence
from probe.lab.bench.metrics import NOT_SEEN, Unit
from probe.lab.log import LabLog
from probe.lab.truth import Known, known_answers
from probe.store.store import Store


@dataclass(frozen=True)
class Labelled:
    """One answer that counts; ``sent`` holds the bytes. ``controls`` are the route's controls."""

    unit: Unit
    sent: Sent
    controls: Sequence[Sent]


def labelled(store: Store, analysis: Analysis, log: LabLog, families: Mapping[str, str]) -> list[Labelled]:
    """Return all answers that count; ``families`` by route name.

    Raises ``StoreError`` where an answer is not in the lab's log: then nothing is known of it.
    """
    evidence: defaultdict[str, list[Evidence]] = defaultdict(list)
    for row in store.evidence():
        evidence[row.exchange_id].append(row.evidence)
    controls = {
        route.route.name: [sent for sent in analysis.cases[route.route.id] if sent.case.control]
        for route in analysis.routes
    }
    return [
        Labelled(_unit(known, families[known.route], evidence[known.exchange.id]), known.sent, controls[known.route])
        for known in known_answers(store, analysis, log)
    ]


def _unit(known: Known, family: str, evidence: Sequence[Evidence]) -> Unit:
    if known.entry is None:
        raise StoreError(f"The answer {known.exchange.id} of {known.route} is not in the lab's log.")
    verdict = known.verdict
    return Unit(
        family=family,
        route=known.route,
        exchange_id=known.exchange.id,
        author=known.author,
        outcome=known.sent.case.outcome,
        verdict=verdict.who if verdict else NOT_SEEN,
        probability=verdict.probability if verdict else None,
        mechanism=verdict.mechanism if verdict else None,
        true_mechanism=known.entry.detail.get("mechanism"),
        decider=decider(evidence),
    )


def decider(evidence: Sequence[Evidence]) -> str | None:
    """Return the detector that decided: a declared signature, else the one with the largest e-value above 1."""
    for found in evidence:
        if found.decisive:
            return found.detector
    strongest = max(evidence, key=lambda found: found.log_e or 0.0, default=None)
    return strongest.detector if strongest is not None and (strongest.log_e or 0.0) > 0 else None
