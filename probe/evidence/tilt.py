"""The exponential tilting test: is a text more surprising to the weights than texts of their own are?

Let I = -log p(token) be a token's surprisal under the sampler's distribution p. For s in (0, 1), the weights tilted to
q(x) ∝ p(x)^(1-s) are a proper distribution over texts, so the likelihood ratio Π q/p = exp Σ (s·I - K(s)) with K(s) =
log Σ p^(1-s) is an e-value against "drawn from p" (expectation 1; Grünwald, de Heide & Koolen 2024, "Safe testing",
§1). Tilting to s is sampling at temperature 1/(1-s): the alternative is an author whose choices the weights find
plausible but not theirs. Averages over s stay e-values, and so does anything smaller. Four things are made smaller
here:

- The tail below the reported tokens is unknown: K is taken from above.
- The token that ends a text is not scored, and where a text ends depends on what would have come: ``ending``.
- The tokens that speak most against the weights are left out: ``SPARED``.
- One token is never more surprising than ``UNHEARD_OF``.

A sampler that cuts off improbable tokens (top-k, top-p, min-p) leaves the test valid: q is flatter than p, so that it
puts less mass than p on any set of most probable tokens, and the expectation Q(set)/P(set) is at most 1. Where the
cut is known, ``probe.evidence.sampler`` puts it into the table, and p and q are both taken within the set of tokens
that can be drawn: the test is sharper, and no less valid.

The text is scored as its canonical tokens. Where the host wrote the same text in other tokens, the canonical ones are
mostly less probable than what was drawn (e too large) and now and then more probable (e too small). The sum over texts
of P(canonical tokens)·e is at most 1 all the same; what comes on top is the mass of the texts that were not drawn
canonically (2 to 5 % of texts on small weights) times what one odd merge is worth: it is one or two tokens, which
``SPARED`` leaves out; ``UNHEARD_OF`` bounds each, and genuine texts of the route bound the whole (``cap`` of
``LikelihoodNorm``), because theirs were drawn by the same host.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from probe.scoring.base import Score

TILTS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Fixed beforehand. Strong tilts are the best against texts that the weights do not know at all, weak ones against
fluent texts and over large vocabularies, whose tails make K(s) large; an unneeded one costs log(6/5)."""

SPARED = 2
"""Tokens left out: the ones that speak most against the weights. That a refusal begins at all is one or two tokens; a
hidden prompt makes them likely without changing who wrote the words. Leaving the largest factors out only lowers e."""

UNHEARD_OF = 60.0
"""Nats. What a server reports below that is rounding, or a token that its sampler bans."""

SLACK = 1e-5
"""How far the reported probabilities of one position may be off in sum: single precision."""

LARGEST_VOCABULARY = 2**18
"""Stands for a vocabulary that the scorer does not know."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TokenTable:
    """A text's tokens as arrays.

    ``surprisal`` (n,) in nats, ``top`` (n, k) log-probabilities padded with -inf, ``least`` (n,) the smallest reported
    probability, ``rest`` (n,) mass below it, ``others`` (n,) number of tokens that share it, ``surely`` (n,) what they
    share at least; ``vocabulary`` of the weights. ``outside`` (n,): the sampler cannot draw this token. ``choices``:
    how many tokens it chooses among at most, anywhere. ``filtered``: tokens that it cannot draw are left out of
    ``top``, ``rest`` and ``others``.
    """

    surprisal: Array
    top: Array
    least: Array
    rest: Array
    others: Array
    surely: Array
    outside: npt.NDArray[np.bool_]
    vocabulary: int
    choices: int
    filtered: bool = False

    @property
    def least_log(self) -> Array:
        """Natural log of ``least``."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.least))


def token_table(score: Score) -> TokenTable:
    """Arrange a score for the tests below."""
    vocabulary = score.vocabulary or LARGEST_VOCABULARY
    columns = score.columns()
    known, listed = np.asarray(columns.lengths, dtype=np.int64), np.asarray(columns.top, dtype=float)
    count, width = len(known), int(known.max(initial=0))
    if (known == width).all():
        top = listed.reshape(count, width)
    else:
        top = np.full((count, width), -np.inf)
        top[np.arange(width) < known[:, None]] = listed
    least = np.min(np.where(np.isfinite(top), np.exp(top), 1.0), axis=1, initial=1.0)
    rest = np.clip(1.0 - np.exp(top).sum(axis=1), 0.0, 1.0)
    others = np.maximum(vocabulary - known, 0).astype(float)
    surprisal = np.clip(-np.asarray(columns.logprobs, dtype=float), 0.0, UNHEARD_OF)
    return TokenTable(
        surprisal=surprisal,
        top=top,
        least=least,
        rest=np.where(others > 0, rest, 0.0),
        others=others,
        surely=np.where(others > 0, np.maximum(rest - SLACK, 0.0), 0.0),
        outside=np.zeros(count, dtype=bool),
        vocabulary=vocabulary,
        choices=vocabulary,
    )


def log_partition(table: TokenTable, power: float, *, above: bool) -> Array:
    """Return a bound on log Σ p^power per token, shape (n,): from above, or from below.

    The tokens of the tail have at most the probability ``least`` each, and ``rest`` in sum (give or take ``SLACK``).
    For power < 1 their sum is largest when they share it evenly (concavity) and smallest when few of them have all; for
    power > 1 it is the other way round.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.minimum(table.rest + SLACK, 1.0) if above else table.surely
        even = table.others ** (1.0 - power) * rest**power
        few = rest * table.least ** (power - 1.0)
        if above and power < 1.0:
            tail = np.minimum(even, table.others * table.least**power)
        else:
            tail = few if above or power < 1.0 else even
        tail = np.where((table.others > 0) & (rest > 0), tail, 0.0)
        return np.asarray(np.log(np.exp(power * table.top).sum(axis=1) + tail))


def log_factors(table: TokenTable, tilt: float, power: float = 1.0) -> Array:
    """Return log q/p per token for one tilt from below, shape (n,).

    ``power`` is 1/temperature of the sampler: the null is p^power renormalised, the alternative p^(power·(1-tilt)). A
    token that the sampler cannot draw counts as ``UNHEARD_OF``.
    """
    norm = log_partition(table, power, above=False) if power != 1.0 or table.filtered else 0.0
    factors = power * tilt * table.surprisal - log_partition(table, power * (1.0 - tilt), above=True) + norm
    return np.where(table.outside, np.maximum(factors, tilt * UNHEARD_OF), factors)


def tilt_factors(table: TokenTable, power: float = 1.0) -> Array:
    """Return ``log_factors`` for all ``TILTS``, shape (len(TILTS), n)."""
    norm = log_partition(table, power, above=False) if power != 1.0 or table.filtered else 0.0
    tilts = np.array(TILTS)[:, None]
    powers = power * (1.0 - tilts)
    with np.errstate(divide="ignore", invalid="ignore"):
        # log_partition from above, for several powers below 1 at once; above 1 its tail is another one.
        rest = np.minimum(table.rest + SLACK, 1.0)
        even = table.others ** (1.0 - powers) * rest**powers
        few = rest * table.least ** (powers - 1.0)
        tail = np.where(powers < 1.0, np.minimum(even, table.others * table.least**powers), few)
        tail = np.where((table.others > 0) & (rest > 0), tail, 0.0)
        partition = np.log(np.exp(powers[:, :, None] * table.top).sum(axis=2) + tail)
    factors = power * tilts * table.surprisal - partition + norm
    return np.where(table.outside, np.maximum(factors, tilts * UNHEARD_OF), factors)


def ratios_of(factors: Array, spared: int = SPARED) -> Array:
    """Return the sums of ``tilt_factors`` over a text, shape (len(TILTS),), without the ``spared`` largest factors."""
    ordered = np.sort(factors, axis=1)[:, ::-1]
    return np.asarray(np.minimum(ordered[:, :spared], 0.0).sum(axis=1) + ordered[:, spared:].sum(axis=1))


def log_ratios(table: TokenTable, power: float = 1.0, spared: int = SPARED) -> Array:
    """Return log q/p of the text for every tilt, shape (len(TILTS),), without the ``spared`` largest factors."""
    return ratios_of(tilt_factors(table, power), spared)


def ending(vocabulary: int) -> Array:
    """Return what the unscored end of a text may be worth, in nats per tilt, shape (len(TILTS),).

    ``vocabulary``: V, how many tokens the sampler chooses among at most.

    The ratio is a martingale up to and including the end token; without that token's factor f it has expectation
    E[ratio/f] <= max 1/f. With e the probability of the end token, 1/f = e^s · Σ p^(1-s) <= e + V^s · e^s ·
    (1-e)^(1-s), and e^s · (1-e)^(1-s) is largest at e = s.
    """
    tilts = np.array(TILTS)
    return np.asarray(np.log1p(vocabulary**tilts * tilts**tilts * (1.0 - tilts) ** (1.0 - tilts)))


def mean_e(ratios: Array, choices: int) -> float:
    """Return the natural log of the e-value that ``log_ratios`` of a text give, averaged over ``TILTS``."""
    return float(np.logaddexp.reduce(ratios - _ending(choices)) - np.log(len(ratios)))


_ending = cache(ending)


def log_e_foreign(table: TokenTable, power: float = 1.0, spared: int = SPARED) -> float:
    """Return the natural log of the e-value, averaged over ``TILTS``; at most 0 for a text without tokens."""
    return mean_e(log_ratios(table, power, spared), table.choices)


def log_probability(table: TokenTable, power: float = 1.0) -> float:
    """Return the log of the text's probability under the sampler, from above, not counting that it ends there.

    Of a filtered table it is from above only where that holds no more than the sampler surely lets through:
    ``probe.evidence.sampler.log_probability_at_most``.
    """
    norm = log_partition(table, power, above=False).sum() if power != 1.0 or table.filtered else 0.0
    return float(min(-power * table.surprisal.sum() - norm, 0.0))


def z_score(table: TokenTable, power: float = 1.0) -> float:
    """Return (surprisal - expectation) / standard deviation over the tokens: about N(0, 1) for the weights' own text.

    The tail's tokens are taken as equally probable. 0 for a text without any uncertainty. A token that the sampler
    cannot draw counts as ``UNHEARD_OF``.
    """
    shared = (table.rest > 0) & (table.others > 0)
    each = np.where(shared, np.log(np.where(shared, table.rest, 1.0) / np.maximum(table.others, 1.0)), -np.inf)
    logs = power * np.column_stack([table.top, each])
    weights = np.column_stack([np.ones_like(table.top), np.where(shared, table.others, 0.0)])
    norm = np.log((weights * np.exp(logs)).sum(axis=1, keepdims=True))
    share = weights * np.exp(logs - norm)
    cost = np.where(share > 0, norm - np.where(np.isfinite(logs), logs, 0.0), 0.0)
    mean = (share * cost).sum(axis=1)
    variance = (share * (cost - mean[:, None]) ** 2).sum()
    surprisal = np.where(table.outside, UNHEARD_OF, power * table.surprisal + norm[:, 0])
    return float((surprisal - mean).sum() / np.sqrt(variance)) if variance > 1e-12 else 0.0
