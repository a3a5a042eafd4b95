"""``probe verify``."""

from pathlib import Path

import click

from probe.cli.options import config_option, database_option, find_database, json_option, print_json


@click.command()
@database_option
@config_option
@json_option
def command(database: Path | None, config_path: Path, as_json: bool) -> None:
    """Rehash every body and check every row and reference of a database.

    Exit status 1 when anything is wrong.

    \b
    Examples:
      probe verify
      probe verify --db probe-demo/probe.db
    """
    from probe.store.verify import verify

    report = verify(find_database(database, config_path))
    if as_json:
        print_json({"problems": list(report.problems), "checked": dict(report.checked)})
    else:
        for problem in report.problems:
            click.echo(problem)
        counted = ", ".join(f"{n} {what}" for what, n in report.checked.items())
        click.echo(f"{'No problem' if not report.problems else f'{len(report.problems)} problem(s)'} in {counted}.")
    if report.problems:
        raise click.exceptions.Exit(1)
