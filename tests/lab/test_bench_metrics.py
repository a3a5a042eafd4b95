"""The bench's measures against tables computed by hand, and its baselines on cases whose answer is known."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.attribution.cases import Sent
from probe.evidence.base import Evidence
from probe.evidence.case import Case
from probe.lab.bench.baselines import COMMON, canned_strings, fit, http_lexical_timing, known_texts, leave_one_out
from probe.lab.bench.metrics import Unit, by_family, calibration_error, f1, f1_interval, fdr_by_route, summary
from probe.lab.bench.result import BenchResult, measures, pooled
from probe.lab.bench.tables import bench_tables
from probe.lab.bench.texts import FOREIGN, TEMPLATES, blocking_texts, replacing_texts, templates
from probe.lab.bench.truth import Labelled, decider
from probe.store.rows import OutcomeRow
from probe.wire.dialects import dialect
from tests.kit import completion, make_exchange


def unit(
    author: str, verdict: str, probability: float | None = None, *, family: str = "declared", **fields: object
) -> Unit:
    values = {"route": "r", "exchange_id": "x", "outcome": "refused", **fields}
    return Unit(family=family, author=author, verdict=verdict, probability=probability, **values)  # type: ignore[arg-type]


TABLE = [
    *[unit("platform", "platform", 0.98, decider="repetition", mechanism="redaction", true_mechanism="redaction")] * 6,
    *[unit("platform", "platform", 0.98, decider="likelihood", true_mechanism="injected_text", route="s")] * 2,
    *[unit("platform", "undecided", 0.5)] * 1,
    *[unit("platform", "not seen")] * 1,
    *[unit("model", "platform", 0.98, route="s")] * 2,
    *[unit("model", "model", 0.02)] * 7,
    *[unit("model", "undecided", 0.5)] * 1,
]  # fmt: skip


def test_a_table_by_hand() -> None:
    found = summary(TABLE)
    assert found["n"] == 20
    assert found["accuracy"] == 15 / 20
    assert found["f1"] == pytest.approx(2 * 8 / (2 * 8 + 2 + 2))
    assert found["false_accusation_rate"] == 2 / 10
    assert found["fdr"] == 2 / 10
    assert found["undecided_rate"] == 2 / 20
    assert found["missed_rate"] == 2 / 10
    assert found["fdr_by_route"] == {"r": 0.0, "s": 0.5}
    assert found["deciders"] == {"repetition": 6, "likelihood": 2}
    assert found["mechanisms"] == {"right": 6, "wrong": 0, "not named": 2}
    assert found["counts"] == {"model": 10, "platform": 10, "called_platform": 10, "falsely": 2}
    # Bins: 0 (seven at .02, none true), 5 (two at .5, one true), 9 (ten at .98, eight true); the unseen one has none.
    assert found["ece_n"] == 19
    assert found["ece"] == pytest.approx((7 * 0.02 + 2 * 0.0 + 10 * 0.18) / 19)
    assert found["intervals"]["accuracy"]["lo"] < 0.75 < found["intervals"]["accuracy"]["hi"]


def test_a_family_without_platform_has_no_f1_and_one_without_accusations_no_false_discoveries() -> None:
    found = summary([unit("model", "model", 0.01), unit("model", "undecided", 0.4)])
    assert found["f1"] is None
    assert found["intervals"]["f1"] is None
    assert found["fdr"] == 0.0
    assert found["missed_rate"] is None


def test_nothing_at_all_is_no_rate() -> None:
    found = summary([])
    assert found["n"] == 0
    assert found["accuracy"] is None
    assert found["ece"] is None
    assert found["f1"] is None


def test_all_missed_is_an_f1_of_nought() -> None:
    found = summary([unit("platform", "undecided", 0.5), unit("platform", "model", 0.01)])
    assert found["f1"] == 0.0


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(hit: int, false: int, missed: int) -> None:
    found = f1(hit, false, missed)
    if hit:
        precision, recall = hit / (hit + false), hit / (hit + missed)
        assert found == pytest.approx(2 * precision * recall / (precision + recall))
    else:
        assert found == 0.0


def test_the_interval_of_f1_narrows_with_n_and_holds_the_estimate() -> None:
    wide, narrow = f1_interval(8, 2, 2, 20), f1_interval(800, 200, 200, 2000)
    assert wide["lo"] < narrow["lo"] < 0.8 < narrow["hi"] < wide["hi"]
    # The delta method's standard error of F1 at these shares (p = tp, e = fp + fn of n): known to about 10 %.
    p, e, n = 0.4, 0.2, 2000
    slope_p, slope_e = 2 * e / (2 * p + e) ** 2, -2 * p / (2 * p + e) ** 2
    variance = (slope_p**2 * p + slope_e**2 * e - (slope_p * p + slope_e * e) ** 2) / n
    assert narrow["hi"] - narrow["lo"] == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.15)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0.0, False), (1.0, True)], 0.0),
        ([(1.0, False)], 1.0),
        ([(0.9, True), (0.9, True), (0.9, False)], abs(0.9 - 2 / 3)),
        ([(0.05, False), (0.95, False)], (0.05 + 0.95) / 2),
        ([(0.3, True), (None, True)], 0.7),
    ],
)
def test_calibration_error(pairs: list[tuple[float | None, bool]], expected: float) -> None:
    assert calibration_error(pairs)[0] == pytest.approx(expected)


def test_a_route_that_accuses_nobody_has_no_false_discoveries() -> None:
    assert fdr_by_route([unit("model", "model", 0.0, route="a")]) == {"a": 0.0}


def test_families_come_in_the_order_of_the_grid_and_kin_is_left_out_where_it_says_so() -> None:
    units = [unit("platform", "model", 0.1, family="injected_kin"), unit("platform", "platform", 0.9)]
    found = measures(units)
    assert list(found["families"]) == ["declared", "injected_kin"]
    assert found["overall"]["f1"] == pytest.approx(2 / 3)
    assert found["overall_without_kin"]["f1"] == 1.0
    assert by_family(units)["injected_kin"]["f1"] == 0.0


# ── baselines ──


def two_groups(separable: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    chance = np.random.default_rng(1)
    truth = np.tile([0.0, 1.0], 100)
    table = chance.normal(size=(200, 5))
    if separable:
        table[:, 2] = 3 * truth + 0.1 * table[:, 2]
    return table, truth, ["a", "b", "c", "d"] * 50


def test_what_can_be_told_apart_is_told_apart() -> None:
    table, truth, _ = two_groups(separable=True)
    groups = ["a"] * 100 + ["b"] * 100
    assert ((leave_one_out(table, truth, groups) >= 0.5) == truth).all()


def test_what_cannot_is_a_coin() -> None:
    table, truth, _ = two_groups(separable=False)
    right = ((leave_one_out(table, truth, ["a"] * 100 + ["b"] * 100) >= 0.5) == truth).mean()
    assert 0.35 < right < 0.65


def test_the_family_that_is_predicted_is_never_trained_on() -> None:
    """A feature that tells the truth in one family only, and the opposite in the others, must mislead there."""
    truth = np.tile([0.0, 1.0], 60)
    groups = np.repeat(["a", "b", "c"], 40)
    sign = np.where(groups == "a", 1.0, -1.0)
    table = (sign * (2 * truth - 1))[:, None]
    predicted = leave_one_out(table, truth, list(groups)) >= 0.5
    assert (predicted[groups == "a"] != truth[groups == "a"]).all()
    # Its labels make no difference to its own predictions either.
    flipped = np.where(groups == "a", 1 - truth, truth)
    again = leave_one_out(table, flipped, list(groups))
    assert np.array_equal(again[groups == "a"], leave_one_out(table, truth, list(groups))[groups == "a"])


def test_the_fit_is_a_stationary_point_of_the_penalised_likelihood() -> None:
    table, truth, _ = two_groups(separable=False)
    weights = fit(table, truth, penalty=2.0)
    rows = np.column_stack([table, np.ones(len(table))])
    slope = rows.T @ (1 / (1 + np.exp(-rows @ weights)) - truth) + 2.0 * np.append(weights[:-1], 0.0)
    assert np.abs(slope).max() < 1e-2


def answer(text: str, author: str, family: str, *, at: float = 0.3, status: int = 200) -> Labelled:
    exchange = make_exchange(response_body=completion(text), status=status)
    reading = dialect("openai-chat").read(exchange)
    case = Case("x", "t", control=False, outcome="refused", reading=reading, exchange=exchange)
    row = OutcomeRow("x", "rules", "1", "refused", 1.0, "")
    sent = Sent(case, "r", None, None, (), None, row)
    return Labelled(unit(author, "undecided", 0.5, family=family), sent, [sent])


def test_canned_strings_knows_the_catalogue_and_common_refusals_and_takes_the_rest_for_the_models() -> None:
    texts = ["Well. I'm sorry, I can't  respond to that. Bye.", COMMON[0], "I would rather sing."]
    found = canned_strings([answer(text, "platform", "declared") for text in texts])
    assert [one.verdict for one in found] == ["platform", "platform", "model"]
    assert all(text == text.casefold() for text in known_texts())


def test_outside_signals_are_learnt_from_the_other_families() -> None:
    texts = {"platform": "Blocked by policy number {}.", "model": "I cannot brew potion {}."}
    answers = [
        answer(texts[author].format(n), author, family)
        for family in ("declared", "injected_foreign", "transparent")
        for n in range(6)
        for author in ("platform", "model")
    ]
    found = http_lexical_timing(answers)
    assert all(one.verdict == one.author for one in found)
    # With the labels of one family turned round, that family's predictions stay, and are now wrong.
    other = {"platform": "model", "model": "platform"}
    turned = [
        replace(one, unit=replace(one.unit, author=other[one.unit.author])) if one.unit.family == "transparent" else one
        for one in answers
    ]
    wrong = [one for one in http_lexical_timing(turned) if one.family == "transparent"]
    assert all(one.verdict != one.author for one in wrong)


# ── the rest ──


def test_development_and_measurement_share_no_text() -> None:
    for texts in (blocking_texts, replacing_texts, templates):
        assert not set(texts(0)) & set(texts(100))
        assert texts(0) == texts(99)
        assert texts(100) == texts(101)
    assert not set(blocking_texts(0)) & set(replacing_texts(0))
    assert len(FOREIGN) >= 20
    assert len(TEMPLATES) >= 20
    assert all("{subject}" in text for text in TEMPLATES)


def test_a_declared_signature_decides_before_any_number() -> None:
    declared = Evidence("declared", "1", 3.0, 10.0, "", decisive=True)
    loud = Evidence("likelihood", "1", 90.0, 10.0, "")
    quiet = Evidence("timing", "1", -1.0, 0.0, "")
    assert decider([loud, declared]) == "declared"
    assert decider([loud, quiet]) == "likelihood"
    assert decider([quiet, Evidence("envelope", "1", None, 0.0, "")]) is None


def test_pooling_adds_answers_not_rates() -> None:
    one = BenchResult((unit("model", "model", 0.0),), (), {"b": [unit("model", "model", 0.0)]}, meta_of(1))
    two = BenchResult((unit("model", "platform", 1.0),) * 3, (), {"b": [unit("model", "model", 0.0)] * 3}, meta_of(2))
    found = pooled([one, two]).to_json()
    assert found["overall"]["n"] == 4
    assert found["overall"]["false_accusation_rate"] == 0.75
    assert found["baselines"]["b"]["overall"]["n"] == 4
    assert found["seed"] == [1, 2]


def test_every_table_shows_every_family() -> None:
    units = (*TABLE, unit("platform", "platform", 0.9, family="injected_kin"))
    found = BenchResult(units, units, {"http_lexical_timing": units, "canned_strings": units}, meta_of(0)).to_json()
    for rows in bench_tables(found):
        assert Counter(row[0] for row in rows.rows) == Counter(
            ["declared", "injected_kin", "overall", "overall_without_kin"]
        )


def meta_of(seed: int) -> dict[str, object]:
    return {"seed": seed, "seconds": {}, "grid": []}
