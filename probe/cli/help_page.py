"""The page of all commands, made from their help texts, so that it cannot lag behind them."""

import click

from probe.cli import COMMANDS, cli


def help_page() -> str:
    """Return ``docs/commands.md``."""
    parts = ["# Commands\n\nMade by `scripts/make-docs` from the help texts of the commands.\n"]
    # As in a real call: click takes the names of the help option from the group's settings and remembers them.
    root = click.Context(cli, info_name="probe", terminal_width=100, **cli.context_settings)
    parts.append(f"## probe\n\n```text\n{cli.get_help(root)}\n```\n")
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root, terminal_width=100)
        parts.append(f"## probe {name}\n\n```text\n{command.get_help(context)}\n```\n")
        for inner, sub in command.commands.items() if isinstance(command, click.Group) else ():
            below = click.Context(sub, info_name=inner, parent=context, terminal_width=100)
            parts.append(f"## probe {name} {inner}\n\n```text\n{sub.get_help(below)}\n```\n")
    return "\n".join(parts)
