"""Options that several commands share; each has an environment variable."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from probe.errors import ConfigError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

config_option: Decorator = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("probe.toml"),
    show_default=True,
    envvar="PROBE_CONFIG",
    help="The study's routes. [env: PROBE_CONFIG]",
)

json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")

database_option: Decorator = click.option(
    "--db",
    "database",
    type=click.Path(path_type=Path),
    default=None,
    envvar="PROBE_DB",
    help="The study's database; without it the one that probe.toml names, else probe.db. [env: PROBE_DB]",
)


def print_json(value: Any) -> None:
    """Print one JSON object."""
    # Escapes keep the JSON whole where the stream could not carry a character.
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    click.echo(json.dumps(value, ensure_ascii=not utf8, indent=2, allow_nan=False))


def find_database(database: Path | None, config_path: Path) -> Path:
    """Return the database that is meant; it must exist."""
    found = database
    if found is None and config_path.is_file():
        from probe.config import load_config

        found = config_path.parent / load_config(config_path).database
    found = found or Path("probe.db")
    if not found.is_file():
        raise ConfigError(f"There is no database {found}: `probe run` makes one, or name another with --db.")
    return found
