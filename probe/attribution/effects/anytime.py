"""The confidence sequence over what is stored: one value per trace, in the order of sending, looked at now and then."""

import numpy as np

from probe.attribution.effects.columns import Columns
from probe.attribution.settings import Settings
from probe.stats.intervals import Interval
from probe.stats.sequential import SequentialTest

EVERY = 10
"""Traces that are looked at one by one; afterwards a look comes when there are ``STEP`` times as many."""

STEP = 1.2


class Looks(SequentialTest):
    """The same sequence with fewer looks: what holds at every n holds at some, and a look costs more than a value."""

    def take(self, values: list[float]) -> None:
        """Take all values; the last is always looked at, so an answer that stopped a run is found again."""
        look = 0.0
        for n, value in enumerate(values, start=1):
            if n < look and n < len(values):
                self.n += 1
                self._count(value)
                continue
            self.add(value)
            look = n + 1 if n < EVERY else n * STEP
        # A last value of 0 changes no capital, but those that were not looked at did.
        self.log_e = self._log_capital(0.0)


def anytime(graded: Columns, settings: Settings) -> Interval:
    """Return the confidence sequence of the difference at the present n, over means of a trace's repeats.

    Its level is 1 - alpha.
    """
    test = Looks(alpha=settings.alpha, delta=settings.delta)
    test.take(trace_means(graded).tolist())
    return test.interval


def trace_means(graded: Columns) -> np.ndarray:
    """Return the mean of hosted - twin per trace, in the order in which traces came first."""
    if not len(graded):
        return np.zeros(0)
    change = graded.of("hosted", "refusal") - graded.of("twin", "refusal")
    _, first, place = np.unique(graded.trace, return_index=True, return_inverse=True)
    means = np.bincount(place, weights=change) / np.bincount(place)
    found: np.ndarray = means[np.argsort(first)]
    return found
