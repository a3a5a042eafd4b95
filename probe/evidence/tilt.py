"""The exponential tilting test: is a text more surprising to the weights than texts of their own are?

Let I = -log p(token) be a token's surprisal under the sampler's distribution p. For s in (0, 1), the weights tilted to
q(x) ∝ p(x)^(1-s) are a proper distribution over texts, so the likelihood ratio Π q/p = exp Σ (s·I - K(s)) with K(s) =
log Σ p^(1-s) is an e-value against "drawn from p" (expectation 1; Grünwald, de Heide & Koolen 2024, "Safe testing",
§1). Tilting to s is sampling at temperature 1/(1-s): the alternative is an author whose choices the weights find
plausible but not theirs. Averages over s stay e-values, and so does anything smaller.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probe.scoring.base import TextScore

TILTS = (0.5, 0.7, 0.9)
"""Fixed beforehand, spread over the strong half: weaker tilts cannot be told from the weights in a sentence's length."""

SPARED = 2
"""Tokens left out: the ones that speak most against the weights. That a refusal begins at all is one or two tokens; a
hidden prompt makes them likely without changing who wrote the words. Leaving the largest factors out only lowers e."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TokenTable:
    """A text's tokens as arrays: ``surprisal`` (n,) in nats, ``top`` (n, k) log-probabilities padded with -inf,
    ``rest`` (n,) mass outside ``top``, ``others`` (n,) number of tokens that share it.
    """

    surprisal: Array
    top: Array
    rest: Array
    others: Array


def token_table(score: TextScore) -> TokenTable:
    """Arrange a score for the tests below."""
    width = max((len(token.top) for token in score.tokens), default=0)
    top = np.full((len(score.tokens), width), -np.inf)
    for row, token in enumerate(score.tokens):
        top[row, : len(token.top)] = token.top
    known = np.isfinite(top).sum(axis=1)
    rest = np.clip(1.0 - np.exp(top).sum(axis=1), 0.0, 1.0)
    others = np.maximum(score.vocabulary - known, 1).astype(float)
    return TokenTable(np.array([-token.logprob for token in score.tokens]), top, rest, others)


def log_partition(table: TokenTable, power: float) -> Array:
    """Return log Σ p^power per token, shape (n,), from above.

    The tail's mass spread evenly over its tokens maximises Σ p^power for power < 1 (concavity), so that the e-value
    built on it is never too large.
    """
    head = np.exp(power * table.top).sum(axis=1)
    tail = np.where(table.rest > 0, table.others ** (1.0 - power) * table.rest**power, 0.0)
    return np.asarray(np.log(head + tail))


def log_factors(table: TokenTable, tilt: float, power: float = 1.0) -> Array:
    """Return log q/p per token for one tilt, shape (n,).

    ``power`` is 1/temperature of the sampler: the null is p^power renormalised, the alternative p^(power·(1-tilt)).
    """
    flat = power * (1.0 - tilt)
    partition = log_partition(table, power) if power != 1.0 else np.zeros_like(table.surprisal)
    return power * tilt * table.surprisal - log_partition(table, flat) + partition


def log_e_foreign(table: TokenTable, power: float = 1.0, spared: int = SPARED) -> float:
    """Return the natural log of the e-value, averaged over ``TILTS``, without the ``spared`` largest factors."""
    logs = []
    for tilt in TILTS:
        factors = np.sort(log_factors(table, tilt, power))[::-1]
        logs.append(float(np.minimum(factors[:spared], 0.0).sum() + factors[spared:].sum()))
    return float(np.logaddexp.reduce(logs) - np.log(len(logs)))


def z_score(table: TokenTable, power: float = 1.0) -> float:
    """Return (surprisal - expectation) / standard deviation over the tokens: about N(0, 1) for the weights' own text.

    The tail's tokens are taken as equally probable. 0 for a text without any uncertainty.
    """
    norm = log_partition(table, power)[:, None]
    logs = power * table.top - norm
    head = np.exp(logs)
    rest = np.clip(1.0 - head.sum(axis=1), 0.0, 1.0)
    tail = np.where(rest > 0, np.log(np.where(rest > 0, table.others / np.where(rest > 0, rest, 1.0), 1.0)), 0.0)
    cost = np.where(head > 0, -np.where(np.isfinite(logs), logs, 0.0), 0.0)
    mean = (head * cost).sum(axis=1) + rest * tail
    second = (head * cost**2).sum(axis=1) + rest * tail**2
    variance = np.clip(second - mean**2, 0.0, None).sum()
    surprisal = power * table.surprisal + norm[:, 0]
    return float((surprisal - mean).sum() / np.sqrt(variance)) if variance > 0 else 0.0
