"""The demo is the real pipeline; what it must reach is measured here on one seed, and on five by scripts/bench-demo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from probe.store.verify import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "probe", "demo", "--json", "--seed", "11", "--out", "out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder / "out"


def by_name(found: dict[str, object], name: str) -> dict[str, dict[str, float]]:
    effects = found["effects"]
    assert isinstance(effects, list)
    return next(effect for effect in effects if effect["hosted"] == name)


def test_the_verdicts_agree_with_the_platforms_log(demo: tuple[dict[str, object], Path]) -> None:
    truth = demo[0]["truth"]
    assert isinstance(truth, dict)
    assert truth["n"] > 200
    assert truth["accuracy"] >= 0.97
    assert truth["false_accusation_rate"] <= 0.01
    assert truth["undecided_rate"] <= 0.05


def test_transparent_gets_no_platform_effect(demo: tuple[dict[str, object], Path]) -> None:
    effect = by_name(demo[0], "transparent")
    assert effect["platform_effect"]["lo"] <= 0 <= effect["platform_effect"]["hi"]
    assert effect["platform_share"]["lo"] <= 0


@pytest.mark.parametrize("name", ["declared", "silent"])
def test_what_a_platform_did_is_its_effect(demo: tuple[dict[str, object], Path], name: str) -> None:
    effect = by_name(demo[0], name)
    assert effect["platform_effect"]["lo"] > 0.1
    # What the model did is small beside it; that its interval covers 0 would fail once in twenty honest runs.
    assert abs(effect["serving_difference"]["estimate"]) < effect["platform_effect"]["estimate"]


def test_a_hidden_prompt_is_a_serving_difference_with_its_cause(demo: tuple[dict[str, object], Path]) -> None:
    effect = by_name(demo[0], "prompted")
    assert effect["serving_difference"]["lo"] > 0.1
    assert effect["platform_effect"]["lo"] <= 0
    assert "prompt tokens" in str(effect["sentence"])
    findings = demo[0]["prompt_findings"]
    assert isinstance(findings, dict)
    assert {name for name, finding in findings.items() if finding} == {"prompted"}


def test_every_effect_adds_up(demo: tuple[dict[str, object], Path]) -> None:
    for name in ("transparent", "declared", "silent", "prompted"):
        effect = by_name(demo[0], name)
        parts = effect["platform_effect"]["estimate"] + effect["serving_difference"]["estimate"]
        assert parts == effect["difference"]["estimate"]
        assert effect["n_pairs"] >= 20


def test_it_leaves_a_sound_database_a_report_and_the_log(demo: tuple[dict[str, object], Path]) -> None:
    folder = demo[1]
    assert verify(folder / "probe.db").sound
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    for name in ("transparent", "declared", "silent", "prompted"):
        assert name in page
    assert len((folder / "lab-log.jsonl").read_text().splitlines()) >= 4 * 150
