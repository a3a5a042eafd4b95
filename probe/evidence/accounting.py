"""``accounting``: do the token counts that the route reports fit the tokens that were sent and received?"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from probe.evidence.base import Evidence
from probe.evidence.case import Case

NAME, VERSION = "accounting", "2"

MIN_CONTROLS = 5
CONSTANT = 0.9
"""Share of the controls that must show the same surplus before it counts as constant."""

WRONG = 0.3
"""Probability that a platform which writes the text itself gets a count wrong; many bill what would have been."""

REWRITE = "prompt_rewrite"
"""Mechanism of evidence that the model saw another prompt than the one that was sent."""


@dataclass(frozen=True)
class AccountingNorm:
    """What a route's controls report.

    ``prompt_surplus``: reported minus expected prompt tokens where it is constant, else ``None``.
    ``completion_surplus``: likewise for the answer (1 where the end token is billed). ``controls`` and ``answers``: how
    many prompts and answers could be compared. ``odd_prompt``: how many prompts deviate from the constant; ``unread``:
    how many of those are reported as 0 tokens. ``odd_completion``: how many answers are billed with fewer tokens than
    the constant says.
    """

    prompt_surplus: int | None = None
    completion_surplus: int | None = None
    controls: int = 0
    answers: int = 0
    odd_prompt: int = 0
    unread: int = 0
    odd_completion: int = 0

    @classmethod
    def measure(cls, cases: Sequence[Case]) -> "AccountingNorm":
        """Learn from answers to controls (they are the model's own with the least doubt)."""
        prompts = [(d, case) for case in cases if (d := prompt_surplus(case)) is not None]
        texts = [d for case in cases if (d := completion_surplus(case)) is not None]
        prompt, completion = _constant([d for d, _ in prompts]), _constant(texts)
        odd = [case for d, case in prompts if d != prompt]
        return cls(
            prompt_surplus=prompt,
            completion_surplus=completion,
            controls=len(prompts),
            answers=len(texts),
            odd_prompt=len(odd),
            unread=sum(case.reading.usage.prompt_tokens == 0 for case in odd),
            odd_completion=0 if completion is None else sum(d < completion for d in texts),
        )

    @property
    def prompt_differs(self) -> bool:
        """Whether the model behind the route sees more or fewer tokens than were sent, always the same number."""
        return self.prompt_surplus not in {None, 0}

    @property
    def finding(self) -> str | None:
        """A sentence about a hidden or rewritten prompt, for the route; ``None`` where the counts show none."""
        if not self.prompt_differs or self.prompt_surplus is None:
            return None
        more = "more" if self.prompt_surplus > 0 else "fewer"
        agree = self.controls - self.odd_prompt
        return (
            f"the route reports {abs(self.prompt_surplus)} {more} prompt tokens than were sent, on {agree} of "
            f"{self.controls} controls: the model sees a hidden or rewritten prompt, or another template"
        )


def prompt_surplus(case: Case) -> int | None:
    """Return reported minus expected prompt tokens."""
    reported = case.reading.usage.prompt_tokens
    return None if reported is None or case.prompt_tokens is None else reported - case.prompt_tokens


def completion_surplus(case: Case) -> int | None:
    """Return reported minus counted tokens of the answer; reasoning that was billed but not shown cannot be counted."""
    usage = case.reading.usage
    if usage.completion_tokens is None or case.text_tokens is None:
        return None
    if usage.reasoning_tokens or case.reading.reasoning or case.reading.finish_reason != "stop":
        return None
    return usage.completion_tokens - case.text_tokens


def _constant(differences: Sequence[int]) -> int | None:
    if len(differences) < MIN_CONTROLS:
        return None
    value, count = Counter(differences).most_common(1)[0]
    return value if count >= CONSTANT * len(differences) else None


def accounting(case: Case, norm: AccountingNorm) -> Evidence:
    """Compare one answer's counts with the route's norm.

    What shows that the platform wrote the text is a count that the weights' own text cannot have: no prompt tokens at
    all, or fewer tokens for the answer than it has. More tokens do not: reasoning that is not shown and another
    tokenization of the same text look alike. Another number of prompt tokens than usual shows another prompt, under
    which the text cannot be judged: it protects from the detectors that judge texts.
    """
    usage = case.reading.usage
    prompt, answer = prompt_surplus(case), completion_surplus(case)
    facts: dict[str, int | float | None] = {
        "controls": norm.controls,
        "prompt_reported": usage.prompt_tokens,
        "prompt_surplus": prompt,
        "prompt_usual": norm.prompt_surplus,
        "answer_reported": usage.completion_tokens,
        "answer_surplus": answer,
        "answer_usual": norm.completion_surplus,
    }
    exhibit = f"usage.prompt_tokens = {usage.prompt_tokens}, usage.completion_tokens = {usage.completion_tokens}"
    odd: list[str] = []
    factors: list[float] = []
    rewritten = False
    if prompt is not None and norm.prompt_surplus is not None:
        unread = prompt != norm.prompt_surplus and usage.prompt_tokens == 0
        rewritten = prompt != norm.prompt_surplus and not unread
        factors.append(_factor(unread, norm.unread, norm.controls))
        if unread or rewritten:
            usual = (case.prompt_tokens or 0) + norm.prompt_surplus
            odd.append(f"{usage.prompt_tokens} tokens for the prompt where {usual} are usual")
    if answer is not None and norm.completion_surplus is not None:
        factors.append(_factor(answer < norm.completion_surplus, norm.odd_completion, norm.answers))
        if answer != norm.completion_surplus:
            usual = (case.text_tokens or 0) + norm.completion_surplus
            odd.append(f"{usage.completion_tokens} tokens for the answer where {usual} are usual")
    if not factors:
        return Evidence(NAME, VERSION, None, 0.0, _why_not(case, norm), facts)
    log_e = math.log(1.0 - WRONG) if rewritten else math.log(sum(factors) / len(factors))
    sentence, mechanism = _sentence(odd, norm, rewritten=rewritten, telling=log_e > 0)
    return Evidence(NAME, VERSION, log_e, 0.0 if rewritten else log_e, sentence, facts, exhibit, mechanism=mechanism)


def _factor(odd: bool, exceptions: int, controls: int) -> float:
    """Return the e-value of one count; counts are averaged, because they may depend on each other.

    Under the null the answer is exchangeable with the controls, so that ``odd`` has expectation (k+1)/(n+1) at most.
    """
    return 1.0 - WRONG + (WRONG * (controls + 1) / (exceptions + 1) if odd else 0.0)


def _sentence(odd: Sequence[str], norm: AccountingNorm, *, rewritten: bool, telling: bool) -> tuple[str, str | None]:
    """Return what the counts say, and the mechanism where they show one."""
    if odd:
        sentence = f"The route reports {' and '.join(odd)} (controls: n = {norm.controls})."
        if rewritten:
            return f"{sentence} The model saw another prompt than the one that was sent.", REWRITE
        return sentence if telling else f"{sentence} That is no sign that the platform wrote the answer.", None
    if norm.prompt_differs:
        return f"As on its controls, {norm.finding}. That is no sign that the platform wrote the answer.", REWRITE
    return "The reported token counts fit what was sent and received.", None


def _why_not(case: Case, norm: AccountingNorm) -> str:
    if case.prompt_tokens is None and case.text_tokens is None:
        return "Not tested: no tokenizer of the weights was at hand."
    if case.reading.usage.prompt_tokens is None and case.reading.usage.completion_tokens is None:
        return "Not tested: the answer reports no token counts."
    return f"Not tested: the route's controls ({norm.controls}) show no constant relation to compare with."
