"""A small bench through the command: real servers, real analysis, and a result of the shape that was promised."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from probe.errors import ConfigError
from probe.lab.bench.grid import FAMILIES, KIN, Material, chosen_families, grid
from probe.lab.bench.metrics import Unit
from probe.lab.bench.plot import bench_plot
from probe.lab.bench.record import judge_record
from probe.lab.bench.result import BenchResult
from probe.lab.bench.study import Options, benched_shapes, run_bench
from probe.lab.shapes import BLOCK_SHAPES
from probe.store.store import Store
from probe.store.verify import verify

NAMES = ("declared", "injected_foreign", "transparent")
KEYS = {"n", "accuracy", "f1", "false_accusation_rate", "fdr", "undecided_rate", "ece"}

pytestmark = pytest.mark.slow


def bench(folder: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "probe", "bench", "--json", "--out", "out", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("bench")
    return bench(folder, "--quick", "--seed", "7", "--families", ",".join(NAMES)), folder


def test_the_json_is_as_promised(kept: tuple[dict[str, Any], Path]) -> None:
    found, _ = kept
    for part in (found, found["without_scores"], *found["baselines"].values()):
        assert set(part["families"]) == set(NAMES)
        for line in (*part["families"].values(), part["overall"]):
            assert line.keys() >= KEYS
    assert set(found["baselines"]) == {"http_lexical_timing", "canned_strings"}
    assert found["seed"] == 7
    assert found["platforms"]["declared"] >= 12
    assert {line["family"] for line in found["routes"].values()} == set(NAMES)
    assert found["without_scores"]["overall"]["n"] == found["overall"]["n"]


def test_what_everybody_can_tell_is_told(kept: tuple[dict[str, Any], Path]) -> None:
    found, _ = kept
    assert found["families"]["declared"]["f1"] >= 0.95
    assert found["families"]["declared"]["deciders"].keys() == {"declared"}
    assert found["families"]["injected_foreign"]["counts"]["platform"] > 20
    assert found["families"]["transparent"]["f1"] is None
    assert found["overall"]["false_accusation_rate"] <= 0.05
    assert found["baselines"]["canned_strings"]["families"]["declared"]["f1"] >= 0.9


def test_the_folder_holds_a_sound_database_with_scores_the_log_and_a_plot(kept: tuple[dict[str, Any], Path]) -> None:
    found, folder = kept
    out = folder / "out"
    assert verify(out / "probe.db").sound
    assert json.loads((out / "bench.json").read_text(encoding="utf-8")) == found
    root = ET.fromstring((out / "bench.svg").read_text(encoding="utf-8"))
    assert root.tag.endswith("svg")
    assert not (out / "without-scores.db").exists()
    with Store.open(out / "probe.db", create=False) as store:
        # The database keeps the evidence that rests on scores.
        assert any(row.evidence.log_e is not None for row in store.evidence(detector="likelihood"))
        sent = {ref.id for ref in store.refs() if ref.answered}
    entries = [json.loads(line) for line in (out / "lab-log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (
        len(entries) >= len(sent) - found["traces"]["platforms"]["attacks"] - found["traces"]["platforms"]["controls"]
    )


def test_judging_the_same_record_again_gives_the_same(kept: tuple[dict[str, Any], Path]) -> None:
    found, folder = kept
    again = bench(folder, "--again")
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in found.items() if k != "seconds"}


# ── the grid, without servers ──


def material(seed: int = 0) -> Material:
    return Material(("ruby salt",), "I won't say.", benched_shapes(), "scribe", seed)


@pytest.mark.parametrize("quick", [True, False])
def test_every_family_has_a_platform_and_every_injection_both_envelopes(quick: bool) -> None:
    cells = grid(material(), tuple(FAMILIES), quick=quick)
    assert {cell.family for cell in cells} == set(FAMILIES)
    assert len({cell.platform.name for cell in cells}) == len(cells)
    injected: dict[str, set[tuple[str, float]]] = {}
    for cell in cells:
        if cell.family.startswith("injected"):
            assert cell.platform.screen is not None
            place = (cell.platform.envelope, cell.platform.screen.rate)
            injected.setdefault(cell.family, set()).add(place)
    assert len(injected) == 5
    for places in injected.values():
        assert {envelope for envelope, _ in places} == {"sloppy", "matched"}
        assert {rate for _, rate in places} == {0.9, 0.35}
        assert len(places) == (2 if quick else 4)
    providers = {BLOCK_SHAPES[c.platform.block].provider for c in cells if c.family == "declared"}
    assert len(providers) >= 12
    assert {cell.platform.front for cell in cells} == {"openrouter", "openai", "ollama"}


def test_the_same_seed_builds_the_same_grid_and_another_one_other_texts() -> None:
    assert grid(material(3), tuple(FAMILIES), quick=True) == grid(material(3), tuple(FAMILIES), quick=True)

    def texts(seed: int) -> set[str]:
        cells = grid(material(seed), ("injected_foreign", "injected_templated", "output_replaced"), quick=False)
        return {text for cell in cells for text in cell.platform.texts}

    assert not texts(0) & texts(100)


def test_only_the_families_that_were_asked_for() -> None:
    assert chosen_families(["transparent", "declared"]) == ("declared", "transparent")
    assert chosen_families([]) == tuple(FAMILIES)
    with pytest.raises(ConfigError, match="no family 'transparant'"):
        chosen_families(["transparant"])


def test_a_folder_without_a_bench_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no bench"):
        judge_record(tmp_path, config=None, progress=lambda *_: None, say=lambda _: None)  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out"):
        run_bench(Options(families=("transparent",)), tmp_path / "file")


def test_the_plot_names_every_family_and_escapes() -> None:
    units = [Unit(f, "r", "x", "model", "refused", "model", 0.0) for f in ("transparent", KIN, "<odd>")]
    found: Mapping[str, Any] = BenchResult(tuple(units), (), {"canned_strings": units}).to_json()
    root = ET.fromstring(bench_plot(found))
    words = " ".join(root.itertext())
    assert all(name in words for name in ("transparent", KIN, "<odd>", "overall", "canned_strings"))
