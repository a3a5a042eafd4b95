"""Merged e-values: averages and products that stay e-values, weights that are constants for the case they weigh."""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from probe.attribution.merging import (
    EVEN,
    FLOOR,
    MOST,
    Open,
    Panel,
    accusable,
    learnt_weights,
    merged,
    oddest,
    text_log_e,
    totals,
    wire_log_e,
)
from probe.evidence.accounting import REWRITE
from probe.evidence.base import Evidence


def found(**log_es: float | None) -> dict[str, Evidence]:
    return {name: Evidence(name, "1", log_e, 0.0, name) for name, log_e in log_es.items()}


def total(evidence: Mapping[str, Evidence], *rest: Mapping[str, Evidence]) -> float:
    cases = [evidence, *rest]
    return float(merged(cases, [f"t{i}" for i in range(len(cases))], Panel.on(cases))[0])


def test_a_lone_detector_is_taken_as_it_is() -> None:
    assert total(found(likelihood=3.0)) == pytest.approx(3.0)
    assert total(found(repetition=-2.0)) == pytest.approx(-2.0)


def test_an_untaught_average_is_even() -> None:
    assert total(found(likelihood=math.log(30), repetition=math.log(10))) == pytest.approx(math.log(20))


def test_abstaining_on_a_text_counts_as_0_and_on_an_envelope_as_1() -> None:
    lone = found(likelihood=None, repetition=math.log(30))
    other = found(likelihood=0.0, repetition=0.0)
    tested = Panel.on([lone, other])
    assert text_log_e(lone, tested) == {"likelihood": FLOOR, "repetition": pytest.approx(math.log(30))}
    odd = found(envelope=None, timing=math.log(3))
    assert wire_log_e(odd, Panel((), ("envelope", "timing"))) == {"envelope": 0.0, "timing": pytest.approx(math.log(3))}
    assert oddest(odd, Panel((), ("envelope", "timing"))) == pytest.approx(math.log(3))
    assert wire_log_e(lone, tested) == {}
    assert oddest(lone, tested) == 0.0


def test_another_prompt_silences_the_text() -> None:
    evidence = found(likelihood=40.0, accounting=-0.4)
    evidence["accounting"] = Evidence("accounting", "1", -0.4, 0.0, "x", mechanism=REWRITE)
    assert text_log_e(evidence, Panel(("likelihood",), ("accounting",)))["likelihood"] == 0.0


def test_an_envelope_alone_needs_two_signs_and_with_scores_impossible_counts() -> None:
    two = found(envelope=5.0, timing=5.0)
    text = found(likelihood=-8.0)
    assert total({**found(envelope=5.0, timing=0.0), **found(repetition=-60.0)}) < 0.0
    assert total({**two, **found(repetition=-60.0)}) == pytest.approx(5.0, abs=1.5)
    assert total({**two, **text}) < 0.0, "the text speaks against it"
    assert total({**found(envelope=5.0, timing=-3.0, accounting=5.0), **text}) > 3.0
    assert total(two) == pytest.approx(5.0)
    assert total(found(envelope=5.0)) < 0.0
    silent = merged([found(envelope=5.0)], ["t"], Panel((), ("envelope",)), silent=True)
    assert silent == pytest.approx([5.0]), "an answer without a text has nothing else"
    assert total({**two, **found(likelihood=2.0)}) > 5.0


def test_weights_are_learnt_from_other_folds_only() -> None:
    copies = [found(likelihood=-8.0, repetition=4.0) for _ in range(100)]
    taught = total(found(likelihood=-8.0, repetition=4.0), *copies)
    untaught = total(found(likelihood=-8.0, repetition=4.0))
    assert taught > untaught + 0.4
    assert taught > 4.0 + math.log(1 - EVEN)
    # Its own value does not move its weight: with the likelihood 10 higher, only the even share of it counts more.
    moved = total(found(likelihood=30.0, repetition=4.0), *copies)
    assert moved <= 30.0 + math.log(EVEN)


def test_learnt_weights_sum_to_one_and_find_the_kind() -> None:
    rng = np.random.default_rng(0)
    logs = rng.normal(-2.0, 1.0, (200, 3))
    logs[:80, 1] = 6.0
    weights = learnt_weights(logs)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[1] > 0.95
    assert learnt_weights(np.zeros((0, 4))) == pytest.approx([0.25] * 4)


def test_the_merged_value_is_an_e_value() -> None:
    """Exact nulls with dependent detectors: the mean stays at most 1 within four standard errors."""
    rng = np.random.default_rng(1)
    means = []
    for _ in range(300):
        z = rng.normal(size=60)
        # Two likelihood ratios about the same number, an independent rank e-value for the envelope.
        a, b = 1.0 * z - 0.5, 2.0 * z - 2.0
        rank = rng.random(60) < 1 / 30
        wire = np.where(rank, math.log(0.05 + 0.95 * 30), math.log(0.05))
        cases = [found(likelihood=x, repetition=y, envelope=w) for x, y, w in zip(a, b, wire, strict=True)]
        means.append(np.exp(merged(cases, [f"t{i}" for i in range(60)], Panel.on(cases))).mean())
    assert np.mean(means) <= 1.0 + 4.0 * np.std(means) / math.sqrt(len(means))


def test_limits() -> None:
    assert merged([], [], Panel((), ())).shape == (0,)
    assert merged([{}], ["t"], Panel((), ())) == pytest.approx([FLOOR])
    assert total(found(likelihood=1e6)) == MOST
    assert total(found(likelihood=-1e6)) == FLOOR


def opened(*log_es: float) -> list[Open]:
    return [Open(f"x{i}", f"t{i}", found(likelihood=value)) for i, value in enumerate(log_es)]


def test_nobody_is_accused_whom_e_bh_does_not_select() -> None:
    """500 and 25 of 40: neither 500 >= 40/(.05·1) nor 25 >= 40/(.05·2), although 500 is more than the latter."""
    none = totals(opened(math.log(500), math.log(25), *[-3.0] * 38), 0.05)
    assert none.selected == frozenset()
    assert none.needed == pytest.approx(math.log(800))
    both = totals(opened(math.log(500), math.log(401), *[-3.0] * 38), 0.05)
    assert both.selected == {"x0", "x1"}
    assert both.needed == pytest.approx(math.log(400))
    assert totals([], 0.05).selected == frozenset()


def test_the_selection_is_that_of_e_bh() -> None:
    rng = np.random.default_rng(2)
    for n in (1, 3, 20, 60):
        for _ in range(60):
            logs = rng.normal(3.0, 3.0, n)
            chosen = totals(opened(*logs), 0.05)
            limit = accusable(list(logs), 0.05)
            assert chosen.selected == {f"x{i}" for i, value in enumerate(logs) if value >= limit}
