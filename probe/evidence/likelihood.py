"""``likelihood``: is this text one that these weights would write to this prompt?"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probe.evidence.base import Evidence
from probe.evidence.case import Case
from probe.evidence.tilt import TILTS, TokenTable, log_e_foreign, log_ratios, token_table, z_score

NAME, VERSION = "likelihood", "2"

MIN_TOKENS = 4
"""Shorter texts say too little: most of them is the decision to refuse, which is left out of the test."""

_FOREIGN = math.log(20.0)

RATIOS, WHOLE = "log_ratio_by_tilt", "log_e_all_tokens"
"""Names of facts that the verdict reads: log likelihood ratios foreign : own per tilt, and the log e-value that leaves
no token out."""


@dataclass(frozen=True)
class LikelihoodNorm:
    """What genuine texts score: log e-values, ascending.

    ``own`` are those of all genuine texts (the twin's answers, the route's controls), ``controls`` those of the
    controls among them, which tell of a route that serves other weights or another sampler. ``prompt_differs`` says
    that the model behind the route saw another prompt than the one we can score under.
    """

    own: tuple[float, ...] = ()
    controls: tuple[float, ...] = ()
    prompt_differs: bool = False

    @property
    def served_otherwise(self) -> bool:
        """Whether the controls show that texts of the route differ from those of these weights anyway."""
        return _too_many(self.controls)

    @classmethod
    def measure(cls, cases: Sequence[Case], *, prompt_differs: bool = False) -> "LikelihoodNorm":
        """Measure genuine texts: the twin's own answers, and answers to controls."""
        logs = [(case.control, _log_e(case)) for case in cases if _untestable(case) is None]
        return cls(
            own=tuple(sorted(log_e for _, log_e in logs)),
            controls=tuple(sorted(log_e for control, log_e in logs if control)),
            prompt_differs=prompt_differs,
        )

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
        for values in (self.own, self.controls):
            above = len(values) - bisect_left(values, log_e)
            if above:
                found.append((above + 1) / (len(values) + 1))
        return found


def served_otherwise(hosted: Sequence[Case]) -> bool:
    """Tell whether a route's answers to controls are foreign to the weights.

    It then serves other weights, or has another sampler or prompt, and a foreign refusal is no sign of another author
    than the one of the answers.
    """
    answers = [case for case in hosted if case.control and case.outcome == "complied"]
    return _too_many([_log_e(case) for case in answers if _untestable(case) is None])


def _too_many(logs: Sequence[float]) -> bool:
    """Tell whether more texts have an e-value of 20 or more than the 5 % that can by chance (binomial test at 1 %)."""
    from scipy.special import bdtrc

    odd = sum(log_e >= _FOREIGN for log_e in logs)
    return odd > 0 and bool(bdtrc(odd - 1, len(logs), 0.05) < 0.01)


def _log_e(case: Case) -> float:
    assert case.score is not None
    assert case.power is not None
    return log_e_foreign(token_table(case.score), case.power)


def _untestable(case: Case) -> str | None:
    """Return why a case cannot be tested, or ``None``."""
    if case.score is None:
        return case.unscored
    if len(case.score.tokens) < MIN_TOKENS:
        return f"the text has only {len(case.score.tokens)} tokens"
    if case.power is None:
        return f"at temperature {case.sampling.get('temperature')} surprisal has no spread to compare with"
    if case.penalised:
        return f"the sampler's {', '.join(case.penalised)} is not in this version's expectation"
    return None


def likelihood(case: Case, norm: LikelihoodNorm) -> Evidence:
    """Test one text against the weights."""
    reason = _untestable(case)
    if reason is not None or case.score is None or case.power is None:
        return Evidence(NAME, VERSION, None, 0.0, f"Not tested: {reason}.")
    table = token_table(case.score)
    z, raw = z_score(table, case.power), log_e_foreign(table, case.power)
    log_e = norm.cap(raw)
    ratios = np.minimum(log_ratios(table, case.power), norm.cap_ratio(raw))
    facts = {
        "z": round(z, 2),
        "tokens": len(case.score.tokens),
        "log_p": round(case.score.logprob, 2),
        "log_e": round(log_e, 2),
        WHOLE: round(log_e_foreign(table, case.power, spared=0), 2),
        RATIOS: {str(tilt): round(float(ratio), 3) for tilt, ratio in zip(TILTS, ratios, strict=True)},
        "genuine_texts": len(norm.own),
    }
    if raw > 0 and (norm.prompt_differs or norm.served_otherwise):
        facts["log_e_without_protection"] = facts.pop("log_e")
        del facts[RATIOS]
        why = "the model saw another prompt" if norm.prompt_differs else "so are the route's answers to controls"
        sentence = f"The text is unusual for these weights under the prompt that was sent (z = {z:.1f}), but {why}"
        return Evidence(NAME, VERSION, 0.0, 0.0, f"{sentence}, so that this proves nothing.", facts)
    return Evidence(
        NAME,
        VERSION,
        log_e,
        float(np.logaddexp.reduce(ratios) - math.log(len(ratios))),
        f"To this prompt the same weights find this text {_words(log_e, z)} (z = {z:.1f} over {len(case.score.tokens)} "
        "tokens; their own texts have z near 0).",
        facts,
        _exhibit(table),
    )


def _words(log_e: float, z: float) -> str:
    if log_e >= _FOREIGN:
        return "far less probable than their own texts are"
    return "as probable as their own texts are" if z < 3 else "less probable than most of their own texts are"


def _exhibit(table: TokenTable) -> str:
    worst = int(table.surprisal.argmax())
    return f"token {worst + 1} of {len(table.surprisal)} has probability {math.exp(-table.surprisal[worst]):.2g}"
