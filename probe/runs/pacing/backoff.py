"""How long to wait before a request is sent again: exponential backoff with full jitter.

``random(0, min(cap, base · 2^attempt))``: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015,
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/. It spreads those who failed together over the
whole interval, and costs the server the fewest calls of the variants compared there.
"""

import random

BASE_S = 1.0
CAP_S = 60.0


def full_jitter(attempt: int, chance: random.Random, *, base_s: float = BASE_S, cap_s: float = CAP_S) -> float:
    """Return a wait in seconds after the ``attempt``-th failure in a row, counted from 1."""
    # The exponent is bounded: 2.0 ** 2000 is no float.
    return chance.uniform(0.0, min(cap_s, base_s * 2.0 ** min(max(attempt - 1, 0), 32)))
