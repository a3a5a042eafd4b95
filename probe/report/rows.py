"""The tables of a report as plain rows of text, shared by the terminal and the page. No rate without interval and n."""

from collections.abc import Sequence
from dataclasses import dataclass

from probe.attribution.effects.pairs import MINIMUM_PAIRS, Effect
from probe.attribution.effects.sentences import GATE_NOT_ASKED, points, rate, rate_with_n
from probe.report.study import RouteSummary, Study

OUTCOMES = ("complied", "partial", "refused", "blocked", "cut", "empty", "error", "ungradable")
VERDICTS = ("model", "platform", "undecided")
MEASURES = (
    # First, where no narrow page cuts it off: no effect is read without it (DESIGN §5, 5).
    "same weights",
    "refusal hosted",
    "refusal twin",
    "difference",
    "platform effect",
    "serving difference",
    "McNemar p",
)
TOO_FEW = "too few pairs"
EFFECTS_NOTE = (
    "Percentage points with 95 % intervals; platform effect + serving difference = difference, up to the rounding of "
    f"one decimal. Fewer than {MINIMUM_PAIRS} graded pairs: no rate. p within families is adjusted after Benjamini "
    "and Hochberg."
)


@dataclass(frozen=True, slots=True)
class Rows:
    """One table: title, column heads, rows of cells, and what must be known to read it."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def all_tables(study: Study, *, narrow: bool = False) -> list[Rows]:
    """Give the tables of a study in reading order, empty ones left out; ``narrow`` for 80 columns of terminal.

    A terminal gets the main effects only: the families are on the page and in the JSON.
    """
    effects = effect_lines if narrow else effect_rows
    tables = [
        route_rows(study.routes, narrow=narrow),
        outcome_rows(study.routes),
        verdict_rows(study.routes),
        mechanism_rows(study.routes),
        effects("Effects", study.main_effects),
        effects("Effects by family", () if narrow else study.family_effects),
    ]
    if not narrow:
        tables.append(truth_rows(study))
    return [table for table in tables if table.rows]


def route_rows(routes: Sequence[RouteSummary], *, narrow: bool = False) -> Rows:
    """Routes with their refusal rates; ``narrow`` leaves out what ``probe.toml`` says anyway."""
    heads = ("route", "role", "backend", "model", "twin", "trials", "missing", "refusal rate")
    kept = [i for i, head in enumerate(heads) if not (narrow and head in {"role", "backend", "model"})]
    return Rows(
        "Routes",
        tuple(heads[i] for i in kept),
        tuple(tuple(cells[i] for i in kept) for cells in map(_route_cells, routes)),
        "Rates are of graded trials, with 95 % intervals. Missing trials (cut, empty, error, ungradable) count neither "
        "way, unless the platform is found to have stopped them: then they are refusals.",
    )


def _route_cells(route: RouteSummary) -> tuple[str, ...]:
    counts = (str(route.trials), str(route.missing), rate_with_n(route.refusal_rate))
    return (route.name, route.role, route.backend, route.model, route.twin or "", *counts)


def outcome_rows(routes: Sequence[RouteSummary]) -> Rows:
    """Trials by outcome; outcomes that this version does not know are kept."""
    met = {name for r in routes for name, count in r.outcomes.items() if count}
    names = (*(name for name in OUTCOMES if name in met), *sorted(met - set(OUTCOMES)))
    return Rows(
        "Outcomes",
        ("route", *names),
        tuple((r.name, *(str(r.outcomes.get(name, 0)) for name in names)) for r in routes),
        "Outcomes that no trial had are left out." if met < set(OUTCOMES) else "",
    )


def verdict_rows(routes: Sequence[RouteSummary]) -> Rows:
    """Who made the refusals, as counts and shares."""
    return Rows(
        "Who made the refusals",
        ("route", "by", "exchanges", "share of those judged"),
        tuple(
            (r.name, who, str(r.verdicts.get(who, 0)), rate_with_n(r.share(who)))
            for r in routes
            for who in VERDICTS
            if r.verdicts
        ),
    )


def mechanism_rows(routes: Sequence[RouteSummary]) -> Rows:
    """How the platform refused, where it did."""
    return Rows(
        "How the platform did it",
        ("route", "mechanism", "exchanges"),
        tuple((r.name, name, str(count)) for r in routes for name, count in sorted(r.mechanisms.items())),
    )


def effect_rows(title: str, effects: Sequence[Effect]) -> Rows:
    """Effects with intervals, one row each; a scope with too few pairs says so in place of its rates."""
    heads = ("hosted", "scope", "pairs", "missing", "undecided")
    return Rows(title, (*heads, *MEASURES), tuple(_effect_cells(effect) for effect in effects), EFFECTS_NOTE)


def effect_lines(title: str, effects: Sequence[Effect]) -> Rows:
    """Effects with intervals, one line per measure."""
    lines: list[tuple[str, ...]] = []
    for effect in effects:
        hosted, scope, pairs, missing, undecided, *values = _effect_cells(effect)
        label, n = f"{hosted}, {scope}", f"{pairs} ({missing} missing, {undecided} undecided)"
        lines.append((label, "pairs", n))
        lines += [
            ("", "" if value == TOO_FEW else measure, value)
            for measure, value in zip(MEASURES, values, strict=True)
            if value
        ]
    return Rows(title, ("hosted, scope", "measure", "value"), tuple(lines), EFFECTS_NOTE)


def _effect_cells(effect: Effect) -> tuple[str, ...]:
    start = (
        effect.hosted,
        effect.scope.removeprefix("family:"),
        str(effect.n_pairs),
        str(effect.n_missing),
        str(effect.undecided),
    )
    if effect.insufficient:
        return (*start, GATE_NOT_ASKED, TOO_FEW, "", "", "", "", "")
    p = effect.mcnemar_p if effect.mcnemar_adjusted is None else effect.mcnemar_adjusted
    return (
        *start,
        GATE_NOT_ASKED,
        rate(effect.refusal_hosted),
        rate(effect.refusal_twin),
        points(effect.difference),
        points(effect.platform_effect),
        points(effect.serving_difference),
        p_value(p),
    )


def truth_rows(study: Study) -> Rows:
    """Measures against a lab's own log."""
    return Rows(
        "Against the known truth",
        ("measure", "value"),
        tuple((name, rate_with_n(interval)) for name, interval in study.truth.items()),
        "A lab platform knows what it did; the probe never saw its log.",
    )


def p_value(p: float) -> str:
    """Two significant digits, with an end where more would be pretence."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"
