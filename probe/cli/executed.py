"""What a run that came to its end, or was interrupted, is told as: text or JSON, and the exit status."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probe.cli.options import print_json

if TYPE_CHECKING:
    from probe.runs.execute import Executed, Stop
    from probe.runs.until import Finding


def show_executed(done: "Executed", database: Path, stop: "Stop | None", *, as_json: bool) -> None:
    """Print what a run did; leave with a status other than 0 where trials are open or it was interrupted."""
    if as_json:
        print_json(_json(done, stop))
    else:
        _print(done, database, stop)
    _finish(done, as_json)


def _finish(done: "Executed", as_json: bool) -> None:
    """Say what went wrong and what comes next; exit status 1 where trials are open, 128 + its number for a signal."""
    summary = done.summary
    for error in summary.stopped:
        click.echo(f"Error: {error}", err=True)
    for note in summary.notes:
        click.echo(note, err=True)
    if summary.interrupted is not None:
        click.echo("Interrupted. What was recorded is in the database; the same command goes on from there.", err=True)
        raise click.exceptions.Exit(128 + summary.interrupted)
    if done.open and not summary.notes:
        click.echo("Open trials are sent again by the same command.", err=True)
    if done.failed:
        trials, them = ("1 trial", "it") if done.failed == 1 else (f"{done.failed} trials", "them")
        click.echo(f"{trials} failed: `probe run --again` sends {them} again, billed already or not.", err=True)
    if done.open or done.failed:
        raise click.exceptions.Exit(1)
    if not as_json:
        click.echo("Next: probe analyze")


def _json(done: "Executed", stop: "Stop | None") -> dict[str, Any]:
    routes = done.summary.routes
    return {
        "run": done.run.id,
        "resumed": done.resumed,
        "trials": done.planned,
        "answered_before": done.already,
        "answered": done.answered,
        "open": done.open,
        "failed": done.failed,
        "states": {name: dict(states) for name, states in done.states.items()},
        "stopped": [str(error) for error in done.summary.stopped],
        "notes": done.summary.notes,
        "warnings": list(done.warnings),
        "interrupted": done.summary.interrupted,
        "in_flight_before": done.summary.in_flight,
        "hosted_requests": done.requests,
        "spent": {
            "requests": done.spent.requests,
            "tokens": done.spent.tokens,
            "usd": done.spent.nanousd / 1e9,
            "estimated_requests": done.estimated,
            "by_route": {
                name: {"tokens": route.tokens, "usd": route.nanousd / 1e9}
                for name, route in routes.items()
                if route.hosted
            },
        },
        "pair_gap_s": {name: route.gap_s for name, route in routes.items() if route.pairs},
        "spared": dict(done.spared),
        "until": {**stop.until.to_json(), "questions": [f.to_json() for f in done.findings]} if stop else None,
    }


def _print(done: "Executed", database: Path, stop: "Stop | None") -> None:
    from probe.runs.messages import in_flight_line

    for warning in done.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if done.resumed:
        click.echo(f"Took up run {done.run.id}: {done.already} of {done.planned} trials were answered already.")
    if done.summary.in_flight:
        click.echo(in_flight_line(done.summary.in_flight))
    spared = sum(done.spared.values())
    also = f", {spared} spared" if spared else ""
    failed = f", {done.failed} failed" if done.failed else ""
    trials = "trial" if done.answered == 1 else "trials"
    click.echo(f"{done.answered} {trials} answered{also}, {done.open} open{failed}. Database: {database}")
    for line in (*_without_answer(done), *_unexplained(done), *_costs(done)):
        click.echo(line)
    for line in _saved(done) if stop else ():
        click.echo(line)


def _without_answer(done: "Executed") -> Iterator[str]:
    """Yield how many trials have no answer and why, and what was said last, where no error below says it."""
    from probe.runs.messages import without_answer

    for name, route in done.summary.routes.items():
        for reason, count in done.states.get(name, {}).items():
            words = "" if route.stopped else route.words.get(reason, "")
            yield f"  {name}: {without_answer(reason, count)}{f' (the last one: {words})' if words else ''}"


def _unexplained(done: "Executed") -> Iterator[str]:
    """Yield a line per route that answered with HTTP errors which may be blocks of a kind nobody has described."""
    for name, route in done.summary.routes.items():
        if route.unexplained:
            yield (
                f"  {name}: {route.unexplained} of its answers are HTTP errors that its backend file does not know "
                f"(the last one: “{route.unexplained_words}”). They count as errors, and are not sent again."
            )


def _costs(done: "Executed") -> Iterator[str]:
    """Yield what hosted requests have cost, over all starts, and how far apart in time the sides of pairs are."""
    hosted = {name: route for name, route in done.summary.routes.items() if route.hosted}
    if hosted and done.spent.requests:
        estimated = (
            f"; {done.estimated} of them count with the most that they can have cost, because nobody said"
            if done.estimated
            else ""
        )
        money = f", {done.spent.nanousd / 1e9:.4f} US dollars" if done.spent.nanousd else ""
        plural = "" if done.spent.requests == 1 else "s"
        yield (
            f"Spent in all starts: {done.spent.requests:,} hosted request{plural}, {done.spent.tokens:,} tokens{money}"
            f"{estimated}."
        )
    for name, route in hosted.items():
        if route.gap_s is not None:
            yield f"  {name}: the two sides of its {route.pairs} pairs lie {route.gap_s:.1f} s apart (median)."


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
