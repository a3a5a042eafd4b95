"""Every command: help with examples, no traceback for a user's mistakes, and a fast start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from probe.cli import COMMANDS, cli
from probe.cli.help_page import help_page
from probe.store.lock import RunLock
from probe.store.store import Store


def probe(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "probe", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_sentence_and_examples(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"probe {name}" in result.output


def test_the_page_of_commands_is_current() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
    assert page.read_text(encoding="utf-8") == help_page(), "run scripts/make-docs"


def test_help_imports_nothing_heavy() -> None:
    heavy = ("mitmproxy", "scipy", "numpy", "aiohttp", "xllamacpp", "rich", "sqlite_utils")
    code = (
        "import sys; from click.testing import CliRunner; from probe.cli import cli; "
        "CliRunner().invoke(cli, ['--help'])"
        f"; print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run"], "There is no probe.toml"),
        (["routes"], "probe init"),
        (["analyze"], "There is no database"),
        (["verify"], "There is no database"),
        (["show"], "There is no database"),
        (["report", "--db", "nowhere.db"], "There is no database nowhere.db"),
        (["init", "no/such/folder/probe.toml"], "cannot be written"),
        (["nonsense"], "No such command"),
        (["demo", "--seed", "x"], "not a valid integer"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, arguments: list[str], expected: str) -> None:
    result = probe(*arguments, cwd=tmp_path)
    assert result.returncode != 0
    assert expected in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    assert probe("init", cwd=tmp_path).returncode == 0
    again = probe("init", cwd=tmp_path)
    assert again.returncode == 1
    assert "--force" in again.stderr
    listed = probe("routes", "--json", cwd=tmp_path)
    assert [row["name"] for row in json.loads(listed.stdout)["routes"]] == ["local", "openrouter"]


def test_a_foreign_or_newer_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database at all, but long enough to be read as one" * 40)
    result = probe("verify", "--db", "text.db", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    newer = tmp_path / "newer.db"
    with Store.open(newer) as store:
        store.connection.execute("PRAGMA user_version = 999")
    result = probe("analyze", "--db", "newer.db", cwd=tmp_path)
    assert result.returncode == 1
    assert "newer" in result.stderr
    assert "Traceback" not in result.stderr


def test_nothing_analysed_yet_says_so(tmp_path: Path) -> None:
    with Store.open(tmp_path / "probe.db"):
        pass
    result = probe("report", "--db", "probe.db", cwd=tmp_path)
    assert result.returncode == 1
    assert "probe analyze" in result.stderr


def test_a_demo_does_not_delete_the_one_that_is_under_way(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with RunLock(tmp_path / "out" / "probe.db"):
        result = probe("demo", "--out", "out", cwd=tmp_path)
    assert result.returncode == 1
    assert "Another run writes" in result.stderr


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = probe("demo", "--out", "file/out", cwd=tmp_path)
    assert result.returncode == 1
    assert "--out" in result.stderr
    assert "Traceback" not in result.stderr
