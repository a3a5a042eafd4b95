"""A test that may be looked at after every trace: when is the question "do the two routes differ?" answered?

The values are differences hosted - twin of one trace each, in [-1, 1]. For a candidate mean m one bets on them: with a
fraction c of what is safe, on "more than m" or on "less". The mean of all bets' capital,

    K(m) = sum over c of w(c) / 2 * ( prod(1 - c + c (1 + d) / (1 + m)) + prod(1 - c + c (1 - d) / (1 - m)) ),

is a non-negative martingale that starts at 1 if m is the mean of every next value given those before, so it ever
reaches 1 / alpha with probability alpha at most (Ville 1939). Betting: Waudby-Smith & Ramdas 2024, JRSS-B 86:1, §4; a
mixture over bets instead of a plug-in bet: their §4.3 ("hedging", "diversified") and Robbins 1970.

K(0) is the e-process on discordant pairs: values of 0 leave it as it is. The means that were never given up, K(m) <
1 / alpha at all n so far, are the confidence sequence. Both answers rest on one and the same event, that the true mean
is ever given up: "different" gives up 0, "same within delta" gives up everything beyond ±delta. So the error of both
together is alpha at most, and alpha is spent once.
"""

from functools import cache
from math import exp, log
from typing import Literal

import numpy as np
import numpy.typing as npt

from probe.stats.intervals import Interval

Answer = Literal["different", "same within δ"]
DIFFERENT: Answer = "different"
SAME: Answer = "same within δ"

SHAPE = 0.25
"""The bets are spread like Beta(1/4, 1/4) over the probability (1 + c) / 2 that a discordant pair goes one way.

With a to one side and b to the other, K(0) = 2^(a+b) B(a + 1/4, b + 1/4) / B(1/4, 1/4). Six that all go one way give
20.09, just above 1 / 0.05: a platform that blocks much makes nearly all pairs go one way, so the bets crowd there, as
far as needed to ask for no more pairs than McNemar's exact test. Still a fifth of the weight is on bets below 1/2,
which win where the difference is small.
"""

BETS = 32
"""Bets to either side, at the nodes of Gauss's quadrature: K(0) is exactly that of the Beta mixture for up to 127
discordant pairs, and valid always (any mixture is). The smallest bet is 0.025, so a surplus of one discordant pair in
fifty is still found some day."""

_SMALL = 1e-9
"""How close to where K(m) crosses 1 / alpha a limit is sought, in ln K; always on the side that keeps more."""

_Array = npt.NDArray[np.float64]


@cache
def _bets() -> tuple[_Array, _Array]:
    """Return fractions c in (0, 1), as a column, and log weights that add up to 1 over both sides.

    Nodes and weights of Gauss–Jacobi quadrature for the weight (1 - x²)^(SHAPE - 1), from the eigenvectors of its
    Jacobi matrix (Golub & Welsch 1969, Math. Comp. 23:221); by symmetry the positive half of the nodes.
    """
    k = np.arange(1, 2 * BETS, dtype=np.float64)
    twice = 2 * (SHAPE - 1)
    beside = np.sqrt(k * (k + twice) / ((2 * k + twice + 1) * (2 * k + twice - 1)))
    nodes, vectors = np.linalg.eigh(np.diag(beside, 1) + np.diag(beside, -1))
    weights = 2 * vectors[0, BETS:] ** 2
    return nodes[BETS:, None], np.log(weights / weights.sum() / 2)


class SequentialTest:
    """Values one by one; an answer as soon as there is one, and an interval that holds at all n together.

    The values must come in an order that does not depend on themselves, such as that of a shuffled plan, one per trace:
    repeats of a trace are averaged first, for they are not independent. ``n`` counts them, ``log_e`` is ln K(0) now.
    """

    def __init__(self, *, alpha: float = 0.05, delta: float = 0.05) -> None:
        """``alpha``: error rate of all answers together; ``delta``: differences up to it count as none.

        Raises ``ValueError`` where one of them is not between 0 and 1.
        """
        for name, value in (("alpha", alpha), ("delta", delta)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, not be {value}.")
        self.alpha = alpha
        self.delta = delta
        self.n = 0
        self.log_e = 0.0
        self._places: dict[float, int] = {}
        self._values = self._times = np.zeros(0)
        self._sides = np.zeros((2, 1, 0))
        self._lo = -1.0
        self._hi = 1.0
        self._answer: Answer | None = None

    def add(self, value: float) -> None:
        """Take the difference of one more trace. Raises ``ValueError`` outside [-1, 1], and then nothing changes."""
        value = float(value)
        if not -1.0 <= value <= 1.0:
            raise ValueError(f"A difference of refusal rates lies between -1 and 1, not at {value}.")
        self.n += 1
        self._count(value)
        if value:
            self.log_e = self._log_capital(0.0)
        self._narrow()
        if self._answer is None:
            self._answer = self._answer_now()

    @property
    def interval(self) -> Interval:
        """The confidence sequence at this n: the means that were given up at none of the looks so far.

        It never widens. The estimate is the plain mean; in one run of 1 / alpha at most, where the truth was given up,
        it may come to lie outside, and the limits then stay where they met.
        """
        if self.n == 0:
            return Interval(None, -1.0, 1.0, 0, "none", 1 - self.alpha)
        return Interval(self._mean, self._lo, self._hi, self.n, "confidence sequence", 1 - self.alpha)

    @property
    def answer(self) -> Answer | None:
        """The first answer that the values gave; more of them do not take it back. ``None``: the question is open."""
        return self._answer

    def _count(self, value: float) -> None:
        """Keep equal values once, with how often they came: their order does not matter to K."""
        place = self._places.setdefault(value, len(self._places))
        if place == len(self._times):
            self._values, self._times = np.append(self._values, value), np.append(self._times, 0.0)
            self._sides = np.stack((1.0 + self._values, 1.0 - self._values))[:, None, :]
        self._times[place] += 1.0

    @property
    def _mean(self) -> float:
        return float(self._values @ self._times) / self.n

    def _answer_now(self) -> Answer | None:
        if self.log_e >= -log(self.alpha) or self._lo > 0 or self._hi < 0:
            return DIFFERENT
        return SAME if -self.delta <= self._lo and self._hi <= self.delta else None

    def _narrow(self) -> None:
        """Give up more means: move each limit to where K(m) is 1 / alpha now, if that is further in.

        The mean of the values themselves is never given up (all bets against it have lost), so it parts the two sides.
        """
        mean = self._mean
        if self._lo < mean:
            self._lo = min(self._crossing(self._lo, mean, 1.0), self._hi)
        if self._hi > mean:
            self._hi = max(-self._crossing(-self._hi, -mean, -1.0), self._lo)

    def _crossing(self, limit: float, mean: float, sign: float) -> float:
        """Where K falls to 1 / alpha between ``limit`` and ``mean``; ``limit`` where it is below already.

        ``sign`` -1 looks from the other end: at the mirrored values. Newton's method on ln K over u = ln(1 + m): each
        capital is a product of sums of exponentials of convex functions of u, so ln K is convex, and the steps, which
        start where K is too high, never go past the crossing. What is kept is therefore never too little.
        """
        m = max(limit, -1.0 + _SMALL)  # at the very end of the possible K may be infinite
        while True:
            if self._log_capital(sign * m) + log(self.alpha) <= _SMALL:
                return limit
            height, slope = self._with_slope(sign * m)
            above, steep = height + log(self.alpha), sign * slope * (1.0 + m)
            if steep >= 0.0:
                return limit
            step = (1.0 + m) * exp(-above / steep) - 1.0
            if step <= m or step >= mean:  # as near as floating point goes
                return limit
            m = limit = step

    def _log_capital(self, m: float) -> float:
        """Return ln K(m)."""
        return self._with_slope(m, slope=False)[0]

    def _with_slope(self, m: float, *, slope: bool = True) -> tuple[float, float]:
        """Return ln K(m) and, where asked for, its derivative in m; else 0."""
        bets, log_weights = _bets()
        odds = self._sides / np.array([[[1.0 + m]], [[1.0 - m]]])
        factors = bets * (odds - 1.0) + 1.0
        capital = np.log(factors) @ self._times + log_weights
        top = capital.max()
        shares = np.exp(capital - top)
        total = float(shares.sum())
        height = float(top) + log(total)
        if not slope:
            return height, 0.0
        change = shares * ((bets * odds / factors) @ self._times)
        falls, rises = change.sum(axis=1) / total
        return height, float(rises) / (1.0 - m) - float(falls) / (1.0 + m)
