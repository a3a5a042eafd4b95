"""What the gate's tests read: the route's scored answers to controls, without the few that somebody else wrote.

Answers to controls are taken for the model's own with the least doubt, but a platform may answer some controls itself.
A handful of such texts says nothing about the weights, and must not make them look different: at most ``SPARED`` of the
texts are set aside, and only such as stand out by far from the rest. Under the null that lowers the chance of a false
alarm. Where more stand out, none is set aside: then the route as a whole is different.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from probe.evidence.case import GRADED, Case, normalised
from probe.evidence.greedy import TURNED, margins_of
from probe.evidence.sampler import Sampler
from probe.evidence.tilt import TokenTable, log_e_foreign, token_table

SPARED = 0.1
"""Largest share of the texts that are set aside."""

_STRANGE = math.log(1000.0)
"""Log e-value beyond which a text sampled above temperature 0 is no text of these weights."""

_NEVER = 5.0
"""Nats: a token at temperature 0 this much less probable than the first is no question of precision."""

_TURNED_SHARE = 0.25
_RARE = math.log(1e-4)


@dataclass(frozen=True, slots=True)
class Text:
    """One scored answer with at least one token, and the sampler that its request states."""

    case: Case
    table: TokenTable
    sampler: Sampler

    @property
    def prompt(self) -> str:
        """What identifies the prompt."""
        return self.case.trace_id


@dataclass(frozen=True, slots=True)
class Texts:
    """Scored answers above temperature 0 (``hot``) and at 0 (``cold``); ``aside`` are those that were set aside.

    ``unscored`` counts answers that could have been used but have no score; ``why`` is the commonest reason.
    ``unusable`` counts answers whose sampler is not known well enough.
    """

    hot: tuple[Text, ...]
    cold: tuple[Text, ...]
    aside: tuple[Text, ...]
    unscored: int
    why: str
    unusable: int

    @classmethod
    def of(cls, cases: Sequence[Case]) -> "Texts":
        """Sort answers of one route."""
        hot, cold, reasons, unusable = list[Text](), list[Text](), Counter[str](), 0
        for case in cases:
            if case.outcome not in GRADED or not case.text:
                continue
            sampler = Sampler.of(case.sampling)
            if sampler is None or case.penalised:
                unusable += 1
            elif case.score is None or not case.score.tokens:
                reasons[case.unscored or "there is no text"] += 1
            else:
                (cold if sampler.greedy else hot).append(Text(case, token_table(case.score), sampler))
        kept_hot, aside_hot = _without_few(hot, _foreign(hot))
        kept_cold, aside_cold = _without_few(cold, [_never_greedy(text) for text in cold])
        why = reasons.most_common(1)[0][0] if reasons else ""
        return cls(kept_hot, kept_cold, (*aside_hot, *aside_cold), sum(reasons.values()), why, unusable)


def _without_few(texts: Sequence[Text], odd: Sequence[bool]) -> tuple[tuple[Text, ...], tuple[Text, ...]]:
    if not any(odd) or sum(odd) > SPARED * len(texts):
        return tuple(texts), ()
    kept = tuple(text for text, is_odd in zip(texts, odd, strict=True) if not is_odd)
    return kept, tuple(text for text, is_odd in zip(texts, odd, strict=True) if is_odd)


def _foreign(texts: Sequence[Text]) -> list[bool]:
    """Tell which texts the weights did not write: by far too surprising, or improbable and yet written repeatedly."""
    prompts: dict[str, set[str]] = {}
    for text in texts:
        prompts.setdefault(normalised(text.case.text), set()).add(text.prompt)
    return [
        log_e_foreign(text.table, text.sampler.power) >= _STRANGE
        or (len(prompts[normalised(text.case.text)]) > 1 and float(-text.table.surprisal.sum()) < _RARE)
        for text in texts
    ]


def _never_greedy(text: Text) -> bool:
    margins = margins_of(text.table)
    return bool(margins.max() > _NEVER or (margins > TURNED).mean() > _TURNED_SHARE)
