"""``greedy``: at temperature 0, is every token the twin's most probable one, but for what precision turns?

The route's own text is scored token by token after what was really written before (Token-DiFR, arXiv 2511.20621,
§3), so that one turn makes one margin and no more. The margin of a token is log p(twin's first choice) - log p(token).

The null is not "no margin at all". Engines differ by some 5e-3 nats, and a server that computes in bfloat16 rounds
logits of ordinary size (16 to 32) to multiples of 1/8: two of them may be off by 1/16 each on either side, together
``FAR`` = 1/4 nat at the most. The null is: in at most ``ALLOWED`` of the answers is some token farther than that from
the first choice (odd tokenizations, a cache, a batch). Prompts are the units, with one answer each, because turns in
one answer hang together and answers to one prompt are alike, and only the first ``LENGTH`` tokens count, so that the
allowance means the same for long answers.
"""

from collections.abc import Sequence

import numpy as np

from probe.attribution.gate.texts import Text
from probe.attribution.gate.values import GateTest
from probe.evidence.greedy import margins_of
from probe.evidence.tilt import Array

FAR = 0.25
"""Nats."""

ALLOWED = 0.02
"""Share of answers that the null allows to leave the twin's choice."""

LENGTH = 128
"""Tokens."""

LEAST = 5
"""Answers below which the test is not asked."""


def greedy_test(cold: Sequence[Text], alpha: float, delta: float) -> GateTest:
    """Test answers at temperature 0; distance: the share of answers that leave the twin's choice."""
    cold = first_per_prompt(cold)
    n = len(cold)
    if n < LEAST:
        said = f"{n} scored answers at temperature 0, {LEAST} needed" if n else "no scored answers at temperature 0"
        return GateTest(None, None, n, "texts", f"Not asked: {said}.")
    from scipy.stats import binom

    margins = [margins_of(text.table)[:LENGTH] for text in cold]
    left = sum(bool((values > FAR).any()) for values in margins)
    tokens = sum(len(values) for values in margins)
    largest = float(max(values.max() for values in margins))
    limit = upper_limit(left, n, alpha)
    detail = {
        "tokens": tokens,
        "tokens_not_first": int(sum((values > 0).sum() for values in margins)),
        "tokens_far": int(sum((values > FAR).sum() for values in margins)),
        "largest_margin": round(largest, 4),
        "n_needed": answers_needed(left, n, alpha, delta),
    }
    sentence = (
        f"At temperature 0, {left} of {n} answers ({tokens} tokens) have a token more than {FAR:g} nats less probable "
        f"than the twin's choice (largest margin {largest:.2f}); precision explains {100 * ALLOWED:.0f} %."
    )
    p = float(binom.sf(left - 1, n, ALLOWED))
    return GateTest(left / n, p, n, "texts", sentence, left / n, limit, detail)


def first_per_prompt(texts: Sequence[Text]) -> list[Text]:
    """Return the first answer to each prompt."""
    found: dict[str, Text] = {}
    for text in texts:
        found.setdefault(text.prompt, text)
    return list(found.values())


def far_margins(cold: Sequence[Text]) -> Array:
    """Return the largest margin of each answer that leaves the twin's choice, in nats."""
    largest = np.array([margins_of(text.table)[:LENGTH].max() for text in first_per_prompt(cold)])
    return np.asarray(largest[largest > FAR])


def upper_limit(count: int, n: int, alpha: float) -> float:
    """Return the one-sided upper confidence limit of a share at level 1 - alpha (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    return 1.0 if count >= n else float(betaincinv(count + 1, n - count, 1.0 - alpha))


def answers_needed(count: int, n: int, alpha: float, delta: float) -> int | None:
    """Return how many answers bring the limit below ``delta`` if the share stays; ``None`` where no number would."""
    if count / n >= delta:
        return None
    low, high = 1, n
    while upper_limit(round(count / n * high), high, alpha) >= delta:
        low, high = high, 2 * high
        if high > 10**7:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        below = upper_limit(round(count / n * middle), middle, alpha) < delta
        low, high = (low, middle) if below else (middle, high)
    return high
