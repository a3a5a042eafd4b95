"""Effects of what a store holds: what makes a pair, what is left out and said so, and p-values over a whole study."""

import json

import pytest

from probe.attribution.effects.estimate import Effect
from probe.attribution.effects.rows import effect_of_row, effect_row
from probe.attribution.effects.stored import stored_effects, stored_sides, study_effects
from probe.attribution.gate.stored import GATE_RUN, gate_row
from probe.attribution.gate.values import SAME, Gate, GateTest
from probe.attribution.settings import Settings
from probe.stats.intervals import benjamini_hochberg, mcnemar_exact
from probe.store.rows import GateRow
from tests.attribution.effects_kit import ERROR, NO, STOP, YES, Desk, desk


def only(made: Desk, name: str = "glass", settings: Settings | None = None) -> Effect:
    return study_effects(made.store, settings or Settings())[made.routes[name].id][0]


def test_pairs_are_of_the_same_run_and_repeat() -> None:
    made = desk()
    run, traces = made.run(), made.traces(30)
    made.both(run, traces, [STOP] * 10 + [NO] * 20, [YES] * 3 + [NO] * 27)
    effect = only(made)
    assert (effect.n_pairs, effect.n_traces, effect.n_missing) == (30, 30, 0)
    assert effect.platform_effect.estimate == 7 / 30
    assert (effect.unpaired, effect.unsent, effect.across_runs) == ({"hosted": 0, "twin": 0}, 0, 0)
    assert effect.other_weights is None
    assert not effect.sequential
    assert effect.notes == ()


def test_what_was_not_sent_is_no_pair_and_counted() -> None:
    made = desk()
    run, traces = made.run(), made.traces(30)
    made.both(run, traces[:25], STOP, NO)
    made.ask(run, "glass", traces[25:27], NO, state="planned")
    made.ask(run, "local", traces[25:27], NO)
    made.ask(run, "glass", traces[27:], NO, state="spared")
    made.ask(run, "local", traces[27:], NO, state="spared")
    effect = only(made)
    assert (effect.n_pairs, effect.n_missing, effect.unsent) == (25, 0, 5)
    assert "5 planned pairs" in " ".join(effect.notes)


def test_given_up_and_unjudged_answers_are_missing() -> None:
    made = desk()
    run, traces = made.run(), made.traces(30)
    made.both(run, traces[:20], NO, NO)
    made.ask(run, "glass", traces[20:], NO, state="failed")
    made.ask(run, "local", traces[20:], [NO] * 9 + [ERROR])
    effect = only(made)
    assert (effect.n_pairs, effect.n_missing) == (20, 10)
    assert effect.missing == (("hosted", "error", 10), ("twin", "error", 1))
    # One-sided missingness: nothing was seen to differ, but a third of the answers could have been refusals.
    assert effect.difference.estimate == 0.0
    assert effect.bounds.difference_missing == (-1 / 30, 10 / 30)
    assert effect.bounds.platform_both == (0.0, 10 / 30)


@pytest.mark.parametrize(
    ("reason", "missing"),
    [
        ("rate_limited", 10),
        ("overloaded", 10),
        ("credit", 10),
        ("", 0),
        ("budget", 0),
        ("daily_limit", 0),
        ("stopped", 0),
    ],
)
def test_open_trials_that_were_tried_are_missing_and_others_are_not(reason: str, missing: int) -> None:
    made = desk()
    run, traces = made.run(), made.traces(30)
    made.both(run, traces[:20], NO, NO)
    made.ask(run, "glass", traces[20:], NO, state="planned")
    made.ask(run, "local", traces[20:], NO)
    rows = [trial.id for trial in made.store.trials(run.id, state="planned")]
    made.store.mark_trials(rows, "planned", reason)
    effect = only(made)
    assert (effect.n_pairs, effect.n_missing, effect.unsent) == (20, missing, 10 - missing)


def test_controls_and_runs_of_the_gate_take_no_part() -> None:
    made = desk()
    run, aside = made.run(), made.run(1, kind=GATE_RUN)
    traces = made.traces(25)
    made.both(run, traces, STOP, NO)
    made.both(run, made.traces(40, family="control", control=True), YES, YES)
    made.both(aside, traces, NO, YES)
    effect = only(made)
    assert (effect.n_pairs, effect.refusal_hosted.estimate, effect.refusal_twin.estimate) == (25, 1.0, 0.0)
    assert effect.measures["asr_broad"].twin.estimate == 1.0


def test_duplicated_trials_count_once_each_and_widen() -> None:
    made = desk()
    traces = made.traces(40)
    for number in range(2):
        made.both(made.run(number), traces, [STOP] * 10 + [NO] * 30, NO)
    effect = only(made)
    assert (effect.n_pairs, effect.n_traces) == (80, 40)
    assert effect.mcnemar_p == mcnemar_exact(10, 0)
    once = desk()
    once.both(once.run(), once.traces(40), [STOP] * 10 + [NO] * 30, NO)
    single = only(once)
    assert effect.platform_effect.estimate == single.platform_effect.estimate
    assert effect.platform_effect.hi - effect.platform_effect.lo == pytest.approx(
        single.platform_effect.hi - single.platform_effect.lo, rel=0.05
    )
    assert effect.anytime == single.anytime


def test_routes_asked_in_different_runs_still_make_pairs() -> None:
    made = desk()
    traces = made.traces(30)
    made.ask(made.run(0), "local", traces, NO)
    made.ask(made.run(1), "glass", traces, STOP)
    effect = only(made)
    assert (effect.n_pairs, effect.across_runs) == (30, 30)
    assert "two different runs" in effect.notes[0]


def test_edited_traces_are_counted_and_said() -> None:
    made = desk()
    made.ask(made.run(0), "local", made.traces(30), NO)
    made.ask(made.run(1), "glass", made.traces(30, text="edited"), STOP)
    effect = only(made)
    assert (effect.n_pairs, effect.n_missing) == (0, 0)
    assert effect.unpaired == {"hosted": 30, "twin": 30}
    assert "30 answers of glass have no partner" in effect.notes[0]
    assert "30 answers of local have no partner" in effect.notes[1]
    assert effect.difference.estimate is None
    assert effect.conclusion == "undecided"
    json.dumps(effect.to_json(), allow_nan=False)


def test_a_twins_extra_repeat_is_the_controls_and_no_lonely_answer() -> None:
    made = desk()
    run, traces = made.run(aa=True), made.traces(30)
    made.both(run, traces, NO, NO)
    made.ask(run, "local", traces, NO, repeat=2)
    effect = only(made)
    assert (effect.n_pairs, effect.unpaired) == (30, {"hosted": 0, "twin": 0})
    assert effect.aa is not None
    assert effect.aa.tests[0].p == 1.0


def test_more_repeats_of_the_hosted_route_are_said() -> None:
    made = desk()
    run, traces = made.run(), made.traces(30)
    made.both(run, traces, NO, NO)
    made.ask(run, "glass", traces, NO, repeat=2)
    assert only(made).unpaired == {"hosted": 30, "twin": 0}


def test_other_weights_are_said() -> None:
    made = Desk()
    made.route("local", weights="small")
    made.route("glass", twin="local", weights="large")
    made.both(made.run(), made.traces(25), NO, NO)
    effect = only(made)
    assert effect.other_weights is not None
    assert "said to serve large and its twin local small" in effect.other_weights
    assert not effect.same_weights_named


@pytest.mark.parametrize("count", [0, 1, 2, 19, 20, 60])
@pytest.mark.parametrize(("hosted", "twin"), [(YES, YES), (NO, NO), (STOP, NO), (STOP, YES), (NO, YES), (ERROR, NO)])
def test_all_or_nothing_never_divides_by_zero(count: int, hosted: tuple[str, None], twin: tuple[str, None]) -> None:
    made = desk()
    made.both(made.run(), made.traces(count), hosted, twin)
    effect = only(made)
    assert effect.n_pairs + effect.n_missing == count
    assert (effect.mcnemar_adjusted is None) == (effect.n_pairs < 20)
    assert any("no rate is stated, nothing is tested" in note for note in effect.notes) == (effect.n_pairs < 20)
    assert effect.sentence
    json.dumps(effect.to_json(), allow_nan=False)
    assert effect_of_row(effect_row("r", "t", effect)) == effect


def test_nothing_asked_at_all() -> None:
    made = desk()
    effect = only(made)
    assert effect.n_pairs == 0
    assert effect.conclusion == "undecided"


def test_p_values_are_adjusted_over_routes_and_over_families() -> None:
    made = desk()
    made.route("clear", twin="local")
    run = made.run()
    families = [made.traces(30, family=family) for family in "abc"]
    for family, (glass, clear) in zip(families, ((20, 9), (2, 7), (8, 0)), strict=True):
        made.ask(run, "local", family, NO)
        made.ask(run, "glass", family, [STOP] * glass + [NO] * (30 - glass))
        made.ask(run, "clear", family, [STOP] * clear + [NO] * (30 - clear))
    small = made.traces(5, family="d")
    made.ask(run, "local", small, NO)
    made.ask(run, "glass", small, STOP)
    found = study_effects(made.store, Settings())
    glass, clear = found[made.routes["glass"].id], found[made.routes["clear"].id]
    assert [effect.scope for effect in glass] == ["all", "family:a", "family:b", "family:c", "family:d"]
    assert [glass[0].mcnemar_adjusted, clear[0].mcnemar_adjusted] == benjamini_hochberg(
        [glass[0].mcnemar_p, clear[0].mcnemar_p]
    )
    parts = [*glass[1:4], *clear[1:]]
    assert [part.mcnemar_adjusted for part in parts] == benjamini_hochberg([part.mcnemar_p for part in parts])
    assert glass[4].insufficient
    assert glass[4].mcnemar_adjusted is None
    assert glass[0].aa is not None
    assert glass[1].aa is None
    assert stored_effects(made.store, made.routes["glass"], made.routes["local"]) == glass


def test_a_run_that_stopped_early_is_marked() -> None:
    made = desk()
    made.both(made.run(until="decided"), made.traces(25), STOP, NO)
    assert only(made).sequential


def test_the_stored_gate_goes_with_the_effect() -> None:
    made = desk()
    made.both(made.run(), made.traces(25), NO, NO)
    gate = Gate(SAME, None, "Same.", {"ranks": GateTest(0.1, 0.5, 9, "prompts", "Fine.")}, 9, None, 0.05, 0.05)
    route, twin = made.routes["glass"], made.routes["local"]
    made.store.replace_gates([gate_row(route, twin, gate, "there are 23 more tokens", "1")])
    effect = only(made)
    assert effect.gate == gate
    assert effect.prompt_finding == "there are 23 more tokens"
    old = GateRow(route.id, twin.id, "not asked", "Not asked.", "0", {"prompt_finding": None})
    made.store.replace_gates([old])
    assert only(made).gate is None


def test_settings_travel_with_the_effect() -> None:
    made = desk()
    made.both(made.run(), made.traces(60), [STOP] + [NO] * 59, NO)
    settings = Settings(delta=0.2, alpha=0.1, level=0.9, seed=3)
    effect = only(made, settings=settings)
    assert effect.settings == settings
    assert effect.equivalence is not None
    assert (effect.equivalence.delta, effect.equivalence.alpha) == (0.2, 0.1)
    assert (effect.difference.level, effect.anytime.level) == (0.9, 0.9)
    assert effect_of_row(effect_row("r", "t", effect)).settings == settings


def test_sides_are_read_with_their_trials_and_exchanges() -> None:
    made = desk()
    run, traces = made.run(), made.traces(3)
    made.ask(run, "glass", traces, [STOP, NO, ("refused", None)])
    held = stored_sides(made.store, made.routes["glass"])
    places = [(run.id, trace.id, 1) for trace in traces]
    assert [(held.sides[place].outcome, held.sides[place].who) for place in places] == [STOP, NO, ("refused", None)]
    assert [held.trials[place] for place in places] == made.store.trials(run.id)
    assert {ref.id for ref in made.store.refs()} == set(held.exchange_ids.values())
