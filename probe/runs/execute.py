"""One run from plan to end: lock, plan or resume, proxy, runner."""

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probe.config import Config
from probe.errors import ConfigError, CredentialError, StoreError
from probe.ids import content_hash
from probe.proxy.server import ProxyServer
from probe.proxy.table import RouteTable
from probe.runs.budget import Budget
from probe.runs.check import check_routes
from probe.runs.plan import Pack, plan_run, same_plan, store_plan
from probe.runs.runner import Progress, RecordingSink, Runner, RunSummary
from probe.runs.turns import Turns
from probe.runs.until import Finding, Questions, Refused, Until
from probe.store.lock import RunLock
from probe.store.rows import FactRow, PackRow, RunRow, TrialRow
from probe.store.store import Store
from probe.store.writer import Writer
from probe.traces.pack import find_pack, read_pack


@dataclass(frozen=True)
class Stop:
    """When a run has sent enough. ``refused`` reads its answers: a later stage's business, so it is handed in."""

    until: Until
    refused: Refused


@dataclass(frozen=True)
class Executed:
    """What a run did. ``already`` trials were answered before it started; ``open`` are left for the next start.

    ``spared`` trials by route name were not sent because the run's question was answered; ``findings`` say how the
    questions stand. ``requests`` is the number of hosted requests in all, over all starts, and ``budget_gone`` whether
    trials are open because no more were allowed.
    """

    run: RunRow
    resumed: bool
    planned: int
    already: int
    answered: int
    open: int
    summary: RunSummary
    spared: Mapping[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    requests: int = 0
    budget_gone: bool = False


def load_packs(names: Sequence[str]) -> list[Pack]:
    """Read packs by name or file. Raises ``PackError``."""
    packs = []
    for name in names:
        path = find_pack(name)
        digest, traces = read_pack(path)
        card = path.with_suffix(".md")
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        row = PackRow(
            id=digest,
            name=path.stem,
            source=path.name,
            licence=_licence(text),
            card={"text": text, "sha256": content_hash(text.encode())} if text else {},
        )
        packs.append(Pack(row, tuple(traces)))
    return packs


def _licence(card: str) -> str:
    """Return what a card says behind the word "licence", in a table's row or after a colon."""
    found = re.search(r"(?im)^[|*\s-]*licence[*\s]*[|:]\s*([^|\n]+)", card)
    return found.group(1).strip(" *") if found else ""


def check_credentials(config: Config) -> None:
    """Raise ``CredentialError`` for the first route whose key variable is not set: before anything is sent."""
    for route in config.routes.values():
        if (
            route.backend.auth
            and route.key_env
            and not os.environ.get(route.key_env)
            and route.backend.kind == "hosted"
        ):
            raise CredentialError(
                f"Route {route.name!r} needs a key: set the environment variable {route.key_env} and run this again."
            )


def execute(
    config: Config,
    database: Path,
    packs: Sequence[Pack],
    *,
    seed: int,
    repeats: int,
    new: bool = False,
    progress: Progress | None = None,
    aa: bool = True,
    stop: Stop | None = None,
    max_requests: int | None = None,
) -> Executed:
    """Plan a run, or take up the unfinished one with the same plan, and send what is open.

    ``new`` starts another run in any case; ``aa``: twins are compared with themselves too. ``stop`` says when enough
    was sent, ``max_requests`` how many hosted requests the run may make in all, over all starts. Raises ``ProbeError``;
    what was recorded until then stays.
    """
    _check_limits(config, stop, max_requests)
    check_credentials(config)
    lock = RunLock(database)
    try:
        store = Store.open(database)
    except BaseException:
        lock.release()
        raise
    with store, Writer(database, lock=lock) as writer:
        until = stop.until.to_json() if stop else None
        run, resumed = _run_row(store, config, packs, seed=seed, repeats=repeats, new=new, aa=aa, until=until)
        _ask_routes(store, config)
        before = store.count_trials(run.id)
        questions = _questions(store, run, config, stop) if stop else None
        budget = _budget(store, run, config, max_requests)
        summary = _send(
            store, writer, config, run, Turns(budget, questions), _open_trials(store, run, questions), progress
        )
        _end(store, run, questions)
        after, trials = store.count_trials(run.id), store.trials(run.id)
    return Executed(
        run=run,
        resumed=resumed,
        planned=sum(after.values()),
        already=before["answered"],
        answered=after["answered"] - before["answered"],
        open=after["planned"] + after["failed"],
        summary=summary,
        spared=_spared(config, trials),
        findings=tuple(questions.findings({trial.id: trial.state for trial in trials})) if questions else (),
        requests=budget.spent,
        budget_gone=budget.gone and after["planned"] > 0,
    )


def _check_limits(config: Config, stop: Stop | None, max_requests: int | None) -> None:
    if max_requests is not None and max_requests < 1:
        raise ConfigError(f"--max-requests must be 1 or more, not {max_requests}.")
    if stop is not None and not config.hosted():
        raise ConfigError(
            "--until decided asks whether a hosted route differs from its twin, and no hosted route here names a twin."
        )


def _send(
    store: Store,
    writer: Writer,
    config: Config,
    run: RunRow,
    turns: Turns,
    trials: list[TrialRow],
    progress: Progress | None,
) -> RunSummary:
    """Send the trials, and note what became of those without an answer."""
    sink = RecordingSink(writer)
    table = RouteTable(route.target for route in config.routes.values())
    with ProxyServer(table, sink) as proxy:
        runner = Runner(config, proxy, writer, progress, turns)
        summary, failed = asyncio.run(runner.run(trials, store.traces(run_id=run.id)))
    if sink.failure is not None:
        raise sink.failure
    store.mark_trials(failed, "failed")
    store.mark_trials(runner.spared, "spared")
    return summary


def _end(store: Store, run: RunRow, questions: Questions | None) -> None:
    """Spare what the last answers made needless after its turn had passed; end the run where nothing is left open."""
    if questions is not None:
        planned = store.trials(run.id, state="planned")
        store.mark_trials([trial.id for trial in planned if not questions.needed(trial)], "spared")
    counts = store.count_trials(run.id)
    if counts["answered"] + counts["spared"] == sum(counts.values()):
        store.end_run(run.id, time.time())


def _questions(store: Store, run: RunRow, config: Config, stop: Stop) -> Questions:
    """Return the questions as the stored answers leave them: a run that was killed goes on as if it had not been."""
    trials, traces = store.trials(run.id), store.traces(run_id=run.id)
    questions = Questions(stop.until, config, trials, traces, stop.refused)
    answers = {ref.trial_id: ref.id for ref in store.refs(run_id=run.id, answered=True)}
    for trial in trials:
        if trial.state == "answered" and not traces[trial.trace_id].control:
            questions.tell(trial, store.exchange(answers[trial.id]))
        elif trial.state == "failed":
            questions.tell(trial, None)
    return questions


def _budget(store: Store, run: RunRow, config: Config, max_requests: int | None) -> Budget:
    spent = {route.row.id: 0 for route in config.routes.values() if route.role == "hosted"}
    for ref in store.refs(run_id=run.id):
        if ref.route_id in spent:
            spent[ref.route_id] += 1
    return Budget(max_requests, spent)


def _open_trials(store: Store, run: RunRow, questions: Questions | None) -> list[TrialRow]:
    """Return what is to be sent. A trial that was given up last time gets another chance now.

    So does one that was spared and that the stored answers do not spare.
    """
    trials = store.trials(run.id)
    again = [trial for trial in trials if trial.state == "failed"]
    if questions is not None:
        again += [trial for trial in trials if trial.state == "spared" and questions.needed(trial)]
    store.mark_trials([trial.id for trial in again], "planned")
    return [trial for trial in store.trials(run.id) if trial.state == "planned"]


def _spared(config: Config, trials: Iterable[TrialRow]) -> dict[str, int]:
    names = {route.row.id: name for name, route in config.routes.items()}
    counted = Counter(names[trial.route_id] for trial in trials if trial.state == "spared")
    return {name: counted[name] for name in config.routes if counted[name]}


def _ask_routes(store: Store, config: Config) -> None:
    """Keep what each server says of itself now: its version, and whether it lists the model; or that it is down."""
    at = time.time()
    found = asyncio.run(check_routes(config))
    store.add_facts(
        FactRow(route_id=route.row.id, at=at, kind="check", value=check.to_json())
        for route, check in zip(config.routes.values(), found, strict=True)
    )


def _run_row(
    store: Store,
    config: Config,
    packs: Sequence[Pack],
    *,
    seed: int,
    repeats: int,
    new: bool,
    aa: bool,
    until: Mapping[str, Any] | None,
) -> tuple[RunRow, bool]:
    unfinished = [run for run in store.runs() if run.ended_at is None]
    run, trials = plan_run(config, packs, seed=seed, repeats=repeats, aa=aa, until=until)
    for earlier in reversed(unfinished):
        if not new and same_plan(earlier, run.manifest):
            return earlier, True
    if not trials:
        raise StoreError("Nothing to run: no trace, or no route.")
    store_plan(store, config, packs, run, trials)
    return run, False
