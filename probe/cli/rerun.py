"""``probe rerun``."""

from pathlib import Path

import click

from probe.cli.options import config_option, database_option, json_option


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@config_option
@database_option
@click.option("--route", "-r", "routes", multiple=True, help="Only this route (and its twin); may be given again.")
@click.option("--new", is_flag=True, help="Start anew even if an unfinished rerun could be taken up.")
@click.option("--max-requests", type=int, default=None, help="Hosted requests in all.")
@click.option("--max-tokens", type=int, default=None, help="Tokens of hosted requests in all.")
@click.option("--max-usd", type=float, default=None, help="US dollars in all; every hosted route needs a known price.")
@click.option("--again", is_flag=True, help="Send failed trials again, too: some may have been billed already.")
@click.option("--wait", is_flag=True, help="Sleep over a daily limit instead of stopping its route.")
@json_option
def command(
    manifest: Path,
    config_path: Path,
    database: Path | None,
    routes: tuple[str, ...],
    new: bool,
    max_requests: int | None,
    max_tokens: int | None,
    max_usd: float | None,
    again: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Send the requests of MANIFEST again: the same bytes, in the same order.

    MANIFEST is a file that `probe manifest show --out` wrote, on this machine or another. Its routes go where routes of
    the same names lead in probe.toml (a local server listens elsewhere today), with their keys, paces and prices;
    without a probe.toml they go where they went, unless a key would go to an address that its backend file does not
    name. An unfinished rerun is taken up. Exit status 1 when trials are open.

    \b
    Examples:
      probe rerun run.json
      probe rerun run.json --db theirs.db -r openrouter --max-usd 1
    """
    from probe.cli.executed import show_executed
    from probe.cli.progress import RunProgress
    from probe.config import load_config
    from probe.runs.execute import Asked
    from probe.runs.manifest import read_manifest
    from probe.runs.money.ledger import Totals
    from probe.runs.rerun import rerun

    read = read_manifest(manifest)
    here = load_config(config_path) if config_path.is_file() else None
    found = database or (config_path.parent / here.database if here else Path("probe.db"))
    with RunProgress(quiet=as_json) as progress:
        done = rerun(
            read,
            here,
            found,
            routes=routes,
            new=new,
            progress=progress,
            asked=Asked(Totals.of_usd(max_requests, max_tokens, max_usd), again=again, wait=wait),
        )
    if not as_json:
        click.echo(f"What differs from {manifest}: probe manifest diff {manifest} {done.run.id} --db {found}")
    show_executed(done, found, None, as_json=as_json)
