"""At which temperature a route samples, read from its ordinary answers.

Given that a token is one of those that the sampler surely lets through, N, it was drawn with p^b / Σ_N p^b, b = 1/T,
whatever the filters do elsewhere. That conditional likelihood needs no bound on the tail, and is an exponential family
in b: concave, with one maximum. The interval is that of the profile likelihood (Wilks; Venzon & Moolgavkar 1988) at
99 %, widened where texts vary more than independent tokens would (score variance between texts over the information:
the sandwich of White 1982).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from probe.evidence.case import COLDEST
from probe.evidence.sampler import Sampler, admitted, surely_admitted
from probe.evidence.tilt import SPARED, Array, TokenTable, log_partition

LEAST_TEXTS, LEAST_TOKENS = 8, 60
"""Below these nothing is estimated."""

_COLD, _WARM = 50.0, 0.2
"""Largest and smallest power looked at: temperatures 0.02 and 5."""

_WARMEST = 2.2
"""No common interface takes a temperature above 2. What looks warmer was not written by these weights."""

_CHI2 = 6.6349
"""99 % of the chi-squared distribution with one degree of freedom."""

NEGLIGIBLE = 0.05
"""A relative difference of temperatures that precision alone brings about (4-bit weights look a little warmer)."""

_TURNS = 0.3
"""Asked for temperature 0, what looks colder is near ties that other precision turns (4-bit weights look like 0.15)."""

_VAGUE = 0.25
"""Relative standard error of a power beyond which texts do not tell it, and the asymptotic interval does not hold."""

_MOST_TOKENS = 6000

_FOREIGN_SHARES = (0.003, 0.01, 0.03, 0.1, 0.3)
_FOREIGN = math.log(100.0)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A route's sampler as its controls show it, beside the one that was ``asked`` for.

    ``power``: 1/temperature, between ``low`` and ``high`` (99 %; ``high`` is infinite where no temperature is too
    cold), from ``n`` texts with ``tokens`` tokens. ``differs``: the interval leaves out what was asked for, by more
    than is ``NEGLIGIBLE``. ``greedy``: every temperature in it is below ``COLDEST``. ``filters_kept``: tokens that the
    stated filters forbid are no more frequent than now and then. ``fits`` is false where no temperature of these
    weights explains the texts: then nothing is estimated, and the route must be protected.
    """

    asked: Sampler
    power: float
    low: float
    high: float
    n: int
    tokens: int
    differs: bool
    greedy: bool
    filters_kept: bool = True
    fits: bool = True

    @property
    def samplers(self) -> tuple[Sampler, ...]:
        """Samplers between which the true one lies; only the asked one where nothing speaks against it."""
        base = self.asked if self.filters_kept else self.asked.unfiltered()
        if not self.differs or self.greedy:
            return (base,)
        if self.asked.greedy:
            base = Sampler()
        high = min(self.high, 1.0 / COLDEST)
        return tuple(base.at(float(power)) for power in np.geomspace(min(self.low, high), high, 5))

    @property
    def sentence(self) -> str:
        """What the controls look like, in words."""
        if not self.fits:
            return f"controls look like no temperature of these weights, n = {self.n}"
        low, high = (math.inf if not power else 1.0 / power for power in (self.high, self.low))
        best = 0.0 if self.power == _COLD else 1.0 / self.power
        found = f"asked {self.asked.temperature:g}, controls look like {best:.2f} [{low:.2f}, {high:.2f}], n = {self.n}"
        return found if self.filters_kept else f"{found}; the filters that were asked for do not show"


def estimate(tables: Sequence[TokenTable], asked: Sampler) -> Estimate | None:
    """Estimate the sampler behind texts that were all asked for alike; ``None`` where they are too few."""
    tables = [table for table in tables if len(table.surprisal)]
    if len(tables) < LEAST_TEXTS or sum(len(table.surprisal) for table in tables) < LEAST_TOKENS:
        return None
    kept = asked.greedy or _filters_kept(tables, asked)
    assumed = asked if kept else asked.unfiltered()
    if asked.greedy:
        assumed = Sampler()
    fit = _fit(tables, assumed)
    if assumed.filters and not asked.greedy and fit.power > assumed.power:
        # A colder sampler that filters last lets fewer tokens through.
        fit = _fit(tables, assumed.at(min(fit.power, 1.0 / COLDEST)))
    low, high = fit.low, fit.high
    greedy = low >= 1.0 / COLDEST
    if asked.greedy:
        # How much colder than that a sampler is cannot be told and does not matter.
        differs = high < 1.0 / _TURNS
    else:
        differs = high < asked.power * (1.0 - NEGLIGIBLE) or low > asked.power / (1.0 - NEGLIGIBLE)
    found = Estimate(
        asked=asked,
        power=fit.power,
        low=low,
        high=high,
        n=len(tables),
        tokens=sum(len(table.surprisal) for table in tables),
        differs=differs,
        greedy=greedy,
        filters_kept=kept,
    )
    if differs and not greedy and not _fits(tables, found):
        return replace(found, differs=False, fits=False)
    return found


@dataclass(frozen=True, slots=True)
class _Fit:
    power: float
    low: float
    high: float


class _Likelihood:
    """The conditional log-likelihood of a power: its slope, and its value less that at another power."""

    def __init__(self, tables: Sequence[TokenTable], sampler: Sampler) -> None:
        width = max(table.top.shape[1] for table in tables)
        tops, own, texts = [], [], []
        for number, table in enumerate(tables):
            sure = surely_admitted(table, sampler)
            listed = np.where(sure, table.top, -np.inf)
            least = np.min(np.where(sure, table.top, np.inf), axis=1, initial=np.inf)
            use = (sure.sum(axis=1) > 1) & (-table.surprisal >= least - 1e-6)
            wide = np.full((int(use.sum()), width), -np.inf)
            wide[:, : listed.shape[1]] = listed[use]
            tops.append(wide)
            own.append(-table.surprisal[use])
            texts.append(np.full(len(wide), number))
        self.top = np.concatenate(tops)[:_MOST_TOKENS]
        self.own = np.concatenate(own)[:_MOST_TOKENS]
        self.text = np.concatenate(texts)[:_MOST_TOKENS]

    def slopes(self, power: float) -> tuple[Array, Array]:
        """Return per token the slope, own - mean, and the information, the variance under p^power."""
        finite = np.where(np.isfinite(self.top), self.top, 0.0)
        share = np.exp(power * self.top - self._norm(power)[:, None])
        mean = (share * finite).sum(axis=1)
        return self.own - mean, (share * (finite - mean[:, None]) ** 2).sum(axis=1)

    def value(self, power: float) -> float:
        return float((power * self.own - self._norm(power)).sum())

    def _norm(self, power: float) -> Array:
        return np.asarray(np.logaddexp.reduce(power * self.top, axis=1))


def _fit(tables: Sequence[TokenTable], sampler: Sampler) -> _Fit:
    from scipy.optimize import brentq

    of = _Likelihood(tables, sampler)
    known = len(of.own) >= LEAST_TOKENS and sampler.power**2 * float(of.slopes(sampler.power)[1].sum()) >= _VAGUE**-2
    if not known:
        return _Fit(sampler.power, 0.0, math.inf)

    def slope(power: float) -> float:
        return float(of.slopes(power)[0].sum())

    if slope(_COLD) >= 0:
        power = _COLD
    elif slope(_WARM) <= 0:
        power = _WARM
    else:
        power = float(brentq(slope, _WARM, _COLD, xtol=1e-4))
    slopes, information = of.slopes(power)
    between = float((np.bincount(of.text, slopes) ** 2).sum())
    allowed = of.value(power) - 0.5 * _CHI2 * max(between / max(float(information.sum()), 1e-12), 1.0)

    def beyond(at: float) -> float:
        return of.value(at) - allowed

    low = _WARM if beyond(_WARM) >= 0 else float(brentq(beyond, _WARM, power, xtol=1e-4))
    high = math.inf if beyond(_COLD) >= 0 else float(brentq(beyond, power, _COLD, xtol=1e-4))
    return _Fit(power, low, high)


def _filters_kept(tables: Sequence[TokenTable], asked: Sampler) -> bool:
    """Tell whether forbidden tokens are no more frequent than odd tokenizations of a text make them.

    Hosts drop parameters that they do not know. Believing them when they kept to the filters only costs power, so that
    little is needed to doubt it: one text with more than the test leaves out, or forbidden tokens in 5 % of the texts.
    """
    forbidden = [int(admitted(table, asked).outside.sum()) for table in tables]
    return max(forbidden) <= SPARED and sum(n > 0 for n in forbidden) <= max(1.0, 0.05 * len(forbidden))


def _fits(tables: Sequence[TokenTable], found: Estimate) -> bool:
    """Tell whether some temperature of these weights explains the texts.

    A universal likelihood ratio (Wasserman, Ramdas & Balakrishnan 2020, PNAS 117:16880): the numerator mixes, at fixed
    temperatures, the weights' choices with tokens drawn evenly from the vocabulary, in fixed shares; the denominator
    is the largest likelihood that any temperature gives. Its expectation under every temperature is at most 1.
    """
    if 1.0 / found.high > _WARMEST:
        return False
    own = -np.concatenate([table.surprisal for table in tables])
    even = -math.log(max(table.vocabulary for table in tables))
    best, mixed = -math.inf, []
    for power in np.geomspace(0.4, 1.0 / COLDEST, 25):
        above, below = (
            np.concatenate([log_partition(table, float(power), above=side) for table in tables])
            for side in (True, False)
        )
        best = max(best, float((power * own - below).sum()))
        mixed += [
            float(np.logaddexp(power * own - above + math.log1p(-share), even + math.log(share)).sum())
            for share in _FOREIGN_SHARES
        ]
    # Between two of the grid's temperatures the likelihood is a little higher than at both.
    return float(np.logaddexp.reduce(mixed)) - math.log(len(mixed)) - best - 2.0 < _FOREIGN
