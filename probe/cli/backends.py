"""``probe backends``."""

import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from probe.cli.options import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probe.wire.backend import Backend
    from probe.wire.explain import Section

_RIGHT = (False, False, False, True, True, False)
"""Which columns before the title hold numbers, aligned to the right."""

_INDENT = 2
_WIDEST = 110


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the kinds of servers and providers that routes may name.

    Each is a TOML file whose every fact has a source and a confidence: primary (official documents, specification, the
    server's code), recorded (a sample from the wire) or unconfirmed, which decides nothing.

    \b
    Examples:
      probe backends
      probe backends --json
      probe backends show groq
    """
    if context.invoked_subcommand is not None:
        return
    from probe.wire.catalogue import backend_names, load_backend
    from probe.wire.explain import summary

    backends = [load_backend(name) for name in backend_names()]
    if as_json:
        print_json([summary(backend) for backend in backends])
    else:
        _print_table(backends)


@command.command("show")
@click.argument("name")
@json_option
def show_command(name: str, as_json: bool) -> None:
    """Explain the backend NAME: what is sent, what an answer reveals, how it shows that somebody acted.

    NAME may also be the path of a backend file of your own.

    \b
    Examples:
      probe backends show openrouter
      probe backends show ./my-gateway.toml --json
    """
    from probe.wire.catalogue import load_backend, read_backend
    from probe.wire.explain import explain, full

    backend = read_backend(Path(name)) if name.endswith(".toml") else load_backend(name)
    if as_json:
        print_json(full(backend))
    else:
        _print_sections(explain(backend))


def _print_table(backends: "Iterable[Backend]") -> None:
    from probe.wire.explain import sources_of

    rows = [("name", "kind", "dialect", "signatures", "sources", "key", "title")]
    for backend in backends:
        numbers = (str(len(backend.signatures)), str(len(sources_of(backend))))
        rows.append((backend.name, backend.kind, backend.dialect, *numbers, backend.key_env or "", backend.title))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_RIGHT))]
    for row in rows:
        aligned = zip(row[:-1], widths, _RIGHT, strict=True)
        cells = [word.rjust(width) if right else word.ljust(width) for word, width, right in aligned]
        click.echo("  ".join([*cells, row[-1]]))


def _print_sections(sections: "Iterable[Section]") -> None:
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    for number, section in enumerate(sections):
        click.echo(("\n" if number else "") + section.title)
        for depth, text in section.lines:
            indent = " " * _INDENT * (depth + 1)
            click.echo(
                textwrap.fill(
                    text,
                    max(width, 40),
                    initial_indent=indent,
                    subsequent_indent=indent,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
