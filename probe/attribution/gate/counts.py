"""``counts``: does the model behind the route see as many prompt tokens as the twin's template makes of what was sent?

The surplus, reported minus expected tokens, is 0 where template and prompt are the twin's. A hidden system prompt or an
extra space in the template adds the same number to every prompt. Counts that deviate now and then (a cache, a retry)
are no difference: the null allows one prompt in ten. Counts that deviate by ever different numbers were made by another
tokenizer, or belong to prompts that are rewritten one by one; which of the two they do not tell, so nothing is tested.
"""

from collections import Counter
from collections.abc import Sequence

from probe.attribution.gate.values import GateTest
from probe.evidence.accounting import CONSTANT, MIN_CONTROLS, AccountingNorm, prompt_surplus
from probe.evidence.case import Case


def counts_test(hosted: Sequence[Case]) -> GateTest:
    """Test the counts that a route reports for controls, one answer per prompt; p is exact binomial."""
    counted: dict[str, Case] = {}
    for case in hosted:
        if prompt_surplus(case) is not None:
            counted.setdefault(case.trace_id, case)
    surplus = [found for case in counted.values() if (found := prompt_surplus(case)) is not None]
    n = len(surplus)
    if not n:
        reported = any(case.reading.usage.prompt_tokens is not None for case in hosted)
        why = "the twin counts no tokens" if reported else "the route reports no prompt tokens"
        return GateTest(None, None, 0, "prompts", f"Not asked: {why}.")
    if n < MIN_CONTROLS:
        return GateTest(
            None, None, n, "prompts", f"Not asked: {n} prompts report prompt tokens, {MIN_CONTROLS} needed."
        )
    norm = AccountingNorm.measure(list(counted.values()))
    usual, agree = Counter(surplus).most_common(1)[0]
    detail = {"surplus": norm.prompt_surplus, "agree": agree}
    if norm.prompt_surplus is None:
        return GateTest(
            None,
            None,
            n,
            "prompts",
            f"Not asked: the prompt tokens that the route reports differ from the tokens sent by numbers that vary "
            f"({min(surplus):+d} to {max(surplus):+d}, n = {n}), as those of another tokenizer do.",
            detail=detail,
        )
    if usual == 0:
        sentence = f"The route reports as many prompt tokens as were sent, on {agree} of {n} requests."
        return GateTest(0.0, 1.0, n, "prompts", sentence, detail=detail)
    from scipy.stats import binom

    p = float(binom.sf(agree - 1, n, 1.0 - CONSTANT))
    more = "more" if usual > 0 else "fewer"
    sentence = f"The route reports {abs(usual)} {more} prompt tokens than were sent, on {agree} of {n} requests."
    return GateTest(float(usual), p, n, "prompts", sentence, detail=detail)
