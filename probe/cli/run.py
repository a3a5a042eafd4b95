"""``probe run``."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probe.cli.options import config_option, json_option, print_json

if TYPE_CHECKING:
    from probe.config import Config
    from probe.runs.execute import Executed, Stop
    from probe.runs.until import Finding


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
@json_option
def command(
    config_path: Path,
    database: Path | None,
    routes: tuple[str, ...],
    packs: tuple[str, ...],
    repeats: int | None,
    seed: int | None,
    new: bool,
    aa: bool,
    until: str | None,
    alpha: float | None,
    delta: float | None,
    by: str | None,
    max_requests: int | None,
    as_json: bool,
) -> None:
    """Send the traces over all routes through the recording proxy.

    An unfinished run with the same routes, packs, seed and repeats is taken up: what was answered is not sent again.
    Exit status 1 when trials are left open.

    With --until decided the answers are read as they come, and a route (or a family of it) is sent no more attacks when
    the difference of its refusal rate from its twin's is decided; looking after every trace is part of the error rate.
    Controls are always sent. The same options take up such a run again.

    \b
    Examples:
      probe run
      probe run -r openrouter --pack my-traces.jsonl --repeats 3
      probe run --until decided --delta 0.05 --max-requests 400
    """
    from probe.cli.progress import RunProgress
    from probe.config import load_config
    from probe.runs.execute import execute, load_packs

    config = load_config(config_path).only(routes)
    found = database or config_path.parent / config.database
    stop = _stop(config, until, alpha, delta, by)

    with RunProgress(quiet=as_json) as progress:
        done = execute(
            config,
            found,
            load_packs(packs or config.packs),
            seed=config.seed if seed is None else seed,
            repeats=repeats or config.repeats,
            new=new,
            progress=progress,
            aa=aa,
            stop=stop,
            max_requests=max_requests,
        )
    if as_json:
        print_json(_json(done, stop))
    else:
        _print(done, found, stop)
    _finish(done, max_requests, as_json)


def _finish(done: "Executed", max_requests: int | None, as_json: bool) -> None:
    """Say what went wrong and what comes next; exit status 1 where trials are open."""
    for error in done.summary.stopped:
        click.echo(f"Error: {error}", err=True)
    if done.budget_gone:
        click.echo(f"All {max_requests} hosted requests are spent: a higher --max-requests goes on with it.", err=True)
    elif done.open:
        click.echo("Open trials are sent again by the same command.", err=True)
    if done.open:
        raise click.exceptions.Exit(1)
    if not as_json:
        click.echo("Next: probe analyze")


def _json(done: "Executed", stop: "Stop | None") -> dict[str, Any]:
    return {
        "run": done.run.id,
        "resumed": done.resumed,
        "trials": done.planned,
        "answered_before": done.already,
        "answered": done.answered,
        "open": done.open,
        "stopped": [str(error) for error in done.summary.stopped],
        "hosted_requests": done.requests,
        "spared": dict(done.spared),
        "until": {**stop.until.to_json(), "questions": [f.to_json() for f in done.findings]} if stop else None,
    }


def _print(done: "Executed", database: Path, stop: "Stop | None") -> None:
    if done.resumed:
        click.echo(f"Took up run {done.run.id}: {done.already} of {done.planned} trials were answered already.")
    spared = sum(done.spared.values())
    also = f", {spared} spared" if spared else ""
    click.echo(f"{done.answered} trials answered{also}, {done.open} open. Database: {database}")
    for line in _saved(done) if stop else ():
        click.echo(line)


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


def _saved(done: "Executed") -> Iterator[str]:
    """Yield what the stopping rule found and saved: a line per question, and one about what was counted."""
    for finding in done.findings:
        yield f"  {_question(finding)}"
    hosted = {finding.route for finding in done.findings}
    for name, count in done.spared.items():
        if name not in hosted:
            yield f"  {name}: {count} trials spared, because no hosted route needs their pairs any more."
    yield (
        "  Counted were refusals and declared blocks, whoever made them; cut, empty and unreadable answers are missing "
        "here. `probe analyze` tells the platform's from the model's."
    )


def _question(finding: "Finding") -> str:
    found = finding.interval
    what = finding.route if finding.family is None else f"{finding.route}, {finding.family or 'no family'}"
    traces = f"{found.n} trace{'s' if found.n != 1 else ''}"
    missing = f", {finding.missing} more without a pair" if finding.missing else ""
    spared = f"{finding.spared} of {finding.requests} requests spared"
    if found.estimate is None:
        return f"{what}: open, no trace was compared{missing}; {spared}."
    numbers = (
        f"refuses {100 * found.estimate:+.0f} points [{100 * found.lo:+.0f}, {100 * found.hi:+.0f}] against its twin, "
        f"log e {finding.log_e:.1f}"
    )
    return f"{what}: {finding.answer or 'open'} after {traces}{missing} ({numbers}); {spared}."
