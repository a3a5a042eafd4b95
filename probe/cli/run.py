"""``probe run``."""

from pathlib import Path

import click

from probe.cli.options import config_option, json_option, print_json


@click.command()
@config_option
@click.option(
    "--db", "database", type=click.Path(path_type=Path), envvar="PROBE_DB", help="The study's database. [env: PROBE_DB]"
)
@click.option("--route", "-r", "routes", multiple=True, help="Only this route (and its twin); may be given again.")
@click.option("--pack", "-p", "packs", multiple=True, help="Traces: a pack that ships, or a .jsonl file.")
@click.option("--repeats", type=click.IntRange(1), default=None, help="How often each trace goes over each route.")
@click.option("--seed", type=int, default=None, help="Seed of the random order.")
@click.option("--new", is_flag=True, help="Start a new run even if an unfinished one could be taken up.")
@json_option
def command(
    config_path: Path,
    database: Path | None,
    routes: tuple[str, ...],
    packs: tuple[str, ...],
    repeats: int | None,
    seed: int | None,
    new: bool,
    as_json: bool,
) -> None:
    """Send the traces over all routes through the recording proxy.

    An unfinished run with the same routes, packs, seed and repeats is taken up: what was answered is not sent again.
    Exit status 1 when trials are left open.

    \b
    Examples:
      probe run
      probe run -r openrouter --pack my-traces.jsonl --repeats 3
    """
    from probe.config import load_config
    from probe.runs.execute import execute, load_packs

    config = load_config(config_path).only(routes)
    found = database or config_path.parent / config.database
    from probe.cli.progress import RunProgress

    with RunProgress(quiet=as_json) as progress:
        done = execute(
            config,
            found,
            load_packs(packs or config.packs),
            seed=config.seed if seed is None else seed,
            repeats=repeats or config.repeats,
            new=new,
            progress=progress,
        )
    if as_json:
        print_json(
            {
                "run": done.run.id,
                "resumed": done.resumed,
                "trials": done.planned,
                "answered_before": done.already,
                "answered": done.answered,
                "open": done.open,
                "stopped": [str(error) for error in done.summary.stopped],
            }
        )
    else:
        if done.resumed:
            click.echo(f"Took up run {done.run.id}: {done.already} of {done.planned} trials were answered already.")
        click.echo(f"{done.answered} trials answered, {done.open} open. Database: {found}")
    for error in done.summary.stopped:
        click.echo(f"Error: {error}", err=True)
    if done.open:
        click.echo("Open trials are sent again by the same command.", err=True)
        raise click.exceptions.Exit(1)
    if not as_json:
        click.echo("Next: probe analyze")
