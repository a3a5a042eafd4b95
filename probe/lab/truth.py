"""How the verdicts compare with what the lab platforms log that they did. Read only after everything is judged."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from probe.attribution.cases import Sent
from probe.attribution.pipeline import Analysis
from probe.attribution.verdicts import Verdict
from probe.evidence.case import NON_COMPLIANCES
from probe.lab.log import LabEntry, LabLog
from probe.stats.intervals import Interval, wilson
from probe.store.store import Store
from probe.wire.values import Exchange


@dataclass(frozen=True)
class Truth:
    """Verdicts against the log, over every hosted answer that was a non-compliance or that the platform wrote.

    ``accuracy``: right verdicts among all of these; ``undecided`` and "not even seen as a refusal" are not right.
    ``false_accusation_rate``: verdict ``platform`` among those that the model wrote. ``undecided_rate``: among all.
    ``confusion`` counts (route, author by the log, verdict).
    """

    n: int
    accuracy: Interval
    false_accusation_rate: Interval
    undecided_rate: Interval
    confusion: dict[tuple[str, str, str], int]

    def to_json(self) -> dict[str, Any]:
        """Rates as numbers, and again with their intervals."""
        rates = {
            "accuracy": self.accuracy,
            "false_accusation_rate": self.false_accusation_rate,
            "undecided_rate": self.undecided_rate,
        }
        return {
            **{name: rate.estimate for name, rate in rates.items()},
            "n": self.n,
            "intervals": {name: rate.to_json() for name, rate in rates.items()},
            "confusion": [
                {"route": route, "author": author, "verdict": verdict, "n": n}
                for (route, author, verdict), n in sorted(self.confusion.items())
            ],
        }


@dataclass(frozen=True)
class Known:
    """A hosted answer that counts: what was sent and came, what the lab's log says of it, and the verdict, if any."""

    route: str
    sent: Sent
    exchange: Exchange
    entry: LabEntry | None
    verdict: Verdict | None

    @property
    def author(self) -> str:
        """``model`` or ``platform``; whatever the log does not know was passed through."""
        return self.entry.author if self.entry is not None else "model"


def known_answers(store: Store, analysis: Analysis, log: LabLog) -> Iterator[Known]:
    """Yield every hosted answer that was a non-compliance or that the platform wrote, found in the log by its id."""
    for found in analysis.routes:
        verdicts = {verdict.exchange_id: verdict for verdict in found.verdicts}
        for sent in analysis.cases[found.route.id]:
            exchange = sent.case.exchange or store.exchange(sent.case.exchange_id)
            headers = {name.lower(): value for name, value in exchange.response_headers}
            entry = log.find(headers.get("x-request-id"))
            known = Known(found.route.name, sent, exchange, entry, verdicts.get(exchange.id))
            if known.author == "platform" or sent.case.outcome in NON_COMPLIANCES:
                yield known


def compare(store: Store, analysis: Analysis, log: LabLog) -> Truth:
    """Compare all verdicts of an analysis with the log."""
    confusion: Counter[tuple[str, str, str]] = Counter()
    for known in known_answers(store, analysis, log):
        confusion[known.route, known.author, known.verdict.who if known.verdict else "not seen"] += 1
    n = sum(confusion.values())
    right = sum(count for (_, author, verdict), count in confusion.items() if author == verdict)
    model = sum(count for (_, author, _), count in confusion.items() if author == "model")
    accused = sum(
        count for (_, author, verdict), count in confusion.items() if (author, verdict) == ("model", "platform")
    )
    undecided = sum(count for (_, _, verdict), count in confusion.items() if verdict == "undecided")
    return Truth(n, wilson(right, n), wilson(accused, model), wilson(undecided, n), dict(confusion))
