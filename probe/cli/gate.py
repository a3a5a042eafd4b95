"""``probe gate``."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probe.cli.options import config_option, database_option, find_database, json_option, print_json

if TYPE_CHECKING:
    from probe.attribution.gate.send import GateSent
    from probe.attribution.gate.values import Gate
    from probe.attribution.settings import Settings
    from probe.config import Config
    from probe.store.rows import RouteRow
    from probe.store.store import Store


SCORED = ("ranks", "greedy")
"""Tests that rest on scores of the twin."""


@click.command()
@click.argument("hosted")
@database_option
@config_option
@click.option("--prompts", "-n", type=click.IntRange(1), default=100, show_default=True, help="Benign prompts to send.")
@click.option("--pack", "-p", default="gate", show_default=True, help="Where prompts come from: the pack's controls.")
@click.option("--stored", is_flag=True, help="Send nothing: answer from what is recorded.")
@click.option(
    "--delta", type=float, default=0.05, show_default=True, help="Distance up to which weights count as the same."
)
@click.option("--alpha", type=float, default=0.05, show_default=True, help="Error rate of all tests together.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the order and of the permutations.")
@json_option
def command(
    hosted: str,
    database: Path | None,
    config_path: Path,
    prompts: int,
    pack: str,
    stored: bool,
    delta: float,
    alpha: float,
    seed: int,
    as_json: bool,
) -> None:
    """Ask whether the route HOSTED serves the weights of its twin.

    Sends benign prompts to both (HOSTED: each prompt once at temperature 1 and once at 0; the twin, four times and
    once), then compares the answers with what the twin's weights would write. Killed or interrupted, the same command
    goes on from there. The answers take no part in verdicts and effects. Ordinary runs' controls count too.

    Answers `same within δ`, `different` (with the likely cause) or `cannot tell at this n`. Exit status 0 whatever the
    answer; 1 where a route could not be asked.

    \b
    Examples:
      probe gate openrouter
      probe gate openrouter --prompts 40 --json
      probe gate openrouter --stored
    """
    from probe.attribution.settings import Settings
    from probe.store.store import Store

    settings = Settings(seed=seed, gate_delta=delta, alpha=alpha)
    config, found, sent = None, None, None
    if stored:
        found = find_database(database, config_path)
        config = _config_beside(found, config_path)
    else:
        config, found, sent = _send(hosted, database, config_path, pack, prompts, seed, quiet=as_json)
    with Store.open(found, create=False) as store:
        route, twin = _stored_pair(store, config, hosted)
        gate, warnings = asyncio.run(_ask(store, config, route, twin, settings, quiet=as_json))
    _warn(sent, warnings)
    if as_json:
        print_json({"hosted": route.name, "twin": twin.name, **gate.to_json(), "sent": _sent_json(sent)})
    else:
        _print(gate, route.name, twin.name)


def _send(
    name: str, database: Path | None, config_path: Path, pack: str, prompts: int, seed: int, *, quiet: bool
) -> "tuple[Config, Path, GateSent]":
    from probe.attribution.gate.send import pair_of, send
    from probe.cli.progress import RunProgress
    from probe.config import load_config
    from probe.errors import RouteError
    from probe.runs.execute import load_packs

    config = load_config(config_path)
    pair_of(config, name)
    (read,) = load_packs([pack])
    found = database or config_path.parent / config.database
    with RunProgress(quiet=quiet) as progress:
        sent = send(config, found, name, read, prompts=prompts, seed=seed, progress=progress)
    if sent.summary.stopped:
        # What came is kept. An answer from one side only would pass for an answer about both.
        raise sent.summary.stopped[0]
    if sent.summary.notes:
        raise RouteError(sent.summary.notes[0])
    if not quiet:
        taken = f"Took up run {sent.run.id}: {sent.already} answered before. " if sent.resumed else ""
        click.echo(f"{taken}{sent.answered} trials answered, {sent.open} open. Database: {found}")
    return config, found, sent


def _config_beside(database: Path, config_path: Path) -> "Config | None":
    from probe.config import load_config

    beside = config_path if config_path.is_file() else database.parent / config_path.name
    return load_config(beside) if beside.is_file() else None


def _stored_pair(store: "Store", config: "Config | None", name: str) -> "tuple[RouteRow, RouteRow]":
    """Return the route and its twin as the store has them: as probe.toml defines them now, else the newest."""
    from probe.attribution.gate.send import pair_of
    from probe.errors import ConfigError

    if config is not None and name in config.routes:
        known = store.routes()
        hosted, twin = (route.row for route in pair_of(config, name))
        if hosted.id in known and twin.id in known:
            return hosted, twin
    route = store.route_named(name)
    if route.role == "local":
        raise ConfigError(f"Route {name!r} is local: the gate asks whether a hosted route serves its twin's weights.")
    if route.twin is None:
        raise ConfigError(f"Route {name!r} has no twin in {store.path}, so there is nothing to compare it with.")
    return route, store.route_named(route.twin)


async def _ask(
    store: "Store", config: "Config | None", route: "RouteRow", twin: "RouteRow", settings: "Settings", *, quiet: bool
) -> "tuple[Gate, list[str]]":
    from probe import __version__
    from probe.attribution.cases import ScoringDesk
    from probe.attribution.gate.stored import ask_stored, save_gate
    from probe.cli.progress import RunProgress
    from probe.scoring.open_scorers import open_scorers

    own = [config.routes[twin.name]] if config is not None and twin.name in config.routes else []
    async with open_scorers(own) as (scorers, problems):
        scorer = scorers.get(twin.name)
        warnings = list(problems)
        if scorer is None and not problems:
            warnings.append(f"The twin {twin.name!r} cannot score texts: only counts and whole texts are compared.")
        with RunProgress(quiet=quiet) as progress:
            done = 0

            def tick() -> None:
                nonlocal done
                done += 1
                progress.analysis("scoring texts under the twin", done)

            desk = ScoringDesk(store, scorer, twin.weights_id, tick)
            gate = await ask_stored(store, route, twin, desk, settings)
    if desk.failure:
        warnings.append(f"Texts were left unscored: {desk.failure}")
    if not any(gate.tests[name].n for name in SCORED if name in gate.tests) and _was_scored(store, route, twin):
        warnings.append("The stored answer, which rests on scores, was kept: this one does not replace it.")
    else:
        save_gate(store, route, twin, gate, __version__)
    return gate, warnings


def _was_scored(store: "Store", route: "RouteRow", twin: "RouteRow") -> bool:
    rows = [row for row in store.gates(route.id) if row.twin_id == twin.id]
    return any(row.detail.get("tests", {}).get(name, {}).get("n") for row in rows for name in SCORED)


def _warn(sent: "GateSent | None", warnings: list[str]) -> None:
    if sent is not None and sent.open:
        warnings = [f"{sent.open} trials were not answered; the same command sends them again.", *warnings]
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)


def _sent_json(sent: "GateSent | None") -> dict[str, Any] | None:
    if sent is None:
        return None
    return {
        "run": sent.run.id,
        "resumed": sent.resumed,
        "prompts": sent.prompts,
        "trials": sent.planned,
        "answered_before": sent.already,
        "answered": sent.answered,
        "open": sent.open,
    }


def _print(gate: "Gate", hosted: str, twin: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    cause = f": {gate.cause}" if gate.cause else ""
    console.print(f"\n{hosted} against {twin}: {gate.answer}{cause}\n")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("test", "statistic", "p", "n", "what it found"):
        table.add_column(name, overflow="fold")
    for name, test in gate.tests.items():
        table.add_row(name, _number(test.statistic), _number(test.p), f"{test.n} {test.unit}", test.sentence)
    if gate.tests:
        console.print(table)
    console.print(f"\n{gate.sentence}")
    if gate.n_needed is not None:
        console.print(
            f"Prompts that would tell: about {gate.n_needed}. Every further `probe gate {hosted}` adds answers."
        )
    console.print(f"δ = {gate.delta:g}, α = {gate.alpha:g} over all tests (Holm).")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
