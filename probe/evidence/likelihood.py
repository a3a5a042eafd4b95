"""``likelihood``: is this text one that these weights would write to this prompt?

Under the sampler that the request states (``probe.evidence.sampler``), or the one that the route's answers to controls
show instead (``probe.evidence.estimate``); at temperature 0 by margins (``probe.evidence.greedy``). Reasoning that the
route returns is part of the scored tokens; where the route withholds it there is no test.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from probe.evidence.base import Evidence
from probe.evidence.case import Case
from probe.evidence.estimate import Estimate, estimate
from probe.evidence.greedy import GreedyNorm, Margins, facts_of
from probe.evidence.sampler import Sampler, admitted
from probe.evidence.tilt import (
    TILTS,
    Array,
    TokenTable,
    log_e_foreign,
    mean_e,
    ratios_of,
    tilt_factors,
    token_table,
    z_score,
)

NAME, VERSION = "likelihood", "3"

MIN_TOKENS = 4
"""Shorter texts say too little: most of them is the decision to refuse, which is left out of the test."""

_FOREIGN = math.log(20.0)

RATIOS, WHOLE = "log_ratio_by_tilt", "log_e_all_tokens"
"""Names of facts that the verdict reads: log likelihood ratios foreign : own per tilt, and the log e-value that leaves
no token out."""


@dataclass(frozen=True)
class Genuine:
    """What the twin's own texts score under the sampler that they were asked for: log e-values, and margins at 0."""

    logs: tuple[float, ...] = ()
    margins: tuple[Margins, ...] = ()

    @classmethod
    def measure(cls, cases: Iterable[Case]) -> "Genuine":
        """Measure texts that a twin wrote."""
        pairs = [(case, _as_asked(case)) for case in cases if _untestable(case) is None]
        return cls(
            tuple(_log_e(case, used) for case, used in pairs if not used[0].greedy),
            tuple(_margins(case) for case, used in pairs if used[0].greedy),
        )

    def __add__(self, other: "Genuine") -> "Genuine":
        """Return both together."""
        return Genuine(self.logs + other.logs, self.margins + other.margins)


@dataclass(frozen=True)
class LikelihoodNorm:
    """What genuine texts score: log e-values, ascending.

    ``own`` are those of all genuine texts (the twin's answers, the route's controls), ``controls`` those of the
    route's controls among them, which tell of a route that serves other weights, and of its precision: 4-bit weights
    write texts that the twin's do not quite expect, and such values cap those of tested texts. ``answers``: those of
    the route's answers to the other traces, which tell of a prompt that is changed on its way where it is restricted.
    ``prompt_differs`` says that the model behind the route saw another prompt than the one we can score under.
    ``estimates``: the sampler that the controls show, per sampler asked for. ``greedy``: the margins of genuine texts
    at temperature 0.
    """

    own: tuple[float, ...] = ()
    controls: tuple[float, ...] = ()
    answers: tuple[float, ...] = ()
    prompt_differs: bool = False
    greedy: GreedyNorm = field(default_factory=GreedyNorm)
    estimates: Mapping[Sampler, Estimate] = field(default_factory=dict)

    @property
    def served_otherwise(self) -> bool:
        """Whether the controls show that texts of the route differ from those of these weights anyway.

        They are judged under the sampler that they show, so that another temperature alone does not count.
        """
        unlike = any(not found.fits for found in self.estimates.values())
        return unlike or _too_many(self.controls) or self.answers_differ or self.greedy.served_otherwise

    @property
    def answers_differ(self) -> bool:
        """Whether answers to the traces themselves are foreign to the weights: the model saw other words than we sent.

        A platform that blots out or rewrites parts of a prompt makes the model talk of other things, refusals included.
        """
        return _too_many(self.answers)

    @property
    def estimate(self) -> Estimate | None:
        """The route's sampler as its controls show it, for the settings with the most tokens; ``None``: too few."""
        return max(self.estimates.values(), key=lambda found: found.tokens, default=None)

    @classmethod
    def measure(
        cls,
        cases: Sequence[Case],
        *,
        hosted_controls: Sequence[Case] | None = None,
        hosted_answers: Sequence[Case] = (),
        prompt_differs: bool = False,
        genuine: Genuine | None = None,
    ) -> "LikelihoodNorm":
        """Measure genuine texts: the twin's own answers, and answers to controls.

        ``hosted_controls``: the hosted route's answers to controls, which may or may not be among ``cases`` as well.
        Without them all controls among ``cases`` count as the route's, and its sampler is taken as asked for.
        ``hosted_answers``: its scored answers to the other traces. ``genuine``: texts of the twin that were measured
        already, besides those among ``cases``.
        """
        hosted = [c for c in cases if c.control] if hosted_controls is None else [*hosted_controls]
        ids = {id(case) for case in hosted} | {(case.exchange_id, case.trace_id) for case in hosted_controls or ()}
        twin = [c for c in cases if id(c) not in ids and (c.exchange_id, c.trace_id) not in ids]
        estimates = {} if hosted_controls is None else _estimates(hosted)
        twins = Genuine.measure(twin) + (genuine or Genuine())
        theirs = [(case, _samplers(case, estimates)) for case in hosted if _untestable(case) is None]
        controls = [_log_e(case, used) for case, used in theirs if not used[0].greedy]
        pairs = [(case, _samplers(case, estimates)) for case in hosted_answers if _untestable(case) is None]
        cold = tuple(_margins(case) for case, used in theirs if used[0].greedy)
        return cls(
            own=tuple(sorted([*twins.logs, *controls])),
            controls=tuple(sorted(controls)),
            answers=tuple(sorted(_log_e(case, used) for case, used in pairs if not used[0].greedy)),
            prompt_differs=prompt_differs,
            greedy=GreedyNorm((*twins.margins, *cold), cold),
            estimates=estimates,
        )

    def samplers(self, case: Case) -> tuple[Sampler, ...]:
        """Return the samplers between which the one lies that wrote a case's text on this route, if it was its model.

        The case must state a sampler that is one.
        """
        return _samplers(case, self.estimates)

    def cap(self, log_e: float) -> float:
        """Return the e-value, lowered to what a rank among the genuine texts allows.

        The likelihood ratio is exact where the host samples exactly like the twin. Where genuine texts reach such
        values themselves (other precision, another tokenization of the same text, other weights), what counts is the
        conformal p-value p = (k+1)/(n+1), where k of n genuine texts score at least as high, through the calibrator
        1/(2√p) (Vovk & Wang 2021, §2).
        """
        return min([log_e, *(-0.5 * math.log(4.0 * p) for p in self._ranks(log_e))])

    def cap_ratio(self, log_e: float) -> float:
        """Return the largest log likelihood ratio that a text with this e-value may have.

        Among genuine texts such a value is no rarer than p, so a foreign text can be 1/p times as likely at most.
        """
        return min([math.inf, *(-math.log(p) for p in self._ranks(log_e))])

    def _ranks(self, log_e: float) -> list[float]:
        found = []
        for values in (self.own, self.controls, self.answers):
            above = len(values) - bisect_left(values, log_e)
            if above:
                found.append((above + 1) / (len(values) + 1))
        return found


def served_otherwise(hosted: Sequence[Case], estimates: Mapping[Sampler, Estimate] | None = None) -> bool:
    """Tell whether a route's answers to controls are foreign to the weights.

    It then serves other weights, or has another sampler or prompt, and a foreign refusal is no sign of another author
    than the one of the answers. ``estimates`` (of a ``LikelihoodNorm``): judge them under the sampler that they show.
    """
    answers = [case for case in hosted if case.control and case.outcome == "complied" and _untestable(case) is None]
    pairs = [(case, _samplers(case, estimates or {})) for case in answers]
    greedy = GreedyNorm(controls=tuple(_margins(case) for case, used in pairs if used[0].greedy))
    unlike = any(not found.fits for found in (estimates or {}).values())
    odd = _too_many([_log_e(case, used) for case, used in pairs if not used[0].greedy])
    return unlike or odd or greedy.served_otherwise


def _too_many(logs: Sequence[float]) -> bool:
    """Tell whether more texts have an e-value of 20 or more than the 5 % that can by chance (binomial test at 1 %)."""
    from scipy.special import bdtrc

    odd = sum(log_e >= _FOREIGN for log_e in logs)
    return odd > 0 and bool(bdtrc(odd - 1, len(logs), 0.05) < 0.01)


def _estimates(controls: Iterable[Case]) -> dict[Sampler, Estimate]:
    groups: dict[Sampler, list[TokenTable]] = {}
    for case in controls:
        asked = Sampler.of(case.sampling)
        if asked is not None and case.score is not None and _untestable(case) is None:
            groups.setdefault(asked, []).append(token_table(case.score))
    found = {asked: estimate(tables, asked) for asked, tables in groups.items()}
    return {asked: value for asked, value in found.items() if value is not None}


def _as_asked(case: Case) -> tuple[Sampler, ...]:
    asked = Sampler.of(case.sampling)
    assert asked is not None
    return (asked,)


def _samplers(case: Case, estimates: Mapping[Sampler, Estimate]) -> tuple[Sampler, ...]:
    """Return the samplers that may be behind a text of a hosted route.

    Filters count only where the controls show that the host applies them: without them the test is valid all the same,
    and a host that ignores a parameter would be accused of its own weights' words.
    """
    (asked,) = _as_asked(case)
    found = estimates.get(asked)
    if found is None:
        return (asked if asked.greedy else asked.unfiltered(),)
    return (Sampler(temperature=0.0),) if found.greedy and not found.asked.greedy else found.samplers


def _log_e(case: Case, samplers: Sequence[Sampler]) -> float:
    """Return the smallest log e-value of a text under any of the samplers: an e-value under each of them."""
    assert case.score is not None
    table = token_table(case.score)
    return min(log_e_foreign(admitted(table, sampler), sampler.power) for sampler in samplers)


def _margins(case: Case) -> Margins:
    assert case.score is not None
    return Margins.of(token_table(case.score))


def _untestable(case: Case) -> str | None:
    """Return why a case cannot be tested, or ``None``."""
    if case.reading.usage.reasoning_tokens and not case.reading.reasoning:
        hidden = case.reading.usage.reasoning_tokens
        return f"the route withholds its reasoning ({hidden} tokens), which the text depends on"
    if case.score is None:
        return case.unscored
    if case.score.count < MIN_TOKENS:
        return f"the text has only {case.score.count} tokens"
    if case.penalised:
        # They change probabilities by which tokens came before; a score has no ids of the tokens that it lists.
        return f"the sampler's {', '.join(case.penalised)} is not in this version's expectation"
    if Sampler.of(case.sampling) is None:
        stated = ", ".join(f"{name} {case.sampling[name]}" for name in _SETTINGS if name in case.sampling)
        return f"no sampler has the settings that were asked for: at {stated} nothing can be expected"
    return None


_SETTINGS = ("temperature", "top_p", "top_k", "min_p")


def likelihood(case: Case, norm: LikelihoodNorm) -> Evidence:
    """Test one text against the weights."""
    reason = _untestable(case)
    if reason is not None or case.score is None:
        return Evidence(NAME, VERSION, None, 0.0, f"Not tested: {reason}.")
    samplers = norm.samplers(case)
    if samplers[0].greedy:
        return _at_zero(case, norm)
    table = token_table(case.score)
    tables = [(admitted(table, sampler), sampler.power) for sampler in samplers]
    factors = [tilt_factors(*pair) for pair in tables]
    plain = [ratios_of(found) for found in factors]
    raws = [mean_e(ratios, table.choices) for ratios, (table, _) in zip(plain, tables, strict=True)]
    least = int(np.argmin(raws))
    z, raw = z_score(*tables[least]), raws[least]
    log_e = norm.cap(raw)
    ratios = np.minimum(plain[least], norm.cap_ratio(raw))
    whole = min(mean_e(ratios_of(f, 0), table.choices) for f, (table, _) in zip(factors, tables, strict=True))
    facts = {
        "z": round(z, 2),
        "tokens": case.score.count,
        "log_p": round(case.score.logprob, 2),
        "log_e": round(log_e, 2),
        WHOLE: round(whole, 2),
        RATIOS: _by_tilt(ratios),
        "genuine_texts": len(norm.own),
        "forbidden_tokens": int(tables[least][0].outside.sum()),
        **_sampler_facts(case, norm, samplers[least]),
    }
    words = f"(z = {z:.1f} over {case.score.count} tokens; their own texts have z near 0)"
    sentence = f"To this prompt the same weights find this text {_words(log_e, z)} {words}."
    strange = f"The text is unusual for these weights under the prompt that was sent (z = {z:.1f})"
    worst = int(np.where(tables[least][0].outside, table.surprisal + 1e3, table.surprisal).argmax())
    return _weighed(norm, raw, log_e, ratios, facts, (sentence, strange), _exhibit(case, table, worst))


def _at_zero(case: Case, norm: LikelihoodNorm) -> Evidence:
    """Test one text that was written at temperature 0."""
    assert case.score is not None
    if not norm.greedy.enough:
        stated = case.sampling.get("temperature")
        sentence = f"Not tested: at temperature {stated} it takes genuine texts to compare with, and there are"
        return Evidence(NAME, VERSION, None, 0.0, f"{sentence} only {len(norm.greedy.own)}.")
    table = token_table(case.score)
    found = Margins.of(table)
    log_e, ratios = norm.greedy.log_e(found), np.minimum(norm.greedy.log_ratios(found), norm.greedy.cap_ratio(found))
    whole = norm.greedy.log_ratios(found, spared=0)
    facts = {
        **facts_of(norm.greedy, found),
        "log_p": round(case.score.logprob, 2),
        "log_e": round(log_e, 2),
        WHOLE: round(float(np.logaddexp.reduce(whole) - math.log(len(whole))), 2),
        RATIOS: _by_tilt(ratios),
        **_sampler_facts(case, norm, Sampler(temperature=0.0)),
    }
    sentence = (
        f"At temperature 0 the weights take their most probable token: here {found.not_first} of {found.tokens} are"
        f" not it, by up to {found.largest:.1f} nats, against {norm.greedy.turned:.1%} in"
        f" {len(norm.greedy.own)} genuine texts"
    )
    exhibit = _exhibit(case, table, found.at, f", {found.largest:.1f} nats below the most probable")
    raw = max(log_e, 1.0) if found.odd else log_e
    return _weighed(norm, raw, log_e, ratios, facts, (sentence + ".", sentence), exhibit)


def _weighed(
    norm: LikelihoodNorm,
    raw: float,
    log_e: float,
    ratios: Array,
    facts: dict[str, object],
    sentences: tuple[str, str],
    exhibit: str,
) -> Evidence:
    """Return the evidence, or that it proves nothing where the route differs anyway. ``sentences``: for either."""
    if raw > 0 and (norm.prompt_differs or norm.served_otherwise):
        facts["log_e_without_protection"] = facts.pop("log_e")
        del facts[RATIOS]
        why = "so are the route's answers to controls"
        if norm.prompt_differs:
            why = "the model saw another prompt"
        elif norm.answers_differ:
            why = "so are the route's answers to the other traces: the model may have seen other words than were sent"
        return Evidence(NAME, VERSION, 0.0, 0.0, f"{sentences[1]}, but {why}, so that this proves nothing.", facts)
    llr = float(np.logaddexp.reduce(ratios) - math.log(len(ratios)))
    return Evidence(NAME, VERSION, log_e, llr, sentences[0], facts, exhibit)


def _by_tilt(ratios: Array) -> dict[str, float]:
    return {str(tilt): round(float(ratio), 3) for tilt, ratio in zip(TILTS, ratios, strict=True)}


def _sampler_facts(case: Case, norm: LikelihoodNorm, used: Sampler) -> dict[str, object]:
    asked = Sampler.of(case.sampling)
    found = None if asked is None else norm.estimates.get(asked)
    facts: dict[str, object] = {} if used == asked else {"assumed_temperature": round(used.temperature, 3)}
    if found is not None and (found.differs or found.greedy or not found.filters_kept or not found.fits):
        facts["sampler"] = found.sentence
    return facts


def _words(log_e: float, z: float) -> str:
    if log_e >= _FOREIGN:
        return "far less probable than their own texts are"
    return "as probable as their own texts are" if z < 3 else "less probable than most of their own texts are"


def _exhibit(case: Case, table: TokenTable, place: int, more: str = "") -> str:
    assert case.score is not None
    text = case.score.tokens[place].text
    named = f" {text!r}" if text else ""
    chance = f"{math.exp(-table.surprisal[place]):.2g}"
    return f"token {place + 1} of {len(table.surprisal)}{named} has probability {chance}{more}"
