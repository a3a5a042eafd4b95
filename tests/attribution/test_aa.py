"""A/A controls: silent where nothing differs, loud where a server drifts, and honest about what was not asked."""

import numpy as np
import pytest
from scipy.stats import binom, fisher_exact

from probe.attribution.effects.aa import AATest
from probe.attribution.effects.controls import Answer, against_itself, early_against_late, judged
from probe.attribution.effects.stored import study_effects
from probe.attribution.settings import Settings
from probe.stats.intervals import Interval, mcnemar_exact
from tests.attribution.effects_kit import NO, STOP, YES, desk


def answers(values: list[int], *, run: str = "r", family: str = "a", repeats: int = 1) -> list[Answer]:
    return [
        Answer(run, f"{run}{family}{n // repeats}", n % repeats + 1, family, value) for n, value in enumerate(values)
    ]


def halves(values: list[Answer]) -> AATest:
    return early_against_late(values, "glass", level=0.95, seed=0)


def test_the_twin_against_itself_by_hand() -> None:
    twice = [y for pair in [(1, 1)] * 10 + [(0, 1)] * 6 + [(1, 0)] * 2 + [(0, 0)] * 12 for y in pair]
    test = against_itself(answers(twice, repeats=2), "local", level=0.95)
    assert (test.name, test.n, test.note) == ("local against itself", 30, "")
    assert test.difference.estimate == pytest.approx(4 / 30)
    assert test.p == mcnemar_exact(6, 2)


def test_once_is_not_asked_and_said() -> None:
    test = against_itself(answers([1, 0, 1]), "local", level=0.95)
    assert (test.p, test.note) == (None, "not asked: local answered each trace once")
    assert against_itself([], "local", level=0.95).note == "not asked: local has no gradeable answers"
    aa = judged({"glass": [test]}, 0.05)["glass"]
    assert not aa.failed
    assert aa.sentence == (
        "A/A controls could not be asked: local against itself: not asked: local answered each trace once."
    )


def test_halves_of_independent_answers_are_fishers_exact_test() -> None:
    test = halves(answers([0] * 30 + [1] * 10 + [0] * 15 + [1] * 25))
    exact = fisher_exact([[10, 30], [25, 15]]).pvalue
    assert test.p == pytest.approx(exact, rel=0.5)
    assert test.difference.estimate == pytest.approx(15 / 40)
    assert test.difference.lo > 0
    assert test.n == 80


@pytest.mark.parametrize(("values", "n"), [([], 0), ([1], 1)])
def test_too_few_for_two_halves(values: list[int], n: int) -> None:
    test = halves(answers(values))
    assert (test.p, test.n, test.difference.estimate) == (None, n, None)
    assert "fewer than two traces" in test.note


def test_all_alike_never_differ() -> None:
    for value in (0, 1):
        test = halves(answers([value] * 31))
        assert (test.p, test.difference.estimate) == (1.0, 0.0)


def test_halves_are_taken_within_families_and_runs() -> None:
    # The first family stopped early, another run has another pack: rates differ by design, nothing drifts.
    early = [*answers([1] * 30, family="a"), *answers([0] * 60, family="b"), *answers([1, 0] * 30, run="s")]
    test = halves(early)
    assert test.p == 1.0
    drift = [*answers([0] * 15 + [1] * 15, family="a"), *answers([0] * 60, family="b")]
    assert (halves(drift).p or 1.0) < 0.001


def test_repeats_of_a_trace_are_one_unit() -> None:
    # Ten traces of five alike answers are ten units: 4 against 1 of 5 proves nothing, 20 against 5 of 25 would.
    values = [y for early in (1, 0, 0, 0, 0, 1, 1, 1, 1, 0) for y in [early] * 5]
    assert (halves(answers(values, repeats=5)).p or 0.0) > 0.1
    assert (halves(answers(values)).p or 1.0) < 0.001


def test_holm_counts_each_test_of_the_report_once() -> None:
    def made(name: str, p: float | None) -> AATest:
        return AATest(name, Interval(0.0, -0.1, 0.1, 50, "x"), 50, p)

    shared = made("local against itself", 0.5)
    found = judged(
        {"a": [shared, made("a", 0.02)], "b": [shared, made("b", 0.9)], "c": [shared, made("c", 0.01)]}, 0.05
    )
    assert [test.adjusted for test in found["a"].tests] == [1.0, pytest.approx(0.06)]
    assert found["c"].tests[1].adjusted == pytest.approx(0.04)
    assert [found[name].failed for name in "abc"] == [False, False, True]
    assert found["c"].sentence.startswith("A/A controls FAILED, and every difference of this route stands in doubt")
    assert "c: DIFFERS" in found["c"].sentence
    assert found["a"].sentence.startswith("A/A controls passed: local against itself: no difference found")


def test_honest_reports_are_marked_at_most_at_alpha() -> None:
    rng = np.random.default_rng(21)
    marked = 0
    for _ in range(200):
        rate = rng.uniform(0.1, 0.9)
        skill = rng.random(60) < rate
        twice = [int(y if rng.random() < 0.6 else rng.random() < rate) for y in skill for _ in range(2)]
        tests = {
            f"h{i}": [
                against_itself(answers(twice, repeats=2), "local", level=0.95),
                early_against_late(answers(list(map(int, rng.random(80) < rate))), f"h{i}", level=0.95, seed=i),
            ]
            for i in range(3)
        }
        marked += any(aa.failed for aa in judged(tests, 0.05).values())
    # More than this happens once in a thousand runs at a true share of 5 %.
    assert marked <= binom.ppf(0.999, 200, 0.05)


def test_a_deployment_in_the_middle_is_found() -> None:
    made = desk()
    run, traces = made.run(aa=True), made.traces(80)
    made.both(run, traces, [NO] * 40 + [STOP] * 40, [YES, NO] * 40)
    made.ask(run, "local", traces, [YES, NO] * 40, repeat=2)
    effects = study_effects(made.store, Settings())[made.routes["glass"].id]
    aa = effects[0].aa
    assert aa is not None
    assert aa.failed
    assert [test.name for test in aa.tests] == ["local against itself", "early against late half of glass"]
    assert aa.tests[0].adjusted == 1.0
    assert aa.tests[1].difference.estimate == 1.0
    assert aa.sentence in aa.to_json()["sentence"]


def test_controls_do_not_read_benign_traces_or_the_gates_runs() -> None:
    made = desk()
    run = made.run()
    made.both(run, made.traces(40, family="c", control=True), [NO] * 20 + [YES] * 20, NO)
    made.both(made.run(1, kind="gate"), made.traces(40), [NO] * 20 + [YES] * 20, NO)
    aa = study_effects(made.store, Settings())[made.routes["glass"].id][0].aa
    assert aa is not None
    assert [(test.n, test.p) for test in aa.tests] == [(0, None), (0, None)]
