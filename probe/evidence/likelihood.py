"""``likelihood``: is this text one that these weights would write to this prompt?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from probe.evidence.base import Evidence
from probe.evidence.case import Case
from probe.evidence.tilt import TokenTable, log_e_foreign, token_table, z_score

NAME, VERSION = "likelihood", "1"

MIN_TOKENS = 4
"""Shorter texts say too little: most of them is the decision to refuse, which is left out of the test."""


@dataclass(frozen=True)
class LikelihoodNorm:
    """What genuine texts score: ``own`` are log e-values of the twin's answers and of the route's controls, ascending.

    ``prompt_differs`` says that the model behind the route saw another prompt than the one we can score under.
    """

    own: tuple[float, ...] = ()
    prompt_differs: bool = False

    @classmethod
    def measure(cls, cases: Sequence[Case], *, prompt_differs: bool = False) -> "LikelihoodNorm":
        """Measure genuine texts: the twin's own answers, and answers to controls."""
        logs = [log_e_foreign(token_table(c.score), _power(c)) for c in cases if c.score and _testable(c) is None]
        return cls(tuple(sorted(logs)), prompt_differs)

    def cap(self, log_e: float) -> float:
        """Return the e-value, lowered to what a rank among the genuine texts allows.

        The likelihood ratio is exact where the host samples exactly like the twin. Where genuine texts reach such
        values themselves (other precision, another tokenization of the same text), the conformal e-value (n+1)/(k+1)
        is what the data support; k of n genuine texts score at least as high.
        """
        above = sum(1 for value in self.own if value >= log_e)
        return min(log_e, math.log((len(self.own) + 1) / (above + 1))) if above else log_e


def _power(case: Case) -> float:
    return 1.0 / float(case.sampling.get("temperature", 1.0))


def _testable(case: Case) -> str | None:
    """Return why a case cannot be tested, or ``None``."""
    if case.score is None:
        return case.unscored
    if len(case.score.tokens) < MIN_TOKENS:
        return f"the text has only {len(case.score.tokens)} tokens"
    if float(case.sampling.get("temperature", 1.0)) == 0.0:
        return "at temperature 0 surprisal has no spread to compare with"
    filters = {
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    active = [name for name, off in filters.items() if float(case.sampling.get(name, off)) not in {off, -1.0}]
    if active:
        return f"the sampler's {', '.join(active)} is not in this version's expectation"
    return None


def likelihood(case: Case, norm: LikelihoodNorm) -> Evidence:
    """Test one text against the weights."""
    reason = _testable(case)
    if reason is not None or case.score is None:
        return Evidence(NAME, VERSION, None, 0.0, f"Not tested: {reason}.")
    table = token_table(case.score)
    z = z_score(table, _power(case))
    log_e = norm.cap(log_e_foreign(table, _power(case)))
    facts = {
        "z": round(z, 2),
        "tokens": len(case.score.tokens),
        "log_p": round(case.score.logprob, 2),
        "log_e": round(log_e, 2),
        "genuine_texts": len(norm.own),
    }
    if norm.prompt_differs and log_e > 0:
        facts["log_e_without_prompt"] = facts.pop("log_e")
        return Evidence(
            NAME,
            VERSION,
            0.0,
            0.0,
            f"The text is unusual for these weights under the prompt that was sent (z = {z:.1f}), but the model saw another "
            "prompt, so that this proves nothing.",
            facts,
        )
    word = "as probable as their own texts are" if z < 3 else "far less probable than their own texts are"
    return Evidence(
        NAME,
        VERSION,
        log_e,
        log_e,
        f"To this prompt the same weights find this text {word} (z = {z:.1f} over {len(case.score.tokens)} tokens; "
        "their own texts have z near 0).",
        facts,
        _exhibit(table),
    )


def _exhibit(table: TokenTable) -> str:
    worst = int(table.surprisal.argmax())
    return f"token {worst + 1} of {len(table.surprisal)} has probability {math.exp(-table.surprisal[worst]):.2g}"
