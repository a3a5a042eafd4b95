"""``probe show``."""

import shutil
from pathlib import Path
from typing import Any

import click

from probe.cli.options import config_option, database_option, find_database, json_option, print_json


@click.command()
@click.argument("exchange_id", required=False)
@database_option
@config_option
@click.option("--route", help="Without an ID: list this route's exchanges only.")
@click.option(
    "--who", type=click.Choice(["model", "platform", "undecided"]), help="Without an ID: with this verdict only."
)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Without an ID: how many to list.")
@json_option
def command(
    exchange_id: str | None,
    database: Path | None,
    config_path: Path,
    route: str | None,
    who: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show one exchange: request, response, arrival times, and the evidence card. Without an ID, list exchanges.

    The last eight or more characters of an ID are enough.

    \b
    Examples:
      probe show --who platform
      probe show 3f9a1c2e
    """
    from probe.report.card import card
    from probe.report.card_text import card_text
    from probe.store.store import Store

    with Store.open(find_database(database, config_path), create=False) as store:
        if exchange_id is None:
            _list(store, route, who, limit, as_json)
            return
        found = card(store, _resolve(store, exchange_id))
    if as_json:
        print_json(found)
    else:
        click.echo(card_text(found, shutil.get_terminal_size().columns))


def _resolve(store: Any, text: str) -> str:
    from probe.errors import StoreError

    found = [ref.id for ref in store.refs() if ref.id.startswith(text) or ref.id.endswith(text)]
    if len(found) == 1:
        return str(found[0])
    what = "No exchange has" if not found else f"{len(found)} exchanges have"
    raise StoreError(f"{what} the id {text!r}: `probe show` lists them.")


def _list(store: Any, route: str | None, who: str | None, limit: int, as_json: bool) -> None:
    names = {key: row.name for key, row in store.routes().items()}
    outcomes = {row.exchange_id: row for row in store.outcomes()}
    verdicts = store.verdicts()
    rows = []
    for ref in store.refs():
        verdict, outcome = verdicts.get(ref.id), outcomes.get(ref.id)
        if (route and names[ref.route_id] != route) or (who and (verdict is None or verdict.who != who)):
            continue
        rows.append(
            {
                "id": ref.id,
                "route": names[ref.route_id],
                "outcome": outcome.outcome if outcome else None,
                "verdict": verdict.who if verdict else None,
                "probability": verdict.probability if verdict else None,
                "mechanism": verdict.mechanism if verdict else None,
            }
        )
    if as_json:
        print_json({"exchanges": rows[:limit], "total": len(rows)})
        return
    width = max((len(row["route"]) for row in rows[:limit]), default=0)
    for row in rows[:limit]:
        cells = (row["outcome"] or "-", row["verdict"] or "-", row["mechanism"] or "")
        click.echo(f"{row['id']}  {row['route']:<{width}}  {cells[0]:<10}  {cells[1]:<10}  {cells[2]}".rstrip())
    if len(rows) > limit:
        click.echo(f"… {len(rows) - limit} more; see --limit, --route, --who")
