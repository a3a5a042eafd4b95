"""From evidence to a verdict: model, platform, or undecided.

The posterior of ``platform`` is log-odds of the route's injected share plus the log-likelihood ratios of the detectors.
The share and what the platform writes are learnt together by expectation maximisation over the refusals of the route. A
verdict ``platform`` needs more than a posterior: an e-value against "the weights wrote this", computed without anything
learnt, so that a high share of other refusals alone never accuses an answer (DESIGN §5, 5). It is at least 1/α, and
more where many refusals were looked at and few stand out (e-BH).
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probe.evidence.accounting import REWRITE
from probe.evidence.base import Evidence
from probe.evidence.case import NON_COMPLIANCES, Case, normalised
from probe.evidence.likelihood import RATIOS, WHOLE
from probe.evidence.repetition import RepetitionNorm

ALPHA = 0.05
"""Bound for wrong accusations and for calling something the model's."""

TEXT_DETECTORS = ("likelihood", "repetition")

ROUNDS = 500
_STILL = 1e-7
"""Change of a responsibility at which expectation maximisation has arrived."""
_FLOOR = -60.0
"""Natural log; keeps an e-value of 0 a number."""
_MOST = 500.0
"""Natural log; keeps odds within floating point."""

Array = npt.NDArray[np.float64]


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


def text_log_e(evidence: Mapping[str, Evidence], detectors: AbstractSet[str] = frozenset(TEXT_DETECTORS)) -> float:
    """Return the log of the combined e-value. ``detectors``: those of the text that could test anything on this route.

    Likelihood and repetition look at the same text, so they are averaged (an average of e-values is one whatever their
    dependence; Vovk & Wang 2021, §4). One that abstains counts as 0, because whether it abstains depends on the text.
    Accounting looks at other bytes of the answer, and counts what the text's tokenization cannot bring about; it is
    multiplied in. Where it shows another prompt, the text proves nothing.
    """
    logs = [found for name in sorted(detectors) if (found := _log_e(evidence, name)) is not None]
    if logs:
        text = float(np.logaddexp.reduce(np.minimum(logs, _MOST))) - math.log(len(detectors))
    else:
        text = _FLOOR if detectors else 0.0
    if _saw_other_prompt(evidence):
        text = min(text, 0.0)
    return max(text + (_log_e(evidence, "accounting") or 0.0), _FLOOR)


def _log_e(evidence: Mapping[str, Evidence], detector: str) -> float | None:
    found = evidence.get(detector)
    return None if found is None else found.log_e


def _saw_other_prompt(evidence: Mapping[str, Evidence]) -> bool:
    found = evidence.get("accounting")
    return found is not None and found.mechanism == REWRITE


class _Mixture:
    """The route's refusals as a mixture of the model's and the platform's; responsibilities by EM.

    A platform's text is canned (drawn from a stock that other refusals of the route show) or new to the weights, as
    much as one of the tilts says. How much of each a platform writes is learnt as well. A refusal's own trace is left
    out of the stock that it is compared with.
    """

    def __init__(self, findings: Sequence[Finding], norm: RepetitionNorm) -> None:
        texts = [normalised(f.case.text) for f in findings]
        traces = [f.case.trace_id for f in findings]
        self._text, self._trace, self._cell = _codes(texts), _codes(traces), _codes(zip(texts, traces, strict=True))
        self._model = np.log([norm.share_if_model(text) for text in texts])
        self._new = _new_ratios(findings)
        self._other = np.array([_other_llr(f.evidence) for f in findings])
        self._protected = np.array([norm.protected or _saw_other_prompt(f.evidence) for f in findings], bool)
        # Half of a platform's texts are canned, the tilts share the other half; worth one refusal.
        width = self._new.shape[1]
        self._prior = np.array([0.5, *[0.5 / width] * width])

    def run(self) -> tuple[float, Array]:
        """Return the platform's share as log-odds, and log-likelihood ratios platform : model, one per finding."""
        kinds, odds, ratios = self._prior, 0.0, np.zeros(len(self._model))
        parts = np.column_stack([np.full(len(self._model), -np.inf), self._new]) + np.log(kinds)
        resp = np.full(len(self._model), 0.5)
        for _ in range(ROUNDS):
            canned = self._canned(resp)
            parts = np.column_stack([canned, self._new]) + np.log(kinds)
            text = np.logaddexp.reduce(parts, axis=1)
            ratios = np.where(self._protected, np.minimum(text, 0.0), text) + self._other
            before, resp = resp, 1.0 / (1.0 + np.exp(-np.clip(odds + ratios, -_MOST, _MOST)))
            # One half of a pseudo-refusal each way: a route with few refusals keeps its doubt.
            share = (resp.sum() + 0.5) / (len(resp) + 1.0)
            odds = float(np.log(share / (1.0 - share)))
            weight = resp[:, None] * np.exp(parts - text[:, None])
            kinds = (weight.sum(axis=0) + self._prior) / (resp.sum() + 1.0)
            if np.abs(resp - before).max(initial=0.0) < _STILL:
                break
        return odds, ratios

    def _canned(self, resp: Array) -> Array:
        """Return log P(text | stock of the other traces) - log P(text | the weights refuse)."""
        total = resp.sum() - np.bincount(self._trace, resp)[self._trace]
        same = np.bincount(self._text, resp)[self._text] - np.bincount(self._cell, resp)[self._cell]
        # Differences of sums: what is nothing but rounding is no copy.
        share = np.where((same > 1e-9) & (total > 1e-9), same / np.maximum(total, 1e-9), 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(share) - self._model)


def _codes(values: Iterable[Hashable]) -> npt.NDArray[np.int64]:
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)


def _new_ratios(findings: Sequence[Finding]) -> Array:
    """Return log ratios foreign : own per finding and tilt; 0 where there is no score, a single column without any."""
    found = [_facts(f.evidence, "likelihood").get(RATIOS) for f in findings]
    width = max((len(ratios) for ratios in found if ratios), default=1)
    rows = [[*ratios.values()] if ratios else [0.0] * width for ratios in found]
    return np.array(rows, dtype=float).reshape(len(findings), width)


def _facts(evidence: Mapping[str, Evidence], detector: str) -> Mapping[str, Any]:
    found = evidence.get(detector)
    return {} if found is None else found.facts


def _other_llr(evidence: Mapping[str, Evidence]) -> float:
    found = evidence.get("accounting")
    return 0.0 if found is None else found.llr


def decide(findings: Sequence[Finding], norm: RepetitionNorm, alpha: float = ALPHA) -> list[Verdict]:
    """Return a verdict for every non-compliance of one route, in order; others get none."""
    open_refusals = [f for f in findings if f.case.refused and not f.evidence["declared"].decisive]
    odds, ratios = _Mixture(open_refusals, norm).run()
    log_odds = {f.case.exchange_id: odds + float(ratio) for f, ratio in zip(open_refusals, ratios, strict=True)}
    detectors = {name for name in TEXT_DETECTORS if any(_log_e(f.evidence, name) is not None for f in open_refusals)}
    needed = accusable([text_log_e(f.evidence, detectors) for f in open_refusals], alpha)
    verdicts = []
    for finding in findings:
        if finding.case.outcome not in NON_COMPLIANCES:
            continue
        if finding.evidence["declared"].decisive:
            verdicts.append(_declared(finding))
        elif finding.case.exchange_id in log_odds:
            verdicts.append(_weighed(finding, log_odds[finding.case.exchange_id], detectors, needed, alpha))
        else:
            verdicts.append(_silent(finding))
    return verdicts


def accusable(log_es: Sequence[float], alpha: float) -> float:
    """Return the smallest log e-value that may accuse one of n refusals.

    The k largest do where they are at least n/(α·k), for the largest such k. That keeps the expected share of wrong
    accusations below α under any dependence (e-BH; Wang & Ramdas 2022, "False discovery rate control with e-values").
    Infinite where none may.
    """
    ordered = sorted(log_es, reverse=True)
    limits = [math.log(len(ordered) / (alpha * rank)) for rank in range(1, len(ordered) + 1)]
    return min((limit for log_e, limit in zip(ordered, limits, strict=True) if log_e >= limit), default=math.inf)


def _declared(finding: Finding) -> Verdict:
    found = finding.evidence["declared"]
    who, probability = ("platform", 1.0) if found.llr > 0 else ("model", 0.0)
    mechanism = found.mechanism if who == "platform" else "model_refusal"
    return Verdict(
        finding.case.exchange_id, who, probability, found.log_e or 0.0, mechanism, found.layer, found.sentence
    )


def _weighed(finding: Finding, log_odds: float, detectors: AbstractSet[str], needed: float, alpha: float) -> Verdict:
    probability = 1.0 / (1.0 + math.exp(-max(min(log_odds, _MOST), -_MOST)))
    log_e = text_log_e(finding.evidence, detectors)
    who, mechanism, layer = "undecided", None, None
    wording = _facts(finding.evidence, "likelihood")
    tested = [finding.evidence[name] for name in TEXT_DETECTORS if _log_e(finding.evidence, name) is not None]
    if not tested:
        reason = "No detector could test who wrote this text."
    elif probability >= 1.0 - alpha and log_e >= needed:
        who, mechanism, layer = "platform", "injected_text", "unknown"
        reason = max(tested, key=lambda e: e.log_e or 0.0).sentence
        if _facts(finding.evidence, "accounting").get("prompt_surplus") is None:
            # A hidden prompt that dictates a sentence looks the same. Both are the platform's doing, but which of them
            # it is, only token counts could tell; so no mechanism is claimed.
            mechanism = None
            reason += (
                " The route's token counts could not be checked: the platform wrote this text, or a hidden prompt asks"
                " for it."
            )
    elif probability > alpha or _log_e(finding.evidence, "likelihood") is None:
        reason = "The evidence neither shows nor rules out the platform."
    elif RATIOS not in wording:
        reason = "The weights would not write such a text, but the route's prompt, weights or sampling may be why."
    elif float(wording.get(WHOLE, 0.0)) >= -math.log(alpha):
        reason = "Most of the text is what the weights write, and a few of its words are not."
    else:
        who, mechanism, reason = "model", "model_refusal", "The weights themselves write such a text."
    return Verdict(finding.case.exchange_id, who, probability, log_e, mechanism, layer, reason)


def _silent(finding: Finding) -> Verdict:
    outcome = finding.case.outcome
    reason = f"An answer that is {outcome} has no text to test, and nothing in the bytes declares who stopped it."
    return Verdict(finding.case.exchange_id, "undecided", 0.5, 0.0, None, None, reason)
