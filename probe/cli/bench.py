"""``probe bench``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probe.cli.options import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command()
@click.option("--quick", is_flag=True, help="Fewer platforms per family and fewer traces: about three minutes.")
@click.option(
    "--families",
    default="",
    metavar="NAME,NAME",
    help="Only these families (baselines are then trained on fewer others).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Keep database, lab log, result and plot in this folder; an earlier bench there is replaced.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of traces, order and the platforms' draws; from 100 on with texts that are for development.",
)
@click.option("--again", is_flag=True, help="Send nothing: judge what an earlier bench in --out recorded.")
@json_option
def command(quick: bool, families: str, out: Path | None, seed: int, again: bool, as_json: bool) -> None:
    """Measure the verdicts on lab platforms of every kind, whose deeds are known.

    llama.cpp serves the embedded weights as the twin; lab platforms serve them, or others, as hosted routes: they block
    and say so, answer in the model's place in several ways and disguises, cut, replace, prompt, redact, or change
    nothing. Everything goes through the real runner, proxy and analysis; then the verdicts are compared with the lab's
    log, with the twin's scores and without, beside two baselines.

    \b
    Examples:
      probe bench --quick
      probe bench --seed 1 --out bench-1
      probe bench --out bench-1 --again
      probe bench --families transparent,injected_foreign --json
    """
    from probe.cli.progress import RunProgress
    from probe.lab.bench.study import Options, judge_again, run_bench

    if again and out is None:
        raise click.UsageError("--again needs --out with the folder of an earlier bench.")
    named = tuple(name.strip() for name in families.split(",") if name.strip())
    with RunProgress(quiet=as_json) as progress:
        say = (lambda _text: None) if as_json else (lambda text: click.echo(text + " …", err=True))
        if again and out is not None:
            result = judge_again(out, on_analyze=progress.analysis, say=say)
        else:
            options = Options(seed=seed, quick=quick, families=named)
            result = run_bench(options, out, on_run=progress, on_analyze=progress.analysis, say=say)
    found = result.to_json()
    if out is not None:
        _keep(found, out)
    if as_json:
        print_json(found)
    else:
        _print(found, out)


def _keep(found: "Mapping[str, Any]", out: Path) -> None:
    import json

    from probe.lab.bench.plot import bench_plot

    (out / "bench.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (out / "bench.svg").write_text(bench_plot(found), encoding="utf-8")


def _print(found: "Mapping[str, Any]", out: Path | None) -> None:
    from rich.console import Console

    from probe.lab.bench.tables import print_bench

    print_bench(found, Console())
    click.echo(f"\nDone in {found['seconds']['all']:.0f} s, seed {found['seed']}.")
    if out is not None:
        click.echo(f"Result: {out / 'bench.json'}   Plot: {out / 'bench.svg'}   Database: {out / 'probe.db'}")
