"""``probe show``: one card as text and as JSON, and the list."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from probe.attribution.pipeline import analyze
from probe.cli import cli
from probe.store.store import Store
from tests.kit import completion
from tests.report.bad_bodies import REFUSAL, Bad
from tests.report.bad_study import BadStudy, fill

KEYS = {
    "verdict", "probability", "e_value", "mechanism", "layer", "evidence", "would_change", "contradicting", "request",
    "response", "times", "outcome", "route", "id",
}  # fmt: skip


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, BadStudy]:
    path = tmp_path / "probe.db"
    blocked = {"error": {"message": "x", "code": 403, "metadata": {"error_type": "content_policy_violation"}}}
    bad = [
        Bad("", json.dumps(completion(REFUSAL)).encode(), "", ""),
        Bad("", json.dumps(blocked).encode(), "", "", status=403),
        Bad("", b"<html>", "", "", status=502),
    ]
    with Store.open(path) as store:
        study = fill(store, bad)
        asyncio.run(analyze(store, {}))
    return path, study


def show(path: Path, *arguments: str) -> str:
    result = CliRunner().invoke(cli, ["show", "--db", str(path), *arguments])
    assert (result.exit_code, result.exception) == (0, None), result.output
    return result.output


def test_json_has_every_key(stored: tuple[Path, BadStudy]) -> None:
    path, study = stored
    for key in study.ids:
        found = json.loads(show(path, key, "--json"))
        assert set(found) >= KEYS
        assert found["id"] == key
        for row in found["evidence"]:
            assert set(row) >= {"detector", "e_value", "llr", "sentence", "bytes"}
        assert {row["detector"]: row["e_value"] for row in found["evidence"]}["likelihood"] is None


def test_text_and_json_tell_the_same(stored: tuple[Path, BadStudy], monkeypatch: pytest.MonkeyPatch) -> None:
    path, study = stored
    monkeypatch.setenv("COLUMNS", "4000")
    for key in study.ids:
        found, text = json.loads(show(path, key, "--json")), show(path, key)
        assert "\x1b" not in text
        for row in found["evidence"]:
            assert row["detector"] in text
            assert row["sentence"] in text
        for sentence in found["would_change"]:
            assert sentence in text
        if found["verdict"]:
            assert f"Verdict    {found['verdict']} (probability of platform {found['probability']:.3f}" in text


def test_a_declared_block(stored: tuple[Path, BadStudy]) -> None:
    path, study = stored
    found = json.loads(show(path, study.ids[1], "--json"))
    assert (found["verdict"], found["mechanism"], found["probability"]) == ("platform", "declared_block", 1.0)
    assert found["evidence"][0]["detector"] == "declared"
    assert "content_policy_violation" in found["evidence"][0]["bytes"]


def test_lines_fit_the_terminal(stored: tuple[Path, BadStudy], monkeypatch: pytest.MonkeyPatch) -> None:
    path, study = stored
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, show(path, study.ids[0]).splitlines())) <= 60


def test_the_list_and_the_end_of_an_id(stored: tuple[Path, BadStudy]) -> None:
    path, study = stored
    assert study.ids[1] in show(path, "--who", "platform")
    assert json.loads(show(path, "--route", "glass", "--json"))["total"] > len(study.ids)
    assert study.ids[2] in show(path, study.ids[2][-8:])
    unknown = CliRunner().invoke(cli, ["show", "--db", str(path), "zzz"])
    assert unknown.exit_code != 0
