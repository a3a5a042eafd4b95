"""One run from plan to end: lock, plan or resume, proxy, runner."""

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from probe.config import Config
from probe.errors import ConfigError, CredentialError, StoreError
from probe.ids import content_hash
from probe.runs.check import check_routes, fact_rows
from probe.runs.money.ledger import Amount, Totals
from probe.runs.pacing.clock import Clock, SystemClock
from probe.runs.plan import Pack, new_run, plan_trials, same_plan, store_plan
from probe.runs.requests import Requests, build_request
from probe.runs.runner import Progress, RunSummary
from probe.runs.sending import Sending, send_open
from probe.runs.until import Finding, Questions, Refused, Until
from probe.store.lock import RunLock
from probe.store.rows import PackRow, RunRow
from probe.store.store import Store
from probe.store.writer import Writer
from probe.traces.pack import find_pack, open_pack


@dataclass(frozen=True)
class Stop:
    """When a run has sent enough. ``refused`` reads its answers: a later stage's business, so it is handed in."""

    until: Until
    refused: Refused


@dataclass(frozen=True)
class Asked:
    """What a start of a run was asked for, besides its plan.

    ``again``: trials that failed are sent again. ``totals`` limit all starts of the run together. ``wait``: sleep over
    daily limits. ``follow_up``: ask routers afterwards what became of each generation.
    """

    totals: Totals = field(default_factory=Totals)
    again: bool = False
    wait: bool = False
    follow_up: bool = False
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True)
class Executed:
    """What a run did. ``already`` trials were answered before it started.

    ``open`` trials are left for the next start, ``failed`` ones for a start that is told to send them again. ``states``
    counts the trials without an answer by route name and reason. ``spared`` trials by route name were not sent because
    the run's question was answered; ``findings`` say how the questions stand. ``spent`` is what hosted requests have
    cost in all, over all starts, ``estimated`` how many of this start's count with the most they can have cost, and
    ``budget_gone`` whether trials are open because no more may be spent.
    """

    run: RunRow
    resumed: bool
    planned: int
    already: int
    answered: int
    open: int
    summary: RunSummary
    failed: int = 0
    states: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    spared: Mapping[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    spent: Amount = field(default_factory=Amount)
    estimated: int = 0
    budget_gone: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def requests(self) -> int:
        """Hosted requests in all, over all starts."""
        return self.spent.requests


def load_packs(names: Sequence[str]) -> list[Pack]:
    """Read packs by name or file. Raises ``PackError``."""
    packs = []
    for name in names:
        path = find_pack(name)
        digest, traces = open_pack(path)
        card = path.with_suffix(".md")
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        row = PackRow(
            id=digest,
            name=path.stem,
            source=path.name,
            licence=_licence(text),
            card={"text": text, "sha256": content_hash(text.encode())} if text else {},
        )
        packs.append(Pack(row, traces))
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
        problem = route.target.key_problem() if route.target.sign_for is not None else None
        if problem is not None:
            raise CredentialError(problem)


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
    asked: Asked | None = None,
) -> Executed:
    """Plan a run, or take up the unfinished one with the same plan, and send what is open.

    ``new`` starts another run in any case; ``aa``: twins are compared with themselves too. ``stop`` says when enough
    was sent, ``max_requests`` how many hosted requests the run may make in all, over all starts; ``asked`` limits it
    further. Raises ``ProbeError``; what was recorded until then stays. Whoever hands in ``asked`` looks himself whether
    the run was interrupted (``summary.interrupted``); for others that is a ``KeyboardInterrupt``.
    """
    ends_in_order = asked is not None
    asked = asked or Asked()
    if max_requests is not None:
        asked = replace(asked, totals=replace(asked.totals, requests=max_requests))
    until = stop.until.to_json() if stop else None

    others: list[str] = []

    def choose(store: Store) -> tuple[RunRow, bool]:
        run, resumed = _run_row(store, config, packs, seed=seed, repeats=repeats, new=new, aa=aa, until=until)
        if not resumed and not new:
            others.extend(_unfinished(store, run))
        return run, resumed

    done = carry_out(config, database, choose, progress=progress, stop=stop, asked=asked)
    done = replace(done, warnings=(*others, *done.warnings))
    if done.summary.interrupted is not None and not ends_in_order:
        raise KeyboardInterrupt
    return done


def carry_out(
    config: Config,
    database: Path,
    choose: Callable[[Store], tuple[RunRow, bool]],
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
    asked: Asked | None = None,
    requests: Requests = build_request,
) -> Executed:
    """Send what is open of a run: the one that ``choose`` finds or plans, and says of whether it was there before.

    ``requests`` gives the bytes. Raises ``ProbeError``; what was recorded until then stays.
    """
    asked = asked or Asked()
    _check_limits(config, stop, asked.totals)
    check_credentials(config)
    lock = RunLock(database)
    try:
        store = Store.open(database)
    except BaseException:
        lock.release()
        raise
    with store, Writer(database, lock=lock) as writer:
        run, resumed = choose(store)
        warnings = _ask_routes(store, config, run)
        before = store.count_trials(run.id)
        questions = _questions(store, run, config, stop) if stop else None
        _open_trials(store, run, questions, again=asked.again)
        how = Sending(asked.totals, progress, asked.wait, asked.follow_up, asked.clock, requests)
        sent = send_open(store, writer, config, run.id, how, questions=questions)
        _end(store, run, questions)
        after = store.count_trials(run.id)
        return Executed(
            run=run,
            resumed=resumed,
            planned=sum(after.values()),
            already=before["answered"],
            answered=after["answered"] - before["answered"],
            open=after["planned"],
            failed=after["failed"],
            summary=sent.summary,
            states=_states(store, run, config),
            spared=_spared(store, run, config),
            findings=_findings(store, run, questions),
            spent=sent.ledger.spent,
            estimated=sum(route.unreported for route in sent.summary.routes.values()),
            budget_gone=sent.ledger.gone and after["planned"] > 0,
            warnings=warnings,
        )


def _check_limits(config: Config, stop: Stop | None, totals: Totals) -> None:
    for name, value in (("requests", totals.requests), ("tokens", totals.tokens)):
        if value is not None and value < 1:
            raise ConfigError(f"--max-{name} must be 1 or more, not {value}.")
    if totals.nanousd is not None and totals.nanousd <= 0:
        raise ConfigError("--max-usd must be more than 0 US dollars.")
    if stop is not None and not config.hosted():
        raise ConfigError(
            "--until decided asks whether a hosted route differs from its twin, and no hosted route here names a twin."
        )


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


def _open_trials(store: Store, run: RunRow, questions: Questions | None, *, again: bool) -> None:
    """Open what is to be sent besides what is open: failed trials where asked for, and what was spared too soon."""
    if again:
        store.mark_trials([trial.id for trial in store.trials(run.id, state="failed")], "planned")
    if questions is not None:
        spared = store.trials(run.id, state="spared")
        store.mark_trials([trial.id for trial in spared if questions.needed(trial)], "planned")


def _findings(store: Store, run: RunRow, questions: Questions | None) -> tuple[Finding, ...]:
    if questions is None:
        return ()
    return tuple(questions.findings({trial.id: trial.state for trial in store.trials(run.id)}))


def _spared(store: Store, run: RunRow, config: Config) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for count in store.count_reasons(run.id):
        counted[count.route_id] += count.trials if count.state == "spared" else 0
    names = {name: route.row.id for name, route in config.routes.items()}
    return {name: counted[route_id] for name, route_id in names.items() if counted[route_id]}


def _states(store: Store, run: RunRow, config: Config) -> dict[str, dict[str, int]]:
    """Return how many trials have no answer, by route name and reason; those that nobody tried have none."""
    names = {route.row.id: name for name, route in config.routes.items()}
    found: dict[str, dict[str, int]] = {}
    for count in store.count_reasons(run.id):
        if count.state in {"planned", "failed"} and count.route_id in names:
            states = found.setdefault(names[count.route_id], {})
            reason = count.reason or "untried"
            states[reason] = states.get(reason, 0) + count.trials
    return found


def _ask_routes(store: Store, config: Config, run: RunRow) -> tuple[str, ...]:
    """Keep what each server says of itself now, or that it is down; return what is to be read before sending."""
    at = time.time()
    # Only a listing is compared with what is sent; a hundred thousand traces are not read for nothing.
    listed = any(route.backend.listing for route in config.routes.values())
    found = asyncio.run(check_routes(config, store.traces(run_id=run.id).values() if listed else ()))
    store.add_facts(fact_rows(config, found, at))
    return tuple(
        f"{name}: {sentence}" for name, check in zip(config.routes, found, strict=True) for sentence in check.warnings
    )


def _unfinished(store: Store, made: RunRow) -> list[str]:
    """Say of a new run that an unfinished one was not taken up: a changed route or option makes another plan."""
    before = [run for run in store.runs() if run.ended_at is None and run.id != made.id and "kind" not in run.manifest]
    if not before:
        return []
    sentence = (
        f"this is a new run: the unfinished run {before[-1].id} has other routes, packs, seed or options, and goes on "
        "with those only; what was spent on it does not count here"
    )
    return [sentence]


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
    run = new_run(config, packs, seed=seed, repeats=repeats, aa=aa, until=until)
    for earlier in reversed(unfinished):
        if not new and same_plan(earlier, run.manifest):
            return earlier, True
    if not config.routes or not any(pack.traces for pack in packs):
        raise StoreError("Nothing to run: no trace, or no route.")
    store_plan(store, config, packs, run, plan_trials(config, packs, run, repeats=repeats, aa=aa))
    return run, False
