"""From evidence to a verdict: model, platform, or undecided.

The posterior of ``platform`` is log-odds of the route's injected share plus the log-likelihood ratios of the detectors. The
share and the platform's stock of texts are learnt together by expectation maximisation over the refusals of the route. A
verdict ``platform`` needs more than a posterior: an e-value of at least 1/α against "the weights wrote this", computed
without the learnt share, so that a high share of other refusals alone never accuses an answer (DESIGN §5, 5).
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probe.evidence.base import Evidence
from probe.evidence.case import NON_COMPLIANCES, Case, normalised
from probe.evidence.repetition import RepetitionNorm

ALPHA = 0.05
"""Bound for wrong accusations and for calling something the model's."""

ROUNDS = 50
_TINY = 1e-12
_FLOOR = -60.0
"""Natural log; keeps an e-value of 0 a number."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who is behind an exchange: ``probability`` is that of ``platform``; ``log_e`` the e-value it was accused with."""

    exchange_id: str
    who: str
    probability: float
    log_e: float
    mechanism: str | None
    layer: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A case with what the detectors said about it, by detector name."""

    case: Case
    evidence: Mapping[str, Evidence]


def text_log_e(evidence: Mapping[str, Evidence]) -> float:
    """Return the log of the combined e-value.

    Likelihood and repetition look at the same text, so they are averaged (an average of e-values is one whatever their
    dependence; Vovk & Wang 2021, §4). Accounting looks at other bytes of the answer; it is multiplied in.
    """
    logs = [_log_e(evidence, "likelihood"), _log_e(evidence, "repetition")]
    known = [log for log in logs if log is not None]
    text = float(math.log(sum(math.exp(min(log, 700.0)) for log in known) / len(known) or _TINY)) if known else 0.0
    return max(text + (_log_e(evidence, "accounting") or 0.0), _FLOOR)


def _log_e(evidence: Mapping[str, Evidence], detector: str) -> float | None:
    found = evidence.get(detector)
    return None if found is None else found.log_e


class _Mixture:
    """The route's refusals as a mixture of the model's and the platform's; responsibilities by EM.

    A platform's text is canned (drawn from a stock that other refusals of the route show) or new (foreign to the weights).
    """

    def __init__(self, findings: Sequence[Finding], norm: RepetitionNorm) -> None:
        self._findings = findings
        self._texts = [normalised(f.case.text) for f in findings]
        self._model_share = {text: norm.share_if_model(text) for text in set(self._texts)}
        self._protected = norm.prompt_differs
        self._weight = [math.exp(min(text_log_e(f.evidence), 700.0)) for f in findings]
        self._resp = [weight / (1.0 + weight) for weight in self._weight]
        self.share = self._mean()

    def _mean(self) -> float:
        # One half of a pseudo-refusal each way: a route with few refusals keeps its doubt.
        return (sum(self._resp) + 0.5) / (len(self._resp) + 1.0)

    def run(self) -> list[float]:
        """Return log-likelihood ratios platform : model, one per finding, at the fixed point."""
        ratios = [0.0] * len(self._findings)
        for _ in range(ROUNDS):
            ratios = [self._ratio(index) for index in range(len(self._findings))]
            odds = math.log(self.share / (1.0 - self.share))
            self._resp = [1.0 / (1.0 + math.exp(-max(min(odds + ratio, 500.0), -500.0))) for ratio in ratios]
            self.share = min(max(self._mean(), _TINY), 1.0 - _TINY)
        return ratios

    def _ratio(self, index: int) -> float:
        finding, text = self._findings[index], self._texts[index]
        stock: dict[str, float] = defaultdict(float)
        total = 0.0
        for other, resp in enumerate(self._resp):
            if self._findings[other].case.trace_id != finding.case.trace_id:
                total += resp
                if self._texts[other] == text:
                    stock[text] += resp
        canned = stock[text] / total / self._model_share[text] if total > _TINY else 0.0
        foreign = _log_e(finding.evidence, "likelihood")
        new = math.exp(min(foreign, 700.0)) if foreign is not None else 1.0
        ratio = math.log(max(0.5 * canned + 0.5 * new, _TINY))
        if self._protected:
            ratio = min(ratio, 0.0)
        return ratio + (_log_e(finding.evidence, "accounting") or 0.0)


def decide(findings: Sequence[Finding], norm: RepetitionNorm, alpha: float = ALPHA) -> list[Verdict]:
    """Return a verdict for every non-compliance of one route, in order; others get none."""
    open_refusals = [f for f in findings if f.case.refused and not f.evidence["declared"].decisive]
    mixture = _Mixture(open_refusals, norm)
    ratios = dict(zip((f.case.exchange_id for f in open_refusals), mixture.run(), strict=True))
    odds = math.log(mixture.share / (1.0 - mixture.share))
    verdicts = []
    for finding in findings:
        if finding.case.outcome not in NON_COMPLIANCES:
            continue
        if finding.evidence["declared"].decisive:
            verdicts.append(_declared(finding))
        elif finding.case.exchange_id in ratios:
            verdicts.append(_weighed(finding, odds + ratios[finding.case.exchange_id], alpha))
        else:
            verdicts.append(_silent(finding))
    return verdicts


def _declared(finding: Finding) -> Verdict:
    found = finding.evidence["declared"]
    who, probability = ("platform", 1.0) if found.llr > 0 else ("model", 0.0)
    mechanism = found.mechanism if who == "platform" else "model_refusal"
    return Verdict(
        finding.case.exchange_id, who, probability, found.log_e or 0.0, mechanism, found.layer, found.sentence
    )


def _weighed(finding: Finding, log_odds: float, alpha: float) -> Verdict:
    probability = 1.0 / (1.0 + math.exp(-max(min(log_odds, 500.0), -500.0)))
    log_e = text_log_e(finding.evidence)
    identity = finding.case.exchange_id
    tested = [e for name, e in finding.evidence.items() if name != "declared" and not e.abstains]
    text_tested = any(e.detector in {"likelihood", "repetition"} for e in tested)
    if not text_tested:
        return Verdict(
            identity, "undecided", probability, log_e, None, None, "No detector could test who wrote this text."
        )
    if probability >= 1.0 - alpha and log_e >= -math.log(alpha):
        strongest = max(tested, key=lambda e: e.llr)
        return Verdict(identity, "platform", probability, log_e, "injected_text", "unknown", strongest.sentence)
    if probability <= alpha and not finding.evidence["likelihood"].abstains:
        return Verdict(
            identity, "model", probability, log_e, "model_refusal", None, "The weights themselves write such a text."
        )
    return Verdict(
        identity, "undecided", probability, log_e, None, None, "The evidence neither shows nor rules out the platform."
    )


def _silent(finding: Finding) -> Verdict:
    outcome = finding.case.outcome
    reason = f"An answer that is {outcome} has no text to test, and nothing in the bytes declares who stopped it."
    return Verdict(finding.case.exchange_id, "undecided", 0.5, 0.0, None, None, reason)
