"""The tables of a report as plain rows of text, shared by the terminal and the page. No rate without interval and n."""

from collections.abc import Sequence

from probe.attribution.effects.pairs import MINIMUM_PAIRS, Effect
from probe.attribution.effects.sentences import GATE_NOT_ASKED, points, rate, rate_with_n
from probe.report.details import aa_rows, blocking_rows, firmness_rows, gate_rows, success_rows
from probe.report.study import RouteSummary, Study
from probe.report.values import Rows, p_value

OUTCOMES = ("complied", "partial", "refused", "blocked", "cut", "empty", "error", "ungradable")
VERDICTS = ("model", "platform", "undecided")
MEASURES = (
    # First, where no narrow page cuts them off: no effect is read without the gate (DESIGN §5, 5).
    "conclusion",
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
    "Percentage points with intervals; platform effect + serving difference = difference, up to the rounding of "
    f"one decimal. Fewer than {MINIMUM_PAIRS} graded pairs: no rate. p is adjusted after Benjamini and Hochberg, over "
    "routes and over families apart."
)


def all_tables(study: Study, *, narrow: bool = False) -> list[Rows]:
    """Give the tables of a study in reading order, empty ones left out; ``narrow`` for 80 columns of terminal.

    A terminal gets the main effects only: the families are on the page and in the JSON.
    """
    main, everything = study.main_effects, not narrow
    effects = effect_rows if everything else effect_lines
    tables = [
        effects("Effects", main),
        success_rows(main if everything else ()),
        blocking_rows(study.blocking, narrow=narrow),
        route_rows(study.routes, narrow=narrow),
        outcome_rows(study.routes),
        verdict_rows(study.routes),
        mechanism_rows(study.routes),
        gate_rows(main if everything else ()),
        aa_rows(main if everything else ()),
        firmness_rows(main if everything else ()),
        effects("Effects by family", study.family_effects if everything else ()),
    ]
    if everything:
        tables.append(truth_rows(study))
    return [table for table in tables if table.rows]


def route_rows(routes: Sequence[RouteSummary], *, narrow: bool = False) -> Rows:
    """Routes with their refusal rates; ``narrow`` leaves out what ``probe.toml`` says anyway."""
    heads = ("route", "role", "backend", "model", "twin", "trials", "missing", "spared", "refusal rate")
    left_out = {"role", "backend", "model"} if narrow else set()
    left_out |= set() if any(route.spared for route in routes) else {"spared"}
    kept = [i for i, head in enumerate(heads) if head not in left_out]
    return Rows(
        "Routes",
        tuple(heads[i] for i in kept),
        tuple(tuple(cells[i] for i in kept) for cells in map(_route_cells, routes)),
        "Rates are of graded trials, with intervals. Missing trials (cut, empty, error, ungradable) count "
        "neither way, unless the platform is found to have stopped them: then they are refusals. Spared: not sent, "
        "because the question was answered.",
    )


def _route_cells(route: RouteSummary) -> tuple[str, ...]:
    counts = (f"{route.trials:,}", f"{route.missing:,}", f"{route.spared:,}", rate_with_n(route.refusal_rate))
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
    heads = ("hosted", "scope", "pairs", "missing", "undecided", *MEASURES)
    # Over all families the scope says nothing, and the page is narrow.
    kept = [i for i, head in enumerate(heads) if head != "scope" or any(effect.scope != "all" for effect in effects)]
    rows = tuple(tuple(cells[i] for i in kept) for cells in map(_effect_cells, effects))
    return Rows(title, tuple(heads[i] for i in kept), rows, EFFECTS_NOTE)


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
        f"{effect.n_pairs:,}",
        f"{effect.n_missing:,}",
        f"{effect.undecided:,}",
    )
    if effect.insufficient:
        return (*start, effect.conclusion, gate_cell(effect), TOO_FEW, "", "", "", "", "")
    p = effect.mcnemar_p if effect.mcnemar_adjusted is None else effect.mcnemar_adjusted
    return (
        *start,
        effect.conclusion,
        gate_cell(effect),
        rate(effect.refusal_hosted),
        rate(effect.refusal_twin),
        points(effect.difference),
        points(effect.platform_effect),
        points(effect.serving_difference),
        p_value(p),
    )


def gate_cell(effect: Effect) -> str:
    """``different: other model (n = 64)``: the gate's answer with the likeliest cause and the number of its prompts."""
    gate = effect.gate
    if gate is None:
        return GATE_NOT_ASKED
    return f"{gate.answer}{f': {gate.cause}' if gate.cause else ''} (n = {gate.n:,})"


def truth_rows(study: Study) -> Rows:
    """Measures against a lab's own log."""
    return Rows(
        "Against the known truth",
        ("measure", "value"),
        tuple((name, rate_with_n(interval)) for name, interval in study.truth.items()),
        "A lab platform knows what it did; the probe never saw its log.",
    )
