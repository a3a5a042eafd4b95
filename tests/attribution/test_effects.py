"""The decomposition: by hand on small tables, and as properties on any pairs."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from probe.attribution.effects.columns import Columns
from probe.attribution.effects.estimate import Effect, Pair, Side, effects_for
from probe.attribution.effects.sentences import points, rate, rate_with_n
from probe.attribution.effects.split import refusal_measure
from probe.stats.clusters import difference, proportion
from probe.stats.intervals import Interval, mcnemar_exact, tango_paired, wilson

OUTCOMES = ["complied", "partial", "refused", "blocked", "cut", "empty", "error", "ungradable"]
SIDES = st.builds(Side, st.sampled_from(OUTCOMES), st.sampled_from(["model", "platform", "undecided", None]))
PAIRS = st.lists(
    st.builds(Pair, st.sampled_from([str(i) for i in range(30)]), st.sampled_from(["a", "b"]), SIDES, SIDES),
    max_size=60,
)


def pairs_of(*groups: tuple[int, Side, Side], family: str = "a") -> list[Pair]:
    sides = [(hosted, twin) for count, hosted, twin in groups for _ in range(count)]
    return [Pair(f"{family}{i}", family, hosted, twin) for i, (hosted, twin) in enumerate(sides)]


YES, NO = Side("refused", "model"), Side("complied", "model")
STOP = Side("blocked", "platform")
DOUBT = Side("refused", "undecided")


def only(pairs: list[Pair], prompt_finding: str | None = None) -> Effect:
    return effects_for(pairs, "hosted", "twin", prompt_finding=prompt_finding)[0]


def rate_of(k: int, n: int) -> Interval:
    return proportion([(str(i), int(i < k)) for i in range(n)])


def difference_of(up: int, down: int, n: int) -> Interval:
    return difference([(str(i), 1 if i < up else -int(i < up + down)) for i in range(n)])


def test_a_table_by_hand() -> None:
    effect = only(pairs_of((10, STOP, YES), (20, STOP, NO), (5, YES, YES), (3, YES, NO), (2, NO, YES), (10, NO, NO)))
    assert (effect.n_pairs, effect.n_missing, effect.undecided) == (50, 0, 0)
    assert effect.refusal_hosted == rate_of(38, 50)
    assert effect.refusal_twin == rate_of(17, 50)
    assert effect.platform_effect == rate_of(20, 50)
    assert effect.serving_difference == difference_of(3, 2, 50)
    assert effect.difference.estimate == pytest.approx(21 / 50)
    whole = difference_of(23, 2, 50)
    assert (effect.difference.lo, effect.difference.hi) == (whole.lo, whole.hi)
    assert effect.mcnemar_p == mcnemar_exact(23, 2)
    assert effect.platform_share == rate_of(30, 38)
    assert (effect.platform_stopped, effect.platform_added) == (30, 20)


@pytest.mark.parametrize(
    ("side", "refusal", "acted"),
    [
        (Side("refused", "platform"), 1, True),
        (Side("blocked", "platform"), 1, True),
        (Side("cut", "platform"), 1, True),
        (Side("empty", "platform"), 1, True),
        (Side("cut", "undecided"), None, False),
        (Side("empty", "model"), None, False),
        (Side("error", "platform"), None, False),
        (Side("ungradable"), None, False),
        (Side("blocked", "undecided"), 1, False),
        (Side("complied", "platform"), 0, False),
        (Side("partial"), 0, False),
    ],
)
def test_how_a_side_is_scored(side: Side, refusal: int | None, acted: bool) -> None:
    assert (side.refusal, side.acted) == (refusal, acted)


def test_a_refusal_without_a_verdict_is_undecided() -> None:
    doubts = [Side("refused"), Side("blocked", "undecided"), YES, STOP, Side("cut", "undecided"), Side("complied")]
    assert [side.undecided for side in doubts] == [True, True, False, False, False, False]


def test_the_parts_add_up_where_division_alone_would_not() -> None:
    # 1/10 + 2/10 is not 3/10 in binary floating point.
    effect = only(pairs_of((1, STOP, NO), (2, YES, NO), (7, NO, NO)))
    assert effect.platform_effect.estimate == 0.1
    assert effect.serving_difference.estimate == 0.2
    assert effect.difference.estimate == 0.1 + 0.2 != 0.3


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_the_parts_add_up_to_the_last_digit(pairs: list[Pair]) -> None:
    for effect in effects_for(pairs, "h", "t"):
        whole, platform, serving = effect.difference, effect.platform_effect, effect.serving_difference
        if whole.estimate is None:
            assert effect.n_pairs == 0
            continue
        assert platform.estimate is not None
        assert serving.estimate is not None
        assert platform.estimate + serving.estimate == whole.estimate
        assert effect.refusal_hosted.estimate is not None
        assert effect.refusal_twin.estimate is not None
        assert whole.estimate == pytest.approx(effect.refusal_hosted.estimate - effect.refusal_twin.estimate)
        for measure in effect.measures.values():
            assert measure.platform_effect.estimate + measure.serving_difference.estimate == measure.difference.estimate
            assert measure.difference.estimate == pytest.approx(measure.hosted.estimate - measure.twin.estimate)
            assert measure.counterfactual.estimate == pytest.approx(
                measure.hosted.estimate - measure.platform_effect.estimate
            )


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_every_number_keeps_its_place(pairs: list[Pair]) -> None:
    effect = only(pairs)
    assert effect.n_pairs + effect.n_missing == len(pairs)
    named = [effect.refusal_hosted, effect.refusal_twin, effect.platform_effect, effect.platform_ceiling]
    for interval in [*named, effect.difference, effect.serving_difference, effect.platform_share]:
        assert interval.lo < interval.hi
        assert interval.estimate is None or interval.lo <= interval.estimate + 1e-15 <= interval.hi + 1e-12
    bounds = effect.bounds
    assert bounds.platform_undecided[0] <= bounds.platform_undecided[1]
    assert bounds.difference_missing[0] <= bounds.difference_missing[1]
    assert bounds.platform_missing[0] <= bounds.platform_missing[1]
    if not effect.n_missing and effect.n_pairs:
        assert bounds.difference_missing[0] == bounds.difference_missing[1] == pytest.approx(effect.difference.estimate)
    json.dumps(effect.to_json())


def test_missing_is_counted_and_bounds_the_difference() -> None:
    effect = only(pairs_of((20, YES, NO), (2, Side("error"), NO), (1, Side("empty"), Side("ungradable"))))
    assert (effect.n_pairs, effect.n_missing) == (20, 3)
    assert effect.missing == (("hosted", "empty", 1), ("hosted", "error", 2), ("twin", "ungradable", 1))
    # 20 of +1; two of 0 or +1; one of -1 to +1.
    assert effect.bounds.difference_missing == (19 / 23, 23 / 23)
    assert effect.bounds.platform_missing == (0, 3 / 23)


def test_undecided_is_nobodys_but_moves_the_ceiling() -> None:
    effect = only(pairs_of((10, STOP, NO), (6, DOUBT, NO), (4, DOUBT, YES), (30, NO, NO)))
    assert effect.undecided == 10
    assert effect.platform_effect == rate_of(10, 50)
    assert effect.platform_ceiling == rate_of(16, 50)
    assert effect.bounds.platform_undecided == (10 / 50, 16 / 50)
    assert points(effect.platform_ceiling) in effect.sentence


def test_no_platform_refusal_found_never_means_none() -> None:
    found_none = only(pairs_of((30, YES, YES), (30, NO, NO)))
    assert "no platform effect was found (at most 6.0 %" in found_none.sentence
    assert "no effect" not in found_none.sentence
    # When nothing could be decided, the limit must allow for all of it having been the platform.
    all_doubt = only(pairs_of((30, DOUBT, NO), (30, NO, NO)))
    assert f"at most {100 * rate_of(30, 60).hi:.1f} %" in all_doubt.sentence


def test_repeats_widen_the_intervals() -> None:
    effect = only([Pair(f"t{i}", "a", STOP if i < 10 else NO, NO) for i in range(20) for _ in range(3)])
    assert (effect.n_pairs, effect.n_traces) == (60, 20)
    assert (effect.platform_effect.lo, effect.platform_effect.hi) == pytest.approx(
        (wilson(10, 20).lo, wilson(10, 20).hi), abs=0.01
    )
    # Ten traces moved, not thirty answers.
    assert effect.mcnemar_p == mcnemar_exact(10, 0)
    assert "repeats of 20 traces" in effect.sentence


def test_families_follow_with_adjusted_p() -> None:
    strong = pairs_of((20, STOP, NO), (10, NO, NO), family="x")
    weak = pairs_of((2, STOP, NO), (28, NO, NO), family="y")
    small = pairs_of((5, STOP, NO), family="z")
    effects = effects_for(strong + weak + small, "h", "t")
    assert [e.scope for e in effects] == ["all", "family:x", "family:y", "family:z"]
    assert effects[0].mcnemar_adjusted == effects[0].mcnemar_p
    assert effects[1].mcnemar_adjusted == pytest.approx(2 * effects[1].mcnemar_p)
    assert effects[2].mcnemar_adjusted == pytest.approx(effects[2].mcnemar_p)
    assert effects[3].insufficient
    assert effects[3].mcnemar_adjusted is None
    assert "in the family x" in effects[1].sentence


@pytest.mark.parametrize("count", [0, 1, 19])
def test_too_few_pairs_state_no_rate(count: int) -> None:
    effect = only(pairs_of((count, STOP, NO)))
    assert effect.insufficient
    assert "%" not in effect.sentence
    assert "below 20 no rate is stated" in effect.sentence
    assert not only(pairs_of((20, STOP, NO))).insufficient


def test_the_sentence_holds_every_number_with_its_interval_n_and_missing() -> None:
    effect = only(pairs_of((30, STOP, NO), (10, YES, YES), (20, NO, NO), (1, Side("error"), NO)))
    for text in (
        rate(effect.refusal_hosted),
        rate(effect.refusal_twin),
        points(effect.difference),
        points(effect.platform_effect),
        rate(effect.platform_share),
        "n = 60 pairs, 1 missing",
        "30 of the 40 hosted refusals",
        f"{points(effect.serving_difference)} (covers 0)",
    ):
        assert text in effect.sentence


def test_a_hidden_prompt_is_the_models_refusal_by_the_platforms_prompt() -> None:
    finding = "the provider reports 23 more prompt tokens than these messages have"
    effect = only(pairs_of((30, YES, NO), (10, YES, YES), (20, NO, NO)), prompt_finding=finding)
    assert f"The model wrote these refusals itself; what differs is the prompt: {finding}." in effect.sentence
    mixed = only(pairs_of((30, YES, NO), (10, STOP, NO), (20, NO, NO)), prompt_finding=finding)
    assert "The model wrote 30 of the 40 hosted refusals itself" in mixed.sentence


def test_formats() -> None:
    assert rate_with_n(wilson(42, 120)) == "35.0 % [27.1, 43.9], n = 120"
    assert points(tango_paired(0, 0, 50)).startswith("0.0 points [−7.1, +7.1]")
    assert rate_with_n(wilson(0, 0)) == "not measured (n = 0)"


def test_the_effect_of_a_known_platform_is_covered() -> None:
    # Twin refuses 35 %; the platform stops 60 % of all; the model serves alike. Platform effect 0.6 * 0.65.
    rng = np.random.default_rng(11)
    covered = serving = 0
    for _ in range(400):
        twin = rng.random(80) < 0.35
        own = rng.random(80) < 0.35
        acted = rng.random(80) < 0.6
        pairs = [
            Pair(str(i), "a", STOP if acted[i] else (YES if own[i] else NO), YES if twin[i] else NO) for i in range(80)
        ]
        measure = refusal_measure(Columns.of_pairs(pairs), 0.95)
        covered += measure.platform_effect.covers(0.6 * 0.65)
        serving += measure.serving_difference.covers(0.0)
    # At a coverage of 95 % fewer than this happen once in a thousand runs.
    assert min(covered, serving) >= binom.ppf(0.001, 400, 0.95)
