"""What a bench recorded, kept in its folder, and the judging of it: with scores, without, and by the baselines."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from probe.attribution.pipeline import Analysis, analyze
from probe.config import Config
from probe.errors import ConfigError
from probe.lab.bench.baselines import BASELINES
from probe.lab.bench.result import BenchResult
from probe.lab.bench.truth import Labelled, labelled
from probe.lab.log import LabEntry, LabLog
from probe.scoring.open_scorers import open_scorers
from probe.store.store import Store

DATABASE, LOG, GRID = "probe.db", "lab-log.jsonl", "grid.json"


def save_record(folder: Path, meta: Mapping[str, Any], log: LabLog) -> None:
    """Keep the truth and the grid beside the database, before anything is judged."""
    log.save(folder / LOG)
    (folder / GRID).write_text(json.dumps(meta, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def judge_record(
    folder: Path,
    config: Config,
    progress: Callable[[str, int], None],
    say: Callable[[str], None],
    *,
    sending: float = 0.0,
) -> BenchResult:
    """Analyse what a bench in ``folder`` recorded and compare it with its log.

    The twin's server of ``config`` must be up. ``sending``: the seconds that recording took. The database keeps what is
    derived with scores. Raises ``ConfigError`` where the folder holds no bench.
    """
    started = time.monotonic()
    meta, log = _load(folder)
    families = {str(platform["name"]): str(platform["family"]) for platform in meta["grid"]}
    say("Analysing, with the twin's scores and without")
    with Store.open(folder / DATABASE, create=False) as store:
        analysis = asyncio.run(_with_scores(store, config, progress))
        scored = labelled(store, analysis, log, families)
    judged = time.monotonic()
    unscored = _without_scores(folder, log, families, progress)
    again = time.monotonic()
    say("Training the baseline, each family left out once")
    baselines = {name: predict(scored) for name, predict in BASELINES.items()}
    seconds = {
        "sending": sending,
        "analysis": judged - started,
        "analysis_without_scores": again - judged,
        "baselines": time.monotonic() - again,
        "all": sending + time.monotonic() - started,
    }
    return BenchResult(
        units=tuple(one.unit for one in scored),
        without_scores=tuple(one.unit for one in unscored),
        baselines=baselines,
        meta={**meta, "seconds": {name: round(value, 1) for name, value in seconds.items()}},
    )


def _load(folder: Path) -> tuple[dict[str, Any], LabLog]:
    log = LabLog()
    try:
        meta = json.loads((folder / GRID).read_text(encoding="utf-8"))
        for line in (folder / LOG).read_text(encoding="utf-8").splitlines():
            log.add(LabEntry(**json.loads(line)))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{folder} holds no bench that can be judged ({error}): make one with --out.") from None
    return meta, log


async def _with_scores(store: Store, config: Config, progress: Callable[[str, int], None]) -> Analysis:
    async with open_scorers(config.routes.values()) as (scorers, problems):
        if problems:
            raise ConfigError(problems[0])
        return await analyze(store, scorers, progress)


def _without_scores(
    folder: Path, log: LabLog, families: Mapping[str, str], progress: Callable[[str, int], None]
) -> list[Labelled]:
    """Analyse a copy, so that the database keeps what rests on scores."""
    copy = folder / "without-scores.db"
    copy.unlink(missing_ok=True)
    with (
        contextlib.closing(sqlite3.connect(folder / DATABASE)) as old,
        contextlib.closing(sqlite3.connect(copy)) as new,
    ):
        old.backup(new)
    with Store.open(copy, create=False) as store:
        store.clear_scores()
        found = labelled(store, asyncio.run(analyze(store, {}, progress)), log, families)
    for left in folder.glob("without-scores.db*"):
        left.unlink()
    return found
