"""The page of all commands, made from their help texts, so that it cannot lag behind them."""

import click

from probe.cli import COMMANDS, cli


def help_page() -> str:
    """Return ``docs/commands.md``."""
    parts = ["# Commands\n\nMade by `scripts/make-docs` from the help texts of the commands.\n"]
    for name in ("", *COMMANDS):
        command = cli.get_command(click.Context(cli), name) if name else cli
        assert command is not None
        context = click.Context(command, info_name=f"probe {name}".strip(), max_content_width=100, terminal_width=100)
        parts.append(f"## probe {name}".rstrip() + f"\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)
