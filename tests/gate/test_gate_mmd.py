"""MMD with the Hamming kernel: the package's statistic on the same samples, and a permutation p that holds.

``reference_mmd.json`` says with which release it was made.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probe.attribution.gate.mmd import LEAST_PROMPTS, mmd_hamming, mmd_test
from tests.gate.gate_world import CITIES, RIVERS, spoken

REFERENCE = json.loads((Path(__file__).parent / "reference_mmd.json").read_text(encoding="utf-8"))["samples"]


@pytest.mark.parametrize("sample", REFERENCE, ids=range(len(REFERENCE)))
def test_the_statistic_is_that_of_the_package(sample: dict[str, object]) -> None:
    assert mmd_hamming(sample["pairs"]) == pytest.approx(sample["statistic"], abs=1e-9)  # type: ignore[arg-type]


def test_p_holds_where_texts_are_alike_and_finds_others() -> None:
    def p_of(seed: int, texts: tuple[str, ...] = CITIES) -> float:
        found = mmd_test(spoken(seed, 20, texts, repeats=2), spoken(seed + 99, 20, CITIES, repeats=3), seed)
        assert found.p is not None
        return found.p

    p = np.array([p_of(seed) for seed in range(60)])
    assert (p <= 0.05).sum() < 9
    assert p.mean() == pytest.approx(0.5, abs=0.15)
    assert all(p_of(seed, RIVERS) <= 0.02 for seed in range(5))


def test_one_hosted_answer_per_prompt_suffices() -> None:
    found = mmd_test(spoken(1, 40, RIVERS), spoken(2, 40, CITIES, repeats=4), 0)
    assert found.p is not None
    assert found.p <= 0.02
    assert found.detail == {"hosted_texts": 40, "twin_texts": 160, "permutations": 999}
    swapped = mmd_test(spoken(2, 40, CITIES, repeats=4), spoken(1, 40, RIVERS), 0)
    assert swapped.statistic == pytest.approx(found.statistic)


def test_same_texts_are_no_difference() -> None:
    same = spoken(3, 1, CITIES)[0]
    cases = [replace(same, trace_id=f"p{n // 2}") for n in range(12)]
    found = mmd_test(cases, cases, 0)
    assert found.statistic == pytest.approx(0.0)
    assert found.p == 1.0


@pytest.mark.parametrize(
    ("hosted", "twin"),
    [
        ([], []),
        (spoken(4, 30, CITIES), []),
        (spoken(4, 30, CITIES), spoken(5, 30, CITIES)),
        (spoken(4, LEAST_PROMPTS - 1, CITIES, repeats=3), spoken(5, 30, CITIES, repeats=3)),
        (spoken(4, 30, CITIES, repeats=3, temperature=0.0), spoken(5, 30, CITIES, repeats=3, temperature=0.0)),
        (spoken(4, 30, CITIES, repeats=3, temperature=0.8), spoken(5, 30, CITIES, repeats=3)),
    ],
    ids=["nothing", "no twin", "no repeats", "few prompts", "temperature 0", "asked otherwise"],
)
def test_what_cannot_be_compared_is_not(hosted: list, twin: list) -> None:  # type: ignore[type-arg]
    found = mmd_test(hosted, twin, 0)
    assert found.p is None
    assert found.sentence.startswith("Not asked: ")
