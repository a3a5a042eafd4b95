"""``ranks``: above temperature 0, do the route's tokens stand in the twin's ranking where the twin's own would?

Sort the vocabulary by the twin's probability. A token's place u is the mass of what is more probable plus an even draw
within its own mass (or within the mass that tokens of the same probability share). Drawn by the twin, the places of one
text after another are independent and even on [0, 1], whatever was written before (Rosenblatt 1952, Ann. Math. Stat.
23:470; for language models and quantized ones: RUT, arXiv 2506.06975). Below the reported tokens only the mass of the
whole tail is known; given that a token lies there, an even draw on the tail's stretch is just as exact.

A sampler that filters, or raises probabilities to a power, leaves some tokens uncertain. There the place is taken among
the tokens that it surely lets through, and tokens outside of them are left out: given that a token is one of those, its
place is even, however the rest is handled.

Three things are tested, and the smallest p times their number counts (Bonferroni):

- ``places``: Cramér-von Mises over the places where the twin is not almost sure (``OPEN``): elsewhere every token has
  an even place by the draw alone. Which places are open is known before the token is drawn, so nothing is selected.
- ``surprise``: sum of surprisals less their expectation at the open places, over its standard deviation; one token
  counts ``CLIPPED`` nats at the most, so that a few odd tokenizations do not decide.
- ``texts``: the rank of each text's mean surprisal among the twin's own answers to the same prompt, Cramér-von Mises
  over prompts (RUT proper). It needs scored answers of the twin, and is exact whatever the scores are worth.

Distance: the largest difference between the share of the route's tokens up to a place in the ranking and the share that
the twin puts there (Kolmogorov), over all tokens. Wherever that place is, the observed difference there is about normal
around the true one, so D + z·se bounds the true distance; se is of shares clustered by prompt, the largest of any.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from probe.attribution.gate.texts import Text
from probe.attribution.gate.values import GateTest
from probe.evidence.case import Case
from probe.evidence.sampler import Sampler, surely_admitted
from probe.evidence.tilt import Array

OPEN = 0.95
"""Probability of the most probable token below which a place can tell something."""

CLIPPED = 2.0
"""Nats."""

LEAST_TEXTS, LEAST_TOKENS = 5, 30
"""Texts, and tokens at open places, below which the test is not asked."""

_TIE = 1e-9
_USUAL_D = 0.8687
"""Mean of the Kolmogorov distribution: the distance of n even places is about this over the root of n."""


@dataclass(frozen=True, slots=True)
class Places:
    """One text's tokens: the stretch [``low``, ``low + width``] of each, the largest probability there, and surprise.

    ``surprise``: clipped surprisal less its expectation; ``variance`` of that. All of shape (n,).
    """

    low: Array
    width: Array
    first: Array
    surprise: Array
    variance: Array

    @classmethod
    def of(cls, text: Text, sampler: Sampler | None = None) -> "Places":
        """Measure a text under the sampler that its request states, or under another."""
        table, sampler = text.table, sampler or text.sampler
        plain = sampler.power == 1.0 and not sampler.filters
        kept = np.isfinite(table.top) if plain else surely_admitted(table, sampler)
        logs = np.where(kept, sampler.power * table.top, -np.inf)
        own = -sampler.power * table.surprisal
        least = np.min(np.where(kept, logs, np.inf), axis=1, initial=np.inf)
        inside = own >= least - _TIE
        mass = np.exp(logs)
        tail = table.rest if plain else np.zeros(len(own))
        total = mass.sum(axis=1) + tail
        use = (total > 0) & (inside | (tail > 0))
        above = np.where(logs > own[:, None] + _TIE, mass, 0.0).sum(axis=1)
        tied = np.where(np.abs(np.where(kept, logs, np.inf) - own[:, None]) <= _TIE, mass, 0.0).sum(axis=1)
        low = np.where(inside, above, total - tail) / np.maximum(total, 1e-300)
        width = np.where(inside, np.maximum(tied, np.exp(own)), tail) / np.maximum(total, 1e-300)
        surprise, variance = _surprise(logs, own, mass, tail, table.others, total)
        first = mass.max(axis=1, initial=0.0) / np.maximum(total, 1e-300)
        return cls(low[use], np.minimum(width, 1.0)[use], first[use], surprise[use], variance[use])

    def drawn(self, rng: np.random.Generator) -> Array:
        """Draw the places, shape (n,)."""
        return np.asarray(np.clip(self.low + rng.random(len(self.low)) * self.width, 0.0, 1.0))


def _surprise(logs: Array, own: Array, mass: Array, tail: Array, others: Array, total: Array) -> tuple[Array, Array]:
    """Return clipped surprisal less its expectation, and its variance; the tail's tokens share their mass evenly."""
    safe = np.maximum(total, 1e-300)[:, None]
    shared = (tail > 0) & (others > 0)
    each = np.where(shared, np.log(np.where(shared, tail, 1.0) / np.maximum(others, 1.0)), 0.0)
    costs = np.column_stack([np.where(np.isfinite(logs), -logs, 0.0), np.where(shared, -each, 0.0)])
    share = np.column_stack([mass, tail]) / safe
    centre = (share * costs).sum(axis=1, keepdims=True)
    clipped = np.clip(costs - centre, -CLIPPED, CLIPPED)
    mean = (share * clipped).sum(axis=1)
    variance = (share * (clipped - mean[:, None]) ** 2).sum(axis=1)
    return np.clip(-own - centre[:, 0], -CLIPPED, CLIPPED) - mean, variance


def ranks_test(
    hot: Sequence[Text], twin: Sequence[Case], *, alpha: float, delta: float, seed: int, sampler: Sampler | None = None
) -> GateTest:
    """Test texts above temperature 0 under the sampler they were asked for, or under ``sampler``.

    ``twin``: the twin's own answers, for the rank among those that are scored; they may be missing. p is exact but for
    the normal approximation of the surprise.
    """
    from scipy.stats import cramervonmises

    rng = np.random.default_rng([seed, 0x52414E])
    found = [Places.of(text, sampler) for text in hot]
    drawn = [places.drawn(rng) for places in found]
    n, tokens = len(hot), sum(len(u) for u in drawn)
    still = [u[places.first < OPEN] for u, places in zip(drawn, found, strict=True)]
    open_places = np.concatenate(still) if still else np.zeros(0)
    if n < LEAST_TEXTS or len(open_places) < LEAST_TOKENS:
        said = f"{n} scored answers above temperature 0"
        if n:
            said += (
                f", with {len(open_places)} tokens where the twin is not sure; {LEAST_TEXTS} and {LEAST_TOKENS} needed"
            )
        return GateTest(None, None, n, "texts", f"Not asked: {said}.")
    tested = cramervonmises(open_places, "uniform")
    surprise = sum(float(places.surprise[places.first < OPEN].sum()) for places in found)
    variance = sum(float(places.variance[places.first < OPEN].sum()) for places in found)
    z = surprise / math.sqrt(variance)
    parts = {
        "places": (float(tested.statistic), float(tested.pvalue), len(open_places)),
        "surprise": (z, 2.0 * NormalDist().cdf(-abs(z)), len(open_places)),
    }
    among = _among_own(hot, twin, rng)
    if len(among) >= LEAST_TEXTS:
        own = cramervonmises(among, "uniform")
        parts["texts"] = (float(own.statistic), float(own.pvalue), len(among))
    p = min(1.0, len(parts) * min(part[1] for part in parts.values()))
    distance, error = _distance(drawn, [text.prompt for text in hot])
    limit = min(1.0, distance + NormalDist().inv_cdf(1.0 - alpha) * error)
    return GateTest(
        parts["places"][0],
        p,
        n,
        "texts",
        _sentence(n, tokens, parts, distance, limit),
        distance,
        limit,
        {
            "prompts": len({text.prompt for text in hot}),
            "tokens": tokens,
            "open_tokens": len(open_places),
            "parts": {name: {"statistic": s, "p": q, "n": k} for name, (s, q, k) in parts.items()},
            "n_needed": _needed(n, distance, error, alpha, delta),
        },
    )


def _sentence(n: int, tokens: int, parts: dict[str, tuple[float, float, int]], distance: float, limit: float) -> str:
    said = [
        f"places in the twin's ranking, p = {parts['places'][1]:.2g}",
        f"surprise {parts['surprise'][0]:+.1f} standard deviations, p = {parts['surprise'][1]:.2g}",
    ]
    if "texts" in parts:
        said.append(f"ranks among the twin's own answers to {parts['texts'][2]} prompts, p = {parts['texts'][1]:.2g}")
    return (
        f"{tokens} tokens of {n} answers above temperature 0: {'; '.join(said)}; shares of tokens lie up to "
        f"{100 * distance:.1f} % from the twin's (at most {100 * limit:.1f} %)."
    )


def _among_own(hot: Sequence[Text], twin: Sequence[Case], rng: np.random.Generator) -> list[float]:
    """Return per prompt the randomised rank, in (0, 1), of one hosted text among the twin's own."""
    own: dict[tuple[str, Sampler], list[float]] = {}
    for case in twin:
        sampler = Sampler.of(case.sampling)
        if sampler is not None and case.score is not None and case.score.tokens:
            own.setdefault((case.trace_id, sampler), []).append(_mean_surprisal(case))
    found, seen = [], set[tuple[str, Sampler]]()
    for text in hot:
        key = (text.prompt, text.sampler)
        if key not in own or key in seen:
            continue
        seen.add(key)
        mine, others = _mean_surprisal(text.case), own[key]
        below = sum(value < mine - _TIE for value in others)
        equal = sum(abs(value - mine) <= _TIE for value in others)
        found.append((below + rng.random() * (equal + 1)) / (len(others) + 1))
    return found


def _mean_surprisal(case: Case) -> float:
    assert case.score is not None
    return -case.score.logprob / len(case.score.tokens)


def _distance(drawn: Sequence[Array], prompts: Sequence[str]) -> tuple[float, float]:
    """Return the Kolmogorov distance of all places from even ones, and the largest standard error by prompt."""
    whole = np.sort(np.concatenate(list(drawn)))
    n = len(whole)
    distance = float(max((np.arange(1, n + 1) / n - whole).max(), (whole - np.arange(n) / n).max()))
    grid = np.linspace(0.05, 0.95, 19)
    below = np.stack([(u[:, None] <= grid).sum(axis=0) for u in drawn])
    sizes = np.array([len(u) for u in drawn])[:, None]
    _, cluster = np.unique(list(prompts), return_inverse=True)
    residual = np.zeros((int(cluster.max()) + 1, len(grid)))
    np.add.at(residual, cluster, below - sizes * (below.sum(axis=0) / n))
    variance = (residual**2).sum(axis=0) / n**2 * (len(residual) / max(len(residual) - 1, 1))
    # What independent tokens would have is the least: few texts may agree by chance.
    return distance, float(math.sqrt(max(variance.max(), 0.25 / n)))


def _needed(n: int, distance: float, error: float, alpha: float, delta: float) -> int | None:
    """Return how many texts bring the limit below ``delta`` if what is more than chance in the distance stays."""
    chance = 2.0 * _USUAL_D * error
    stays = math.sqrt(max(distance**2 - chance**2, 0.0))
    if stays >= delta:
        return None
    shrinks = chance + NormalDist().inv_cdf(1.0 - alpha) * error
    return max(LEAST_TEXTS, math.ceil(n * (shrinks / (delta - stays)) ** 2))
