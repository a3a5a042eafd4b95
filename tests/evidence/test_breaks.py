"""Breaks per character: the sum of the e-values stays below n where breaks are chance, and grows where they are not."""

from dataclasses import replace

import numpy as np
import pytest

from probe.evidence.breaks import BreakNorm
from probe.evidence.case import Case
from probe.wire.signatures import Match
from probe.wire.values import Reading


def answer(length: int, outcome: str = "complied", *, control: bool = False, name: str = "x") -> Case:
    return Case(name, f"t-{name}", control, outcome, Reading("answer", text="a" * length))


def route(
    rng: np.random.Generator, hazard: tuple[float, float], sizes: tuple[float, float] = (200.0, 300.0)
) -> list[Case]:
    """60 controls and 100 other answers; ``hazard`` per character of both, ``sizes`` their mean lengths."""
    found = []
    for control, n in ((True, 60), (False, 100)):
        for i in range(n):
            whole = 20 + int(rng.exponential(sizes[not control]))
            at = int(rng.exponential(1.0 / hazard[not control]))
            outcome = "cut" if at < whole else "complied"
            found.append(answer(min(at, whole), outcome, control=control, name=f"{control}{i}"))
    return found


@pytest.mark.parametrize("hazard", [1e-4, 1e-3, 5e-3])
@pytest.mark.parametrize("sizes", [(200.0, 200.0), (200.0, 600.0), (300.0, 60.0)])
def test_the_sum_is_at_most_n_where_breaks_are_chance(hazard: float, sizes: tuple[float, float]) -> None:
    rng = np.random.default_rng(3)
    shares, accused = [], 0
    for _ in range(400):
        cases = route(rng, (hazard, hazard), sizes)
        norm = BreakNorm.measure(cases)
        openly = sum(case.outcome == "cut" for case in cases)
        log_es = [norm.of(case) for case in cases if case.outcome == "cut"]
        shares.append(sum(log_es) / openly if openly else 0.0)
        accused += norm.breaks * 0.05 * norm.e >= openly > 0
    assert np.mean(shares) <= 1.0 + 4.0 * np.std(shares) / 20.0
    assert accused <= 0.05 * 400


def test_a_platform_that_cuts_is_seen_and_a_few_breaks_are_not() -> None:
    rng = np.random.default_rng(5)
    norm = BreakNorm.measure(route(rng, (1e-9, 0.01)))
    assert norm.of_controls == 0
    assert norm.breaks * 0.05 * norm.e >= norm.breaks
    few = BreakNorm.measure(route(rng, (1e-9, 2e-4)))
    assert few.breaks * 0.05 * few.e < max(few.breaks, 1)


def test_late_breaks_controls_and_declared_ones_prove_nothing() -> None:
    controls = [answer(100, control=True, name=f"c{i}") for i in range(30)]
    others = [answer(200, name=f"o{i}") for i in range(10)]
    late, early = answer(150, "cut", name="late"), answer(10, "cut", name="early")
    norm = BreakNorm.measure([*controls, *others, late, early])
    assert norm.breaks == 1
    assert norm.of(late) == 0.0
    assert norm.of(early) == norm.e > 0.0
    assert norm.of(replace(early, control=True)) == 0.0
    said = Match("x", "cut_stream", "host_output", "platform", "Says so.", "", "", "primary")
    assert BreakNorm.measure([*controls, *others, replace(early, matches=(said,))]).breaks == 0
    assert "of 30 controls none did" in norm.sentence


def test_too_few_controls() -> None:
    norm = BreakNorm.measure([answer(10, control=True), answer(5, "cut")])
    assert norm.of(answer(5, "cut")) == 1.0
    assert BreakNorm.measure([]).of(answer(5, "cut")) == 1.0
