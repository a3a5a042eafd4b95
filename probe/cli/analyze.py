"""``probe analyze``."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probe.cli.options import config_option, database_option, find_database, json_option, print_json

if TYPE_CHECKING:
    from probe.attribution.pipeline import Analysis
    from probe.cli.progress import RunProgress
    from probe.config import Config


@click.command()
@database_option
@config_option
@json_option
def command(database: Path | None, config_path: Path, as_json: bool) -> None:
    """Judge the answers, gather evidence, decide who wrote each refusal, and print the effects.

    The twin's server must be up, so that it can be asked for the probability of texts; scores are kept in the database.
    Everything derived is made anew, so this can be run as often as you like.

    \b
    Examples:
      probe analyze
      probe analyze --db study.db --json
    """
    from probe.cli.progress import RunProgress
    from probe.config import load_config
    from probe.report.gather import gather
    from probe.store.store import Store

    found = find_database(database, config_path)
    config = load_config(config_path) if config_path.is_file() else None
    with Store.open(found, create=False) as store:
        with RunProgress(quiet=as_json) as progress:
            analysis, problems = asyncio.run(_analyze(store, config, progress))
        for problem in problems:
            click.echo(f"Warning: {problem}", err=True)
        if as_json:
            print_json(_json(analysis))
            return
        from rich.console import Console

        from probe.report.tables import print_study

        effects = [effect for route in analysis.routes for effect in route.effects]
        print_study(gather(store, effects=effects), Console())
    if not analysis.routes:
        click.echo("No hosted route has answers yet, so there is nothing to compare.")


async def _analyze(store: Any, config: "Config | None", progress: "RunProgress") -> "tuple[Analysis, list[str]]":
    from probe.attribution.pipeline import analyze
    from probe.scoring.open_scorers import open_scorers

    async with open_scorers(config.routes.values() if config else ()) as (scorers, problems):
        return await analyze(store, scorers, progress.analysis), problems


def _json(analysis: "Analysis") -> dict[str, Any]:
    return {
        "exchanges": sum(len(cases) for cases in analysis.cases.values()),
        "effects": [effect.to_json() for route in analysis.routes for effect in route.effects],
        "routes": [
            {
                "hosted": route.route.name,
                "twin": route.twin.name,
                "verdicts": {
                    who: sum(v.who == who for v in route.verdicts) for who in ("model", "platform", "undecided")
                },
                "prompt_finding": route.prompt_finding,
                "unscored": route.unscored,
            }
            for route in analysis.routes
        ],
    }
