"""Answers that stop where the weights would not stop: cut by somebody, with a finish reason that says otherwise.

A server that reports ``stop`` says that the weights drew the token that ends an answer. The twin tells how probable
that token is after the last word of the text (``Case.ending``): after a whole answer it is among the probable ones, in
the middle of a sentence its probability is around one in a million and less.

This is no accusation by itself. Weights stop at odd places, too: after a list that announced four points and has three,
in a code block that nobody closes. Between two points or two lines the end is improbable (one in a thousand, say), but
seldom as improbable as within a sentence or after a comma; and a control now and then stops there as well. Such an
answer counts as one that was cut; who cut it is told by comparing how often that happens with how often it happens to
the controls, which are looked at in the very same way.

How often it happens to weights that nobody cuts: a sampler that draws from the twin's own distribution stops at a place
where the end has a probability below ε with a probability below ε; an answer of n tokens therefore ends at such a place
in less than ε·n of all cases, and in far less, because at nearly all places of a text the end has a probability far
below ε. Samplers that leave improbable tokens out, or draw at a temperature below 1, make it rarer still. Above 1 the
token is drawn with a probability of at most p^(1/T), which is taken instead of p. Penalties for repetition favour
whatever was not said yet, such as the end: answers under stated ones are not looked at. Where the host's weights are
not quite the twin's, or the host trims what ends a text, that shows in the reference: an answer counts only if its end
is less probable than that of every one of ``REFERENCES`` or more others. Of n + 1 exchangeable answers that is true of
one at most.

Missed: what is cut where a sentence ends, or a point of a list, for there the weights might have stopped; reports of
``length``, which say themselves that the text is not whole; and answers with reasoning, which is often withheld.
"""

import math
from collections.abc import Sequence

from probe.evidence.case import Case

IMPROBABLE = 1e-4
"""Ends less probable than this are looked at."""

REFERENCES = 20
"""Ends of other answers that are known at least; fewer say too little about where these weights stop."""


def stops_short(hosted: Sequence[Case], twin: Sequence[Case]) -> dict[str, str]:
    """Return one sentence per exchange id of ``hosted`` whose text ends where the weights would not end it.

    The reference of a case are the ends that are known of the route's controls, without itself, and of the twin's
    answers; of both those that comply. Cases without ``ending`` are passed over.
    """
    twins = [case.ending for case in twin if _ended(case) and case.ending is not None]
    controls = {case.exchange_id: case.ending for case in hosted if case.control and _ended(case)}
    found = {}
    for case in hosted:
        chance = _chance(case)
        if chance is None or chance >= math.log(IMPROBABLE):
            continue
        assert case.ending is not None
        others = [e for name, e in controls.items() if name != case.exchange_id and e is not None] + twins
        if len(others) >= REFERENCES and case.ending < min(others):
            found[case.exchange_id] = _sentence(case.ending, min(others), len(others))
    return found


def _ended(case: Case) -> bool:
    return case.outcome == "complied" and case.ending is not None


def _chance(case: Case) -> float | None:
    """Return (at most) the log of the probability that the sampler ended the text there, ``None`` if it is unknown."""
    if not _ended(case) or case.ending is None or case.penalised:
        return None
    return case.ending * min(1.0, case.power or 1.0)


def _sentence(ending: float, lowest: float, count: int) -> str:
    return (
        f"The answer is said to have ended by itself, but the weights would end it there with a probability of "
        f"{_share(ending)}; of {count} other answers none ends at a place less probable than {_share(lowest)}."
    )


def _share(log: float) -> str:
    """Return a probability in words; ``exp`` underflows below 1e-308."""
    tenth = math.floor(-log / math.log(10))
    return f"{math.exp(log):.2g}" if tenth < 4 else f"less than 1 in 10^{tenth}"
