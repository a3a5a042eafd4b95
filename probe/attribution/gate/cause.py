"""What the likeliest cause of a difference is, and what cannot be told apart from it.

In this order: a constant surplus of prompt tokens is a prompt or a template. Texts that another temperature of the same
weights explains are a sampler's. At temperature 0, few tokens that the twin finds nearly as good as its choice are
those of the same weights at other precision; tokens that it would never have chosen are other weights'. So are small
margins where the ranks above temperature 0 differ as well: what precision does to them cancels to first order, and no
temperature explains them. A hidden prompt without counts looks like one of these: the sentence says so.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from probe.attribution.gate.greedy import far_margins
from probe.attribution.gate.ranks import ranks_test
from probe.attribution.gate.texts import Text, Texts
from probe.attribution.gate.values import OTHER_MODEL, PROMPT, SAMPLER, Cause, GateTest
from probe.evidence.estimate import Estimate, estimate
from probe.evidence.sampler import Sampler

FEW_TOKENS = 3
"""Surplus of prompt tokens, either way, that a host's way of counting special tokens can make by itself."""

COUNTING = "a host that counts special tokens otherwise"

NEAR = 1.0
"""Nats: 4-bit weights turn tokens up to about this margin; what is farther was hardly considered by the twin."""

STRAY = 0.2
"""Share of diverging answers whose largest margin may exceed ``NEAR`` where only precision differs."""

PRECISION = 0.5
"""Share of the answers that precision leaves alone at the least."""


HIDDEN = "a hidden prompt"
RELATED = "weights that were trained on from the twin's"
"""They choose nearly as the twin does on benign prompts; margins do not tell them from lower precision."""


@dataclass(frozen=True, slots=True)
class Blame:
    """A cause, the clause that gives its reason, and what could do ``otherwise`` the same."""

    cause: Cause
    reason: str
    otherwise: tuple[str, ...] = ()


def likeliest(
    rejected: Collection[str], tests: dict[str, GateTest], texts: Texts, *, alpha: float, delta: float, seed: int
) -> Blame:
    """Return the likeliest cause, given the names of the tests that reject."""
    if "counts" in rejected:
        more = "" if len(rejected) == 1 else "; whether the weights differ as well cannot be told under another prompt"
        few = abs(tests["counts"].statistic or 0.0) <= FEW_TOKENS
        return Blame(PROMPT, f"the token counts show it{more}", (COUNTING,) if few else ())
    hidden = (HIDDEN,) if tests["counts"].p is None else ()
    found = _temperature(texts, alpha=alpha, delta=delta, seed=seed)
    if found is not None:
        return Blame(SAMPLER, f"a temperature explains it ({found.sentence})")
    if "greedy" in rejected:
        if "ranks" in rejected:
            both = "the ranks of its tokens differ as well, which lower precision alone hardly does"
            return Blame(OTHER_MODEL, both, hidden)
        return _of_margins(tests["greedy"], texts, hidden)
    if tests["greedy"].p is not None:
        calm = "at temperature 0 it keeps to the twin's choice, so that the sampler differs rather than the weights"
        return Blame(SAMPLER, calm, hidden)
    unsure = "no temperature of the twin's explains it, and no answers at temperature 0 show how near the weights are"
    return Blame(OTHER_MODEL, unsure, ("lower precision", *hidden))


def _of_margins(test: GateTest, texts: Texts, hidden: tuple[str, ...]) -> Blame:
    far = far_margins(texts.cold)
    stray = float(np.mean(far > NEAR))
    said = f"{100 * stray:.0f} % of the {len(far)} answers that leave the twin's choice do so by more than {NEAR:g} nat"
    if stray <= STRAY and (test.distance or 0.0) <= PRECISION:
        return Blame(SAMPLER, f"only {said}, as lower precision does", (RELATED, *hidden))
    return Blame(OTHER_MODEL, said, hidden)


def _temperature(texts: Texts, *, alpha: float, delta: float, seed: int) -> Estimate | None:
    """Return the estimate of a temperature that explains all texts, ``None`` where none does or none is needed."""
    found = [one for one in (_estimated(texts.hot), _estimated(texts.cold)) if one is not None]
    if not any(one.differs for one in found) or not all(one.fits for one in found):
        return None
    for texts_of, one in ((texts.hot, _estimated(texts.hot)), (texts.cold, _estimated(texts.cold))):
        if one is None or not one.differs or one.greedy:
            continue
        sampler = (Sampler() if one.asked.greedy else one.asked).at(one.power)
        again = ranks_test(texts_of, (), alpha=alpha, delta=delta, seed=seed, sampler=sampler)
        if again.p is not None and again.p <= alpha:
            return None
    return next(one for one in found if one.differs)


def _estimated(texts: Sequence[Text]) -> Estimate | None:
    """Estimate the sampler of the texts asked for alike that are the most."""
    by_sampler: dict[Sampler, list[Text]] = {}
    for text in texts:
        by_sampler.setdefault(text.sampler, []).append(text)
    if not by_sampler:
        return None
    sampler, most = max(by_sampler.items(), key=lambda item: len(item[1]))
    return estimate([text.table for text in most], Sampler(0.0) if sampler.greedy else sampler)
