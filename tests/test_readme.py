"""What the README shows exists: commands, options, scripts, links; and its demo output is that of this version."""

import re
import shlex
from pathlib import Path

import click
import pytest

from probe.cli import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith(".venv/bin/probe ")]


@pytest.mark.parametrize("line", LINES)
def test_each_command_exists_with_its_options(line: str) -> None:
    name, *words = shlex.split(line.removeprefix(".venv/bin/probe "))
    assert name in COMMANDS
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_every_command_is_shown() -> None:
    shown = {line.split()[1] for line in LINES}
    assert set(COMMANDS) <= shown


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)|`(scripts/[a-z-]+)`", README))))
def test_links_and_scripts_exist(target: tuple[str, str]) -> None:
    assert (ROOT / (target[0] or target[1])).exists()


def test_the_demo_output_is_of_this_version() -> None:
    block = README.split("<!-- demo:begin -->")[1].split("<!-- demo:end -->")[0]
    for name in ("transparent", "declared", "silent", "prompted"):
        assert re.search(rf"\b{name}\s+refused\s+\d+\.\d %", block)
    assert "Against the known truth" in block
