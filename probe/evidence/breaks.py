"""Answers that broke off: more often, by length, than the route's controls do?

A connection that breaks by chance breaks at some rate per character sent, whoever asked what. With c breaks in T_c
characters of controls and T_a characters of the other answers, let each early break of the others have the e-value

    e = n · T_c / ((c + 1) · T_a),        n = open non-compliances of the route

Under that null the others' breaks number λ·T_a in expectation at most, and E[1/(c+1)] is about 1/(λ·T_c) at most (it is
for a Poisson c), so that the e-values of a route have the sum n at most: compound e-values (Ignatiadis, Wang & Ramdas
2024), for which e-BH over the same n keeps the share of wrong accusations. In effect: breaks are accused together where
they are 20 times as frequent per character as the controls' (with one added to those).

Only the beginning of an answer counts, up to the length that half of the controls reach: what lies beyond was hardly
compared, and a limit of time or length that only long answers meet is no platform's deed. An answer that broke off
early counts in T_a as if it had got that far: how long it would have been is not known, and taking what was sent would
make one early break look like a high rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probe.evidence.case import NON_COMPLIANCES, Case
from probe.evidence.conformal import LEAST

REACHED = 0.5
"""Quantile of the lengths of whole controls up to which answers are compared."""

_AT_RISK = frozenset({"complied", "refused", "partial", "cut"})


@dataclass(frozen=True, slots=True)
class BreakNorm:
    """What was sent and what broke off on one route, before ``horizon`` characters.

    ``controls``: number of answered controls; ``of_controls`` early breaks among them in ``sent_to_controls``
    characters; ``breaks`` among the other answers in ``sent_to_others``. ``e``: the e-value of each of these breaks;
    1 where there are too few controls.
    """

    horizon: float = 0.0
    controls: int = 0
    of_controls: int = 0
    sent_to_controls: float = 0.0
    breaks: int = 0
    sent_to_others: float = 0.0
    e: float = 1.0

    @classmethod
    def measure(cls, cases: Sequence[Case]) -> "BreakNorm":
        """Count on all answers of one hosted route."""
        at_risk = [case for case in cases if case.outcome in _AT_RISK and not _declared(case)]
        whole = [_length(case) for case in at_risk if case.control and case.outcome != "cut"]
        if len(whole) < LEAST:
            return cls(controls=len(whole))
        horizon = float(np.quantile(whole, REACHED))
        sent, broke = [0.0, 0.0], [0, 0]
        for case in at_risk:
            early = case.outcome == "cut" and _length(case) < horizon
            sent[case.control] += horizon if early and not case.control else min(float(_length(case)), horizon)
            broke[case.control] += early
        openly = sum(case.outcome in NON_COMPLIANCES and not _declared(case) for case in cases)
        e = openly * sent[1] / ((broke[1] + 1) * sent[0]) if sent[0] > 0 else 1.0
        return cls(
            horizon=horizon,
            controls=sum(case.control for case in at_risk),
            of_controls=broke[1],
            sent_to_controls=sent[1],
            breaks=broke[0],
            sent_to_others=sent[0],
            e=e,
        )

    def of(self, case: Case) -> float:
        """Return the e-value of an answer that broke off: 0 where it did so too late to compare, and for a control."""
        if not self.sent_to_others:
            return 1.0
        return self.e if _length(case) < self.horizon and not case.control else 0.0

    @property
    def sentence(self) -> str:
        """What was counted, in words."""
        return (
            f"{self.breaks} answers to other requests broke off within {self.horizon:.0f} characters; "
            f"of {self.controls} controls {self.of_controls or 'none'} did"
        )


def _length(case: Case) -> int:
    return len(case.reading.reasoning) + len(case.text)


def _declared(case: Case) -> bool:
    return len({match.author for match in case.matches} - {"unknown"}) == 1
