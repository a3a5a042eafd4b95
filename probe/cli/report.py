"""``probe report``."""

from pathlib import Path

import click

from probe.cli.options import config_option, database_option, find_database


@click.command()
@database_option
@config_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="The page.",
)
@click.option("--title", default="Platform effect", show_default=True)
def command(database: Path | None, config_path: Path, out: Path, title: str) -> None:
    """Write the HTML report: one page without scripts or anything from elsewhere.

    \b
    Examples:
      probe report
      probe report --db probe-demo/probe.db --out demo.html
    """
    from probe.report.gather import gather
    from probe.report.page import write
    from probe.store.store import Store

    with Store.open(find_database(database, config_path), create=False) as store:
        write(gather(store, title=title), out)
    click.echo(f"Wrote {out}")
