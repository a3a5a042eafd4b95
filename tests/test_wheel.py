"""The wheel, installed in an empty environment outside the checkout, does what the checkout does."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_an_installed_wheel_runs_the_demo(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"probe", next(top for top in tops if top.endswith(".dist-info"))}, "nothing beside our own package"
    for needed in ("probe/backends/toy/toy.gguf", "probe/backends/openrouter.toml", "probe/scenarios/fictional.jsonl"):
        assert needed in names
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, cwd=tmp_path)
    command = [str(tmp_path / "env" / "bin" / "probe"), "demo", "--json", "--seed", "5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {effect["hosted"] for effect in found["effects"]} == {"transparent", "declared", "silent", "prompted"}
    # 180 attacks and 64 controls over five routes, the attacks once more over the twin (A/A); none of the gate.
    assert found["exchanges"] == 5 * 244 + 180
    assert (tmp_path / "probe-demo" / "report.html").is_file()
