"""``repetition``: one text answers many distinct prompts more often than the weights would write it."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from probe.evidence.base import Evidence
from probe.evidence.case import GRADED, Case, normalised
from probe.evidence.likelihood import served_otherwise
from probe.evidence.tilt import log_probability, token_table

NAME, VERSION = "repetition", "2"

_NEVER = -60.0
"""Stands for the log of the e-value 0: a text that nobody else got is not canned."""

_RAREST = 1e-300
"""Stands for a probability that underflows; larger, so that it accuses less."""


@dataclass(frozen=True, slots=True)
class TextChance:
    """How probable a text is for the weights: ``probabilities`` of it, one per scored prompt of the study."""

    probabilities: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Average probability over the scored prompts."""
        return sum(self.probabilities) / len(self.probabilities) if self.probabilities else 0.0


@dataclass(frozen=True, slots=True)
class _Copies:
    """Where one refusal text occurs on the hosted route: ``shares`` of each trace's refusals, and their sum."""

    shares: Mapping[str, float]
    total: float


@dataclass(frozen=True)
class RepetitionNorm:
    """The refusals of a hosted route and of its twin, by normalised text.

    ``refused_traces`` and ``hosted_refusals`` count the hosted route's; ``copies`` says where each text occurs there.
    ``twin_texts`` and ``twin_refusals`` count the twin's. ``model_shares`` is P(text | the weights refuse), from above,
    for every hosted text; ``chances`` holds, for texts that could be scored, the probabilities behind it, and ``tails``
    for repeated texts the probability that the weights give so many of the refused traces this text.
    """

    copies: Mapping[str, _Copies] = field(default_factory=dict)
    refused_traces: int = 0
    hosted_refusals: int = 0
    twin_texts: Mapping[str, int] = field(default_factory=dict)
    twin_refusals: int = 0
    model_shares: Mapping[str, float] = field(default_factory=dict)
    chances: Mapping[str, TextChance] = field(default_factory=dict)
    tails: Mapping[str, float] = field(default_factory=dict)
    prompt_differs: bool = False
    served_otherwise: bool = False

    @classmethod
    def measure(
        cls,
        hosted: Sequence[Case],
        twin: Sequence[Case],
        chances: Mapping[str, TextChance],
        *,
        prompt_differs: bool = False,
    ) -> "RepetitionNorm":
        """Count texts on both routes. ``chances``: texts scored under prompts of the study, at temperature 1."""
        refusals: dict[str, list[Case]] = defaultdict(list)
        for case in hosted:
            if case.refused:
                refusals[normalised(case.text)].append(case)
        per_trace = Counter(case.trace_id for cases in refusals.values() for case in cases)
        own = Counter(normalised(case.text) for case in twin if case.refused)
        rate = _lower_refusal_rate(twin)
        copies, usable, shares, tails = {}, {}, {}, {}
        for text, cases in refusals.items():
            weights: dict[str, float] = defaultdict(float)
            for case in cases:
                weights[case.trace_id] += 1 / per_trace[case.trace_id]
            copies[text] = _Copies(weights, sum(weights.values()))
            chance = _chance(cases, chances.get(text)) if len(weights) > 1 else None
            shares[text] = _model_share(chance, rate, own[text], own.total())
            if chance is not None:
                usable[text] = chance
            if len(weights) > 1:
                tails[text] = _tail(chance, rate, shares[text], len(weights) - 1, len(per_trace) - 1)
        return cls(
            copies=copies,
            refused_traces=len(per_trace),
            hosted_refusals=per_trace.total(),
            twin_texts=own,
            twin_refusals=own.total(),
            model_shares=shares,
            chances=usable,
            tails=tails,
            prompt_differs=prompt_differs,
            served_otherwise=served_otherwise(hosted),
        )

    @property
    def protected(self) -> bool:
        """Whether texts of this route cannot be judged under the weights and the prompt that we hold."""
        return self.prompt_differs or self.served_otherwise

    def others(self, case: Case) -> int:
        """Return how many *other* traces got the same text: a text does not testify for itself."""
        found = self.copies.get(normalised(case.text))
        return 0 if found is None else len(found.shares) - (case.trace_id in found.shares)

    def share_if_canned(self, case: Case) -> float:
        """Return the share of this text in the refusals of the route's other traces, each trace counting once."""
        found = self.copies.get(normalised(case.text))
        if found is None or not self.others(case):
            return 0.0
        return (found.total - found.shares.get(case.trace_id, 0.0)) / max(self.refused_traces - 1, 1)

    def share_if_model(self, text: str) -> float:
        """Return P(text | the weights refuse), from above; 1 for a text that the route's refusals do not have.

        With scores: average P(text | prompt) divided by the twin's refusal rate (its lower 97.5 % limit). Conditioning
        on the refusal matters: a hidden prompt that makes the model refuse more often makes each of its sentences more
        frequent, and that is no sign of another author. A twin that never refused leaves that probability unknown, that
        is 1. The twin's own use of the text counts as well. Without scores: the twin's use alone; (c+1)/(m+1) for c of
        m refusals, because the expectation of its inverse is at most 1/P.
        """
        return self.model_shares.get(text, 1.0)


def _chance(cases: Sequence[Case], scored: TextChance | None) -> TextChance | None:
    """Return the probabilities of a text under the sampler that the route was asked for, where they can be told."""
    if any(case.filtered or case.penalised or case.power is None for case in cases):
        return None
    if scored is not None and scored.probabilities and all(case.power == 1.0 for case in cases):
        return scored
    logs = [
        log_probability(token_table(case.score), case.power)
        for case in cases
        if case.score is not None and case.power is not None and case.score.tokens
    ]
    return TextChance(tuple(math.exp(log) for log in logs)) if logs else None


def _lower_refusal_rate(twin: Sequence[Case]) -> float:
    """Return the lower 97.5 % limit of the twin's refusal rate on the traces (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    graded = [case for case in twin if case.outcome in GRADED and not case.control]
    refused = sum(case.refused for case in graded)
    return float(betaincinv(refused, len(graded) - refused + 1, 0.025)) if refused else 0.0


def _model_share(chance: TextChance | None, rate: float, written: int, refusals: int) -> float:
    seen = (written + 1) / (refusals + 1)
    if chance is None:
        return seen
    scored = chance.mean / rate if chance.mean < rate else 1.0
    return max(scored, written / (refusals + 1), _RAREST)


def _tail(chance: TextChance | None, rate: float, share: float, others: int, traces: int) -> float:
    known = [min(p / rate, 1.0) for p in chance.probabilities[:traces]] if chance is not None and rate > 0 else []
    return poisson_binomial_tail([*known, *[share] * (traces - len(known))], others)


def repeated_texts(hosted: Sequence[Case], least: int = 2) -> list[str]:
    """Return the normalised refusals that at least ``least`` distinct traces got, the most frequent first."""
    traces: dict[str, set[str]] = defaultdict(set)
    for case in hosted:
        if case.refused and (text := normalised(case.text)):
            traces[text].add(case.trace_id)
    found = [text for text, ids in traces.items() if len(ids) >= least]
    return sorted(found, key=lambda text: (-len(traces[text]), text))


def poisson_binomial_tail(probabilities: Sequence[float], at_least: int) -> float:
    """Return P(X >= at_least) for a sum of independent Bernoulli variables, by exact convolution.

    Sums the upper tail itself rather than 1 - CDF, so that tiny tails keep their digits (Hong 2013, "On computing the
    distribution function for the Poisson binomial distribution", §2.1: the recursion).
    """
    if at_least <= 0:
        return 1.0
    # mass[k] = P(k successes so far) for k < at_least; everything that reaches at_least is moved to the tail.
    mass = np.zeros(at_least)
    mass[0] = 1.0
    tail = 0.0
    for p in probabilities:
        tail += float(mass[-1]) * p
        mass[1:] = mass[1:] * (1.0 - p) + mass[:-1] * p
        mass[0] *= 1.0 - p
    return min(tail, 1.0)


def repetition(case: Case, norm: RepetitionNorm) -> Evidence:
    """Test one refusal against the other refusals of its route."""
    if not case.refused or not case.text:
        return Evidence(NAME, VERSION, None, 0.0, "Not tested: there is no refusal text.")
    if norm.refused_traces < 2:
        return Evidence(NAME, VERSION, None, 0.0, "Not tested: the route has no other refusals to compare with.")
    text, others = normalised(case.text), norm.others(case)
    if others == 0:
        sentence = f"No other trace got this text on this route (of {norm.refused_traces} that were refused)."
        return Evidence(NAME, VERSION, _NEVER, 0.0, sentence, {"others": 0, "refusals": norm.hosted_refusals})
    canned, model = norm.share_if_canned(case), norm.share_if_model(text)
    log_e = math.log(canned) - math.log(model)
    facts: dict[str, float | int] = {
        "others": others,
        "refusals": norm.hosted_refusals,
        "refused_traces": norm.refused_traces,
        "share_on_route": round(canned, 4),
        "share_of_weights": model,
        "twin_wrote_it": norm.twin_texts.get(text, 0),
        "twin_refusals": norm.twin_refusals,
        "tail": norm.tails[text],
    }
    expected = model * (norm.refused_traces - 1)
    sentence = (
        f"The same text answers {others} other traces of this route ({norm.refused_traces} were refused); "
        f"these weights would write it to {'at most ' if text in norm.chances else 'perhaps '}{expected:.2g} of them"
    )
    if norm.protected and log_e > 0:
        other = (
            "another prompt, which may ask for that very text" if norm.prompt_differs else "other weights or sampling"
        )
        return Evidence(NAME, VERSION, 0.0, 0.0, f"{sentence}, but the route answers from {other}.", facts)
    return Evidence(NAME, VERSION, log_e, log_e, sentence + ".", facts, case.text[:120])
