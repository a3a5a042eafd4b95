"""Attack success, the judge's error, bounds with sampling, resampling, looking whenever: by hand and as properties."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.attribution.effects.anytime import EVERY, Looks, anytime, trace_means
from probe.attribution.effects.columns import Clusters, Columns
from probe.attribution.effects.estimate import Effect, Pair, Side, effects_for
from probe.attribution.effects.pairs import Measure
from probe.attribution.effects.resampling import ONE_BY_ONE
from probe.attribution.effects.rows import effect_of_json, effect_of_row, effect_row
from probe.attribution.effects.split import bounds, corrected, refusal_measure
from probe.attribution.settings import Settings
from probe.judge.error import rules_error
from probe.stats.clusters import cluster_bootstrap, difference, proportion
from probe.stats.equivalence import tost
from probe.stats.intervals import Interval
from probe.stats.judge_error import corrected_difference, corrected_rate, judge_error
from probe.stats.sequential import SequentialTest
from tests.attribution.test_effects import DOUBT, NO, PAIRS, STOP, YES, pairs_of

PART = Side("partial", "model")
PERFECT = judge_error(10_000_000, 10_000_000, 10_000_000, 10_000_000, "a judge that never errs")


def only(pairs: list[Pair], **given_settings: float) -> Effect:
    return effects_for(pairs, "h", "t", settings=Settings(**given_settings))[0]  # type: ignore[arg-type]


def test_attack_success_by_hand() -> None:
    effect = only(pairs_of((8, STOP, NO), (2, STOP, PART), (5, PART, NO), (5, NO, NO), (20, YES, YES)))
    strict, broad = effect.measures["asr_strict"], effect.measures["asr_broad"]
    assert (strict.hosted.estimate, strict.twin.estimate) == (5 / 40, 18 / 40)
    assert (broad.hosted.estimate, broad.twin.estimate) == (10 / 40, 20 / 40)
    # The platform took 8 of the strict successes, the serving 5 more: they became partial.
    assert (strict.platform_effect.estimate, strict.serving_difference.estimate) == (-8 / 40, -5 / 40)
    assert (broad.platform_effect.estimate, broad.serving_difference.estimate) == (-10 / 40, 0.0)
    assert (strict.counterfactual.estimate, broad.counterfactual.estimate) == (13 / 40, 20 / 40)
    assert (strict.platform_effect.lo, strict.platform_effect.hi) == (
        -proportion_of(8, 40).hi,
        -proportion_of(8, 40).lo,
    )


def proportion_of(k: int, n: int) -> Interval:
    return proportion([(str(i), int(i < k)) for i in range(n)])


def test_the_counterfactual_is_the_rate_without_the_platform() -> None:
    effect = only(pairs_of((10, STOP, YES), (20, STOP, NO), (5, YES, YES), (15, NO, NO)))
    assert effect.refusal_hosted.estimate == 35 / 50
    assert effect.counterfactual == proportion_of(15, 50)
    assert effect.measures["refusal"].counterfactual == effect.counterfactual


@settings(deadline=None, max_examples=40)
@given(PAIRS)
def test_measures_agree_with_each_other(pairs: list[Pair]) -> None:
    effect = only(pairs)
    assert set(effect.measures) == {"refusal", "asr_strict", "asr_broad"}
    strict, broad, refusal = (effect.measures[name] for name in ("asr_strict", "asr_broad", "refusal"))
    for name in Measure.__dataclass_fields__:
        for measure in effect.measures.values():
            interval = getattr(measure, name)
            assert interval.n == effect.n_pairs
            assert interval.estimate is None or interval.lo - 1e-12 <= interval.estimate <= interval.hi + 1e-12
    if effect.n_pairs:
        # The broad rate is 1 minus that of refusals: they may differ in the last bit.
        assert strict.hosted.estimate <= broad.hosted.estimate + 1e-12  # type: ignore[operator]
        assert broad.hosted.estimate == pytest.approx(1 - refusal.hosted.estimate)  # type: ignore[operator]
        assert strict.platform_effect.estimate <= 0 <= refusal.platform_effect.estimate  # type: ignore[operator]


@settings(deadline=None, max_examples=40)
@given(PAIRS)
def test_bounds_hold_the_point_and_nest(pairs: list[Pair]) -> None:
    effect = only(pairs)
    found = effect.bounds
    if effect.n_pairs:
        low, high = found.platform_undecided
        assert low == effect.platform_effect.estimate <= high
        assert high == effect.platform_ceiling.estimate
    assert found.platform_both[0] == found.platform_missing[0]
    assert found.platform_both[1] >= found.platform_missing[1]
    for name, (low, high) in found.intervals.items():
        narrow = getattr(found, name)
        assert low - 1e-12 <= narrow[0] <= narrow[1] <= high + 1e-12
    if effect.n_pairs and not effect.n_missing:
        assert found.platform_both == pytest.approx(found.platform_undecided)


def test_whatever_the_missing_were_the_bounds_hold_the_truth() -> None:
    # Refusals go missing more often than answers (60 % against 5 %) on the hosted side: not at random.
    rng = np.random.default_rng(5)
    for _ in range(60):
        full, seen = [], []
        for i in range(150):
            twin, acted, own = rng.random() < 0.3, rng.random() < 0.4, rng.random() < 0.3
            hosted = STOP if acted else (YES if own else NO)
            lost = rng.random() < (0.6 if hosted.refusal else 0.05)
            full.append(Pair(str(i), "a", hosted, YES if twin else NO))
            seen.append(Pair(str(i), "a", Side("error") if lost else hosted, YES if twin else NO))
        truth = refusal_measure(Columns.of_pairs(full), 0.95)
        columns = Columns.of_pairs(seen)
        graded = columns.where(columns.graded)
        platform = refusal_measure(graded, 0.95).platform_effect
        known = bounds(columns, graded, platform, platform, 0.95)
        for name, effect in (("difference_missing", truth.difference), ("platform_both", truth.platform_effect)):
            low, high = getattr(known, name)
            assert low <= effect.estimate <= high
            assert known.intervals[name][0] <= low
            assert high <= known.intervals[name][1]


def test_undecided_and_missing_bound_together() -> None:
    effect = only(
        pairs_of((10, STOP, NO), (5, DOUBT, NO), (3, Side("error"), NO), (2, STOP, Side("error")), (20, NO, NO))
    )
    assert effect.bounds.platform_undecided == (10 / 35, 15 / 35)
    assert effect.bounds.platform_missing == (10 / 40, 15 / 40)
    assert effect.bounds.platform_both == (10 / 40, 20 / 40)


def test_where_every_answer_was_read_the_correction_is_that_of_the_judge() -> None:
    pairs = pairs_of((10, YES, NO), (20, YES, YES), (30, NO, NO))
    effect, error = only(pairs), rules_error()
    refusals = [(f"{i}", int(i < 30)) for i in range(60)]
    twins = [(f"{i}", int(10 <= i < 30)) for i in range(60)]
    change = [(f"{i}", int(i < 10)) for i in range(60)]
    assert effect.judge_error == error
    assert effect.corrected["refusal_hosted"] == corrected_rate(refusals, error)
    assert effect.corrected["refusal_twin"] == corrected_rate(twins, error)
    assert effect.corrected["difference"] == corrected_difference(change, error)
    assert effect.corrected["platform_effect"].estimate == 0.0


def test_what_was_declared_needs_no_judge() -> None:
    effect, error = only(pairs_of((60, STOP, NO))), rules_error()
    assert effect.corrected["refusal_hosted"].estimate == 1.0
    # The twin's answers were read: some of them were refusals, and the effect is smaller by those.
    twin = corrected_rate([(str(i), 0) for i in range(60)], error)
    assert effect.corrected["difference"].estimate == pytest.approx(1.0 - (twin.estimate or 0.0))
    assert effect.corrected["difference"].lo == pytest.approx(
        1.0 - np.hypot(1 - proportion_of(60, 60).lo, twin.hi - (twin.estimate or 0.0)), abs=0.05
    )
    # Words of a platform that the judge read are corrected like all words.
    read = only(pairs_of((60, Side("refused", "platform"), NO))).corrected["refusal_hosted"]
    assert read == corrected_rate([(str(i), 1) for i in range(60)], error)


def test_a_perfect_judge_changes_no_estimate() -> None:
    pairs = pairs_of((13, STOP, NO), (7, STOP, YES), (11, YES, NO), (20, YES, YES), (30, NO, NO))
    effect = effects_for(pairs, "h", "t", settings=Settings(judge_error=PERFECT))[0]
    assert effect.judge_error == PERFECT
    plain = {
        "refusal_hosted": effect.refusal_hosted,
        "refusal_twin": effect.refusal_twin,
        "difference": effect.difference,
        "platform_effect": effect.platform_effect,
    }
    for name, interval in plain.items():
        assert effect.corrected[name].estimate == pytest.approx(interval.estimate, abs=1e-6)
        assert effect.corrected[name].lo == pytest.approx(interval.lo, abs=0.05)
        assert effect.corrected[name].hi == pytest.approx(interval.hi, abs=0.05)


def test_a_judge_that_errs_is_undone_on_average() -> None:
    # True refusals: hosted 30 % by its words and 20 % declared, twin 30 %; the judge finds 85 % and takes 10 % wrongly.
    rng = np.random.default_rng(8)
    error = judge_error(850, 1000, 900, 1000, "made up")
    found: list[tuple[float, float]] = []
    covered = [0, 0]
    for _ in range(200):
        pairs = []
        for i in range(200):
            hosted, twin = ((rng.random() < (0.85 if rng.random() < 0.3 else 0.1)) for _ in range(2))
            side = STOP if rng.random() < 0.2 else (YES if hosted else NO)
            pairs.append(Pair(str(i), "a", side, YES if twin else NO))
        undone = corrected(Columns.of_pairs(pairs), error, 0.95)
        rate, gap = undone["refusal_hosted"], undone["difference"]
        found.append((rate.estimate or 0.0, gap.estimate or 0.0))
        covered[0] += rate.covers(0.2 + 0.8 * 0.3)
        covered[1] += gap.covers(0.2 * 0.7)
    assert np.mean(found, axis=0) == pytest.approx([0.44, 0.14], abs=0.01)
    # At a coverage of 95 % fewer than 180 of 200 happen once in six hundred runs.
    assert min(covered) >= 180


def test_equivalence_is_asked_of_the_serving_and_of_the_whole_difference() -> None:
    pairs = pairs_of((100, STOP, NO), (300, NO, NO))
    effect = only(pairs, delta=0.05)
    none = [(str(i), 0) for i in range(400)]
    assert effect.equivalence == tost(none, 0.05)
    assert effect.equivalence.equivalent
    assert effect.equivalence_total is not None
    assert not effect.equivalence_total.equivalent


def test_resampling_is_by_trace_and_family() -> None:
    rng = np.random.default_rng(3)
    sides = [(STOP, NO), (YES, NO), (NO, NO), (NO, YES), (YES, YES)]
    pairs = [
        Pair(f"{family}{i}", family, *sides[int(rng.integers(0, 5) if rng.random() < 0.5 else i % 5)])
        for family, size in (("a", 40), ("b", 15))
        for i in range(size)
        for _ in range(3)
    ]
    strata = {pair.trace_id: pair.family for pair in pairs}
    change = [(p.trace_id, float((p.hosted.refusal or 0) - (p.twin.refusal or 0))) for p in pairs]
    assert only(pairs, seed=4).bootstrap["difference"] == cluster_bootstrap(change, seed=4, strata=strata)
    stopped = [(p.trace_id, float(p.hosted is STOP)) for p in pairs]
    platform = cluster_bootstrap(stopped, seed=4, strata=strata, lowest=0.0)
    assert only(pairs, seed=4).bootstrap["platform_effect"] == platform


def test_resampling_by_kind_is_the_same_distribution() -> None:
    rng = np.random.default_rng(6)
    pairs = [
        Pair(f"{family}{i}", family, STOP if rng.random() < share else NO, YES if rng.random() < 0.3 else NO)
        for family, size in (("a", 500), ("b", 90))
        for i in range(size)
        for share in [0.03 if i % 4 else 0.5]
        for _ in range(int(rng.integers(1, 4)))
    ]
    assert len({pair.trace_id for pair in pairs}) > ONE_BY_ONE
    strata = {pair.trace_id: pair.family for pair in pairs}
    change = [(p.trace_id, float((p.hosted.refusal or 0) - (p.twin.refusal or 0))) for p in pairs]
    stopped = [(p.trace_id, float(p.hosted is STOP and p.twin is NO)) for p in pairs]
    found = only(pairs).bootstrap
    for name, values, lowest in (("difference", change, -1.0), ("platform_effect", stopped, 0.0)):
        other = cluster_bootstrap(values, resamples=8000, seed=1, strata=strata, lowest=lowest)
        assert (found[name].estimate, found[name].n) == (pytest.approx(other.estimate), other.n)
        assert found[name].method == other.method
        width = other.hi - other.lo
        assert (found[name].lo, found[name].hi) == pytest.approx((other.lo, other.hi), abs=0.06 * width)
    # Nothing to resample: the same way out.
    rare = [Pair(str(i), "a", STOP if i < 3 else NO, NO) for i in range(ONE_BY_ONE + 100)]
    assert "too few to resample" in only(rare).bootstrap["difference"].method


def test_looking_less_often_ends_at_the_same_limits_or_wider() -> None:
    rng = np.random.default_rng(2)
    values = rng.choice([-1.0, 0.0, 1.0], 900, p=[0.05, 0.7, 0.25]).tolist()
    every, some = SequentialTest(), Looks()
    for value in values:
        every.add(value)
    some.take(values)
    assert (some.n, some.log_e) == (every.n, pytest.approx(every.log_e))
    assert some.interval.lo <= every.interval.lo
    assert every.interval.hi <= some.interval.hi
    assert some.interval.hi - some.interval.lo <= 1.1 * (every.interval.hi - every.interval.lo)
    few = Looks()
    few.take(values[:EVERY])
    one = SequentialTest()
    for value in values[:EVERY]:
        one.add(value)
    assert few.interval == one.interval


def test_anytime_takes_means_of_repeats_in_the_order_of_sending() -> None:
    pairs = [
        Pair("late", "a", STOP, NO),
        Pair("early", "a", NO, NO),
        Pair("late", "a", NO, NO),
        Pair("third", "a", NO, YES),
    ]
    columns = Columns.of_pairs(pairs)
    assert trace_means(columns).tolist() == [0.5, 0.0, -1.0]
    test = SequentialTest()
    for value in (0.5, 0.0, -1.0):
        test.add(value)
    assert anytime(columns, Settings()) == test.interval
    assert only([]).anytime.estimate is None


@settings(deadline=None, max_examples=30)
@given(PAIRS, st.floats(0.01, 0.3))
def test_json_and_rows_keep_every_bit(pairs: list[Pair], delta: float) -> None:
    chosen = Settings(delta=delta, judge_error=PERFECT if delta > 0.1 else None)
    for effect in effects_for(pairs, "h", "t", settings=chosen):
        assert effect_of_row(effect_row("r", "t", effect)) == effect
        assert effect_of_json(json.loads(json.dumps(effect.to_json(), allow_nan=False))) == effect


def test_rows_of_an_older_version_are_read() -> None:
    effect = only(pairs_of((30, STOP, NO)))
    old = {key: value for key, value in effect.to_json().items() if key not in OLDER_DID_NOT_KNOW}
    old["bounds"] = {key: value for key, value in old["bounds"].items() if key not in {"platform_both", "intervals"}}
    read = effect_of_json(old)
    assert (read.difference, read.sentence, read.n_pairs) == (effect.difference, effect.sentence, 30)
    assert (read.measures, read.aa, read.equivalence, read.settings) == ({}, None, None, Settings())


OLDER_DID_NOT_KNOW = frozenset(
    (
        *("measures", "counterfactual", "corrected", "judge_error", "equivalence", "equivalence_total", "bootstrap"),
        *("anytime", "sequential", "unpaired", "unsent", "across_runs", "aa", "gate", "conclusion", "prompt_finding"),
        *("other_weights", "notes", "settings"),
    )
)


def test_the_error_of_the_rules_judge_is_what_was_counted() -> None:
    error = rules_error()
    assert (error.sensitivity.n, error.specificity.n) == (343, 557)
    assert error.sensitivity.estimate == pytest.approx(302 / 343)
    assert error.specificity.estimate == pytest.approx(497 / 557)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(-1, 1)), max_size=60))
def test_arrays_give_what_single_values_give(rows: list[tuple[int, int]]) -> None:
    clusters = Clusters(np.array([trace for trace, _ in rows], dtype=np.int64))
    numbers = np.array([value for _, value in rows], dtype=np.int64)
    change = [(str(trace), value) for trace, value in rows]
    rate = [(str(trace), abs(value)) for trace, value in rows]
    for ours, theirs in (
        (clusters.change(numbers, 0.9), difference(change, level=0.9)),
        (clusters.rate(abs(numbers), 0.9), proportion(rate, level=0.9)),
    ):
        assert (ours.lo, ours.hi) == pytest.approx((theirs.lo, theirs.hi), abs=1e-9)
        assert replace(ours, lo=0.0, hi=0.0) == replace(theirs, lo=0.0, hi=0.0)


def test_order_of_pairs_matters_to_nothing_but_looking() -> None:
    pairs = pairs_of((9, STOP, NO), (6, YES, NO), (5, NO, YES), (40, NO, NO))
    one, two = (only(order) for order in (pairs, pairs[::-1]))
    for name in ("difference", "platform_effect", "bounds", "measures", "corrected", "equivalence", "mcnemar_p"):
        assert getattr(one, name) == getattr(two, name)


def test_the_difference_has_the_interval_for_clustered_differences() -> None:
    pairs = [Pair(f"t{i}", "a", STOP if i < 12 else NO, NO) for i in range(40) for _ in range(2)]
    effect = only(pairs)
    values = [(pair.trace_id, int(pair.hosted is STOP)) for pair in pairs]
    assert effect.difference == difference(values)
    widths = [proportion(part).hi - proportion(part).lo for part in (values[::2], values)]
    assert all(a >= b - 0.01 for a, b in pairwise(widths))
