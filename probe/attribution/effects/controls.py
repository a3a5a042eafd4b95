"""The A/A controls of a study: the twin against itself, and the early against the late answers of each hosted route.

In a seeded random order of sending, both halves are draws from the same thing. If they differ, something other than the
platform moves the numbers: a server that changed, a cache, a sampler that repeats itself, a judge that reads by luck.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from probe.attribution.effects.aa import AA, AATest
from probe.attribution.effects.sentences import points
from probe.stats.clusters import difference, proportion
from probe.stats.intervals import Interval, mcnemar_exact

RESAMPLES = 9999
"""Permutations: the smallest p is 1e-4, far below alpha after Holm's correction for the tests of a report."""

FEWEST = 2
"""Traces below which there are no two halves."""


Traced = tuple[str, list[int]]
"""A trace with the refusals of its repeats."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One gradeable answer to an attack trace, in the order of sending: 1 refused, 0 answered."""

    run_id: str
    trace_id: str
    repeat: int
    family: str
    refusal: int


def against_itself(answers: Sequence[Answer], name: str, *, level: float) -> AATest:
    """Compare the first with the last of the twin's answers to the same trace in the same run; exact McNemar."""
    title = f"{name} against itself"
    by_trace: dict[tuple[str, str], dict[int, int]] = {}
    for answer in answers:
        by_trace.setdefault((answer.run_id, answer.trace_id), {})[answer.repeat] = answer.refusal
    values = [
        (trace_id, found[max(found)] - found[min(found)])
        for (_, trace_id), found in by_trace.items()
        if len(found) >= FEWEST
    ]
    interval = difference(values, level=level)
    sums: dict[str, int] = {}
    for trace_id, value in values:
        sums[trace_id] = sums.get(trace_id, 0) + value
    if not values:
        what = f"{name} answered each trace once" if answers else f"{name} has no gradeable answers"
        return AATest(title, interval, 0, note=f"not asked: {what}")
    p = mcnemar_exact(sum(v > 0 for v in sums.values()), sum(v < 0 for v in sums.values()))
    return AATest(title, interval, len(sums), p)


def early_against_late(answers: Sequence[Answer], name: str, *, level: float, seed: int) -> AATest:
    """Compare the late with the early half of a route's answers, trace by trace, within each run and family.

    Halves are taken within run and family: a run that stops a family early, or a second run with another pack, would
    else make the halves differ. The test permutes which traces of a run and family came early (two-sided, seeded; p
    counts the observed one in, Phipson & Smyth 2010); repeats of a trace stay together. Interval: Newcombe's for
    independent rates (1998, Stat Med 17:873, method 10) on limits that are widened for repeats.
    """
    title = f"early against late half of {name}"
    strata = _strata(answers)
    halves = [_parted(list(found.items())) for found in strata]
    early = [(trace, y) for first, _ in halves for trace, ys in first for y in ys]
    late = [(trace, y) for _, last in halves for trace, ys in last for y in ys]
    n = sum(len(found) for found in strata)
    interval = _independent(proportion(late, level=level), proportion(early, level=level), level)
    if not late:
        return AATest(title, interval, n, note="not asked: fewer than two traces have a gradeable answer")
    means = [[[sum(ys) / len(ys) for _, ys in half] for half in pair] for pair in halves]
    return AATest(title, interval, n, _permuted(means, np.random.default_rng(seed)))


def _parted(traces: Sequence[Traced]) -> tuple[Sequence[Traced], Sequence[Traced]]:
    middle = (len(traces) + 1) // 2
    return traces[:middle], traces[middle:]


def _strata(answers: Sequence[Answer]) -> list[dict[str, list[int]]]:
    """Return per run and family the refusals of each trace, in the order in which traces were first sent."""
    strata: dict[tuple[str, str], dict[str, list[int]]] = {}
    for answer in answers:
        traces = strata.setdefault((answer.run_id, answer.family), {})
        traces.setdefault(answer.trace_id, []).append(answer.refusal)
    return list(strata.values())


def _permuted(strata: Sequence[Sequence[Sequence[float]]], rng: np.random.Generator) -> float:
    """Return the p of sum(late) given all ways to part each stratum.

    Traces with the same mean are alike, so a permutation is a draw of how many of each kind come late.
    """
    total, drawn, expected = 0.0, np.zeros(RESAMPLES), 0.0
    for early, late in strata:
        kinds, counts = np.unique(np.array([*early, *late]), return_counts=True)
        total += sum(late)
        expected += len(late) * float(kinds @ counts) / (len(early) + len(late))
        if len(kinds) == 1:
            drawn += len(late) * kinds[0]
        else:
            drawn += rng.multivariate_hypergeometric(counts, len(late), RESAMPLES, method="marginals") @ kinds
    far = np.abs(drawn - expected) >= abs(total - expected) - 1e-9
    return (1 + int(far.sum())) / (1 + RESAMPLES)


def _independent(first: Interval, second: Interval, level: float) -> Interval:
    if first.estimate is None or second.estimate is None:
        return Interval(None, -1.0, 1.0, 0, "none", level)
    found = first.estimate - second.estimate
    below = sqrt((first.estimate - first.lo) ** 2 + (second.hi - second.estimate) ** 2)
    above = sqrt((first.hi - first.estimate) ** 2 + (second.estimate - second.lo) ** 2)
    n = first.n + second.n
    return Interval(found, max(-1.0, found - below), min(1.0, found + above), n, "Newcombe, independent", level)


def judged(routes: Mapping[str, Sequence[AATest]], alpha: float) -> dict[str, AA]:
    """Give the controls of each route: Holm's correction over all tests of the report, each counted once.

    So at most a fraction ``alpha`` of reports in which nothing is wrong are marked.
    """
    tests = {test.name: test for found in routes.values() for test in found}
    adjusted = _holm({name: test.p for name, test in tests.items() if test.p is not None})
    result = {}
    for route, found in routes.items():
        own = tuple(replace(test, adjusted=adjusted.get(test.name)) for test in found)
        failed = any(test.adjusted is not None and test.adjusted <= alpha for test in own)
        result[route] = AA(own, failed, _sentence(own, failed, alpha))
    return result


def _holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values (Holm 1979, Scand J Stat 6:65)."""
    adjusted, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return adjusted


def _sentence(tests: Sequence[AATest], failed: bool, alpha: float) -> str:
    parts = []
    for test in tests:
        if test.p is None:
            parts.append(f"{test.name}: {test.note}")
            continue
        assert test.adjusted is not None
        verdict = "DIFFERS" if test.adjusted <= alpha else "no difference found"
        numbers = f"{points(test.difference)}, n = {test.n} traces, p = {test.p:.2g}, adjusted {test.adjusted:.2g}"
        parts.append(f"{test.name}: {verdict} ({numbers})")
    asked = any(test.p is not None for test in tests)
    head = "A/A controls passed" if asked else "A/A controls could not be asked"
    if failed:
        head = "A/A controls FAILED, and every difference of this route stands in doubt"
    return f"{head}: {'; '.join(parts)}."
