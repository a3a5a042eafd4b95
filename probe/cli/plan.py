"""``probe plan``."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from probe.cli.options import config_option, database_option, find_database, json_option, print_json
from probe.errors import ConfigError

if TYPE_CHECKING:
    from probe.attribution.planning import Plan, Shares, Traffic
    from probe.config import Route
    from probe.routers.listing import Endpoint


@click.command()
@click.option("--observed", metavar="K/N", help="What was seen: K of N. Prints the interval of the rate.")
@click.option(
    "--discordant", metavar="A,B", help="Shares of pairs in which only the hosted route, only the twin refuses."
)
@click.option("--hosted", metavar="RATE", help="Refusal rate of the hosted route; with --twin.")
@click.option("--twin", metavar="RATE", help="Refusal rate of the twin; with --hosted or --points.")
@click.option("--points", metavar="P", type=float, help="Difference to find, in points above --twin (10: ten points).")
@click.option("--route", "-r", help="A hosted route: shares and tokens from its study, pace from probe.toml.")
@database_option
@config_option
@click.option("--power", metavar="SHARE", default="0.8", show_default=True, help="Share of studies that shall find it.")
@click.option(
    "--alpha", metavar="SHARE", default="0.05", show_default=True, help="Error rate; intervals are at 1 - alpha."
)
@click.option("--width", metavar="SHARE", help="Wanted width of the interval from limit to limit (0.1: ten points).")
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True, help="Requests per trace and route.")
@click.option("--no-aa", is_flag=True, help="Without the twin's request for its comparison with itself.")
@click.option("--tokens", metavar="IN,OUT", help="Tokens per request, instead of the study's.")
@click.option(
    "--price-in", type=float, help="Price of a million prompt tokens; without it the route's own, or its listing's."
)
@click.option("--price-out", type=float, help="Price of a million generated tokens.")
@click.option("--per-minute", type=float, help="Requests a minute, instead of probe.toml's.")
@json_option
def command(
    observed: str | None,
    discordant: str | None,
    hosted: str | None,
    twin: str | None,
    points: float | None,
    route: str | None,
    database: Path | None,
    config_path: Path,
    power: str,
    alpha: str,
    width: str | None,
    repeats: int,
    no_aa: bool,
    tokens: str | None,
    price_in: float | None,
    price_out: float | None,
    per_minute: float | None,
    as_json: bool,
) -> None:
    """Say how many pairs, requests, tokens, days and how much money an answer takes.

    Rates and shares are fractions (0.12) or per cent (12%). They are assumed, or with --route come from the study.
    Pairs are for the exact McNemar test; what the textbook formula says stands beside.

    \b
    Examples:
      probe plan --observed 0/10 --width 0.1
      probe plan --discordant 0.12,0.02 --power 0.8
      probe plan --twin 0.35 --points 10 --per-minute 20 --json
      probe plan --route openrouter --width 0.1 --price-in 0.05 --price-out 0.2
    """
    from probe.attribution.planning import Wish, plan
    from probe.attribution.planning import observed as seen

    error = _inside(alpha, "--alpha")
    wide = None if width is None else _inside(width, "--width")
    wish = Wish(power=_inside(power, "--power"), alpha=error, width=wide, level=1.0 - error)
    given = _shares(discordant, hosted, twin, points)
    if observed is not None:
        if given is not None or route is not None:
            raise ConfigError("--observed is about one rate: leave out the options about pairs.")
        found = seen(*_counts(observed), wish)
        print_json(found.to_json()) if as_json else click.echo(found.sentence)
        return
    shares, traffic = _study(route, database, config_path, given)
    incoming = _price(price_in, "--price-in", traffic.price_in)
    traffic = replace(traffic, price_in=incoming, price_out=_price(price_out, "--price-out", traffic.price_out))
    if per_minute is not None:
        if not (math.isfinite(per_minute) and per_minute > 0):
            raise ConfigError(f"--per-minute must be more than 0, not {per_minute:g}.")
        traffic = replace(traffic, per_minute=per_minute)
    if tokens is not None:
        a, b = _two(tokens, "--tokens", "mean tokens of prompt and answer, such as 120,300")
        traffic = replace(traffic, tokens_in=a, tokens_out=b)
    made = plan(shares, wish, traffic, repeats=repeats, aa=not no_aa)
    if as_json:
        print_json(made.to_json())
    else:
        _print(made)


def _shares(discordant: str | None, hosted: str | None, twin: str | None, points: float | None) -> "Shares | None":
    from probe.attribution.planning import Shares, assumed

    if discordant is not None:
        if hosted is not None or twin is not None or points is not None:
            raise ConfigError("Give either --discordant, or rates with --hosted, --twin and --points, not both.")
        parts = discordant.split(",")
        if len(parts) != 2:
            raise ConfigError(f"--discordant takes two shares, such as 0.12,0.02 or 12%,2%, not {discordant!r}.")
        up, down = (_share(part, "--discordant") for part in parts)
        if up + down > 1.0:
            raise ConfigError(f"The shares of --discordant add up to {up + down:.3g}: together they are at most 1.")
        return Shares(up, down, "assumed")
    if hosted is None and twin is None and points is None:
        return None
    if twin is None or (hosted is None) == (points is None):
        raise ConfigError("A difference of rates takes --twin RATE and either --hosted RATE or --points P.")
    lower = _share(twin, "--twin")
    if hosted is not None:
        return assumed(_share(hosted, "--hosted"), lower)
    upper = lower + (points or 0.0) / 100.0
    if not 0.0 <= upper <= 1.0:
        raise ConfigError(f"--twin and --points together make a rate of {upper:.3g}, which does not exist.")
    return assumed(upper, lower)


def _study(
    name: str | None, database: Path | None, config_path: Path, given: "Shares | None"
) -> "tuple[Shares, Traffic]":
    """Return shares and traffic of a route: the study's where there is one, the assumed shares where they are given."""
    from probe.attribution.planning import Traffic, stored_shares, stored_traffic
    from probe.config import load_config
    from probe.store.store import Store

    if name is None:
        if given is None:
            raise ConfigError(
                "Say what to plan for: --observed K/N, --discordant A,B, --twin RATE with --hosted or --points, or "
                "--route NAME for the rates of a study."
            )
        return given, Traffic()
    config = load_config(config_path) if config_path.is_file() or (database is None and given is not None) else None
    route = config.routes.get(name) if config is not None else None
    stored = database or (config_path.parent / config.database if config is not None else None)
    traffic = Traffic()
    if database is not None or given is None or (stored is not None and stored.is_file()):
        with Store.open(find_database(database, config_path), create=False) as store:
            if given is None or route is None or any(row.name == name for row in store.routes().values()):
                hosted = store.route_named(name)
                if hosted.role == "local" or hosted.twin is None:
                    raise ConfigError(f"Route {name!r} is no hosted route with a twin: there are no pairs to plan.")
                given = given or stored_shares(store, hosted, store.route_named(hosted.twin))
                traffic = stored_traffic(store, hosted)
            if route is not None:
                from probe.runs.sending import endpoints_of

                traffic = _priced(traffic, route, endpoints_of(store, route))
    elif config is not None:
        route = config.only((name,)).routes[name]
    if route is not None:
        traffic = replace(traffic, per_minute=route.pace.requests_per_minute, concurrency=route.pace.concurrency)
        if traffic.price_in is None:
            traffic = _priced(traffic, route, ())
    return given, traffic


def _priced(traffic: "Traffic", route: "Route", endpoints: "Sequence[Endpoint]") -> "Traffic":
    """Return traffic with the price of probe.toml, or of the listing that the last run kept."""
    from probe.runs.money.price import price_of

    price = price_of(route, endpoints)
    return traffic if price is None else replace(traffic, price_in=price.prompt, price_out=price.completion)


def _counts(text: str) -> tuple[int, int]:
    k, slash, n = (part.strip() for part in text.partition("/"))
    if not (slash and k.isascii() and k.isdigit() and n.isascii() and n.isdigit()):
        raise ConfigError(f"--observed takes two whole numbers, such as 0/10, not {text!r}.")
    if int(k) > int(n):
        raise ConfigError(f"--observed {text} is more than all: the first number counts a part of the second.")
    return int(k), int(n)


def _share(text: str, option: str) -> float:
    """Return a fraction; per cent only with its sign, so that 12 is not taken for twelve hundred or for one."""
    plain = text.strip()
    number = _float(plain.removesuffix("%"))
    if number is None:
        raise ConfigError(f"{option} takes a share, such as 0.12 or 12%, not {text!r}.")
    share = number / 100.0 if plain.endswith("%") else number
    if not 0.0 <= share <= 1.0:
        hint = f" Did you mean {number:g}%?" if 1.0 < number <= 100.0 and not plain.endswith("%") else ""
        raise ConfigError(f"{option} takes a share between 0 and 1 (or 0% and 100%), not {plain}.{hint}")
    return share


def _inside(text: str, option: str) -> float:
    share = _share(text, option)
    if not 0.0 < share < 1.0:
        raise ConfigError(f"{option} must lie between 0 and 1, without either, not be {text.strip()}.")
    return share


def _two(text: str, option: str, what: str) -> tuple[float, float]:
    numbers = [_float(part) for part in text.split(",")]
    known = [number for number in numbers if number is not None and number >= 0.0]
    if len(numbers) != 2 or len(known) != 2:
        raise ConfigError(f"{option} takes {what}, not {text!r}.")
    return known[0], known[1]


def _float(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _price(value: float | None, option: str, known: float | None) -> float | None:
    if value is None:
        return known
    if not (math.isfinite(value) and value >= 0.0):
        raise ConfigError(f"{option} must not be negative.")
    return value


def _print(made: "Plan") -> None:
    from rich.console import Console
    from rich.table import Table

    from probe.attribution.planning import duration, money_text

    console = Console(markup=False, highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    formula, sequential = made.pairs_by_formula, made.sequential
    rows = [
        ("pairs for the power, exact McNemar", made.pairs_for_power),
        ("  by the textbook formula, about", None if formula is None else round(formula)),
        ("pairs for the width", made.pairs_for_width),
        ("pairs if it stops when decided, mean", sequential and round(sequential.expected)),
        ("  at most, for the same power", sequential and sequential.at_most),
        ("requests over the hosted route", made.requests_hosted),
        ("requests over the twin", made.requests_twin),
        ("tokens in (hosted)", None if made.tokens_in is None else round(made.tokens_in)),
        ("tokens out (hosted)", None if made.tokens_out is None else round(made.tokens_out)),
        ("money", None if made.money is None else money_text(made.money)),
        ("time", None if made.days is None else duration(made.days)),
    ]
    for name, value in rows:
        if value is not None:
            table.add_row(name, str(value))
    if table.row_count:
        console.print(table)
    console.print(f"\n{made.sentence}\n\nAssumed:")
    for assumption in made.assumptions:
        console.print(f"  · {assumption}")
