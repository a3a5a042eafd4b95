"""``accounting``: do the token counts that the route reports fit the tokens that were sent and received?"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from probe.evidence.base import Evidence
from probe.evidence.case import Case

NAME, VERSION = "accounting", "1"

MIN_CONTROLS = 5
CONSTANT = 0.9
"""Share of the controls that must show the same surplus before it counts as constant."""

_IF_PLATFORM = 0.5
"""Probability that a platform which writes the text itself gets a count wrong; many bill what would have been."""


@dataclass(frozen=True)
class AccountingNorm:
    """What a route's controls report.

    ``prompt_surplus``: reported minus expected prompt tokens where it is constant, else ``None``.
    ``completion_surplus``: likewise for the answer (1 where the end token is billed). ``controls``: how many could be
    compared. ``odd_prompt`` and ``odd_completion``: how many of them deviate from the constant.
    """

    prompt_surplus: int | None = None
    completion_surplus: int | None = None
    controls: int = 0
    odd_prompt: int = 0
    odd_completion: int = 0

    @classmethod
    def measure(cls, cases: Sequence[Case]) -> "AccountingNorm":
        """Learn from answers to controls (they are the model's own with the least doubt)."""
        prompts = [d for case in cases if (d := prompt_surplus(case)) is not None]
        texts = [d for case in cases if (d := completion_surplus(case)) is not None]
        prompt, completion = _constant(prompts), _constant(texts)
        return cls(
            prompt_surplus=prompt,
            completion_surplus=completion,
            controls=len(prompts),
            odd_prompt=sum(d != prompt for d in prompts),
            odd_completion=sum(d != completion for d in texts),
        )

    @property
    def prompt_differs(self) -> bool:
        """Whether the model behind the route sees more or fewer tokens than were sent, always the same number."""
        return self.prompt_surplus not in {None, 0}

    @property
    def finding(self) -> str | None:
        """A clause about a hidden or rewritten prompt; ``None`` where the counts agree or say nothing."""
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
    """Compare one answer's counts with the route's norm."""
    odd: list[str] = []
    log_e, tested = 0.0, 0
    pairs = (
        ("prompt", prompt_surplus(case), norm.prompt_surplus, norm.odd_prompt, case.reading.usage.prompt_tokens),
        (
            "answer",
            completion_surplus(case),
            norm.completion_surplus,
            norm.odd_completion,
            case.reading.usage.completion_tokens,
        ),
    )
    facts: dict[str, int | float | None] = {"controls": norm.controls}
    for name, surplus, usual, exceptions, reported in pairs:
        facts[f"{name}_reported"], facts[f"{name}_surplus"], facts[f"{name}_usual"] = reported, surplus, usual
        if surplus is None or usual is None:
            continue
        tested += 1
        if surplus != usual:
            # A platform's wrong count against the share of controls that are odd as well, from above.
            log_e += math.log(_IF_PLATFORM * (norm.controls + 2) / (exceptions + 1))
            odd.append(f"{reported} tokens for the {name} where {reported - surplus + usual} are expected")
    if not tested:
        return Evidence(NAME, VERSION, None, 0.0, _why_not(case, norm), facts)
    exhibit = f"usage.prompt_tokens = {facts['prompt_reported']}, usage.completion_tokens = {facts['answer_reported']}"
    if odd:
        sentence = f"The route reports {' and '.join(odd)}, unlike on its controls (n = {norm.controls})."
        return Evidence(NAME, VERSION, log_e, log_e, sentence, facts, exhibit)
    if norm.prompt_differs:
        sentence = f"As on its controls, {norm.finding}. That is no sign that the platform wrote the answer."
        return Evidence(NAME, VERSION, 0.0, 0.0, sentence, facts, exhibit, mechanism="prompt_rewrite")
    return Evidence(
        NAME, VERSION, 0.0, 0.0, "The reported token counts fit what was sent and received.", facts, exhibit
    )


def _why_not(case: Case, norm: AccountingNorm) -> str:
    if case.prompt_tokens is None and case.text_tokens is None:
        return "Not tested: no tokenizer of the weights was at hand."
    if case.reading.usage.prompt_tokens is None and case.reading.usage.completion_tokens is None:
        return "Not tested: the answer reports no token counts."
    return f"Not tested: the route's controls ({norm.controls}) show no constant relation to compare with."
