"""``consistency``: every repeat of one trace was refused in the same words, where the weights would vary them.

Null: the r refusals of a trace are independent draws of the weights. With p(x) = P(x | refuse, prompt), 1{all equal
x}/p(x)^(r-1) has expectation Σ p(x)^r / p(x)^(r-1) <= 1. Scores give P(x | prompt) = p(x)·R with R the weights' rate of
refusing this prompt; of t answers of the twin to the same trace k refused, and C(k, s)/C(t, s) has expectation R^s
(Hoeffding 1948, "A class of statistics with asymptotically normal distribution", §5). So [C(k, s)/C(t, s)] / P(x |
prompt)^s is an e-value for every s from 1 to min(r-1, t), and so is their average: a twin that refused this prompt
rarely still allows a small s. That the weights refuse more often under a hidden prompt does not change p(x).
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from probe.evidence.base import Evidence
from probe.evidence.case import GRADED, Case, normalised
from probe.evidence.tilt import log_probability, token_table

NAME, VERSION = "consistency", "1"

WAGER = 0.9
"""Share of the stake that is bet on equal texts; the rest is kept, so that texts which vary leave 1/10."""

VARIES = 0.5
"""Probability that a platform's refusals of one trace are not all equal: it may draw them, or not always act."""

CACHED = 0.5
"""Share of the route's ordinary repeats that must be identical before the route counts as one that repeats itself."""

_MOST = 500.0
_REPEATS = 2


@dataclass(frozen=True)
class _Repeats:
    """The refusals of one trace in order of their repeats, normalised; ``refused`` of ``graded`` answers are such."""

    texts: tuple[str, ...]
    refused: int
    graded: int


@dataclass(frozen=True)
class ConsistencyNorm:
    """Refusals by trace on both routes, and how often the route's ordinary answers repeat themselves.

    ``identical`` of ``ordinary`` traces (controls, and others that were answered) got the same answer every time.
    """

    hosted: Mapping[str, _Repeats] = field(default_factory=dict)
    twin: Mapping[str, _Repeats] = field(default_factory=dict)
    ordinary: int = 0
    identical: int = 0
    prompt_differs: bool = False
    power: float | None = None
    _alike: dict[int, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def measure(
        cls,
        hosted: Sequence[Case],
        twin: Sequence[Case],
        *,
        prompt_differs: bool = False,
        power: float | None = None,
    ) -> "ConsistencyNorm":
        """Gather repeats. ``power`` (1/temperature) replaces the stated one where the controls show another."""
        answers: dict[str, list[str]] = defaultdict(list)
        for case in hosted:
            if case.outcome == "complied" and case.text and not _fixed(case):
                answers[case.trace_id].append(normalised(case.text))
        repeated = [texts for texts in answers.values() if len(texts) >= _REPEATS]
        return cls(
            hosted=_by_trace(hosted),
            twin=_by_trace(twin),
            ordinary=len(repeated),
            identical=sum(len(set(texts)) == 1 for texts in repeated),
            prompt_differs=prompt_differs,
            power=power,
        )

    @property
    def repeats_itself(self) -> bool:
        """Whether most ordinary answers are the same in every repeat: a cache, or a seed that the host fixes."""
        return self.identical > CACHED * self.ordinary

    def twin_alike(self, repeats: int) -> tuple[int, int]:
        """Return (k, m): of m traces that the twin refused at least twice, k were refused in the same words.

        Of each trace the first ``repeats`` refusals count; one with fewer is alike more easily, which accuses less.
        """
        if repeats not in self._alike:
            found = [r.texts[:repeats] for r in self.twin.values() if len(r.texts) >= _REPEATS]
            self._alike[repeats] = sum(len(set(texts)) == 1 for texts in found), len(found)
        return self._alike[repeats]


def _by_trace(cases: Sequence[Case]) -> dict[str, _Repeats]:
    traces: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.outcome in GRADED and case.text:
            traces[case.trace_id].append(case)
    found = {}
    for trace_id, answers in traces.items():
        ordered = sorted(answers, key=lambda case: (case.repeat is None, case.repeat or 0, case.exchange_id))
        texts = tuple(normalised(case.text) for case in ordered if case.refused)
        found[trace_id] = _Repeats(texts, len(texts), len(answers))
    return found


def _fixed(case: Case) -> bool:
    return case.power is None or case.sampling.get("seed") is not None


def consistency(case: Case, norm: ConsistencyNorm) -> Evidence:
    """Test the refusals of one trace against each other; each of them gets the same evidence."""
    reason = _why_not(case, norm)
    if reason is not None:
        return Evidence(NAME, VERSION, None, 0.0, f"Not tested: {reason}.")
    own = norm.hosted[case.trace_id]
    texts = len(set(own.texts))
    alike, traces = norm.twin_alike(len(own.texts))
    facts: dict[str, float | int | str] = {
        "refusals": len(own.texts),
        "texts": texts,
        "twin_traces": traces,
        "twin_alike": alike,
        "ordinary": norm.ordinary,
        "identical": norm.identical,
    }
    if texts > 1:
        sentence = f"The {len(own.texts)} refusals of this trace have {texts} different texts."
        return Evidence(NAME, VERSION, math.log(1.0 - WAGER), math.log(VARIES), sentence, facts)
    ratio, facts["by"] = _log_ratio(case, norm, own)
    if norm.identical:
        ratio = min(ratio, math.log((norm.ordinary + 1) / (norm.identical + 1)))
    log_e = float(math.log(1.0 - WAGER + WAGER * math.exp(min(ratio, _MOST))))
    sentence = (
        f"All {len(own.texts)} refusals of this trace have the same text; so have those of {alike} of {traces} traces "
        f"that the twin refused more than once, and the answers to {norm.identical} of {norm.ordinary} traces that the "
        "route answered more than once"
    )
    if norm.prompt_differs and log_e > 0:
        why = "but the model behind the route saw another prompt, which may ask for that very text."
        return Evidence(NAME, VERSION, 0.0, 0.0, f"{sentence}, {why}", facts)
    llr = max(log_e + math.log(1.0 - VARIES), 0.0) if log_e > 0 else log_e
    return Evidence(NAME, VERSION, log_e, llr, f"{sentence}.", facts, case.text[:120])


def _why_not(case: Case, norm: ConsistencyNorm) -> str | None:
    if not case.refused or not case.text:
        return "there is no refusal text"
    if len(norm.hosted[case.trace_id].texts if case.trace_id in norm.hosted else ()) < _REPEATS:
        return "the trace was refused only once"
    if _fixed(case):
        stated = {name: value for name in ("seed", "temperature") if (value := case.sampling.get(name)) is not None}
        return f"repeats are equal anyway with {', '.join(f'{name} {value}' for name, value in stated.items())}"
    if not norm.ordinary:
        return "no other trace of the route was answered more than once, which would show a cache"
    if norm.repeats_itself:
        return (
            f"the route repeats itself ({norm.identical} of {norm.ordinary} traces got the same answer every time), as "
            "one with a cache or a fixed seed does"
        )
    return None


def _log_ratio(case: Case, norm: ConsistencyNorm, own: _Repeats) -> tuple[float, str]:
    """Return the log of the likelihood ratio, or of the conformal one, and which of them it is.

    Which one depends on what was measured, not on what the texts are: a score and the twin's answers to this trace.
    """
    power = norm.power if norm.power is not None else case.power
    twin = norm.twin.get(case.trace_id)
    if case.score is not None and case.score.count and power is not None and twin is not None and _plain(case):
        log_p = log_probability(token_table(case.score), power)
        most = min(len(own.texts) - 1, twin.graded)
        logs = [
            math.log(math.comb(twin.refused, s) / math.comb(twin.graded, s)) - s * log_p
            for s in range(1, min(most, twin.refused) + 1)
        ]
        return (float(np.logaddexp.reduce(logs)) - math.log(most) if logs else -math.inf), "scores"
    alike, traces = norm.twin_alike(len(own.texts))
    return math.log((traces + 1) / (alike + 1)), "twin"


def _plain(case: Case) -> bool:
    return not case.filtered and not case.penalised
