"""``probe demo``."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probe.cli.options import json_option, print_json

if TYPE_CHECKING:
    from probe.lab.demo import DemoResult


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("probe-demo"),
    show_default=True,
    help="Folder for the database, the report and the lab's log; an earlier demo there is replaced.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order and of the lab platforms' draws.")
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True)
@json_option
def command(out: Path, seed: int, repeats: int, as_json: bool) -> None:
    """Run the whole pipeline on the embedded weights: no key, no GPU, no network.

    llama.cpp serves the weights as the route `local`. Four lab platforms serve them again as hosted routes: one passes
    everything through, one blocks and says so, one refuses in the model's place without saying so, one puts a hidden
    safety prompt before each conversation. The probe is not told which; at the end its verdicts are compared with what
    the lab logs.

    \b
    Examples:
      probe demo
      probe demo --seed 7 --json
    """
    from probe.cli.progress import RunProgress
    from probe.lab.demo import run_demo

    started = time.monotonic()
    with RunProgress(quiet=as_json) as progress:
        say = (lambda _text: None) if as_json else (lambda text: click.echo(text + " …", err=True))
        result = run_demo(out, seed=seed, repeats=repeats, on_run=progress, on_analyze=progress.analysis, say=say)
    study = _report(result, out)
    if as_json:
        print_json(_json(result))
        return
    from rich.console import Console

    from probe.report.tables import print_study

    print_study(study, Console())
    click.echo(
        f"\nDone in {time.monotonic() - started:.0f} s. Report: {out / 'report.html'}   Database: {result.database}\n"
        f"Look at exchanges:  probe show --db {result.database}\n"
        f"Check every byte:   probe verify --db {result.database}"
    )


def _report(result: "DemoResult", out: Path) -> Any:
    from dataclasses import replace

    from probe.report.gather import gather
    from probe.report.page import write
    from probe.store.store import Store

    truth = result.truth
    with Store.open(result.database, create=False) as store:
        effects = [effect for route in result.analysis.routes for effect in route.effects]
        study = gather(store, title="Platform effect: the demo", effects=effects)
    study = replace(
        study,
        truth={
            "Right verdicts, of all refusals and of all answers that a platform wrote": truth.accuracy,
            "False accusations, of the refusals that the model wrote": truth.false_accusation_rate,
            "Undecided": truth.undecided_rate,
        },
    )
    write(study, out / "report.html")
    return study


def _json(result: "DemoResult") -> dict[str, Any]:
    return {
        "exchanges": sum(len(cases) for cases in result.analysis.cases.values()),
        "truth": result.truth.to_json(),
        # Over all families first; the same per family under another name, so that each hosted route stands here once.
        "effects": [e.to_json() for route in result.analysis.routes for e in route.effects if e.scope == "all"],
        "family_effects": [e.to_json() for route in result.analysis.routes for e in route.effects if e.scope != "all"],
        "prompt_findings": {route.route.name: route.prompt_finding for route in result.analysis.routes},
        "database": str(result.database),
    }
