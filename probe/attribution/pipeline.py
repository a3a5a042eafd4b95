"""Everything right of the exchanges: outcomes, evidence, verdicts, gates, effects; from the store to the store.

Route by route, so that a study of a million exchanges needs the memory of one route and its twin. What needs no server
is done by worker processes (``probe.attribution.workers``) where there is enough of it; the rows are the same.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from probe import __version__
from probe.attribution.cases import ScoringDesk, Sent
from probe.attribution.desk import fingerprint
from probe.attribution.effects.rows import effect_row
from probe.attribution.effects.stored import hosted_pairs, study_effects
from probe.attribution.gate.stored import gate_row, gate_runs
from probe.attribution.route import (
    RouteAnalysis,
    Study,
    Twin,
    answered,
    compliances,
    examine,
    genuine_of,
    read_hosted,
    read_other,
    read_twin,
    spool_read,
    together,
)
from probe.attribution.settings import Settings
from probe.attribution.spool import Row, Spool, read
from probe.attribution.workers import Assignment, Desk, Examined, Remembered, Workers, rare_collections
from probe.errors import ScoringError
from probe.judge.rules import RulesJudge
from probe.scoring.base import Scorer
from probe.store.db import MEMORY
from probe.store.derived import DerivedTable
from probe.store.rows import OutcomeRow, RouteRow
from probe.store.store import Store

__all__ = ["Analysis", "RouteAnalysis", "Settings", "analyze"]

SMALL = 10_000
"""Exchanges up to which all is done in this process, and cases are kept with their bytes."""

WORKERS = 2

Progress = Callable[[str, int], None]
"""Called with what is being done and how many texts were scored so far."""

Batches = Iterator[tuple[DerivedTable, list[Row]]]


@dataclass
class Analysis:
    """The whole study: per hosted route, in the order in which they were added.

    ``cases``: what was judged, by route id. Of a large study their number is known, and they are read from the store
    again where they are looked at.
    """

    routes: list[RouteAnalysis] = field(default_factory=list)
    cases: dict[str, Sequence[Sent]] = field(default_factory=dict)

    @property
    def exchanges(self) -> int:
        """Number of exchanges that were judged."""
        return sum(map(len, self.cases.values()))


class StoredCases(Sequence[Sent]):
    """A route's answers as the store has them, with their bytes; read when they are first looked at."""

    def __init__(self, study: Study, route: RouteRow, aside: set[str], count: int) -> None:
        self._study, self._route, self._aside, self._count = replace(study, lean=False), route, aside, count
        self._read: list[Sent] | None = None

    def __len__(self) -> int:
        """Return how many there are, without reading them."""
        return self._count

    def __getitem__(self, place: Any) -> Any:
        """Return one, or some of them."""
        if self._read is None:
            store = self._study.store
            judged = {row.exchange_id: row for row in store.outcomes(judge=RulesJudge.name, route_id=self._route.id)}
            found = read_other(self._study, self._route, answered(store, self._route.id, self._aside))
            self._read = [_judged(sent, judged[sent.case.exchange_id]) for sent in found]
        return self._read[place]


def _judged(sent: Sent, row: OutcomeRow) -> Sent:
    return replace(sent, case=replace(sent.case, outcome=row.outcome), outcome=row)


@dataclass
class _Run:
    study: Study
    scorers: Mapping[str, Scorer]
    progress: Progress
    aside: set[str]
    result: Analysis
    scored: int = 0
    desks: dict[str, ScoringDesk] = field(default_factory=dict)
    twins: dict[str, Twin] = field(default_factory=dict)
    spools: dict[str, list[Callable[[], Batches]]] = field(default_factory=dict)
    prints: dict[str, str | None] = field(default_factory=dict)

    def tick(self, count: int = 1) -> None:
        self.scored += count
        self.progress("scoring texts under the twin", self.scored)

    def say(self, what: str) -> None:
        self.progress(what, self.scored)

    def desk(self, twin: RouteRow) -> ScoringDesk:
        """Return the desk of a twin: one for all of its hosted routes, which ask for the same prompts."""
        if twin.id not in self.desks:
            scorer = self.scorers.get(twin.name)
            self.desks[twin.id] = ScoringDesk(
                self.study.store, scorer, twin.weights_id, self.tick, fingerprint=self.prints.get(twin.name)
            )
        return self.desks[twin.id]

    def keep(self, route_id: str, batches: Callable[[], Batches]) -> None:
        self.spools.setdefault(route_id, []).append(batches)

    async def twin(self, route: RouteRow) -> Twin:
        """Read a twin in this process."""
        if route.id not in self.twins:
            refs = answered(self.study.store, route.id, self.aside)
            self.say(f"reading the answers of {route.name}")
            sents = await read_twin(self.study, self.desk(route), route, refs)
            self.outcomes(route, sents)
            refused = [sent for sent in sents if sent.case.refused]
            genuine = await genuine_of(self.desk(route), [*refused, *compliances(sents)])
            self.twins[route.id] = Twin(tuple(sent.case for sent in sents), genuine)
        return self.twins[route.id]

    async def hosted(self, route: RouteRow, own: RouteRow) -> RouteAnalysis | None:
        """Examine a hosted route in this process; ``None`` where it has no answers."""
        twin, desk = await self.twin(own), self.desk(own)
        refs = answered(self.study.store, route.id, self.aside)
        self.say(f"reading the answers of {route.name}")
        sents = await read_hosted(self.study, desk, route, refs)
        if not sents:
            self.outcomes(route, sents)
            return None
        spool = Spool()
        found, sents = await examine(self.study, desk, (route, own), sents, twin, spool)
        self.counted(route, sents)
        self.keep(route.id, spool.batches)
        return found

    async def other(self, route: RouteRow) -> None:
        """Read a route that is compared with nothing, in this process."""
        self.say(f"reading the answers of {route.name}")
        self.outcomes(route, read_other(self.study, route, answered(self.study.store, route.id, self.aside)))

    def outcomes(self, route: RouteRow, sents: list[Sent]) -> None:
        spool = Spool()
        spool_read(spool, sents)
        self.counted(route, sents)
        self.keep(route.id, spool.batches)

    def counted(self, route: RouteRow, sents: list[Sent]) -> None:
        if self.study.lean:
            self.judged(route, len(sents))
        else:
            self.result.cases[route.id] = sents

    def judged(self, route: RouteRow, count: int) -> None:
        self.result.cases[route.id] = StoredCases(self.study, route, self.aside, count)


async def analyze(
    store: Store,
    scorers: Mapping[str, Scorer],
    progress: Progress = lambda _what, _n: None,
    settings: Settings | None = None,
    *,
    workers: int | None = None,
) -> Analysis:
    """Rebuild everything derived; return what was found.

    ``scorers`` by name of the local route. The same store and scorers give the same rows. Scores are kept as they come;
    everything else is written at the end, in one piece: whoever is interrupted has the tables of the last time.
    ``workers``: processes to use, by default one for up to ``SMALL`` exchanges and two beyond (where the store is a
    file, and the machine has as many); such a process imports the script that called, which needs the usual
    ``if __name__ == "__main__"``.
    """
    count = store.query("SELECT count(*) FROM exchanges")[0][0]
    if workers is None:
        workers = 1 if count <= SMALL else min(WORKERS, os.cpu_count() or 1)
    lean = count > SMALL or workers > 1
    study = Study(store, store.trace_marks(), settings or Settings(), lean=lean)
    run = _Run(study, scorers, progress, gate_runs(store), Analysis())
    pairs = {route.id: (route, twin) for route, twin in hosted_pairs(store)}
    with rare_collections(), tempfile.TemporaryDirectory(prefix="probe-analysis-") as folder:
        if workers > 1 and store.path != MEMORY:
            examined = await _by_workers(run, pairs, Path(folder), workers)
        else:
            examined = await _here(run, pairs)
        for kept in run.desks.values():
            kept.flush()
        with store.transaction():
            _save(run, examined)
    return run.result


async def _here(run: _Run, pairs: Mapping[str, tuple[RouteRow, RouteRow]]) -> list[RouteAnalysis]:
    """Do all in this process."""
    twins = {twin.id for _, twin in pairs.values()}
    found = []
    for route_id, route in run.study.store.routes().items():
        if route_id in pairs:
            found.append(await run.hosted(*pairs[route_id]))
        elif route_id in twins:
            await run.twin(route)
        else:
            await run.other(route)
    return [one for one in found if one is not None]


async def _by_workers(
    run: _Run, pairs: Mapping[str, tuple[RouteRow, RouteRow]], folder: Path, count: int
) -> list[RouteAnalysis]:
    """Let workers do what they can, and the rest here."""
    store, found = run.study.store, dict[str, RouteAnalysis]()
    assignment = Assignment(store.path.absolute(), folder, run.study.settings, frozenset(run.aside))
    sizes = dict(store.query("SELECT route_id, count(*) FROM exchanges GROUP BY route_id"))
    twins = {twin.id: twin for _, twin in pairs.values()}
    left: list[RouteRow] = []
    with Workers(assignment, count) as workers:

        async def work(route: RouteRow, own: RouteRow, desk: Desk, twin: Path) -> None:
            examined = await workers.hosted(route, own, desk, twin)
            if examined is None:
                left.append(route)
            elif examined.analysis is not None:
                found[route.id] = examined.analysis
            _take(run, route, examined)

        others = [route for key, route in store.routes().items() if key not in pairs and key not in twins]
        waiting = [asyncio.ensure_future(_read_other(run, workers, route)) for route in others if sizes.get(route.id)]
        for twin in twins.values():
            desk = await _desk(run, twin)
            path = None if desk is None else await _twin(run, workers, twin, desk)
            mine = [route for route, own in pairs.values() if own.id == twin.id and sizes.get(route.id)]
            if desk is None or path is None:
                left += mine
                continue
            # The largest first, so that no worker is left alone with it at the end.
            mine.sort(key=lambda route: -sizes[route.id])
            waiting += [asyncio.ensure_future(work(route, twin, desk, path)) for route in mine]
        try:
            await asyncio.gather(*waiting)
        except BaseException:
            for task in waiting:
                task.cancel()
            raise
    for route in left:
        examined = await run.hosted(*pairs[route.id])
        if examined is not None:
            found[route.id] = examined
    return [found[key] for key in store.routes() if key in found]


async def _read_other(run: _Run, workers: Workers, route: RouteRow) -> None:
    _take(run, route, await workers.other(route))


def _take(run: _Run, route: RouteRow, examined: Examined | None) -> None:
    if examined is None:
        return
    run.judged(route, examined.count)
    run.tick(examined.ticks)
    run.say(f"reading the answers of {route.name}")
    path = examined.spooled
    run.keep(route.id, lambda: read(path))


async def _desk(run: _Run, twin: RouteRow) -> Desk | None:
    """Return what workers make their desk of; ``None`` where the server cannot even be asked for a few token ids."""
    scorer = run.scorers.get(twin.name)
    if scorer is None:
        return Desk(twin.weights_id)
    try:
        run.prints[twin.name] = await fingerprint(scorer)
    except ScoringError:
        return None
    kept = Remembered(scorer.name, scorer.version, scorer.vocabulary)
    return Desk(twin.weights_id, kept, run.prints[twin.name])


async def _twin(run: _Run, workers: Workers, twin: RouteRow, desk: Desk) -> Path | None:
    """Read a twin by workers; ``None`` where something has to be asked for."""
    refs = answered(run.study.store, twin.id, run.aside)
    run.say(f"reading the answers of {twin.name}")
    parts = await workers.twin(twin, refs, desk)
    if parts is None:
        return None
    sents = [sent for part in parts for sent in part.sents]
    few = await genuine_of(run.desk(twin), compliances(sents))
    for part in parts:
        run.tick(part.ticks)
        run.keep(twin.id, lambda path=part.spooled: read(path))  # type: ignore[misc]
    genuine = together([*(part.genuine for part in parts), few])
    found = Twin(tuple(sent.case for sent in sents), genuine)
    run.twins[twin.id] = found
    run.judged(twin, len(sents))
    return workers.keep(found)


def _save(run: _Run, examined: list[RouteAnalysis]) -> None:
    """Replace all derived rows; inside a transaction."""
    store = run.study.store
    store.clear_derived()
    # In the order of routes, whoever did them, so that the same store gives the same rows.
    for route_id in store.routes():
        for batches in run.spools.get(route_id, ()):
            for table, rows in batches():
                store.put_derived(table, rows)
    for found in examined:
        store.replace_gates([gate_row(found.route, found.twin, found.gate, found.prompt_finding, __version__)])
    effects = study_effects(store, run.study.settings)
    for found in examined:
        mine = tuple(effects.get(found.route.id, ()))
        store.replace_effects(effect_row(found.route.id, found.twin.id, effect) for effect in mine)
        run.result.routes.append(replace(found, effects=mine))
