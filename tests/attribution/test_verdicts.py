"""Verdicts: rules that hold on any evidence, and how often they are right on routes of known truth."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from probe.attribution.merging import Panel, accusable
from probe.attribution.mixture import Mixture
from probe.attribution.verdicts import Finding, Verdict, decide
from probe.evidence.accounting import REWRITE
from probe.evidence.base import Evidence
from probe.evidence.case import Case
from probe.evidence.declared import declared
from probe.evidence.likelihood import RATIOS, WHOLE
from probe.evidence.repetition import RepetitionNorm
from tests.evidence.routes import SCENARIOS, Scenario, Tally, judge, tally
from tests.evidence.world import make_case

NOTHING = Evidence("declared", "1", None, 0.0, "Nothing.")
ABSENT = Evidence("x", "1", None, 0.0, "Not tested.")


def refusal(number: int, text: int = 0, trace: int | None = None) -> Case:
    return make_case((1, 30 + text), name=f"x{number}", trace=f"t{number if trace is None else trace}")


def wording(log_e: float, *, whole: float | None = None, ratios: bool = True) -> Evidence:
    facts: dict[str, Any] = {WHOLE: log_e if whole is None else whole}
    if ratios:
        facts[RATIOS] = {"0.5": log_e, "0.9": log_e - 1.0}
    return Evidence("likelihood", "2", log_e, log_e, "Wording.", facts)


def copies(log_e: float) -> Evidence:
    return Evidence("repetition", "2", log_e, max(log_e, 0.0), "Copies.")


def counts(log_e: float | None = None, mechanism: str | None = None) -> Evidence:
    llr = 0.0 if log_e is None else log_e
    return Evidence("accounting", "2", log_e, llr, "Counts.", mechanism=mechanism)


def finding(
    case: Case, likelihood: Evidence = ABSENT, repetition: Evidence = ABSENT, counted: Evidence = ABSENT
) -> Finding:
    evidence = {"declared": NOTHING, "likelihood": likelihood, "repetition": repetition, "accounting": counted}
    return Finding(case, evidence)


def verdicts(findings: list[Finding]) -> list[Verdict]:
    return decide(findings, RepetitionNorm.measure([f.case for f in findings], [], {}))


def whos(findings: list[Finding]) -> set[str]:
    return {verdict.who for verdict in verdicts(findings)}


def test_a_difference_in_refusal_rate_accuses_nobody() -> None:
    """The twin never refuses, the route always does, in words of the weights' own: not one verdict ``platform``."""
    for evidence in (wording(-8.0), ABSENT):
        hosted = [finding(refusal(i, i), evidence, copies(-60.0)) for i in range(200)]
        norm = RepetitionNorm.measure([f.case for f in hosted], [make_case((15, 30))] * 200, {})
        assert "platform" not in {v.who for v in decide(hosted, norm)}


def test_a_high_share_does_not_replace_evidence() -> None:
    sure = [finding(refusal(i, i), wording(40.0), copies(-60.0)) for i in range(99)]
    weak = finding(refusal(99, 99), wording(1.0), copies(-60.0))
    *others, last = verdicts([*sure, weak])
    assert {v.who for v in others} == {"platform"}
    assert last.who == "undecided"
    assert last.probability > 0.95
    assert last.log_e < math.log(20)


def test_evidence_does_not_replace_a_posterior() -> None:
    # Texts of the stock that the weights like as much: the e-value is granted, the posterior stays in doubt.
    found = verdicts([finding(refusal(i), wording(-8.0), copies(6.0)) for i in range(20)])
    assert {v.who for v in found} == {"undecided"}
    assert all(v.probability < 0.95 and v.log_e > math.log(20) for v in found)


def test_one_foreign_refusal_of_one_is_accused_and_one_of_many_needs_more() -> None:
    strong = finding(refusal(0), wording(6.0))
    assert whos([strong]) == {"platform"}
    crowd = [finding(refusal(i, i), wording(-8.0)) for i in range(1, 300)]
    assert verdicts([strong, *crowd])[0].who == "undecided"
    assert verdicts([finding(refusal(0), wording(14.0)), *crowd])[0].who == "platform"


def test_e_bh_against_its_definition() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 40):
        for _ in range(50):
            logs = list(rng.normal(2.0, 3.0, n))
            ranked = sorted(logs, reverse=True)
            chosen = [k for k in range(1, n + 1) if ranked[k - 1] >= math.log(n / (0.05 * k))]
            expected = sum(log >= math.log(n / (0.05 * max(chosen))) for log in logs) if chosen else 0
            assert sum(log >= accusable(logs, 0.05) for log in logs) == expected
            assert accusable(logs, 0.05) >= math.log(20) - 1e-12
    assert accusable([], 0.05) == math.inf


def test_few_refusals() -> None:
    assert verdicts([]) == []
    assert verdicts([finding(make_case((15, 30)))]) == [], "an answer gets no verdict"
    assert whos([finding(refusal(0), wording(-8.0))]) == {"model"}
    assert whos([finding(refusal(0))]) == {"undecided"}
    assert whos([finding(refusal(i), wording(30.0), copies(20.0)) for i in range(2)]) == {"platform"}


def test_what_nothing_could_test_is_undecided_with_a_reason() -> None:
    found = verdicts([finding(refusal(i)) for i in range(50)])
    assert {v.who for v in found} == {"undecided"}
    assert {v.reason for v in found} == {"No detector could test who wrote this text."}


def test_without_scores_nothing_is_called_the_models() -> None:
    found = verdicts([finding(refusal(i, i), ABSENT, copies(-60.0)) for i in range(50)])
    assert {v.who for v in found} == {"undecided"}


def test_all_at_the_floor() -> None:
    found = verdicts([finding(refusal(i, i), wording(-60.0), copies(-60.0)) for i in range(50)])
    assert {v.who for v in found} == {"model"}
    assert all(math.isfinite(v.log_e) and 0 <= v.probability < 1e-3 for v in found)


def test_a_text_with_a_few_foreign_words_is_not_called_the_models() -> None:
    found = verdicts([finding(refusal(i, i), wording(-8.0, whole=5.0)) for i in range(20)])
    assert {v.who for v in found} == {"undecided"}
    assert "a few of its words are not" in found[0].reason


def test_a_foreign_text_under_protection_is_nobodys() -> None:
    protected = [finding(refusal(i, i), wording(0.0, whole=2.0, ratios=False)) for i in range(10)]
    genuine = [finding(refusal(i, i), wording(-8.0)) for i in range(10, 200)]
    found = verdicts([*protected, *genuine])
    assert {v.who for v in found[:10]} == {"undecided"}
    assert {v.who for v in found[10:]} == {"model"}


def test_another_prompt_on_an_exchange_protects_it_from_all_text_detectors() -> None:
    foreign = [finding(refusal(i), wording(40.0), copies(30.0), counts(-0.36)) for i in range(20)]
    shown = finding(refusal(20), wording(40.0), copies(30.0), counts(-0.36, REWRITE))
    assert whos(foreign) == {"platform"}
    *others, last = verdicts([*foreign, shown])
    assert {v.who for v in others} == {"platform"}
    assert last.who == "undecided"
    assert last.log_e < 0
    whole = RepetitionNorm(prompt_differs=True)
    assert "platform" not in {v.who for v in decide([finding(f.case, ABSENT, copies(0.0)) for f in foreign], whole)}


def test_copies_under_a_hidden_prompt_do_not_raise_the_posterior() -> None:
    twin = [make_case((2, 40 + i), trace=f"w{i}") for i in range(60)]
    hosted = [finding(refusal(i), wording(-8.0), copies(0.0)) for i in range(20)]

    def highest(*, prompt_differs: bool) -> float:
        norm = RepetitionNorm.measure([f.case for f in hosted], twin, {}, prompt_differs=prompt_differs)
        return max(v.probability for v in decide(hosted, norm))

    assert highest(prompt_differs=False) > 0.95
    assert highest(prompt_differs=True) <= 0.5 + 1e-9


def test_counts_support_and_do_not_decide_alone() -> None:
    odd = counts(3.5)
    assert whos([finding(refusal(i, i), ABSENT, ABSENT, odd) for i in range(5)]) == {"undecided"}
    contradicted = verdicts([finding(refusal(i, i), wording(-8.0), copies(-60.0), odd) for i in range(5)])
    assert {v.who for v in contradicted} == {"undecided"}
    assert "contradicts itself" in contradicted[0].reason
    assert "Counts." in contradicted[0].reason
    assert verdicts([finding(refusal(0), wording(2.0), ABSENT, odd)])[0].who == "platform"
    assert verdicts([finding(refusal(0), wording(2.0))])[0].who == "undecided"


def test_an_accusation_says_whether_the_prompt_was_checked() -> None:
    unchecked = verdicts([finding(refusal(0), wording(30.0))])[0]
    assert "or a hidden prompt asks for it" in unchecked.reason
    assert unchecked.mechanism is None
    checked = replace(counts(-0.36), facts={"prompt_surplus": 0, "prompt_usual": 0})
    assert verdicts([finding(refusal(0), wording(30.0), ABSENT, checked)])[0].reason == "Wording."
    # A count with nothing constant to compare it with checks nothing.
    unsure = replace(counts(-0.36), facts={"prompt_surplus": 0, "prompt_usual": None})
    assert verdicts([finding(refusal(0), wording(30.0), ABSENT, unsure)])[0].mechanism is None


def test_a_declaration_decides_alone() -> None:
    gateway = Evidence(
        "declared", "1", 100.0, 100.0, "Says so.", decisive=True, mechanism="declared_block", layer="gateway"
    )
    own = Evidence("declared", "1", 0.0, -100.0, "A refusal.", decisive=True, mechanism="x", layer="unknown")
    found = verdicts(
        [
            Finding(replace(refusal(0), outcome="blocked"), {"declared": gateway}),
            Finding(refusal(1), {"declared": own, "likelihood": wording(40.0)}),
            Finding(refusal(2), {"declared": gateway, "likelihood": wording(-40.0)}),
        ]
    )
    assert [(v.who, v.mechanism, v.probability) for v in found] == [
        ("platform", "declared_block", 1.0),
        ("model", "model_refusal", 0.0),
        ("platform", "declared_block", 1.0),
    ]


@pytest.mark.parametrize("outcome", ["blocked", "cut", "empty"])
def test_silence_is_undecided(outcome: str) -> None:
    case = replace(refusal(0), outcome=outcome)
    found = verdicts([Finding(case, {"declared": declared(case)})])[0]
    assert (found.who, found.probability) == ("undecided", 0.5)
    assert f"An answer that is {outcome}" in found.reason


@pytest.mark.parametrize("outcome", ["error", "ungradable", "complied"])
def test_missing_data_gets_no_verdict(outcome: str) -> None:
    case = replace(refusal(0), outcome=outcome)
    assert verdicts([Finding(case, {"declared": declared(case)})]) == []


def test_order_does_not_matter_and_traces_are_left_out_together() -> None:
    rng = np.random.default_rng(4)
    findings = [
        finding(refusal(i, int(rng.integers(4)), trace=i // 2), wording(float(rng.normal(-2, 4))), copies(0.0))
        for i in range(40)
    ]
    forward = {v.exchange_id: v for v in verdicts(findings)}
    backward = {v.exchange_id: v for v in verdicts(findings[::-1])}
    for key, verdict in forward.items():
        assert backward[key].who == verdict.who
        assert backward[key].probability == pytest.approx(verdict.probability, abs=1e-4)
    # Ten copies within one trace, and no other trace has the text: not a stock.
    alone = [finding(refusal(i, 0, trace=0), wording(-8.0)) for i in range(10)]
    rest = [finding(refusal(i, i), wording(-8.0)) for i in range(10, 60)]
    assert whos([*alone, *rest]) == {"model"}


def test_the_fast_stock_is_the_plain_one() -> None:
    """Grouped sums against the definition: the share of a text among the other traces' responsibilities."""
    rng = np.random.default_rng(9)
    findings = [finding(refusal(i, int(rng.integers(3)), trace=int(rng.integers(12))), wording(0.0)) for i in range(30)]
    norm = RepetitionNorm.measure([f.case for f in findings], [], {})
    resp = rng.random(30)
    mixture = Mixture(findings, norm, Panel((), ()))
    mixture._eligible[:] = True
    found = mixture._canned(resp)
    for i, own in enumerate(findings):
        others = [j for j, f in enumerate(findings) if f.case.trace_id != own.case.trace_id]
        same = [j for j in others if findings[j].case.text == own.case.text]
        expected = math.log(resp[same].sum() / resp[others].sum()) - math.log(norm.share_if_model(own.case.text))
        assert found[i] == pytest.approx(expected)


BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def counted(names: list[str], seeds: int) -> Tally:
    found = [tally(BY_NAME[name], range(seeds)).cells for name in names]
    return Tally(sum(found[1:], found[0]))


@pytest.mark.parametrize(
    ("names", "seeds", "model"),
    [
        (["a transparent", "a transparent, 5 repeats", "a transparent, favourite at 20 %"], 3, 0.85),
        (["d hidden prompt x3"], 3, 0.95),
        (["d hidden prompt x3, no counts", "d hidden prompt x60 of 1 %, no counts"], 3, 0.75),
        (["d hidden prompt x3, favourite x3 (5 -> 15 %), no counts"], 2, 0.5),
        (["e transparent, few"], 20, 0.85),
        (["f transparent, no scorer", "f hidden prompt x3, no scorer"], 2, 0.0),
        (["g other weights", "g other weights, no counts, 5 repeats"], 2, 0.0),
    ],
    ids=["transparent", "hidden", "withheld", "drift", "few", "unscored", "other"],
)
def test_what_the_model_wrote_is_not_accused(names: list[str], seeds: int, model: float) -> None:
    found = counted(names, seeds)
    assert sum(found.cells.values()) > 60
    assert found.rate("model", "platform") <= 0.01
    assert found.rate("model", "model") >= model


@pytest.mark.parametrize("share", ["20%", "50%", "90%"])
@pytest.mark.parametrize("stock", [1, 3])
def test_silent_injection_of_foreign_texts_is_found(stock: int, share: str) -> None:
    found = counted([f"b {stock} canned foreign text(s), {share}"], 2)
    assert found.rate("platform", "platform") >= 0.98
    assert found.rate("platform", "model") == 0
    assert found.rate("model", "platform") <= 0.01


def test_other_injections() -> None:
    each_new = counted(["b each text new, warm 3, 50 %"], 2)
    assert each_new.rate("platform", "platform") >= 0.95
    liked = counted(["c favourite at 0.5 %, 50 %"], 2)
    assert liked.rate("platform", "platform") >= 0.5
    few = counted(["e canned foreign 50 %, few"], 10)
    assert few.rate("platform", "platform") >= 0.95
    unscored = counted(["f canned foreign 50 %, no scorer"], 2)
    assert unscored.rate("platform", "platform") >= 0.9
    for found in (each_new, liked, few, unscored):
        assert found.rate("platform", "model") == 0
        assert found.rate("model", "platform") <= 0.01


def test_a_sentence_that_the_weights_favour() -> None:
    """Copies are accused together where the weights would write less than 5 % of them; the rest is nobody's."""
    found = counted(["c favourite at 5 %, 50 %"], 4)
    assert found.rate("platform", "platform") >= 0.4
    assert found.rate("platform", "model") <= 0.01
    accused = found.cells["platform", "platform"] + found.cells["model", "platform"]
    assert found.cells["model", "platform"] <= 0.05 * accused


def test_a_text_that_came_twice_is_no_stock() -> None:
    """Two or three copies of what the weights like to say do not make a small platform of their own."""
    found = counted(["a transparent"], 4)
    assert found.rate("model", "model") >= 0.95


def test_the_same_route_gives_the_same_verdicts() -> None:
    scenario = Scenario("again", traces=40, share=0.5, canned=2)
    assert judge(scenario, 3)[0] == judge(scenario, 3)[0]
