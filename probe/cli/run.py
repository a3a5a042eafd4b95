"""``probe run``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probe.cli.options import config_option, json_option

if TYPE_CHECKING:
    from probe.config import Config
    from probe.runs.execute import Executed, Stop


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
@click.option("--aa/--no-aa", default=True, help="Send every trace over a twin once more, to compare it with itself.")
@click.option(
    "--until",
    type=click.Choice(["decided"]),
    default=None,
    help="Stop a hosted route when it is known to refuse differently than its twin, or the same within DELTA.",
)
@click.option("--alpha", type=float, default=None, help="With --until: error rate of an answer.  [default: 0.05]")
@click.option(
    "--delta", type=float, default=None, help="With --until: margin that counts as the same.  [default: 0.05]"
)
@click.option(
    "--by", type=click.Choice(["route", "family"]), default=None, help="With --until: what to ask.  [default: route]"
)
@click.option("--max-requests", type=int, default=None, help="Hosted requests in all, shared by the open routes.")
@click.option(
    "--max-tokens", type=int, default=None, help="Tokens of hosted requests in all (prompts and completions)."
)
@click.option("--max-usd", type=float, default=None, help="US dollars in all; every hosted route needs a known price.")
@click.option("--again", is_flag=True, help="Send failed trials again, too: some may have been billed already.")
@click.option("--wait", is_flag=True, help="Sleep over a daily limit instead of stopping its route.")
@click.option(
    "--follow-up/--no-follow-up",
    default=False,
    help="Afterwards ask a router what became of each generation.  [default: no-follow-up]",
)
@json_option
def command(
    config_path: Path,
    database: Path | None,
    routes: tuple[str, ...],
    packs: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Send the traces over all routes through the recording proxy.

    An unfinished run with the same routes, packs, seed and repeats is taken up: what was answered is not sent again.
    Exit status 1 when trials are left open.

    Every route goes at its own pace: limits that its provider documents or tells are kept, and what was not answered
    and not billed is tried again. A route that cannot be used stops with a sentence, and the others go on. A trial that
    went out and was never answered has failed: it may have been billed, and is sent again with --again only.

    The limits --max-requests, --max-tokens and --max-usd hold for all starts of the run together. A daily limit ends
    its route for today; the same command goes on tomorrow, or by itself with --wait. Ctrl-C lets what is under way come
    to its end, a second one leaves at once (exit status 130).

    With --until decided the answers are read as they come, and a route (or a family of it) is sent no more attacks when
    the difference of its refusal rate from its twin's is decided; looking after every trace is part of the error rate.
    Controls are always sent. The same options take up such a run again.

    \b
    Examples:
      probe run
      probe run -r openrouter --pack my-traces.jsonl --repeats 3
      probe run --until decided --delta 0.05 --max-requests 400
      probe run --max-usd 2.50 --wait
    """
    from probe.cli.executed import show_executed
    from probe.config import load_config

    config = load_config(config_path).only(routes)
    found = database or config_path.parent / config.database
    stop = _stop(config, options["until"], options["alpha"], options["delta"], options["by"])
    done = _execute(config, found, packs or config.packs, stop, options, quiet=as_json)
    show_executed(done, found, stop, as_json=as_json)


def _execute(
    config: "Config",
    database: Path,
    packs: tuple[str, ...],
    stop: "Stop | None",
    options: Mapping[str, Any],
    *,
    quiet: bool,
) -> "Executed":
    from probe.cli.progress import RunProgress
    from probe.runs.execute import Asked, execute, load_packs
    from probe.runs.money.ledger import Totals

    totals = Totals.of_usd(options["max_requests"], options["max_tokens"], options["max_usd"])
    with RunProgress(quiet=quiet) as progress:
        return execute(
            config,
            database,
            load_packs(packs),
            seed=config.seed if options["seed"] is None else options["seed"],
            repeats=options["repeats"] or config.repeats,
            new=options["new"],
            progress=progress,
            aa=options["aa"],
            stop=stop,
            asked=Asked(totals, again=options["again"], wait=options["wait"], follow_up=options["follow_up"]),
        )


def _stop(
    config: "Config", until: str | None, alpha: float | None, delta: float | None, by: str | None
) -> "Stop | None":
    """Return when to stop; raises ``ConfigError``."""
    from probe.errors import ConfigError

    if until is None:
        for name, value in (("alpha", alpha), ("delta", delta), ("by", by)):
            if value is not None:
                raise ConfigError(f"--{name} goes with --until decided: without it every trial is sent.")
        return None
    from probe.attribution.watching import refusal_reader
    from probe.runs.execute import Stop
    from probe.runs.until import Until

    until_when = Until(
        alpha=0.05 if alpha is None else alpha,
        delta=0.05 if delta is None else delta,
        by="family" if by == "family" else "route",
    )
    return Stop(until_when, refusal_reader(config))
