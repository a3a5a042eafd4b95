"""Compound e-values for copies: of the refusals with one text, how many can the weights have written?

n refused traces, one refusal of each. Null traces (those the weights wrote) are independent and have text x with
probability p at most, on average over them. They are halved at random, without looking at the texts. From one half come
weights w over texts with Σ w(x) <= 1. In the other, with m traces, a refusal with text x gets

    e = w(x) · m · (1-p) / (p · (1+N)),   N = how many *other* traces of that half do not have text x,

which is Storey's estimate of the null share (Storey, Taylor & Siegmund 2004, JRSS B 66, eq. 6), the null part read off
the refusals that do not have the text, over p. Of the m traces m0 are null and C of these have x: N+1 >= m0-C+1 for
each, so the sum of e over the null traces is at most Σ_x w(x) · m · (1-p)/p · C/(1+m0-C). C/(1+m0-C) is convex in C;
for independent trials its expectation is largest where all have the same probability (Hoeffding 1956, "On the
distribution of the number of successes in independent trials", thm 3), where it is

    E[C/(1+m0-C)] = (1 - p^m0) · p/(1-p)   for C ~ Bin(m0, p).

So the sum has expectation <= m · Σ w = m, over both halves <= n: these are compound e-values (Ignatiadis, Wang & Ramdas
2024, arXiv 2409.19812, def. 2.1), for which e-BH over the same n keeps the false discovery rate. Halving is needed:
weights that look at the same traces as N favour texts for which N happens to be small. Averages over several halvings
(and over which refusal stands for a trace that has several) stay compound e-values. A trace with r refusals passes its
share on to each of them: times (mean r)/r, so that the sum over all refusals is at most their number.

An e-value of this kind cannot exceed about (n/n0)/p; more would call more of the weights' own copies the platform's
than a false discovery rate allows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HALVINGS = 32
_SEED = 20240
FOCUS = 0.96
"""Share of the weight that goes where copies exceed expectation; the rest goes to all texts by their frequency."""

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Half:
    """Indices of the tested traces, and of those that weights are learnt from; ``stands`` for each trace's refusal."""

    tested: Codes
    learnt: Codes
    stands: Codes


def halves(refusals: Sequence[int], halvings: int) -> Iterator[Half]:
    """Yield both roles of each random halving; ``refusals``: how many each trace has. Never looks at texts."""
    rng = np.random.default_rng(_SEED)
    counts = np.asarray(refusals, dtype=np.int64)
    for _ in range(halvings):
        order = rng.permutation(len(counts))
        stands = rng.integers(counts)
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        yield Half(first, second, stands)
        yield Half(second, first, stands)


def weights(copies: Array, traces: int, expected: Array) -> Array:
    """Return weights over texts, with a sum of 1 (0 where there is no copy): shape (texts,).

    ``copies`` of each text among ``traces``; ``expected``: share of each that the weights would write. Where copies
    exceed expectation they count nearly squared, so that many single texts do not take the weight from a repeated one.
    """
    total = float(copies.sum())
    if not total:
        return np.zeros_like(copies)
    excess = np.maximum(copies - traces * expected, 0.0) * np.maximum(copies - 1.0 + 1.0 / traces, 0.0)
    plain = copies / total
    return FOCUS * excess / excess.sum() + (1.0 - FOCUS) * plain if excess.sum() > 0 else plain


Stake = Callable[[int, int], float]
"""The share that is bet on something else than exact copies; may depend on (copies of the most frequent text, traces)
of the half that weights are learnt from."""


def compound(
    texts: Sequence[Sequence[int]],
    shares: Array,
    expected: Array,
    halvings: int = HALVINGS,
    elsewhere: Stake = lambda _copies, _traces: 0.0,
) -> list[list[float]]:
    """Return e-values for every refusal of every trace.

    ``texts``: codes of each trace's refusals. ``shares``: P(text | the weights refuse) from above, by code.
    ``expected``: the same as far as it may steer the weights: nothing that was estimated from samples.
    """
    counts = [len(codes) for codes in texts]
    traces = np.repeat(np.arange(len(texts)), counts)
    places = np.concatenate([[0], np.cumsum(counts)])[:-1].astype(np.int64)
    codes = np.array([code for row in texts for code in row], dtype=np.int64)
    e = np.zeros(len(codes))
    if len(texts) < 2:
        return [[0.0] * count for count in counts]
    odds = np.where(shares < 1.0, (1.0 - shares) / shares, 0.0)
    for half in halves(counts, halvings):
        stand = codes[places + half.stands]
        learnt = np.bincount(stand[half.learnt], minlength=len(shares)).astype(float)
        tested = np.bincount(stand[half.tested], minlength=len(shares)).astype(float)
        weight = weights(learnt, len(half.learnt), expected)
        weight *= 1.0 - elsewhere(int(learnt.max()), len(half.learnt))
        chosen = np.isin(traces, half.tested)
        own, m = codes[chosen], len(half.tested)
        same = tested[own] - (stand[traces[chosen]] == own)
        e[chosen] += weight[own] * odds[own] * m / (m - same)
    e *= (len(codes) / len(texts)) / np.repeat(counts, counts) / halvings
    return [list(map(float, row)) for row in np.split(e, places[1:])]


def codes_of(texts: Sequence[str]) -> Mapping[str, int]:
    """Give each text a number, in order of first occurrence."""
    found: dict[str, int] = {}
    for text in texts:
        found.setdefault(text, len(found))
    return found
