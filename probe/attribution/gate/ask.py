"""All tests of the gate over the answers of two routes to controls, and what follows from them.

Four tests ask whether the route and its twin differ: ``counts``, ``ranks``, ``mmd``, ``greedy``. Their p-values are
corrected with Holm's method (1979, Scand. J. Stat. 6:65) over the tests that could be asked, so that the gate calls
weights different by mistake in at most alpha of the cases.

"The same within δ" is not the absence of that: it needs the upper limits of two distances below δ, each at level
1 - alpha. That of ``greedy`` is the share of answers at temperature 0 that leave the twin's choice; that of ``ranks``
is how far, at any place of the twin's ranking, the share of the route's tokens lies from the twin's. So δ = 5 % says:
of a hundred answers at temperature 0 the twin would have written at least 95 itself, and above it no set of "the most
probable tokens" comes up more than five points more or less often. The share of tokens alone does not show weights of
lower precision (they make some tokens more probable and others less), so that without answers at temperature 0 the
gate never says "the same".
"""

from collections.abc import Mapping, Sequence

from probe.attribution.gate.cause import HIDDEN, Blame, likeliest
from probe.attribution.gate.counts import counts_test
from probe.attribution.gate.greedy import answers_needed, greedy_test
from probe.attribution.gate.mmd import mmd_test
from probe.attribution.gate.ranks import ranks_test
from probe.attribution.gate.texts import Texts
from probe.attribution.gate.values import CANNOT_TELL, DIFFERENT, OTHER_MODEL, PROMPT, SAME, SAMPLER, Gate, GateTest
from probe.attribution.settings import Settings
from probe.evidence.case import Case

DISTANCES = ("ranks", "greedy")
"""Tests whose distances decide about sameness."""


def ask(hosted: Sequence[Case], twin: Sequence[Case], settings: Settings) -> Gate:
    """Answer the gate. ``hosted``: a route's answers to controls, scored under the twin; ``twin``: its own.

    Answers at temperature 0 and at higher ones may be mixed; each test takes what it can use. The twin's answers need
    no scores. ``n`` of the gate counts prompts.
    """
    alpha, delta, seed = settings.alpha, settings.gate_delta, settings.seed
    texts = Texts.of(hosted)
    aside = {id(text.case) for text in texts.aside}
    kept = [case for case in hosted if id(case) not in aside]
    tests = {
        "counts": counts_test(kept),
        "ranks": ranks_test(texts.hot, twin, alpha=alpha, delta=delta, seed=seed),
        "mmd": mmd_test(kept, twin, seed),
        "greedy": greedy_test(texts.cold, alpha, delta),
    }
    adjusted = holm({name: test.p for name, test in tests.items() if test.p is not None})
    rejected = [name for name, p in adjusted.items() if p <= alpha]
    n = max((len({text.prompt for text in group}) for group in (texts.hot, texts.cold)), default=0)
    n = n or len({case.trace_id for case in hosted if case.text})
    if rejected:
        blame = likeliest(rejected, tests, texts, alpha=alpha, delta=delta, seed=seed)
        found = " ".join(tests[name].sentence for name in sorted(rejected, key=adjusted.__getitem__))
        sentence = f"Different, most likely {SAID[blame.cause]} ({blame.reason}){_or(blame)}. {found}{_aside(texts)}"
        return Gate(DIFFERENT, blame.cause, sentence, tests, n, None, delta, alpha)
    limits = [test.limit for name in DISTANCES if (test := tests[name]).limit is not None]
    if len(limits) == len(DISTANCES) and max(limits) < delta:
        return Gate(SAME, None, _same(tests, n, settings) + _aside(texts), tests, n, None, delta, alpha)
    needed, why = _needed(tests, texts, n, settings)
    sentence = f"Whether these are the same weights cannot be told at n = {n} prompts: {why}.{_aside(texts)}"
    return Gate(CANNOT_TELL, None, sentence, tests, n, needed, delta, alpha)


SAID: Mapping[str, str] = {
    PROMPT: "another prompt or template",
    SAMPLER: "quantization or another sampler",
    OTHER_MODEL: "another model",
}
"""Causes as a sentence says them."""


def _or(blame: Blame) -> str:
    """Say what else it may be."""
    if not blame.otherwise:
        return ""
    hidden = "; no token counts are reported that would show one" if HIDDEN in blame.otherwise else ""
    return f", or {' or '.join(blame.otherwise)}{hidden}"


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values by Holm's step-down method."""
    adjusted, highest = {}, 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p))
        adjusted[name] = highest
    return adjusted


def _same(tests: Mapping[str, GateTest], n: int, settings: Settings) -> str:
    ranks, greedy = tests["ranks"], tests["greedy"]
    counts = (
        f"{tests['counts'].sentence}"
        if tests["counts"].p is not None
        else "Prompt tokens could not be compared: a hidden prompt that leaves these answers alone is not excluded."
    )
    return (
        f"The same within δ = {settings.gate_delta:g}: over {n} prompts no test tells the route from its twin "
        f"(alpha {settings.alpha:g}). At temperature 0, {_percent(greedy.distance)} of {greedy.n} answers leave the "
        f"twin's choice (at most {_percent(greedy.limit)}); above it, shares of tokens lie "
        f"{_percent(ranks.distance)} from the twin's (at most {_percent(ranks.limit)}). {counts}"
    )


def _needed(tests: Mapping[str, GateTest], texts: Texts, n: int, settings: Settings) -> tuple[int | None, str]:
    """Return how many prompts would do, and why these do not."""
    asked = [name for name, test in tests.items() if test.p is not None]
    if not texts.hot and not texts.cold:
        why = f"no answer could be scored ({texts.why})" if texts.unscored else "there are no answers to score"
        return None, f"{why}, and {f'{_listed(asked)} alone cannot show sameness' if asked else 'no test was asked'}"
    delta, found = settings.gate_delta, [tests[name] for name in DISTANCES]
    # Where nothing was measured yet, as many as would do if no answer left the twin's choice.
    least = answers_needed(0, 1, settings.alpha, delta) or 1
    needs = [least if test.limit is None else test.detail["n_needed"] for test in found]
    needed = None if None in needs else max(n + 1, *needs)
    would = "more prompts would not change that while the distance stays as it is"
    absent = [where for where, group in (("at", texts.cold), ("above", texts.hot)) if not group]
    if absent:
        would = f"sameness needs both, at {needed} prompts or more" if needed else would
        return needed, f"nothing differs, but there are no scored answers {absent[0]} temperature 0; {would}"
    would = f"about {needed} prompts would do" if needed else would
    if any(test.limit is None for test in found):
        missing = "; ".join(_lower(test.sentence.rstrip(".")) for test in found if test.limit is None)
        return needed, f"{missing}; {f'at least {needed} prompts are needed' if needed else would}"
    limits = " and ".join(f"{_percent(tests[name].limit)} ({name})" for name in DISTANCES)
    return needed, f"nothing differs, but differences of up to {limits} are not excluded, and δ = {delta:g}; {would}"


def _aside(texts: Texts) -> str:
    said = ""
    if texts.aside:
        one = len(texts.aside) == 1
        said += (
            f" {len(texts.aside)} answer{'' if one else 's'} to controls {'was' if one else 'were'} set aside: "
            f"{'it is no text' if one else 'they are no texts'} of the twin's weights."
        )
    total = texts.unscored + len(texts.hot) + len(texts.cold) + len(texts.aside)
    if texts.unscored and (texts.hot or texts.cold):
        said += f" {texts.unscored} of {total} answers have no score ({texts.why})."
    return said


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.1f} %"
