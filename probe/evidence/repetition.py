"""``repetition``: one text or template answers many distinct prompts more often than the weights would write it."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from probe.evidence.base import Evidence
from probe.evidence.case import GRADED, Case, normalised
from probe.evidence.likelihood import served_otherwise
from probe.evidence.nearcopies import NearCopies, World
from probe.evidence.stock import codes_of, compound
from probe.evidence.textchance import TextChance, chance_at, token_logs

__all__ = ["RepetitionNorm", "TextChance", "poisson_binomial_tail", "repeated_texts", "repetition"]

NAME, VERSION = "repetition", "3"

TWINS = 150
"""Refusals of the twin from which its use alone tells about near-copies, where nothing is scored."""

_NEVER = -60.0
"""Stands for the log of the e-value 0: a text that nobody else got is not canned."""

_RAREST = 1e-300
"""Stands for a probability that underflows; larger, so that it accuses less."""


@dataclass(frozen=True, slots=True)
class _Copies:
    """Where one refusal text occurs on the hosted route: ``shares`` of each trace's refusals, and their sum."""

    shares: Mapping[str, float]
    total: float


@dataclass(frozen=True)
class RepetitionNorm:
    """The refusals of a hosted route and of its twin, by normalised text.

    ``refused_traces`` and ``hosted_refusals`` count the hosted route's; ``copies`` says where each text occurs there.
    ``twin_texts`` and ``twin_refusals`` count the twin's. ``model_shares`` is P(text | the weights refuse), from above,
    for every hosted text; ``chances`` holds, for texts that could be scored, the probabilities behind it, and ``tails``
    for repeated texts the probability that the weights give so many of the refused traces this text. ``log_es``: log
    e-values by exchange id (``probe.evidence.stock``). ``near``: near-copies, and ``near_tails`` of their groups.
    ``steered``: texts that are most probable under a generic system prompt.
    """

    copies: Mapping[str, _Copies] = field(default_factory=dict)
    refused_traces: int = 0
    hosted_refusals: int = 0
    twin_texts: Mapping[str, int] = field(default_factory=dict)
    twin_refusals: int = 0
    model_shares: Mapping[str, float] = field(default_factory=dict)
    chances: Mapping[str, TextChance] = field(default_factory=dict)
    tails: Mapping[str, float] = field(default_factory=dict)
    prompt_differs: bool = False
    served_otherwise: bool = False
    log_es: Mapping[str, float] = field(default_factory=dict)
    near: NearCopies = field(default_factory=NearCopies)
    near_tails: Sequence[float] = ()
    steered: frozenset[str] = frozenset()

    @classmethod
    def measure(
        cls,
        hosted: Sequence[Case],
        twin: Sequence[Case],
        chances: Mapping[str, TextChance],
        *,
        prompt_differs: bool = False,
        power: float | None = None,
        otherwise: bool | None = None,
    ) -> "RepetitionNorm":
        """Count texts on both routes.

        ``chances``: texts scored under prompts of the study, at temperature 1. ``power`` (1/temperature) replaces the
        one that requests state, where the route's controls show another: probabilities are then those of the tokens'
        tables at that power, and a text without them counts as one that the weights may always write. ``otherwise``:
        whether the route serves other weights, as the likelihood found; asked again here where it is not given.
        """
        refusals: dict[str, list[Case]] = defaultdict(list)
        for case in hosted:
            if case.refused:
                refusals[normalised(case.text)].append(case)
        per_trace = Counter(case.trace_id for cases in refusals.values() for case in cases)
        own = Counter(normalised(case.text) for case in twin if case.refused)
        rate = _lower_refusal_rate(twin)
        copies, usable, shares, tails, steered = {}, {}, {}, {}, set()
        for text, cases in refusals.items():
            weights: dict[str, float] = defaultdict(float)
            for case in cases:
                weights[case.trace_id] += 1 / per_trace[case.trace_id]
            copies[text] = _Copies(weights, sum(weights.values()))
            chance = chance_at(cases, chances.get(text), power) if len(weights) > 1 else None
            elsewhere = power is not None and any(case.power != power for case in cases)
            shares[text] = 1.0 if chance is None and elsewhere else _model_share(chance, rate, own[text], own.total())
            if chance is not None:
                usable[text] = chance
                if chance.steered > max(chance.mean / rate if rate else 1.0, own[text] / (own.total() + 1)):
                    steered.add(text)
            if len(weights) > 1:
                tails[text] = _tail(chance, rate, shares[text], len(weights) - 1, len(per_trace) - 1)
        traces = _open(hosted)
        logs = {case.exchange_id: token_logs(case, power) for found in traces.values() for case in found}
        scored = bool(usable) or any(known is not None for known in logs.values())
        world = World(rate, own, lambda case: logs.get(case.exchange_id), scored)
        # The same goes for sentences with a slot, of which weights have more than a few answers of the twin show.
        near = NearCopies.measure(traces, world) if scored or own.total() >= TWINS else NearCopies()
        return cls(
            copies=copies,
            refused_traces=len(per_trace),
            hosted_refusals=per_trace.total(),
            twin_texts=own,
            twin_refusals=own.total(),
            model_shares=shares,
            chances=usable,
            tails=tails,
            prompt_differs=prompt_differs,
            served_otherwise=served_otherwise(hosted) if otherwise is None else otherwise,
            log_es=_log_es(traces, shares, usable, near, world),
            near=near,
            near_tails=_near_tails(near, len(per_trace) - 1),
            steered=frozenset(steered),
        )

    @property
    def protected(self) -> bool:
        """Whether texts of this route cannot be judged under the weights and the prompt that we hold."""
        return self.prompt_differs or self.served_otherwise

    def others(self, case: Case) -> int:
        """Return how many *other* traces got the same text: a text does not testify for itself."""
        found = self.copies.get(normalised(case.text))
        return 0 if found is None else len(found.shares) - (case.trace_id in found.shares)

    def group_of(self, case: Case) -> str:
        """Return what a refusal is a copy of: its normalised text, or the id of the template that it fills in.

        It counts as a near-copy where exact copies are not even half of its group.
        """
        name = self._near_name(case)
        return normalised(case.text) if name is None else name

    def _near_name(self, case: Case) -> str | None:
        text = normalised(case.text)
        number = self.near.of.get(text)
        if number is None or 2 * len(self.copies[text].shares) >= len(self.near.shares[number]):
            return None
        return self.near.name(case)

    def share_if_canned(self, case: Case) -> float:
        """Return the share of this text (or group) in the refusals of the route's other traces, each counting once."""
        text = normalised(case.text)
        if self._near_name(case) is not None:
            shares = self.near.shares[self.near.of[text]]
        else:
            found = self.copies.get(text)
            if found is None or not self.others(case):
                return 0.0
            shares = found.shares
        return (sum(shares.values()) - shares.get(case.trace_id, 0.0)) / max(self.refused_traces - 1, 1)

    def share_if_model(self, text: str) -> float:
        """Return P(text | the weights refuse), from above; 1 for a text that the route's refusals do not have.

        With scores: average P(text | prompt) divided by the twin's refusal rate (its lower 97.5 % limit). Conditioning
        on the refusal matters: a hidden prompt that makes the model refuse more often makes each of its sentences more
        frequent, and that is no sign of another author. A twin that never refused leaves that probability unknown, that
        is 1. Where a generic system prompt makes the text more probable, that counts: a hidden prompt may be such a
        one. The twin's own use of the text counts as well. Without scores: 1/(m+1) for a text that none of the twin's m
        refusals has, and 1 for one that the twin wrote: how cold the route samples is not known then.
        """
        return self.model_shares.get(text, 1.0)

    def share_if_model_case(self, case: Case) -> float:
        """Return the same for what the case counts as a copy of; for a near-copy P(text | refuse)/P(text | template).

        Never 0. The share of the group on the route over it is a likelihood ratio (``probe.evidence.nearcopies``).
        """
        if self._near_name(case) is None:
            return self.share_if_model(normalised(case.text))
        return max(self.near.case_shares.get(case.exchange_id, 1.0), _RAREST)


def _open(hosted: Sequence[Case]) -> dict[str, list[Case]]:
    """Return the refusals of each trace whose author the bytes do not declare: the ones that a verdict is due on."""
    traces: dict[str, list[Case]] = defaultdict(list)
    for case in hosted:
        if case.refused and case.text and not any(match.author in {"platform", "model"} for match in case.matches):
            traces[case.trace_id].append(case)
    return traces


def _log_es(
    traces: Mapping[str, Sequence[Case]],
    shares: Mapping[str, float],
    usable: Mapping[str, TextChance],
    near: NearCopies,
    world: World,
) -> dict[str, float]:
    """Return the log of each refusal's e-value: what is bet on exact copies, and what on near-copies, gives."""
    ids = sorted(traces)
    codes = codes_of([normalised(case.text) for trace in ids for case in traces[trace]])
    exact = compound(
        [[codes[normalised(case.text)] for case in traces[trace]] for trace in ids],
        np.array([shares[text] for text in codes]),
        # What the twin's use alone tells is random, and must not choose where the weight goes.
        np.array([min(shares[text], 1.0) if text in usable else 0.0 for text in codes]),
        elsewhere=world.stake,
    )
    found = {}
    for trace, row in zip(ids, exact, strict=True):
        for case, e in zip(traces[trace], row, strict=True):
            mixed = e + near.e.get(case.exchange_id, 0.0)
            found[case.exchange_id] = max(math.log(mixed), _NEVER) if mixed > 0 else _NEVER
    return found


def _lower_refusal_rate(twin: Sequence[Case]) -> float:
    """Return the lower 97.5 % limit of the twin's refusal rate on the traces (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    graded = [case for case in twin if case.outcome in GRADED and not case.control]
    refused = sum(case.refused for case in graded)
    return float(betaincinv(refused, len(graded) - refused + 1, 0.025)) if refused else 0.0


def _model_share(chance: TextChance | None, rate: float, written: int, refusals: int) -> float:
    if chance is None:
        # A colder sampler than the twin's repeats what the twin says now and then, and only scores would tell.
        return 1.0 if written else 1 / (refusals + 1)
    scored = chance.mean / rate if chance.mean < rate else 1.0
    return max(scored, min(chance.steered, 1.0), written / (refusals + 1), _RAREST)


def _tail(chance: TextChance | None, rate: float, share: float, others: int, traces: int) -> float:
    if chance is None or rate <= 0 or chance.steered > chance.mean / rate:
        return poisson_binomial_tail([share] * traces, others)
    known = [min(p / rate, 1.0) for p in chance.probabilities[:traces]]
    return poisson_binomial_tail([*known, *[share] * (traces - len(known))], others)


def _near_tails(near: NearCopies, traces: int) -> list[float]:
    others = [len(found) - 1 for found in near.shares]
    return [poisson_binomial_tail([p] * traces, k) for p, k in zip(near.model, others, strict=True)]


def repeated_texts(hosted: Sequence[Case], least: int = 2) -> list[str]:
    """Return the normalised refusals that at least ``least`` distinct traces got, the most frequent first."""
    traces: dict[str, set[str]] = defaultdict(set)
    for case in hosted:
        if case.refused and (text := normalised(case.text)):
            traces[text].add(case.trace_id)
    found = [text for text, ids in traces.items() if len(ids) >= least]
    return sorted(found, key=lambda text: (-len(traces[text]), text))


def poisson_binomial_tail(probabilities: Sequence[float], at_least: int) -> float:
    """Return P(X >= at_least) for a sum of independent Bernoulli variables, by exact convolution.

    Sums the upper tail itself rather than 1 - CDF, so that tiny tails keep their digits (Hong 2013, "On computing the
    distribution function for the Poisson binomial distribution", §2.1: the recursion).
    """
    if at_least <= 0:
        return 1.0
    # mass[k] = P(k successes so far) for k < at_least; everything that reaches at_least is moved to the tail.
    mass = np.zeros(at_least)
    mass[0] = 1.0
    tail = 0.0
    for p in probabilities:
        tail += float(mass[-1]) * p
        mass[1:] = mass[1:] * (1.0 - p) + mass[:-1] * p
        mass[0] *= 1.0 - p
    return min(tail, 1.0)


def repetition(case: Case, norm: RepetitionNorm) -> Evidence:
    """Test one refusal against the other refusals of its route.

    ``log_e`` is that of a compound e-value (``probe.evidence.stock``, ``probe.evidence.nearcopies``): over all refusals
    of the route that the weights wrote, the e-values have the sum n at most in expectation. ``llr`` is the share of the
    text among the route's other refusals over its share among the weights'.
    """
    if not case.refused or not case.text:
        return Evidence(NAME, VERSION, None, 0.0, "Not tested: there is no refusal text.")
    if norm.refused_traces < 2:
        return Evidence(NAME, VERSION, None, 0.0, "Not tested: the route has no other refusals to compare with.")
    text, group = normalised(case.text), norm.group_of(case)
    copies, number = norm.others(case), norm.near.of.get(text)
    others = copies if group == text or number is None else len(norm.near.shares[number]) - 1
    if others == 0:
        sentence = f"No other trace got this text on this route (of {norm.refused_traces} that were refused)."
        return Evidence(NAME, VERSION, _NEVER, 0.0, sentence, {"others": 0, "refusals": norm.hosted_refusals})
    canned, model = norm.share_if_canned(case), norm.share_if_model_case(case)
    log_e, llr = norm.log_es.get(case.exchange_id, _NEVER), math.log(canned) - math.log(model)
    facts: dict[str, float | int | str] = {
        "others": others,
        "refusals": norm.hosted_refusals,
        "refused_traces": norm.refused_traces,
        "share_on_route": round(canned, 4),
        "share_of_weights": model,
        "twin_refusals": norm.twin_refusals,
        "log_e": round(log_e, 2),
    }
    if group == text or number is None:
        sentence = _of_copies(norm, text, others, facts)
    else:
        sentence = _of_near_copies(norm, number, others, facts)
    if norm.protected and max(log_e, llr) > 0:
        other = (
            "another prompt, which may ask for that very text" if norm.prompt_differs else "other weights or sampling"
        )
        sentence = f"{sentence}, but the route answers from {other}."
        return Evidence(NAME, VERSION, min(log_e, 0.0), min(llr, 0.0), sentence, facts)
    return Evidence(NAME, VERSION, log_e, llr, sentence + ".", facts, case.text[:120])


def _of_copies(norm: RepetitionNorm, text: str, others: int, facts: dict[str, float | int | str]) -> str:
    facts |= {"twin_wrote_it": norm.twin_texts.get(text, 0), "tail": norm.tails[text]}
    expected = norm.share_if_model(text) * (norm.refused_traces - 1)
    condition = ""
    if text in norm.steered:
        condition = "under a generic system prompt "
        facts["share_from"] = "a generic system prompt"
    return (
        f"The same text answers {others} other traces of this route ({norm.refused_traces} were refused); {condition}"
        f"these weights would write it to {'at most ' if text in norm.chances else 'perhaps '}{expected:.2g} of them"
    )


def _of_near_copies(norm: RepetitionNorm, number: int, others: int, facts: dict[str, float | int | str]) -> str:
    pattern = norm.near.patterns[number]
    facts |= {
        "template": str(pattern.words),
        "slots": sum(limit > 0 for limit in pattern.words.slots),
        "twin_wrote_it": pattern.twin,
        "tail": norm.near_tails[number],
    }
    expected = min(norm.near.model[number], 1.0) * (norm.refused_traces - 1)
    return (
        f'The same sentence with other words filled in, "{pattern.words}", answers {others} other traces of this '
        f"route ({norm.refused_traces} were refused); these weights would write it to "
        f"{'about ' if pattern.tokens is not None else 'perhaps '}{expected:.2g} of them"
    )
