"""The sampler's settings in the null: which tokens it lets through, and how it weighs them.

A sampler draws from p^(1/T), cut to a set A of most probable tokens (top-k, top-p, min-p) and renormalised. Servers do
that in different orders: llama.cpp filters first and applies the temperature last (``tools/server/README.md``,
``samplers``), vLLM and Transformers apply the temperature first; some renormalise between two filters. And the host's
logits are not ours to the last digit. So A is known only between two sets: ``admitted`` makes the larger, outside of
which no order of filters on any such host can draw, ``surely_admitted`` the smaller, inside of which every one can.
"Such a host" is one whose logits are each within ``DRIFT`` of ours.

Why the larger set is the cautious one: with A ⊆ B both made of most probable tokens, the tilted likelihood ratio that
is right for B, f_B = p^(-s·b) · Σ_B p^b / Σ_B p^(b(1-s)) with b = 1/T, has under A the expectation
[Σ_A p^(b(1-s)) / Σ_A p^b] · [Σ_B p^b / Σ_B p^(b(1-s))] <= 1, because the first factor is the average of p^(-sb) over
the sampler's draws, and less probable tokens only raise that average. A token outside B has probability 0 under the
null, so whatever it counts adds nothing to an expectation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from probe.evidence.case import COLDEST, number_or
from probe.evidence.tilt import SLACK, Array, TokenTable, log_partition, log_probability

DRIFT = 0.25
"""Nats by which a logit of the host may be off ours (bf16 against float32: a few hundredths; 4-bit weights: mostly
below a quarter). Two tokens may so change places where they are less than twice that apart."""

_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Sampler:
    """A sampler's settings. ``top_p`` 1, ``top_k`` 0 and ``min_p`` 0 switch a filter off."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    @classmethod
    def of(cls, sampling: Mapping[str, Any]) -> "Sampler | None":
        """Return the sampler that a request states, or ``None`` where a setting is no number that a sampler takes.

        What is not stated is taken as off, and the temperature as 1: a server's narrower default makes its texts less
        surprising, which accuses nobody. -1 is another way to switch a filter off (vLLM).
        """
        found = {name: number_or(sampling.get(name), off) for name, off in _OFF.items()}
        if any(
            value is None or (value < 0 and (value != -1 or name == "temperature")) for name, value in found.items()
        ):
            return None
        values = {name: _OFF[name] if value in {None, -1.0} else float(value or 0.0) for name, value in found.items()}
        if values["min_p"] > 1.0 or values["top_k"] % 1:
            return None
        return cls(values["temperature"], min(values["top_p"], 1.0), int(values["top_k"]), values["min_p"])

    @property
    def power(self) -> float:
        """1/temperature, to which probabilities are raised; infinite for temperature 0."""
        return 1.0 / self.temperature if self.temperature else math.inf

    @property
    def greedy(self) -> bool:
        """Whether it takes the most probable token: very cold, or no other is let through."""
        return self.temperature < COLDEST or self.top_k == 1

    @property
    def filters(self) -> bool:
        """Whether it lets only some tokens through."""
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0

    def at(self, power: float) -> "Sampler":
        """Return the same filters at another temperature."""
        return replace(self, temperature=1.0 / power)

    def unfiltered(self) -> "Sampler":
        """Return the same temperature without filters."""
        return Sampler(self.temperature)


_OFF = {"temperature": 1.0, "top_p": 1.0, "top_k": 0.0, "min_p": 0.0}


def admitted(table: TokenTable, sampler: Sampler) -> TokenTable:
    """Return the table of what a sampler may draw from, at the most; ``outside`` marks tokens that it cannot."""
    if not sampler.filters:
        return table
    least = _most_admitting(table, sampler)
    tail = np.isneginf(least) | (table.least > np.exp(np.minimum(least, 0.0)))
    # Between the threshold and the least reported token there is room for so many at the most.
    room = (table.rest + SLACK) * np.exp(np.minimum(-least, 700.0))
    others = np.where(tail, np.where(np.isneginf(least), table.others, np.minimum(table.others, np.floor(room))), 0.0)
    return replace(
        table,
        top=np.where(table.top >= least[:, None] - _ROUNDING, table.top, -np.inf),
        rest=np.where(others > 0, table.rest, 0.0),
        others=others,
        surely=np.where(np.isneginf(least), table.surely, 0.0),
        outside=-table.surprisal < least - _ROUNDING,
        choices=min(table.vocabulary, sampler.top_k) if sampler.top_k else table.vocabulary,
        filtered=True,
    )


def _most_admitting(table: TokenTable, sampler: Sampler) -> Array:
    """Return the log-probability below which no token is drawn, shape (n,).

    Under logits that are off by ``DRIFT``, only a token more probable by twice that surely precedes another one, and
    a mass m of tokens is at least m/(m + (1-m)·exp(2·DRIFT)).
    """
    least = np.full(len(table.surprisal), -np.inf)
    top = -np.sort(-table.top, axis=1)
    width = top.shape[1]
    if 0 < sampler.top_k <= width:
        least = np.maximum(least, top[:, sampler.top_k - 1])
    if sampler.top_p < 1.0 and width:
        least = np.maximum(least, np.minimum(*(_nucleus(table, top, sampler.top_p, a) for a in (1.0, sampler.power))))
    if sampler.min_p > 0.0 and width:
        least = np.maximum(least, top[:, 0] + math.log(sampler.min_p) * max(1.0, sampler.temperature))
    return least - 2.0 * DRIFT


def _nucleus(table: TokenTable, top: Array, top_p: float, power: float) -> Array:
    norm = np.exp(log_partition(table, power, above=True))[:, None] if power != 1.0 else 1.0
    mass = np.minimum(np.cumsum(np.exp(power * top), axis=1) / norm, 1.0)
    reached = mass / (mass + (1.0 - mass) * math.exp(2.0 * DRIFT * power)) >= top_p
    reached &= np.isfinite(top)
    rows = np.arange(len(top))
    return np.where(reached.any(axis=1), top[rows, reached.argmax(axis=1)], -np.inf)


def surely_admitted(table: TokenTable, sampler: Sampler) -> Array:
    """Return which of the reported tokens every such host lets through, as booleans of the shape of ``table.top``."""
    top, size = table.top, table.top.shape[1]
    sure = np.isfinite(top)
    if not sampler.filters or not size:
        return sure
    # near[i, j, l]: token l may precede token j on the host (or is j itself).
    near = top[:, None, :] >= top[:, :, None] - 2.0 * DRIFT
    inside = top > table.least_log[:, None] + 2.0 * DRIFT
    known = (table.others == 0)[:, None]
    if sampler.top_k:
        sure &= (near.sum(axis=2) <= sampler.top_k) & (known | inside)
    kept = np.where(sure, top, -np.inf)
    if sampler.top_p < 1.0:
        for power in (1.0, sampler.power):
            # After top-k, servers renormalise: the share is that of what surely passed it.
            norm = kept if sampler.top_k else log_partition(table, power, above=False)[:, None] / power
            whole = np.exp(power * norm).sum(axis=1, keepdims=True)
            each = np.exp(power * top)
            before = (near * each[:, None, :]).sum(axis=2) - each
            share = np.minimum(before / np.where(whole > 0, whole, 1e-300), 1.0)
            widened = share * math.exp(2.0 * DRIFT * power)
            sure = sure & (known | inside) & (widened < sampler.top_p * (widened + 1.0 - share))
    if sampler.min_p > 0.0:
        first = top.max(axis=1, keepdims=True)
        sure &= top >= first + math.log(sampler.min_p) * min(1.0, sampler.temperature) + 2.0 * DRIFT
    return sure


def log_probability_at_most(table: TokenTable, sampler: Sampler) -> float:
    """Return the log of the text's probability under a sampler, from above, not counting that it ends there.

    Of the tokens that share the mass only those count which the sampler surely lets through; a host that cuts off more
    makes the text no more probable than that. 0 for a greedy sampler, which may write it every time.
    """
    if sampler.greedy:
        return 0.0
    if not sampler.filters:
        return log_probability(table, sampler.power)
    logs = np.where(surely_admitted(table, sampler), sampler.power * table.top, -np.inf)
    own = -sampler.power * table.surprisal
    # The token itself is let through, or the text has probability 0.
    norm = np.maximum(np.logaddexp.reduce(logs, axis=1) if logs.shape[1] else own, own)
    return float(min((own - norm).sum(), 0.0))
