"""``probe analyze``."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probe.cli.options import config_option, database_option, find_database, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from probe.attribution.effects.blocking import Blocking
    from probe.attribution.pipeline import Analysis, RouteAnalysis
    from probe.attribution.settings import Settings
    from probe.cli.progress import RunProgress
    from probe.config import Config
    from probe.scoring.base import Scorer
    from probe.store.store import Store


@click.command()
@database_option
@config_option
@click.option(
    "--without-scores",
    is_flag=True,
    help="Make everything anew although the twin cannot be asked; wording stays untested.",
)
@click.option(
    "--delta", type=float, default=0.05, show_default=True, help="Differences of rates up to this count as none."
)
@click.option(
    "--alpha", type=float, default=0.05, show_default=True, help="Error rate of tests; intervals are at 1 - alpha."
)
@click.option(
    "--gate-delta",
    type=float,
    default=0.05,
    show_default=True,
    help="Distance of token distributions up to which weights count as the same.",
)
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; by default 2 for large studies.")
@json_option
def command(
    database: Path | None,
    config_path: Path,
    without_scores: bool,
    delta: float,
    alpha: float,
    gate_delta: float,
    workers: int | None,
    as_json: bool,
) -> None:
    """Judge the answers, decide who wrote each refusal, ask the same-weights gate, and say what makes the difference.

    The twin's server must be up, so that it can be asked for the probability of texts; scores are kept in the database.
    Everything derived is made anew, so this can be run as often as you like.

    \b
    Examples:
      probe analyze
      probe analyze --delta 0.02
      probe analyze --db study.db --json
    """
    from probe.attribution.effects.blocking import study_blocking
    from probe.attribution.settings import Settings
    from probe.cli.progress import RunProgress
    from probe.config import load_config
    from probe.report.gather import gather
    from probe.report.remarks import remarks
    from probe.store.store import Store

    settings = Settings(delta=delta, alpha=alpha, gate_delta=gate_delta, level=1.0 - alpha)
    found = find_database(database, config_path)
    beside = config_path if config_path.is_file() else found.parent / config_path.name
    config = load_config(beside) if beside.is_file() else None
    with Store.open(found, create=False) as store:
        with RunProgress(quiet=as_json) as progress:
            analysis, problems = asyncio.run(
                _analyze(store, config, progress, settings, workers, without_scores=without_scores)
            )
        for problem in problems:
            click.echo(f"Warning: {problem}", err=True)
        for route in analysis.routes:
            if route.unscored:
                click.echo(f"Warning: {route.route.name}: texts were left unscored: {route.unscored}", err=True)
        if as_json:
            said = {route.route.id: remarks(store, route.route) for route in analysis.routes}
            print_json(_json(analysis, study_blocking(store, level=settings.level), said))
            return
        from rich.console import Console

        from probe.report.tables import print_study

        effects = [effect for route in analysis.routes for effect in route.effects]
        print_study(gather(store, effects=effects, settings=settings), Console())
    if not analysis.routes:
        click.echo("No hosted route has answers yet, so there is nothing to compare.")


async def _analyze(
    store: "Store",
    config: "Config | None",
    progress: "RunProgress",
    settings: "Settings",
    workers: int | None,
    *,
    without_scores: bool,
) -> "tuple[Analysis, list[str]]":
    from probe.attribution.pipeline import analyze
    from probe.scoring.open_scorers import open_scorers

    async with open_scorers(config.routes.values() if config else ()) as (scorers, problems):
        if not without_scores:
            _keep_what_was_scored(store, scorers, problems)
        return await analyze(store, scorers, progress.analysis, settings, workers=workers), problems


def _keep_what_was_scored(store: "Store", scorers: "Mapping[str, Scorer]", problems: list[str]) -> None:
    """Refuse to replace evidence that rests on scores by evidence without any."""
    from probe.attribution.effects.stored import hosted_pairs
    from probe.errors import ScoringError

    silent = sorted({twin.name for _, twin in hosted_pairs(store)} - set(scorers))
    if silent and any(row.evidence.log_e is not None for row in store.evidence(detector="likelihood")):
        why = problems[0] if problems else f"Route {silent[0]!r} has no server to ask (is this its probe.toml?)."
        raise ScoringError(
            f"{why} The evidence from when it could stays as it is; start it again, or replace that evidence by one "
            "without scores with --without-scores."
        )


def _json(
    analysis: "Analysis", blocking: "Sequence[Blocking]", beside: "Mapping[str, tuple[str, ...]]"
) -> dict[str, Any]:
    return {
        "exchanges": sum(len(cases) for cases in analysis.cases.values()),
        # Who quotes an effect must read the remarks about its route with it.
        "effects": [
            effect.to_json() | {"remarks": list(beside[route.route.id])}
            for route in analysis.routes
            for effect in route.effects
        ],
        "routes": [_route(route) | {"remarks": list(beside[route.route.id])} for route in analysis.routes],
        "aa": {
            route.route.name: effect.aa.to_json()
            for route in analysis.routes
            for effect in route.effects
            if effect.aa is not None
        },
        "blocking": [row.to_json() for row in blocking],
    }


def _route(found: "RouteAnalysis") -> dict[str, Any]:
    total = next((effect for effect in found.effects if effect.scope == "all"), None)
    return {
        "hosted": found.route.name,
        "twin": found.twin.name,
        "conclusion": total and total.conclusion,
        "gate": found.gate.to_json(),
        "verdicts": {who: sum(v.who == who for v in found.verdicts) for who in ("model", "platform", "undecided")},
        "prompt_finding": found.prompt_finding,
        "unscored": found.unscored,
    }
