"""``accounting``: do the token counts that the route reports fit the tokens that were sent and received?

The tested answer gets a conformal rank among the route's answers that comply: an answer's score grows with how rare its
pattern of counts is among them, and with how far its count is from its text. Counts that other answers show as well
accuse nobody.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from probe.evidence.base import Evidence
from probe.evidence.case import Case
from probe.evidence.conformal import LEAST, MOST, NOT_DECLINING, e_of_rank, rank_of
from probe.evidence.made import made

NAME, VERSION = "accounting", "3"

MIN_CONTROLS = 5
CONSTANT = 0.9
"""Share of the controls that must show the same surplus before it counts as constant."""

BETS: Mapping[int, float] = {1: 0.3, 2: 0.05, 4: 0.03}
"""Rank to stake: most is kept, because most platforms that write the text themselves get the counts right; many bill
what would have been."""

PROTECTED = 0.7
"""E-value of an answer to another prompt than was sent."""

MORE_NEEDS = 5
"""Answers to attacks that comply, needed before more tokens than the text has say anything: without them, reasoning
that is not shown and comes with hard questions only looks the same."""

REWRITE = "prompt_rewrite"
"""Mechanism of evidence that the model saw another prompt than the one that was sent."""

_TESTED = frozenset({"refused", "partial", "empty"})
"""Of what broke off, the counts are missing as well; that says nothing new."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one answer's counts look like; ``None`` where it cannot be told.

    ``unread``: 0 prompt tokens are reported. ``answer``: reported minus counted tokens of the answer. ``reports``:
    which counts there are. ``total``: whether the reported total is the sum.
    """

    unread: bool | None
    answer: int | None
    reports: str | None
    total: bool | None


@dataclass(frozen=True)
class AccountingNorm:
    """What a route's controls report.

    ``prompt_surplus``: reported minus expected prompt tokens where it is constant, else ``None``.
    ``completion_surplus``: likewise for the answer (1 where the end token is billed). ``controls`` and ``answers``: how
    many prompts and answers could be compared. ``odd_prompt``: how many prompts deviate from the constant; ``unread``:
    how many of those are reported as 0 tokens. ``odd_completion``: how many answers are billed with fewer tokens than
    the constant says. ``rows``: the counts of the answers that tested ones are compared with. ``whole``: whether these
    are from all of the route, so that more can be compared; ``more``: whether more tokens than the text has are odd.
    """

    prompt_surplus: int | None = None
    completion_surplus: int | None = None
    controls: int = 0
    answers: int = 0
    odd_prompt: int = 0
    unread: int = 0
    odd_completion: int = 0
    rows: tuple[Counts, ...] = field(default=(), repr=False)
    whole: bool = False
    more: bool = False
    _ranks: dict[Counts, tuple[int, int] | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def measure(cls, cases: Sequence[Case], others: Sequence[Case] | None = None) -> "AccountingNorm":
        """Learn from answers to controls that comply (they are the model's own with the least doubt).

        ``others``: all answers of the route. With them, answers to attacks that comply are compared with as well, and
        absent counts, totals that are no sum, and more tokens than the text has can be odd.
        """
        attacks = [case for case in others or () if not case.control and case.outcome == "complied"]
        reference = [*cases, *attacks][:MOST]
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
            rows=tuple(_counts(case) for case in reference),
            whole=others is not None,
            more=len(attacks) >= MORE_NEEDS and not any(_reasons(case) for case in [*cases, *(others or ())]),
        )

    @cached_property
    def usual_reports(self) -> str | None:
        """Which counts the answers mostly report; ``None`` where there is no answer."""
        found = Counter(row.reports for row in self.rows).most_common(1)
        return found[0][0] if found else None

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
    usage, reading = case.reading.usage, case.reading
    counted = 0 if case.outcome == "empty" and not reading.text else case.text_tokens
    if usage.completion_tokens is None or counted is None:
        return None
    if _reasons(case) or reading.finish_reason != "stop":
        return None
    return usage.completion_tokens - counted


def _reasons(case: Case) -> bool:
    return bool(case.reading.usage.reasoning_tokens or case.reading.reasoning)


def _counts(case: Case) -> Counts:
    usage = case.reading.usage
    prompt = prompt_surplus(case)
    given = (("prompt", usage.prompt_tokens), ("completion", usage.completion_tokens))
    # 0 tokens for an empty answer is right; 0 for a text is as good as no count.
    names = [name for name, value in given if value or (value == 0 and name == "completion" and not case.text)]
    return Counts(
        unread=None if prompt is None else usage.prompt_tokens == 0,
        answer=completion_surplus(case),
        reports=" ".join(names) or "none",
        total=made(case).adds_up,
    )


def _constant(differences: Sequence[int]) -> int | None:
    if len(differences) < MIN_CONTROLS:
        return None
    value, count = Counter(differences).most_common(1)[0]
    return value if count >= CONSTANT * len(differences) else None


def _columns(norm: AccountingNorm) -> tuple[str, ...]:
    """Return the names of the counts that can be odd on this route."""
    found = []
    if norm.prompt_surplus is not None:
        found.append("unread")
    if norm.completion_surplus is not None:
        found.append("answer")
    return (*found, "reports", "total") if norm.whole and len(norm.rows) >= LEAST else tuple(found)


def rank_of_counts(mine: Counts, norm: AccountingNorm) -> tuple[int, int] | None:
    """Return rank and number of the answers compared with, of counts that most answers share with others."""
    if mine not in norm._ranks:  # noqa: SLF001 - the norm's memory of this function
        norm._ranks[mine] = _rank(mine, norm)  # noqa: SLF001
    return norm._ranks[mine]  # noqa: SLF001


def _rank(mine: Counts, norm: AccountingNorm) -> tuple[int, int] | None:
    """Return rank and number of the answers compared with; ``None`` where nothing can be compared.

    The score of a member of the bag: -log(share of its value) per count, and log(1 + distance) for the tokens of the
    answer. Only members that have what the tested answer has are compared with.
    """
    names = [name for name in _columns(norm) if getattr(mine, name) is not None]
    # Where counts are absent there is nothing else to compare: that is told by ``reports``.
    while names:
        rows = [row for row in norm.rows if all(getattr(row, name) is not None for name in names)]
        if len(rows) >= MIN_CONTROLS:
            break
        names.remove(min(names, key=lambda name: sum(getattr(row, name) is not None for row in norm.rows)))
    else:
        return None
    bag = [*rows, mine]
    scores = np.zeros(len(bag))
    for name in names:
        if name == "answer":
            usual = norm.completion_surplus or 0
            away = [(row.answer or 0) - usual for row in bag]
            scores += np.log1p([abs(d) if d < 0 or norm.more else 0 for d in away])
        else:
            shares = Counter(getattr(row, name) for row in bag)
            scores += np.array([math.log(len(bag) / shares[getattr(row, name)]) for row in bag])
    return rank_of(float(scores[-1]), scores[:-1]), len(rows)


def accounting(case: Case, norm: AccountingNorm) -> Evidence:
    """Compare one answer's counts with the route's norm.

    What shows that the platform wrote the text is a count that the weights' own text does not have on this route: no
    prompt tokens at all, fewer tokens for the answer than it has, or more, where no answer of the route reasons.
    Another number of prompt tokens than usual shows another prompt, under which the text cannot be judged: it protects
    from the detectors that judge texts.
    """
    if case.outcome not in _TESTED:
        return Evidence(NAME, VERSION, None, 0.0, NOT_DECLINING if case.outcome == "complied" else _NO_TEXT)
    if made(case).stored:  # OpenRouter's response caching: usage is zero then
        return Evidence(NAME, VERSION, None, 0.0, "Not tested: the answer came from a cache, which bills nothing.")
    usage, mine = case.reading.usage, _counts(case)
    prompt = prompt_surplus(case)
    facts: dict[str, int | float | None] = {
        "controls": norm.controls,
        "prompt_reported": usage.prompt_tokens,
        "prompt_surplus": prompt,
        "prompt_usual": norm.prompt_surplus,
        "answer_reported": usage.completion_tokens,
        "answer_surplus": mine.answer,
        "answer_usual": norm.completion_surplus,
    }
    exhibit = f"usage.prompt_tokens = {usage.prompt_tokens}, usage.completion_tokens = {usage.completion_tokens}"
    rewritten = prompt not in {None, norm.prompt_surplus} and norm.prompt_surplus is not None and not mine.unread
    found = rank_of_counts(mine, norm)
    if found is None and not rewritten:
        return Evidence(NAME, VERSION, None, 0.0, _why_not(case, norm), facts)
    if found is not None:
        facts |= {"rank": found[0], "n": found[1]}
    log_e = math.log(PROTECTED) if rewritten or found is None else math.log(e_of_rank(*found, BETS))
    sentence, mechanism = _sentence(_odd(case, mine, norm), norm, rewritten=rewritten, telling=log_e > 0)
    llr = 0.0 if rewritten or found is None else min(log_e, math.log(found[1] + 1))
    return Evidence(NAME, VERSION, log_e, llr, sentence, facts, exhibit, mechanism=mechanism)


def _odd(case: Case, mine: Counts, norm: AccountingNorm) -> list[str]:
    """Return what is unusual about the counts, in words."""
    usage, odd = case.reading.usage, []
    prompt = prompt_surplus(case)
    if prompt is not None and norm.prompt_surplus is not None and prompt != norm.prompt_surplus:
        usual = (case.prompt_tokens or 0) + norm.prompt_surplus
        odd.append(f"{usage.prompt_tokens} tokens for the prompt where {usual} are usual")
    if mine.answer is not None and norm.completion_surplus is not None and mine.answer != norm.completion_surplus:
        usual = (usage.completion_tokens or 0) - mine.answer + norm.completion_surplus
        odd.append(f"{usage.completion_tokens} tokens for the answer where {usual} are usual")
    if norm.whole:
        usual_reports = norm.usual_reports
        if norm.rows and mine.reports != usual_reports and not odd:
            odd.append(f"tokens for {_listed(mine.reports)} where {_listed(usual_reports)} are usual")
        if mine.total is False and Counter(row.total for row in norm.rows)[True] > len(norm.rows) / 2:
            odd.append("a total that is not the sum of prompt and answer")
    return odd


def _listed(reports: str | None) -> str:
    return (reports or "none").replace(" ", " and ").replace("none", "neither prompt nor completion")


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


_NO_TEXT = "Not tested: counts of an answer that broke off or was blocked say nothing about its text."


def _why_not(case: Case, norm: AccountingNorm) -> str:
    if case.prompt_tokens is None and case.text_tokens is None:
        return "Not tested: no tokenizer of the weights was at hand."
    if case.reading.usage.prompt_tokens is None and case.reading.usage.completion_tokens is None:
        return "Not tested: the answer reports no token counts."
    return f"Not tested: the route's controls ({norm.controls}) show no constant relation to compare with."
