"""Conformal ranks as e-values: how odd is one answer among the ordinary answers of its route?

A score that treats all members of a bag alike (the reference answers and the tested one) gives ranks that are uniform
when the members are exchangeable: P(rank <= j) <= j/(n+1) for n reference answers, ties counted against oddness (Vovk,
Gammerman & Shafer 2005, "Algorithmic Learning in a Random World", §2.2). A wager that pays (n+1)/j where the rank is at
most j therefore has expectation <= 1, and so has any mixture of such wagers (Vovk & Wang 2021, arXiv 1912.06116, §2:
e-values from p-values by calibrators). All-or-nothing wagers are used because a smooth calibrator never reaches 20 with
50 reference answers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probe.evidence.case import GRADED, Case

BETS: Mapping[int, float] = {1: 0.8, 2: 0.1, 4: 0.05}
"""Rank to stake. What is left of 1 is kept, so that no answer brings the product with other e-values to 0."""

LEAST = 10
"""Reference answers below which nothing is tested."""

MOST = 250
"""Reference answers that are compared with: more of them cost time and can only add to an e-value of 200."""

COMMON = 0.1
"""P-value above which nothing about an answer is worth a word."""

TOLERANCE = 1e-9
"""Scores that are closer count as tied: sums of logarithms differ in their last digits."""

TEXTLESS = frozenset({"cut", "empty", "blocked"})
"""Outcomes whose answer has no text, or only the beginning of one."""

TESTED = frozenset({"refused", "partial"}) | TEXTLESS

NOT_DECLINING = "Not tested: the answer does not decline."

_LEAST_LLR = -0.7
"""An answer made like all others clears nobody: a platform that takes care makes its texts like the model's."""

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def rank_of(score: float, reference: Sequence[float] | Array) -> int:
    """Return 1 + how many reference scores are as odd or odder (larger)."""
    return 1 + int(np.count_nonzero(np.asarray(reference, dtype=float) >= score - TOLERANCE))


def p_value(score: float, reference: Sequence[float] | Array) -> float:
    """Return the conformal p-value rank/(n+1), conservative in ties."""
    return rank_of(score, reference) / (len(reference) + 1)


def e_of_rank(rank: int, n: int, bets: Mapping[int, float] = BETS) -> float:
    """Return the e-value of a rank among ``n`` reference answers and the tested one."""
    kept = 1.0 - sum(bets.values())
    return kept + sum(stake * (n + 1) / most for most, stake in bets.items() if rank <= most)


def log_e_from_rank(score: float, reference: Sequence[float] | Array, bets: Mapping[int, float] = BETS) -> float:
    """Return the natural log of the e-value of a score among reference scores."""
    return math.log(e_of_rank(rank_of(score, reference), len(reference), bets))


def llr_of(log_e: float, n: int) -> float:
    """Return the log-likelihood ratio for the posterior that goes with a conformal e-value."""
    return max(min(log_e, math.log(n + 1)), _LEAST_LLR)


@dataclass(frozen=True)
class References:
    """Which answers of a route are ordinary, by index into the cases that were measured.

    ``texts``: whole answers with a text, to controls whatever they say, and to other traces where they comply.
    ``controls``: answers to controls, whatever became of them. ``traces`` and ``ids`` belong to all cases.
    """

    texts: Indices
    controls: Indices
    traces: tuple[str, ...]
    ids: tuple[str, ...]
    places: Mapping[str, int]

    @classmethod
    def pick(cls, cases: Sequence[Case]) -> "References":
        """Pick from all cases of one route; nothing but outcome, state and kind of trace is looked at."""
        texts = [i for i, case in enumerate(cases) if case.control and _whole(case) and case.outcome in GRADED]
        more = [i for i, case in enumerate(cases) if not case.control and _whole(case) and case.outcome == "complied"]
        controls = [i for i, case in enumerate(cases) if case.control and case.outcome != "error"]
        ids = tuple(case.exchange_id for case in cases)
        return cls(
            texts=_indices([*texts[:MOST], *_spread(more, MOST - len(texts))]),
            controls=_indices(_spread(controls, MOST)),
            traces=tuple(case.trace_id for case in cases),
            ids=ids,
            places={name: place for place, name in enumerate(ids)},
        )

    def of(self, case: Case) -> Indices:
        """Return the reference answers of a tested case: never itself, nor another answer to its trace.

        What is cut or empty is compared with controls only: answers that comply were selected for being whole.
        """
        found = self.controls if case.outcome in TEXTLESS else self.texts
        own = [i for i in found if self.traces[i] == case.trace_id or self.ids[i] == case.exchange_id]
        return found[~np.isin(found, own)] if own else found

    def place(self, case: Case) -> int | None:
        """Return the index of a case among those that were measured."""
        return self.places.get(case.exchange_id)


def _whole(case: Case) -> bool:
    return case.reading.state == "answer" and bool(case.text)


def _spread(found: Sequence[int], most: int) -> list[int]:
    """Return at most ``most`` of the indices, evenly spaced."""
    if len(found) <= most:
        return list(found)
    return [found[i * len(found) // most] for i in range(max(most, 0))]


def _indices(found: Sequence[int]) -> Indices:
    return np.array(found, dtype=np.intp)


def reference_note(n: int) -> str:
    """Say that there is too little to compare with."""
    return f"Not tested: the route has {n} ordinary answers to compare with, {LEAST} are needed."
