"""``probe manifest``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probe.cli.options import config_option, database_option, find_database, json_option, print_json

if TYPE_CHECKING:
    from probe.runs.manifest import Difference


@click.group()
def command() -> None:
    """Show what a run was made with, and compare two runs.

    A manifest holds the versions, the routes with what their servers said of themselves, seeds, packs, traces and the
    bytes of all requests; no keys. Written to a file it is all that `probe rerun` needs.

    \b
    Examples:
      probe manifest show --out run.json
      probe manifest diff run.json theirs.json
    """


@command.command("show")
@click.argument("run", required=False)
@config_option
@database_option
@click.option("--out", "-o", type=click.Path(path_type=Path), default=None, help="Write the whole manifest to a file.")
@json_option
def show(run: str | None, config_path: Path, database: Path | None, out: Path | None, as_json: bool) -> None:
    """Show the manifest of RUN (the beginning of its id, or a file); without one, of the newest run.

    \b
    Examples:
      probe manifest show
      probe manifest show --out run.json
    """
    from probe.runs.manifest import summary

    found = _load(run, config_path, database)
    if out is not None:
        _write(out, found)
    if as_json:
        print_json(found)
        return
    for line in summary(found):
        click.echo(line)
    if out is not None:
        click.echo(f"Written to {out}. Next: probe rerun {out}")


@command.command("diff")
@click.argument("left")
@click.argument("right")
@config_option
@database_option
@json_option
def diff(left: str, right: str, config_path: Path, database: Path | None, as_json: bool) -> None:
    """Say what differs between two manifests: files, or the beginnings of run ids. Exit status 1 if anything matters.

    What may change an answer stands first (routes, servers, weights, templates, traces, requests), then what describes
    the occasion (versions, clock, host).

    \b
    Examples:
      probe manifest diff ours.json theirs.json
      probe manifest diff 0198a 0198c
    """
    from probe.runs.manifest import difference

    found = difference(_load(left, config_path, database), _load(right, config_path, database))
    matters = [entry for entry in found if entry.matters]
    if as_json:
        print_json({"same": not matters, "differences": [entry.to_json() for entry in found]})
    else:
        _print(found)
    if matters:
        raise click.exceptions.Exit(1)


def _load(name: str | None, config_path: Path, database: Path | None) -> Mapping[str, Any]:
    from probe.runs.export import find_run, manifest_of
    from probe.runs.manifest import read_manifest
    from probe.store.store import Store

    if name is not None and (Path(name).is_file() or Path(name).suffix == ".json"):
        return read_manifest(Path(name))
    with Store.open(find_database(database, config_path), create=False) as store:
        return manifest_of(store, find_run(store, name))


def _write(out: Path, manifest: Mapping[str, Any]) -> None:
    from probe.errors import ConfigError

    try:
        out.write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}.") from None


def _print(found: "list[Difference]") -> None:
    matters = [entry for entry in found if entry.matters]
    for title, entries in (
        ("May change what was sent or who answered", matters),
        ("Describes the occasion", [entry for entry in found if not entry.matters]),
    ):
        if entries:
            click.echo(f"{title}:")
        for entry in entries:
            click.echo(f"  {entry.key}: {_short(entry.left)} | {_short(entry.right)}")
    if not matters:
        click.echo("Nothing differs that may change an answer: same routes, servers, traces and bytes.")


def _short(value: Any) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
