"""``probe routes``."""

import asyncio
from pathlib import Path
from typing import Any

import click

from probe.cli.options import config_option, json_option, print_json


@click.command()
@config_option
@click.option("--check", is_flag=True, help="Ask each route: reachable? key set? model there? which version?")
@json_option
def command(config_path: Path, check: bool, as_json: bool) -> None:
    """List the routes of a study.

    Exit status 1 when --check finds a route that cannot be used.

    \b
    Examples:
      probe routes
      probe routes --check --json
    """
    from probe.config import load_config
    from probe.runs.check import check_routes

    config = load_config(config_path)
    rows: list[dict[str, Any]] = [
        {
            "name": route.name,
            "role": route.role,
            "backend": route.backend.name,
            "url": route.url,
            "model": route.model,
            "weights": route.weights,
            "twin": route.twin,
        }
        for route in config.routes.values()
    ]
    if check:
        for row, found in zip(rows, asyncio.run(check_routes(config)), strict=True):
            row.update(found.to_json())
    if as_json:
        print_json({"routes": rows})
    else:
        _print(rows, check)
    if check and not all(row["usable"] for row in rows):
        raise click.exceptions.Exit(1)


def _print(rows: list[dict[str, Any]], check: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ["name", "role", "backend", "model", "twin", "url"]
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(row[column] or "") for column in columns))
    Console(markup=False).print(table)
    if check:
        click.echo()
        for row in rows:
            click.echo(f"{row['name']}: {'ok' if row['usable'] else 'cannot be used'}: {row['sentence']}")
