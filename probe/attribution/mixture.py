"""The posterior of ``platform``: a route's refusals as a mixture of the model's and the platform's, by EM."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probe.attribution.merging import MOST, SIGN, Panel, log_e, saw_other_prompt, wire_log_e
from probe.evidence.base import Evidence
from probe.evidence.case import NON_COMPLIANCES, Case, normalised
from probe.evidence.likelihood import RATIOS
from probe.evidence.repetition import RepetitionNorm

ROUNDS = 500
SHARE = 0.25
"""Share of the refusals that is expected to be a silent platform's before anything is known."""

PSEUDO = 0.5
"""Refusals that the prior on what a platform writes is worth."""

REPEATED = 0.01
"""A text is in the stock where the weights give it to so many traces with at most this probability. Any sentence that
came twice would otherwise be a small platform's whole stock, and make itself probable."""

_STILL = 1e-7
"""Change of a responsibility at which expectation maximisation has arrived."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Finding:
    """A case with what the detectors said about it, by detector name."""

    case: Case
    evidence: Mapping[str, Evidence]

    @property
    def open(self) -> bool:
        """Whether somebody is behind it: only then a verdict is due."""
        return self.case.outcome in NON_COMPLIANCES


def facts(evidence: Mapping[str, Evidence], detector: str) -> Mapping[str, Any]:
    """Return the numbers behind a detector's finding; none where it was not asked."""
    found = evidence.get(detector)
    return {} if found is None else found.facts


class Mixture:
    """The route's refusals as a mixture of the model's and the platform's; responsibilities by EM.

    A platform's text is canned (drawn from a stock that other refusals of the route show), the same at each repeat of a
    trace, or new to the weights, as much as one of the tilts says. How much of each a platform writes is learnt, and
    how often its answers are made in another way than the route's ordinary ones. A refusal's own trace is left out of
    the stock that it is compared with.
    """

    def __init__(self, findings: Sequence[Finding], norm: RepetitionNorm, tested: Panel) -> None:
        groups = [norm.group_of(f.case) for f in findings]
        traces = [f.case.trace_id for f in findings]
        self._group, self._trace = _codes(groups), _codes(traces)
        self._cell = _codes(zip(groups, traces, strict=True))
        self._model = np.log([norm.share_if_model_case(f.case) for f in findings])
        self._new = _new_ratios(findings)
        # How an answer is made: like the ordinary ones, or odd in the way of one of the detectors.
        made = [[0.0, *_wire(f.evidence, tested)] for f in findings]
        self._made = np.array(made).reshape(len(findings), 1 + len(tested.wire))
        self._eligible = np.array([_tail(norm, f.case) <= REPEATED for f in findings], bool)
        self._other = np.array([_nonce(f.evidence) for f in findings])
        self._protected = np.array([norm.protected or saw_other_prompt(f.evidence) for f in findings], bool)
        # Half of a platform's texts are canned, the other kinds share the other half.
        width = self._new.shape[1]
        self._prior = np.array([0.5, *[0.5 / width] * width])

    def run(self) -> tuple[float, Array]:
        """Return the platform's share as log-odds, and log-likelihood ratios platform : model, one per finding."""
        kinds, odds, ratios = self._prior, 0.0, np.zeros(len(self._model))
        even = np.full(self._made.shape[1], 1.0 / self._made.shape[1])
        ways = even
        resp = np.full(len(self._model), 0.5)
        for _ in range(ROUNDS):
            parts = np.column_stack([self._canned(resp), self._new]) + np.log(kinds)
            text = np.logaddexp.reduce(parts, axis=1)
            way = self._made + np.log(ways)
            made = np.logaddexp.reduce(way, axis=1)
            ratios = np.where(self._protected, np.minimum(text, 0.0), text) + made + self._other
            before, resp = resp, 1.0 / (1.0 + np.exp(-np.clip(odds + ratios, -MOST, MOST)))
            # One pseudo-refusal, more likely the model's: a route with few refusals keeps its doubt.
            share = (resp.sum() + SHARE) / (len(resp) + 1.0)
            odds = float(np.log(share / (1.0 - share)))
            weight = resp[:, None] * np.exp(parts - text[:, None])
            kinds = (weight.sum(axis=0) + PSEUDO * self._prior) / (resp.sum() + PSEUDO)
            ways = (resp @ np.exp(way - made[:, None]) + PSEUDO * even) / (resp.sum() + PSEUDO)
            if np.abs(resp - before).max(initial=0.0) < _STILL:
                break
        return odds, ratios

    def _canned(self, resp: Array) -> Array:
        """Return log P(text | stock of the other traces) - log P(text | the weights refuse)."""
        total = resp.sum() - np.bincount(self._trace, resp)[self._trace]
        same = np.bincount(self._group, resp)[self._group] - np.bincount(self._cell, resp)[self._cell]
        # Differences of sums: what is nothing but rounding is no copy.
        share = np.where((same > 1e-9) & (total > 1e-9), same / np.maximum(total, 1e-9), 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(np.where(self._eligible, np.log(share), -np.inf) - self._model)


def _wire(evidence: Mapping[str, Evidence], tested: Panel) -> list[float]:
    """Return log e-values of how an answer is made: an odd envelope or pace alone is taken as chance.

    Bursts of traffic hit neighbouring answers, and would be a small platform's whole doing.
    """
    logs = wire_log_e(evidence, tested)
    odd = {name for name, value in logs.items() if value >= SIGN}
    return [value if len(odd) >= 2 or "accounting" in odd else min(value, 0.0) for value in logs.values()]


def _tail(norm: RepetitionNorm, case: Case) -> float:
    """Return the probability that the weights give so many of the refused traces this text, or this near-copy."""
    text = normalised(case.text)
    if norm.group_of(case) == text:
        return norm.tails.get(text, 1.0)
    return norm.near_tails[norm.near.of[text]]


def _codes(values: Iterable[Hashable]) -> npt.NDArray[np.int64]:
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)


def _new_ratios(findings: Sequence[Finding]) -> Array:
    """Return log ratios foreign : own per finding and kind; 0 where there is no score, a single column without any.

    Where traces were repeated, the last kind repeats itself to one trace.
    """
    found = [facts(f.evidence, "likelihood").get(RATIOS) for f in findings]
    width = max((len(ratios) for ratios in found if ratios), default=1)
    rows = [[*ratios.values()] if ratios else [0.0] * width for ratios in found]
    ratios = np.array(rows, dtype=float).reshape(len(findings), width)
    same = [log_e(f.evidence, "consistency") for f in findings]
    if all(value is None for value in same):
        return ratios
    return np.column_stack([ratios, [-np.inf if value is None else value for value in same]])


def _nonce(evidence: Mapping[str, Evidence]) -> float:
    """Return what the nonce says; nothing where the text is scored, because its score says the same."""
    found = evidence.get("nonce")
    return 0.0 if found is None or RATIOS in facts(evidence, "likelihood") else found.llr
