"""``probe routes``."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probe.cli.options import config_option, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probe.config import Config
    from probe.routers.expand import NewRoute, Wanted
    from probe.routers.pinning import ListedModel
    from probe.traces.values import Trace


@click.group(invoke_without_command=True)
@config_option
@click.option(
    "--check", is_flag=True, help="Ask each route: reachable? key set? model there? which version? pinned to whom?"
)
@json_option
@click.pass_context
def command(context: click.Context, config_path: Path, check: bool, as_json: bool) -> None:
    """List the routes of a study.

    Exit status 1 when --check finds a route that cannot be used. Routes over a router are compared with its listing of
    endpoints: who is pinned, in which quantization, with what context, moderation and price.

    \b
    Examples:
      probe routes
      probe routes --check --json
      probe routes expand openrouter qwen/qwen3-8b
    """
    if context.invoked_subcommand is not None:
        return
    from probe.config import load_config

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
        from probe.runs.check import check_routes

        for row, found in zip(rows, asyncio.run(check_routes(config, _traces(config))), strict=True):
            row.update(found.to_json())
    if as_json:
        print_json({"routes": rows})
    else:
        _print(rows, check)
    if check and not all(row["usable"] for row in rows):
        raise click.exceptions.Exit(1)


def _traces(config: "Config") -> "list[Trace]":
    """Return what the study sends by default, to compare lengths; a pack that is not there is a matter of the run."""
    from probe.errors import PackError
    from probe.traces.pack import find_pack, read_pack

    found: list[Trace] = []
    for name in config.packs:
        try:
            found += read_pack(find_pack(name))[1]
        except PackError:
            continue
    return found


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
            for finding in row["findings"]:
                click.echo(f"  {finding['level']}: {finding['sentence']}")


@command.command("expand")
@click.argument("backend")
@click.argument("model")
@click.option("--twin", help="The local route that the new ones are compared with.")
@click.option("--weights", help="Hub id of the weights, with @revision where known; without it the twin's.")
@click.option("--url", help="Address of the router, where it is not the backend's own.")
@click.option("--write", is_flag=True, help="Append the routes to the study's file instead of printing them.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print a list of JSON objects instead.")
def expand_command(
    backend: str,
    model: str,
    twin: str | None,
    weights: str | None,
    url: str | None,
    write: bool,
    config_path: Path,
    as_json: bool,
) -> None:
    """Make one route per provider that serves MODEL behind the router BACKEND, each pinned to that provider alone.

    The router's listing is asked, without a key. The routes are printed as text for probe.toml, each with a comment on
    quantization, context, price and moderation.

    \b
    Examples:
      probe routes expand openrouter qwen/qwen3-8b
      probe routes expand openrouter qwen/qwen3-8b --twin local --write
      probe routes expand openrouter qwen/qwen3-8b:free --json
    """
    from probe.routers.expand import Wanted, expand, heading
    from probe.wire.catalogue import load_backend

    weights = weights or _weights_of(config_path, twin)
    wanted = Wanted(load_backend(backend), model, weights, twin, url and url.rstrip("/"))
    endpoints, listed = asyncio.run(_ask(wanted))
    routes = expand(wanted, endpoints, listed)
    if write:
        _append(config_path, routes, heading(listed))
    if as_json:
        print_json([route.to_json() for route in routes])
    elif write:
        click.echo(f"Wrote {len(routes)} routes to {config_path}: {', '.join(route.name for route in routes)}.")
        click.echo("Next: probe routes --check")
    else:
        click.echo(heading(listed) + "\n".join(route.toml for route in routes), nl=False)


def _weights_of(config_path: Path, twin: str | None) -> str | None:
    """Return the weights of the twin, where the study's file has it."""
    if twin is None or not config_path.is_file():
        return None
    from probe.config import load_config

    route = load_config(config_path).routes.get(twin)
    return route.weights if route is not None else None


async def _ask(wanted: "Wanted") -> "tuple[list[Any], ListedModel | None]":
    """Ask the router for the endpoints of the model, and for what its list of models says of it."""
    import aiohttp

    from probe.errors import UnreachableError
    from probe.routers.listing import fetch_endpoints, get_json, root_of
    from probe.routers.pinning import listed_model

    async with aiohttp.ClientSession() as session:
        endpoints = await fetch_endpoints(wanted.backend, wanted.model, session, url=wanted.url)
        path, base = wanted.backend.describe.models, wanted.url or wanted.backend.url or ""
        if path is None:
            return endpoints, None
        try:
            _, document = await get_json(session, root_of(base) + path)
        except UnreachableError:  # it only tells of moderation
            return endpoints, None
        return endpoints, listed_model(document, wanted.model)


def _append(path: Path, routes: "Sequence[NewRoute]", head: str) -> None:
    """Append routes to a study's file; what is there stays byte by byte. Raises ``ConfigError``."""
    import os
    import tempfile

    from probe.config import load_config
    from probe.errors import ConfigError

    known = load_config(path).routes
    taken = [route.name for route in routes if route.name in known]
    if taken:
        raise ConfigError(f"{path} has a route {taken[0]!r} already, so nothing was written: rename it or remove it.")
    before = path.read_bytes()
    gap = b"" if before.endswith(b"\n\n") else b"\n" if before.endswith(b"\n") else b"\n\n"
    text = before + gap + (head + "\n".join(route.toml for route in routes)).encode()
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text)
            _loads(Path(name), path)
            os.chmod(name, path.stat().st_mode & 0o777)  # noqa: PTH101 - mkstemp's files are private
            os.replace(name, path)  # noqa: PTH105 - in one step, or not at all
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from None


def _loads(new: Path, path: Path) -> None:
    """Raise ``ConfigError`` where the file would not be valid with the new routes (an unknown twin)."""
    from probe.config import load_config
    from probe.errors import ConfigError

    try:
        load_config(new)
    except ConfigError as error:
        raise ConfigError(f"Nothing was written: {str(error).replace(str(new), str(path))}") from None
