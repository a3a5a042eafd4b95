"""``repetition``: one text answers many distinct prompts more often than the weights would write it."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from probe.evidence.base import Evidence
from probe.evidence.case import Case, normalised

NAME, VERSION = "repetition", "1"

_NEVER = -60.0
"""Stands for the log of the e-value 0: a text that nobody else got is not canned."""


@dataclass(frozen=True, slots=True)
class TextChance:
    """How probable a text is for the weights: ``probabilities`` of it, one per scored prompt of the study."""

    probabilities: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Average probability over the scored prompts."""
        return sum(self.probabilities) / len(self.probabilities) if self.probabilities else 0.0


@dataclass(frozen=True)
class RepetitionNorm:
    """The refusals of a hosted route and of its twin.

    ``traces`` has, per normalised text, the distinct traces that a hosted refusal with it answers; ``hosted_refusals``
    and ``twin_refusals`` count refusals, ``twin_answers`` all gradeable answers of the twin; ``twin_texts`` counts the
    twin's refusals per text. ``chances`` holds what scoring says of repeated texts.
    """

    traces: Mapping[str, frozenset[str]] = field(default_factory=dict)
    hosted_refusals: int = 0
    twin_texts: Mapping[str, int] = field(default_factory=dict)
    twin_refusals: int = 0
    twin_answers: int = 0
    chances: Mapping[str, TextChance] = field(default_factory=dict)
    prompt_differs: bool = False

    @classmethod
    def measure(
        cls,
        hosted: Sequence[Case],
        twin: Sequence[Case],
        chances: Mapping[str, TextChance],
        *,
        prompt_differs: bool = False,
    ) -> "RepetitionNorm":
        """Count texts on both routes."""
        traces: dict[str, set[str]] = defaultdict(set)
        for case in hosted:
            if case.refused:
                traces[normalised(case.text)].add(case.trace_id)
        own = [case for case in twin if case.refused]
        return cls(
            traces={text: frozenset(ids) for text, ids in traces.items()},
            hosted_refusals=sum(case.refused for case in hosted),
            twin_texts=Counter(normalised(case.text) for case in own),
            twin_refusals=len(own),
            twin_answers=len(twin),
            chances=chances,
            prompt_differs=prompt_differs,
        )

    def others(self, case: Case) -> int:
        """Return how many *other* traces got the same text: a text does not testify for itself."""
        return len(self.traces.get(normalised(case.text), frozenset()) - {case.trace_id})

    def share_if_canned(self, case: Case) -> float:
        """Return the share of the route's other refusals that have this text."""
        return self.others(case) / max(self.hosted_refusals - 1, 1)

    def share_if_model(self, text: str) -> float:
        """Return P(text | the weights refuse), from above.

        With scores: average P(text | prompt) divided by the twin's refusal rate (its lower 95 % limit). Conditioning
        on the refusal matters: a hidden prompt that makes the model refuse more often makes each of its sentences more
        frequent, and that is no sign of another author. The twin's own use of the text counts as well.
        """
        seen = (self.twin_texts.get(text, 0) + 1) / (self.twin_refusals + 1)
        chance = self.chances.get(text)
        if chance is None:
            return seen
        n, rate = max(self.twin_answers, 1), self.twin_refusals / max(self.twin_answers, 1)
        lower = max(rate - 1.96 * math.sqrt(rate * (1 - rate) / n), 1 / n)
        scored = min(chance.mean / lower, 1.0)
        return max(scored, 1e-300) if not self.twin_texts.get(text) else max(scored, seen / 2)


def repeated_texts(hosted: Sequence[Case], least: int = 2) -> list[str]:
    """Return the normalised refusals that at least ``least`` distinct traces got, the most frequent first."""
    norm = RepetitionNorm.measure(hosted, (), {})
    return sorted(
        (text for text, traces in norm.traces.items() if len(traces) >= least and text),
        key=lambda text: (-len(norm.traces[text]), text),
    )


def poisson_binomial_tail(probabilities: Sequence[float], at_least: int) -> float:
    """Return P(X >= at_least) for a sum of independent Bernoulli variables, by exact convolution.

    Sums the upper tail itself rather than 1 - CDF, so that tiny tails keep their digits (Hong 2013, "On computing the
    distribution function for the Poisson binomial distribution", §2.1: the recursion).
    """
    if at_least <= 0:
        return 1.0
    # mass[k] = P(k successes so far) for k < at_least; everything that reaches at_least is moved to the tail.
    mass = [1.0] + [0.0] * (at_least - 1)
    tail = 0.0
    for p in probabilities:
        tail += mass[-1] * p
        for k in range(at_least - 1, 0, -1):
            mass[k] = mass[k] * (1.0 - p) + mass[k - 1] * p
        mass[0] *= 1.0 - p
    return min(tail, 1.0)


def repetition(case: Case, norm: RepetitionNorm) -> Evidence:
    """Test one refusal against the other refusals of its route."""
    if not case.refused or not case.text:
        return Evidence(NAME, VERSION, None, 0.0, "Not tested: there is no refusal text.")
    text = normalised(case.text)
    others = norm.others(case)
    if norm.hosted_refusals < 2:
        return Evidence(NAME, VERSION, None, 0.0, "Not tested: the route has no other refusals to compare with.")
    canned, model = norm.share_if_canned(case), norm.share_if_model(text)
    if others == 0:
        sentence = f"No other trace got this text on this route (of {norm.hosted_refusals} refusals)."
        return Evidence(NAME, VERSION, _NEVER, 0.0, sentence, {"others": 0, "refusals": norm.hosted_refusals})
    log_e = math.log(canned) - math.log(model)
    facts: dict[str, float | int | str] = {
        "others": others,
        "refusals": norm.hosted_refusals,
        "share_on_route": round(canned, 4),
        "share_of_weights": model,
        "twin_wrote_it": norm.twin_texts.get(text, 0),
    }
    chance = norm.chances.get(text)
    sentence = f"The same text answers {others} other traces of this route ({norm.hosted_refusals} refusals in all)"
    if chance is not None:
        expected = chance.mean * norm.twin_answers
        facts["expected_in_twin_answers"] = expected
        # Prompts that were not scored are taken at the mean, which makes the tail heavier, not lighter (Hoeffding
        # 1956).
        facts["tail"] = poisson_binomial_tail([chance.mean] * norm.twin_answers, others + 1)
        sentence += f"; these weights would write it {expected:.2g} times in {norm.twin_answers} answers"
    if norm.prompt_differs and log_e > 0:
        return Evidence(
            NAME, VERSION, 0.0, 0.0, sentence + ", but under another prompt, which may ask for that very text.", facts
        )
    return Evidence(NAME, VERSION, log_e, log_e, sentence + ".", facts, case.text[:120])
