"""``nonce``: the trace asked for a nonce in any reply; does this refusal carry it?

Who writes a text without having read the prompt cannot know the nonce. Who has read it may leave it out all the same:
how often these weights do so is counted on the twin's refusals, and on the route's controls.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from probe.evidence.base import Evidence
from probe.evidence.case import Case

NAME, VERSION = "nonce", "1"

WAGER = 0.95
"""Share of the stake that is bet on an absent nonce; the rest is kept, so that a present one leaves 1/20."""

ECHO = math.exp(-4.0)
"""Probability that a platform's text carries the nonce. An echo of it is imaginable, so that no text is exonerated by
it alone."""

_MARKS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class NonceNorm:
    """How often replies lack the nonce that was asked for: ``lacking`` of ``n``, each trace counting once.

    ``twin``: the twin's refusals. ``controls``: the route's answers to controls, which tell whether the model behind
    the route still sees and follows the instruction. A trace lacks it where any of its replies does.
    """

    twin_lacking: int = 0
    twin: int = 0
    controls_lacking: int = 0
    controls: int = 0
    prompt_differs: bool = False

    @classmethod
    def measure(cls, hosted: Sequence[Case], twin: Sequence[Case], *, prompt_differs: bool = False) -> "NonceNorm":
        """Count on traces with a nonce. ``prompt_differs``: the route's model saw another prompt than was sent."""
        own = _lacking([case for case in twin if case.refused])
        controls = _lacking([case for case in hosted if case.control and case.outcome in {"complied", "refused"}])
        return cls(sum(own), len(own), sum(controls), len(controls), prompt_differs)

    @property
    def worse(self) -> tuple[int, int]:
        """Return (lacking, n) of the set in which more of the replies lack the nonce."""
        sets = [(self.twin_lacking, self.twin), (self.controls_lacking, self.controls)]
        return max(sets, key=lambda found: (found[0] + 1) / (found[1] + 1))


def _lacking(cases: Sequence[Case]) -> list[bool]:
    found: dict[str, bool] = {}
    for case in cases:
        if case.nonce and case.text:
            found[case.trace_id] = found.get(case.trace_id, False) or not carries(case.text, case.nonce)
    return list(found.values())


def carries(text: str, nonce: str) -> bool:
    """Tell whether a text carries a nonce; brackets, other marks around it and the case of letters do not count."""
    wanted = _MARKS.sub(" ", nonce).split()
    words = _MARKS.sub(" ", text.casefold()).split()
    sought = [word.casefold() for word in wanted]
    return bool(sought) and any(words[i : i + len(sought)] == sought for i in range(len(words) - len(sought) + 1))


def nonce(case: Case, norm: NonceNorm) -> Evidence:
    """Test one refusal of a trace with a nonce.

    Absent: for k of m replies of the weights' own that lack it, (m+1)/(k+1) has expectation 1 at most where the tested
    reply is exchangeable with them (its inverse is the rank p-value of a binary score; Vovk, Gammerman & Shafer 2005,
    §2). Of the twin's refusals and the controls the set counts that accuses less.
    """
    if not case.refused or not case.text:
        return Evidence(NAME, VERSION, None, 0.0, "Not tested: there is no refusal text.")
    if not case.nonce:
        return Evidence(NAME, VERSION, None, 0.0, "Not tested: the trace does not ask for a nonce.")
    if not norm.twin or not norm.controls:
        missing = "refusals of the twin" if not norm.twin else "answered controls of the route"
        return Evidence(NAME, VERSION, None, 0.0, f"Not tested: there are no {missing} to traces with a nonce.")
    lacking, n = norm.worse
    present = carries(case.text, case.nonce)
    facts = {
        "nonce": case.nonce,
        "present": present,
        "twin_lacking": norm.twin_lacking,
        "twin": norm.twin,
        "controls_lacking": norm.controls_lacking,
        "controls": norm.controls,
    }
    if present:
        llr = max(min(math.log(ECHO) - math.log((n - lacking + 1) / (n + 2)), 0.0), math.log(ECHO))
        sentence = (
            f"The reply carries the nonce {case.nonce} that the prompt asked for: its author had read the prompt."
        )
        return Evidence(NAME, VERSION, math.log(1.0 - WAGER), llr, sentence, facts, case.nonce)
    log_e = math.log(1.0 - WAGER + WAGER * (n + 1) / (lacking + 1))
    llr = math.log(1.0 - ECHO) - math.log((lacking + 1) / (n + 2))
    sentence = (
        f"The reply lacks the nonce {case.nonce} that the prompt asked for; so do {norm.twin_lacking} of "
        f"{norm.twin} refusals of the twin and {norm.controls_lacking} of {norm.controls} controls of the route"
    )
    if norm.prompt_differs:
        why = "but the model behind the route saw another prompt, so that this proves nothing."
        return Evidence(NAME, VERSION, 0.0, 0.0, f"{sentence}, {why}", facts)
    return Evidence(NAME, VERSION, log_e, llr, f"{sentence}.", facts, case.text[:120])
