"""Stopping early: which questions a run asks, what answers they have so far, and which trials nobody needs any more.

A question is "does this hosted route refuse more or less often than its twin?", over all traces or over one family of
them. Each trace that is no control gives one value, the mean over its repeats of hosted - twin, 1 a refusal or a block
and 0 an answer; where one side has neither, the repeat gives none, and a trace without any is counted as missing. The
values go into a test that may be looked at every time (``probe.stats.sequential``), which is the only reason why a run
may stop when it likes what it sees.

They go in in the order of the plan, and not as the answers come: blocks come sooner than answers, so that the pairs
that are there first are not a fair draw. A trace whose pair is not complete yet holds up those behind it. So the state
of a question follows from the stored answers alone, whatever was killed in between.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from probe.config import Config
from probe.errors import ConfigError
from probe.stats.intervals import Interval
from probe.stats.sequential import Answer, SequentialTest
from probe.store.rows import TrialRow
from probe.traces.values import Trace
from probe.wire.values import Exchange

By = Literal["route", "family"]

Place = tuple[str, str, int]
"""(route id, trace id, repeat)."""

Refused = Callable[[str, Exchange], bool | None]
"""Reads an exchange of the route with this id: was it a refusal or a block? ``None``: neither that nor an answer.

Reading answers belongs to later stages than sending; whoever starts a run hands it in.
"""


@dataclass(frozen=True, slots=True)
class Until:
    """When a question counts as answered; ``alpha`` is the error rate of each question by itself."""

    alpha: float = 0.05
    delta: float = 0.05
    by: By = "route"

    def __post_init__(self) -> None:
        """Refuse what is no error rate or no margin."""
        for name, what in (("alpha", "5 % errors"), ("delta", "five points")):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise ConfigError(f"--{name} must lie between 0 and 1 (0.05: {what}), not be {value:g}.")
        if self.by not in {"route", "family"}:
            raise ConfigError(f"--by must be route or family, not {self.by!r}.")

    def to_json(self) -> dict[str, Any]:
        """Return the keys of a manifest."""
        return {"until": "decided", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Finding:
    """How a question stands. ``family`` is ``None`` for all traces; ``requests`` are the hosted trials it has.

    ``n`` traces were compared (``interval.n``), ``missing`` had no pair; ``log_e`` is the natural logarithm of the
    e-value against "no difference".
    """

    route: str
    family: str | None
    answer: Answer | None
    interval: Interval
    log_e: float
    missing: int
    requests: int
    spared: int

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


class _Question:
    """One test with the traces that it waits for, in the order of the plan."""

    def __init__(self, until: Until, route_id: str, twin_id: str, family: str | None) -> None:
        self.test = SequentialTest(alpha=until.alpha, delta=until.delta)
        self.route_id = route_id
        self.twin_id = twin_id
        self.family = family
        self.order: list[str] = []
        """Traces in the order of the plan."""
        self.repeats: dict[str, list[int]] = {}
        """Per trace: the repeats that both routes get."""
        self.next = 0
        self.missing = 0

    @property
    def decided(self) -> bool:
        return self.test.answer is not None

    def plan(self, trial: TrialRow) -> None:
        """Add a trial of the hosted route."""
        if trial.trace_id not in self.repeats:
            self.order.append(trial.trace_id)
        self.repeats.setdefault(trial.trace_id, []).append(trial.repeat)

    def advance(self, outcomes: Mapping[Place, bool | None]) -> list[str]:
        """Take in the traces whose pairs are complete, up to the first that is not, or to the answer; return them."""
        first = self.next
        while not self.decided and self.next < len(self.order):
            trace_id = self.order[self.next]
            repeats = self.repeats[trace_id]
            pairs = [((self.route_id, trace_id, repeat), (self.twin_id, trace_id, repeat)) for repeat in repeats]
            if any(hosted not in outcomes or twin not in outcomes for hosted, twin in pairs):
                break
            sides = [(outcomes[hosted], outcomes[twin]) for hosted, twin in pairs]
            values = [hosted - twin for hosted, twin in sides if hosted is not None and twin is not None]
            if values:
                self.test.add(sum(values) / len(values))
            else:
                self.missing += 1
            self.next += 1
        return self.order[first : self.next]


class Questions:
    """All questions of a run; told of every trial that came to its end."""

    def __init__(
        self, until: Until, config: Config, trials: Iterable[TrialRow], traces: Mapping[str, Trace], refused: Refused
    ) -> None:
        """``trials`` are all of the run, in the order of the plan."""
        self._refused = refused
        self._names = {route.row.id: name for name, route in config.routes.items()}
        self._twins = {route.row.id: config.routes[route.twin].row.id for route in config.hosted() if route.twin}
        self._until = until
        self._scopes = {key: t.family if until.by == "family" else None for key, t in traces.items() if not t.control}
        self._questions: dict[tuple[str, str | None], _Question] = {}
        self._outcomes: dict[Place, bool | None] = {}
        self._begun: set[Place] = set()
        self._uncounted: dict[str, set[str]] = {route_id: set() for route_id in self._twins}
        """Per hosted route: traces that were begun and are in no test yet."""
        self._order: dict[str, int] = {}
        self._trials = [trial for trial in trials if trial.trace_id in self._scopes]
        for trial in self._trials:
            self._order.setdefault(trial.trace_id, trial.position)
            if trial.route_id in self._twins:
                self._question(trial.route_id, trial.trace_id).plan(trial)

    def _question(self, route_id: str, trace_id: str) -> _Question:
        scope = self._scopes[trace_id]
        key = (route_id, scope)
        if key not in self._questions:
            self._questions[key] = _Question(self._until, route_id, self._twins[route_id], scope)
        return self._questions[key]

    def begin(self, trial: TrialRow) -> None:
        """Note that a trial is being sent: the other side of its pair is needed from now on."""
        place = (trial.route_id, trial.trace_id, trial.repeat)
        if trial.route_id in self._twins and trial.trace_id in self._scopes and place not in self._outcomes:
            self._uncounted[trial.route_id].add(trial.trace_id)
        self._begun.add(place)

    def tell(self, trial: TrialRow, exchange: Exchange | None) -> None:
        """Take the answer of a trial; ``None``: it was given up. What was told of a trial first counts."""
        self.begin(trial)
        if trial.trace_id not in self._scopes:
            return
        outcome = None if exchange is None else self._refused(trial.route_id, exchange)
        self._outcomes.setdefault((trial.route_id, trial.trace_id, trial.repeat), outcome)
        for hosted_id, twin_id in self._twins.items():
            if trial.route_id in {hosted_id, twin_id}:
                counted = self._question(hosted_id, trial.trace_id).advance(self._outcomes)
                self._uncounted[hosted_id].difference_update(counted)

    def needed(self, trial: TrialRow) -> bool:
        """Whether somebody still wants the answer of a trial that was not sent.

        Controls always are: they say what the route normally looks like. A hosted trial is while its question is open;
        one of a twin while that holds for a hosted route that it is the twin of, or was sent there.
        """
        if trial.trace_id not in self._scopes:
            return True
        if trial.route_id in self._twins:
            return not self._question(trial.route_id, trial.trace_id).decided
        hosted = [route_id for route_id, twin_id in self._twins.items() if twin_id == trial.route_id]
        return not hosted or any(self._wants(route_id, trial) for route_id in hosted)

    def _wants(self, route_id: str, trial: TrialRow) -> bool:
        question = self._question(route_id, trial.trace_id)
        planned = question.repeats.get(trial.trace_id, [])
        # The twin's additional repeat is compared with its others: it is wanted where one of them is.
        repeats = [trial.repeat] if trial.repeat in planned else planned
        sent = any((route_id, trial.trace_id, repeat) in self._begun for repeat in repeats)
        return sent or (bool(planned) and not question.decided)

    def twin_of(self, trial: TrialRow) -> str | None:
        """Return the id of the twin that a trial waits for, ``None`` where it waits for none."""
        return self._twins.get(trial.route_id) if trial.trace_id in self._scopes else None

    def waiting(self, trial: TrialRow) -> int:
        """Return how many earlier traces of this hosted route were begun and are in no test yet.

        Only earlier ones: the first of all never waits, so neither do the others for ever.
        """
        mine = self._order[trial.trace_id]
        return sum(
            self._order[trace_id] < mine and not self._question(trial.route_id, trace_id).decided
            for trace_id in self._uncounted[trial.route_id]
        )

    def findings(self, states: Mapping[str, str]) -> list[Finding]:
        """Return how the questions stand, in the order of the plan; ``states`` of the trials by id."""
        found = []
        for (route_id, family), question in self._questions.items():
            mine = [t for t in self._trials if t.route_id == route_id and self._scopes[t.trace_id] == family]
            test = question.test
            found.append(
                Finding(
                    route=self._names[route_id],
                    family=family,
                    answer=test.answer,
                    interval=test.interval,
                    log_e=test.log_e,
                    missing=question.missing,
                    requests=len(mine),
                    spared=sum(states[trial.id] == "spared" for trial in mine),
                )
            )
        return found
