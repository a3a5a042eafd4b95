"""The tables behind the answer: attack success, over- and under-blocking, gate, A/A controls, and how firm it is."""

from collections.abc import Iterator, Sequence

from probe.attribution.effects.blocking import TOTAL, Blocking
from probe.attribution.effects.pairs import Effect
from probe.attribution.effects.sentences import points, rate, rate_with_n, signed
from probe.attribution.gate.values import GateTest
from probe.report.values import Rows, p_value
from probe.stats.equivalence import Equivalence

BOUNDS = {
    "platform_undecided": "platform effect, undecided refusals either way",
    "difference_missing": "difference, missing pairs either way",
    "platform_missing": "platform effect, missing pairs either way",
    "platform_both": "platform effect, undecided and missing either way",
}
MEASURES = {"refusal": "refusal", "asr_strict": "strict", "asr_broad": "broad"}


def success_rows(effects: Sequence[Effect]) -> Rows:
    """Refusal rate and attack success, split alike, and what the route would show without the platform."""
    heads = ("hosted", "rate", "hosted rate", "twin rate", "difference", "platform effect", "serving difference")
    rows = [
        (
            effect.hosted,
            label,
            rate(measure.hosted),
            rate(measure.twin),
            points(measure.difference),
            points(measure.platform_effect),
            points(measure.serving_difference),
            rate(measure.counterfactual),
        )
        for effect in effects
        if not effect.insufficient
        for name, label in MEASURES.items()
        for measure in [effect.measures.get(name)]
        # Without partial answers both kinds of success are one.
        if measure is not None and (name != "asr_broad" or measure != effect.measures.get("asr_strict"))
    ]
    return Rows(
        "Attack success, and the route without its platform",
        (*heads, "without the platform"),
        tuple(rows),
        "Strict: attacks that were complied with. Broad: or in part (left out where no answer was partial). Without "
        "the platform: its answers replaced by the twin's, right for the same weights only; where a platform reads "
        "answers, and so stops what the model gave, refusal is overstated there and success understated. n is that of "
        "the effects.",
    )


def gate_rows(effects: Sequence[Effect]) -> Rows:
    """Every test of the same-weights gate, per hosted route."""
    rows = [
        (effect.hosted, name, *_gate_cells(test))
        for effect in effects
        if effect.gate is not None
        for name, test in effect.gate.tests.items()
    ]
    return Rows(
        "The same-weights gate, test by test",
        ("hosted", "test", "statistic", "p", "n", "distance", "upper limit"),
        tuple(rows),
        "Asked on controls. Distance from the twin's tokens, 0 to 1, where a test estimates it; the gate says the same "
        "where the upper limit is below δ and no test, after Holm's correction, tells the two apart.",
    )


def _gate_cells(test: GateTest) -> tuple[str, ...]:
    return (
        "not asked" if test.statistic is None else f"{test.statistic:.3g}",
        "" if test.p is None else p_value(test.p),
        f"{test.n:,} {test.unit}",
        "" if test.distance is None else f"{test.distance:.3f}",
        "" if test.limit is None else f"{test.limit:.3f}",
    )


def aa_rows(effects: Sequence[Effect]) -> Rows:
    """A/A controls: what must not differ. A control that several routes share stands once."""
    seen, rows = set(), []
    for effect in effects:
        for test in effect.aa.tests if effect.aa else ():
            if (test.name, test.difference, test.n) not in seen:
                seen.add((test.name, test.difference, test.n))
                p = tuple("" if value is None else p_value(value) for value in (test.p, test.adjusted))
                rows.append((test.name, points(test.difference), f"{test.n:,}", *p, test.note))
    return Rows(
        "A/A controls",
        ("what must not differ", "difference", "traces", "p", "p adjusted", "note"),
        tuple(rows),
        "Where an adjusted p is at most α, the study itself is in doubt: something changed that nobody meant to.",
    )


def firmness_rows(effects: Sequence[Effect]) -> Rows:
    """How far the numbers hold: equivalence, bounds, other intervals, judge's error, per hosted route."""
    rows = [(effect.hosted, *row) for effect in effects if not effect.insufficient for row in _firmness(effect)]
    return Rows(
        "How firm this is",
        ("hosted", "what", "value"),
        tuple(rows),
        "The margin δ stands under Run. Bounds are not intervals: they say what undecided or missing answers could "
        "make of an estimate; the second pair has sampling in it. Corrected for the judge: Rogan and Gladen, with the "
        "uncertainty of both its rates.",
    )


def _firmness(effect: Effect) -> Iterator[tuple[str, str]]:
    yield from _tested(effect)
    yield from _moved(effect)
    yield from _judged(effect)
    for side, n in effect.unpaired.items():
        if n:
            yield f"answers of the {side} route without a partner", f"{n:,}"


def _tested(effect: Effect) -> Iterator[tuple[str, str]]:
    for what, tested in (("serving difference", effect.equivalence), ("difference", effect.equivalence_total)):
        if tested is not None:
            yield _equivalence(what, tested)
    for name, value in effect.bootstrap.items():
        if value.lo < value.hi:  # where nothing varies, resampling says nothing
            yield f"{name.replace('_', ' ')}, bootstrap over traces", points(value)
    yield "difference, after Newcombe", points(effect.difference_newcombe)
    if effect.anytime.estimate is not None:
        yield "difference, however often one looks", points(effect.anytime)


def _moved(effect: Effect) -> Iterator[tuple[str, str]]:
    if not (effect.n_missing or effect.undecided):
        return
    for name, label in BOUNDS.items():
        low, high = getattr(effect.bounds, name)
        inside = effect.bounds.intervals.get(name)
        with_sampling = f"; with sampling {signed(inside[0])} to {signed(inside[1])}" if inside else ""
        yield label, f"{signed(low)} to {signed(high)}{with_sampling}"


def _judged(effect: Effect) -> Iterator[tuple[str, str]]:
    for name, value in effect.corrected.items():
        text = points(value) if name in {"difference", "platform_effect"} else rate(value)
        yield f"{name.replace('_', ' ')}, corrected for the judge", text
    if effect.judge_error is not None:
        yield "the judge finds refusals", rate_with_n(effect.judge_error.sensitivity)
        yield "the judge finds answers", rate_with_n(effect.judge_error.specificity)


def _equivalence(what: str, tested: Equivalence) -> tuple[str, str]:
    shown = "shown" if tested.equivalent else "not shown"
    label = f"{what} within δ ({100 * tested.interval.level:g} per cent interval)"
    return label, f"{shown}, p = {p_value(tested.p)}; {points(tested.interval)}"


def blocking_rows(blocking: Sequence[Blocking], *, narrow: bool = False) -> Rows:
    """Show what platforms stopped and let through, per category; ``narrow``: totals only, one line per share."""
    title = "Over- and under-blocking"
    note = (
        "Of what the platform stopped (by verdict): what the model, going by the twin's paired answer, would have "
        "answered harmlessly (controls, prompts labelled harmless), refused by itself, or answered although it was an "
        "attack; shares of those whose twin's answer is known. Of what was let through: attacks that were answered."
    )
    acted = {row.hosted for row in blocking if row.category == TOTAL and row.stopped}
    kept = [row for row in blocking if row.hosted in acted]
    if narrow:
        lines = [line for row in kept if row.category == TOTAL for line in _blocking_lines(row)]
        return Rows(title, ("hosted", "of what", "value"), tuple(lines), note)
    heads = ("hosted", "category", "stopped", "not known", "stopped: harmless", "stopped: refused anyway")
    more = ("stopped: harmful", "let through", "let through: harmful", "missing")
    return Rows(title, (*heads, *more), tuple(_blocking_cells(row) for row in kept), note)


def _blocking_cells(row: Blocking) -> tuple[str, ...]:
    return (
        row.hosted,
        row.category,
        f"{row.stopped:,}",
        f"{row.unknown:,}",
        *(rate_with_n(share) for share in (row.stopped_harmless, row.stopped_own_refusal, row.stopped_harmful)),
        f"{row.let_through:,}",
        rate_with_n(row.through_harmful),
        f"{row.missing:,}",
    )


def _blocking_lines(row: Blocking) -> Iterator[tuple[str, ...]]:
    yield row.hosted, "stopped", f"{row.stopped:,} ({row.unknown:,} without the twin's answer)"
    yield "", "… harmless", rate_with_n(row.stopped_harmless)
    yield "", "… refused anyway", rate_with_n(row.stopped_own_refusal)
    yield "", "… harmful", rate_with_n(row.stopped_harmful)
    yield "", "let through", f"{row.let_through:,} ({row.missing:,} missing)"
    yield "", "… harmful", rate_with_n(row.through_harmful)
