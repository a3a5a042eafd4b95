"""Temperature 0: is every token the weights' most probable one, or as near to it as on this route's ordinary answers?

A greedy sampler takes the argmax, so a token's margin, log p(most probable) - log p(token), is 0. Other precision or
other batch sizes turn near ties; the rest of the text is scored after what was really written, so that one turn makes
one margin and no more. How often that happens is measured, not assumed: on the route's answers to controls and on the
twin's own answers. A foreign text has margins of several nats at most of its places.

The e-value is that of a rank among those genuine texts, so it needs only that they are exchangeable with the tested
one. Two scores are ranked, sum and mean of the margins, and the worse rank counts: a long genuine text has a larger
sum and a short one, by one turn, a larger mean.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from probe.evidence.conformal import LEAST, log_e_from_rank
from probe.evidence.sampler import DRIFT
from probe.evidence.tilt import SPARED, Array, TokenTable

TURNED = 2.0 * DRIFT
"""Nats. A margin larger than this is no near tie."""

RATES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
"""Shares of a foreign text's tokens that are not the weights' argmax: fixed beforehand, as many as there are tilts."""


@dataclass(frozen=True, slots=True)
class Margins:
    """One text's margins in nats.

    ``total`` and ``mean`` (over all tokens) are of what exceeds ``TURNED``, without the ``SPARED`` largest, so that
    near ties accuse nobody; ``largest`` is the whole of the largest.
    ``turned`` counts the tokens with a margin above ``TURNED``, the spared ones included; ``not_first`` those that are
    not the argmax at all; ``at`` is the place of the largest.
    """

    total: float
    mean: float
    largest: float
    turned: int
    not_first: int
    tokens: int
    at: int

    @classmethod
    def of(cls, table: TokenTable) -> "Margins":
        """Measure a text with at least one token."""
        margins = margins_of(table)
        kept = np.maximum(np.sort(margins)[: max(len(margins) - SPARED, 0)] - TURNED, 0.0)
        return cls(
            total=float(kept.sum()),
            mean=float(kept.sum() / len(margins)),
            largest=float(margins.max()),
            turned=int((margins > TURNED).sum()),
            not_first=int((margins > 0).sum()),
            tokens=len(margins),
            at=int(margins.argmax()),
        )

    @property
    def odd(self) -> bool:
        """Whether more tokens are far from the argmax than precision and odd tokenizations bring about."""
        return self.turned > SPARED and self.turned > 0.05 * self.tokens


def margins_of(table: TokenTable) -> Array:
    """Return log p(most probable token) - log p(token) in nats per token, shape (n,), never negative."""
    first = np.max(table.top, axis=1, initial=-np.inf)
    return np.asarray(np.maximum(np.where(np.isfinite(first), first, 0.0) + table.surprisal, 0.0))


@dataclass(frozen=True, slots=True)
class GreedyNorm:
    """Margins of genuine texts written at temperature 0: of all of them, and of the route's controls among them."""

    own: tuple[Margins, ...] = ()
    controls: tuple[Margins, ...] = ()

    @property
    def enough(self) -> bool:
        """Whether a rank among them can say anything."""
        return len(self.own) >= LEAST

    @property
    def turned(self) -> float:
        """Share of genuine tokens that are not the weights' argmax, near ties included."""
        return sum(m.not_first for m in self.own) / max(sum(m.tokens for m in self.own), 1)

    @property
    def highest_rate(self) -> float:
        """Upper 97.5 % limit of the share of genuine tokens that are far from the argmax (Clopper & Pearson 1934).

        Of the whole or of the controls, whichever is larger.
        """
        return max(_upper(group) for group in (self.own, self.controls or self.own))

    @property
    def served_otherwise(self) -> bool:
        """Whether the controls themselves are mostly no greedy texts of these weights."""
        odd = sum(m.odd for m in self.controls)
        return odd > 0 and 2 * odd >= len(self.controls)

    def log_e(self, found: Margins) -> float:
        """Return the log of the e-value: the worse of the ranks of sum and mean, among all and among the controls."""
        groups = [group for group in (self.own, self.controls) if len(group) >= LEAST]
        if not groups:
            return 0.0
        return min(
            log_e_from_rank(score(found), [score(m) for m in group]) for group in groups for score in (_total, _mean)
        )

    def log_ratios(self, found: Margins, spared: int = SPARED) -> Array:
        """Return log likelihood ratios foreign : genuine of the text for every one of ``RATES``, shape (len(RATES),).

        Turned tokens as Bernoulli draws with the genuine texts' rate, taken from above; ``spared`` of them left out.
        """
        rate = self.highest_rate
        turned = max(found.turned - spared, 0)
        straight = found.tokens - found.turned
        others = np.maximum(np.array(RATES), rate)
        return np.asarray(turned * np.log(others / rate) + straight * (np.log1p(-others) - math.log1p(-rate)))

    def cap_ratio(self, found: Margins) -> float:
        """Return the largest log likelihood ratio that a text may have: no more than its rank among genuine ones."""
        above = sum(m.total >= found.total or m.mean >= found.mean for m in self.own)
        return -math.log((above + 1) / (len(self.own) + 1)) if above else math.inf


def _total(margins: Margins) -> float:
    return margins.total


def _mean(margins: Margins) -> float:
    return margins.mean


def _upper(group: Sequence[Margins]) -> float:
    from scipy.special import betaincinv

    turned, tokens = sum(m.turned for m in group), sum(m.tokens for m in group)
    return float(betaincinv(turned + 1, max(tokens - turned, 1), 0.975))


def facts_of(norm: GreedyNorm, found: Margins) -> Mapping[str, float | int]:
    """Return the numbers of a greedy test for the card."""
    return {
        "tokens": found.tokens,
        "not_most_probable": found.not_first,
        "far_from_most_probable": found.turned,
        "largest_margin": round(found.largest, 2),
        "margins": round(found.total, 2),
        "genuine_not_most_probable": round(norm.turned, 4),
        "genuine_texts": len(norm.own),
        "controls": len(norm.controls),
    }
