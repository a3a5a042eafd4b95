"""From evidence to a verdict: model, platform, or undecided.

The posterior of ``platform`` is log-odds of the route's injected share plus the log-likelihood ratios of the detectors.
The share and what the platform writes are learnt together by expectation maximisation over the refusals of the route. A
verdict ``platform`` needs more than a posterior: an e-value against "the weights wrote this under normal serving", so
that a high share of other refusals alone never accuses an answer (DESIGN §5, 5). It is at least 1/α, and more where
many refusals were looked at and few stand out (e-BH).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probe.attribution.merging import FLOOR, MOST, SIGN, Open, Panel, log_e, odd_alone, oddest, text_log_e, totals
from probe.attribution.mixture import Finding, Mixture, facts
from probe.evidence.base import Evidence
from probe.evidence.case import NON_COMPLIANCES
from probe.evidence.likelihood import RATIOS, WHOLE
from probe.evidence.repetition import RepetitionNorm

ALPHA = 0.05
"""Bound for wrong accusations and for calling something the model's."""

__all__ = ["ALPHA", "Finding", "Verdict", "decide"]


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
class _Weighed:
    """What speaks for and against one open case.

    ``selected`` by e-BH over the route, where the log e-value ``needed`` accuses.
    """

    log_odds: float
    log_e: float
    selected: bool
    needed: float
    tested: Panel
    alpha: float

    @property
    def probability(self) -> float:
        return 1.0 / (1.0 + math.exp(-max(min(self.log_odds, MOST), -MOST)))

    @property
    def accused(self) -> bool:
        return self.probability >= 1.0 - self.alpha and self.selected


def decide(findings: Sequence[Finding], norm: RepetitionNorm, alpha: float = ALPHA) -> list[Verdict]:
    """Return a verdict for every non-compliance of one route, in order; others get none."""
    open_cases = [f for f in findings if f.case.outcome in NON_COMPLIANCES and not f.evidence["declared"].decisive]
    weighed = _weigh(open_cases, norm, alpha)
    verdicts = []
    for finding in findings:
        if finding.case.outcome not in NON_COMPLIANCES:
            continue
        key = finding.case.exchange_id
        if finding.evidence["declared"].decisive:
            verdicts.append(_declared(finding))
        elif finding.case.refused:
            verdicts.append(_spoken(finding, weighed[key]))
        else:
            verdicts.append(_silent(finding, weighed[key]))
    return verdicts


def _weigh(cases: Sequence[Finding], norm: RepetitionNorm, alpha: float) -> dict[str, _Weighed]:
    """Weigh refusals by what they say and how they are made, answers without a text by how they are made alone."""
    total = totals([Open(f.case.exchange_id, f.case.trace_id, f.evidence, not f.case.refused) for f in cases], alpha)
    spoken = [f for f in cases if f.case.refused]
    odds, ratios = Mixture(spoken, norm, total.panels[False]).run()
    # Nothing is learnt about answers without a text: even odds.
    found = {f.case.exchange_id: total.log_es[f.case.exchange_id] for f in cases if not f.case.refused}
    found |= {f.case.exchange_id: odds + float(ratio) for f, ratio in zip(spoken, ratios, strict=True)}
    return {
        (key := f.case.exchange_id): _Weighed(
            found[key], total.log_es[key], key in total.selected, total.needed, total.panels[not f.case.refused], alpha
        )
        for f in cases
    }


def _declared(finding: Finding) -> Verdict:
    found = finding.evidence["declared"]
    who, probability = ("platform", 1.0) if found.llr > 0 else ("model", 0.0)
    mechanism = found.mechanism if who == "platform" else "model_refusal"
    return Verdict(
        finding.case.exchange_id, who, probability, found.log_e or 0.0, mechanism, found.layer, found.sentence
    )


def _spoken(finding: Finding, weighed: _Weighed) -> Verdict:
    evidence = finding.evidence
    who, mechanism, layer = "undecided", None, None
    if all(log_e(evidence, name) is None for name in (*weighed.tested.text, *weighed.tested.wire)):
        reason = "No detector could test who wrote this text."
    elif weighed.accused:
        who, layer = "platform", "unknown"
        mechanism, reason = _accusation(evidence)
    elif (doubt := _doubt(evidence, weighed)) is not None:
        reason = doubt
    else:
        who, mechanism, reason = "model", "model_refusal", "The weights themselves write such a text."
    return Verdict(finding.case.exchange_id, who, weighed.probability, weighed.log_e, mechanism, layer, reason)


def _accusation(evidence: Mapping[str, Evidence]) -> tuple[str | None, str]:
    """Return mechanism and reason of an accusation."""
    tested = [found for found in evidence.values() if found.log_e is not None]
    reason = max(tested, key=lambda e: e.log_e or 0.0).sentence
    counts = facts(evidence, "accounting")
    if counts.get("prompt_surplus") is not None and counts.get("prompt_usual") is not None:
        return "injected_text", reason
    # A hidden prompt that dictates a sentence looks the same. Both are the platform's doing, but which of them it is,
    # only token counts could tell; so no mechanism is claimed.
    return None, (
        f"{reason} The route's token counts could not be checked: the platform wrote this text, or a hidden prompt asks"
        " for it."
    )


def _doubt(evidence: Mapping[str, Evidence], weighed: _Weighed) -> str | None:
    """Return why a refusal that is not the platform's is not called the model's either; ``None`` where it is."""
    wording = facts(evidence, "likelihood")
    if weighed.probability > weighed.alpha or log_e(evidence, "likelihood") is None:
        return _neither(evidence, weighed)
    if RATIOS not in wording:
        return "The weights would not write such a text, but the route's prompt, weights or sampling may be why."
    if float(wording.get(WHOLE, 0.0)) >= -math.log(weighed.alpha):
        return "Most of the text is what the weights write, and a few of its words are not."
    if odd_alone(evidence, weighed.tested) or (log_e(evidence, "accounting") or 0.0) >= SIGN:
        return _contradiction(evidence)
    if weighed.log_e >= -math.log(weighed.alpha):
        return _neither(evidence, weighed)
    return None


def _neither(evidence: Mapping[str, Evidence], weighed: _Weighed) -> str:
    text = max(text_log_e(evidence, weighed.tested).values(), default=FLOOR)
    if weighed.tested.text and text <= 0.0 and oddest(evidence, weighed.tested) >= -math.log(weighed.alpha):
        return _contradiction(evidence)
    return (
        "The evidence neither shows nor rules out the platform: "
        f"an accusation on this route needs an e-value of {_number(weighed.needed)}, and this one has "
        f"{_number(weighed.log_e)}."
    )


def _contradiction(evidence: Mapping[str, Evidence]) -> str:
    made = max((evidence[n] for n in ("envelope", "timing", "accounting") if n in evidence), key=_strength)
    return (
        "The evidence contradicts itself: the text shows nothing, but the response is made differently. "
        f"{made.sentence}"
    )


def _strength(evidence: Evidence) -> float:
    return FLOOR if evidence.log_e is None else evidence.log_e


def _number(value: float) -> str:
    return f"{math.exp(min(value, MOST)):.3g}"


def _silent(finding: Finding, weighed: _Weighed) -> Verdict:
    outcome = finding.case.outcome
    tested = [found for found in finding.evidence.values() if found.detector != "declared" and found.log_e is not None]
    if not tested:
        reason = f"An answer that is {outcome} has no text to test, and nothing in the bytes declares who stopped it."
        return Verdict(finding.case.exchange_id, "undecided", 0.5, 0.0, None, None, reason)
    best = max(tested, key=_strength)
    if weighed.accused:
        mechanism = next((e.mechanism for e in tested if e.mechanism == "cut_stream"), None)
        return Verdict(
            finding.case.exchange_id,
            "platform",
            weighed.probability,
            weighed.log_e,
            mechanism,
            "unknown",
            best.sentence,
        )
    reason = f"An answer that is {outcome} has no text to test, and how it was made does not show who stopped it."
    return Verdict(finding.case.exchange_id, "undecided", weighed.probability, weighed.log_e, None, None, reason)
