"""What a report is made from: plain values, gathered from the store by the caller, so that reports need no database."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from probe.attribution.effects.blocking import Blocking
from probe.attribution.effects.pairs import ANSWERS, REFUSALS, Effect
from probe.stats.intervals import Interval, wilson


@dataclass(frozen=True, slots=True)
class RouteSummary:
    """One route's counts over its attack trials (controls apart).

    ``outcomes``: trials by outcome. ``verdicts``: refusals and stopped answers by ``model``, ``platform``,
    ``undecided``. ``mechanisms``: those by the platform, by mechanism. ``stopped``: cut or empty answers among the
    outcomes whose verdict is the platform; they count as refused. ``refusal``: the rate where the caller knows better
    than Wilson over independent trials (repeats of traces). ``spared``: trials that were not sent because the question
    was answered; they count nowhere else. ``remarks`` are sentences to be read beside its rates: who else served its
    answers, and what a router changed.
    """

    name: str
    role: str
    backend: str
    model: str
    twin: str | None
    outcomes: Mapping[str, int]
    verdicts: Mapping[str, int] = field(default_factory=dict)
    mechanisms: Mapping[str, int] = field(default_factory=dict)
    stopped: int = 0
    refusal: Interval | None = None
    spared: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def trials(self) -> int:
        """All trials, whatever came of them."""
        return sum(self.outcomes.values())

    @property
    def graded(self) -> int:
        """Trials that can be scored as refused or answered."""
        return sum(self.outcomes.get(name, 0) for name in REFUSALS | ANSWERS) + self.stopped

    @property
    def missing(self) -> int:
        """Trials that cannot be scored."""
        return self.trials - self.graded

    @property
    def refused(self) -> int:
        """Trials that were refused, blocked, or stopped by the platform."""
        return sum(self.outcomes.get(name, 0) for name in REFUSALS) + self.stopped

    @property
    def refusal_rate(self) -> Interval:
        """Refused of graded."""
        return self.refusal or wilson(self.refused, self.graded)

    def share(self, who: str) -> Interval:
        """Share of the refusals with this verdict."""
        return wilson(self.verdicts.get(who, 0), sum(self.verdicts.values()))


@dataclass(frozen=True, slots=True)
class Case:
    """One exchange worth showing: what came, who is held responsible, and each detector's sentence."""

    trial_id: str
    route: str
    trace: str
    outcome: str
    who: str
    probability: float | None
    mechanism: str | None
    layer: str | None
    evidence: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Study:
    """Everything that a report says. ``facts``: the run's manifest and the analysis' settings.

    ``truth`` holds the measures of a lab, by name. ``notes`` are sentences on method: what the verdicts rest on and
    what was not asked. ``created_at`` is ISO 8601.
    """

    title: str
    created_at: str
    version: str
    facts: Mapping[str, str]
    routes: tuple[RouteSummary, ...]
    effects: tuple[Effect, ...]
    notes: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    truth: Mapping[str, Interval] = field(default_factory=dict)
    blocking: tuple[Blocking, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What puts the whole study in doubt: A/A controls that failed, each once."""
        failed = (effect.aa.sentence for effect in self.main_effects if effect.aa is not None and effect.aa.failed)
        return tuple(dict.fromkeys(failed))

    def remarks_of(self, name: str) -> tuple[str, ...]:
        """Return what is to be read beside the rates of a route."""
        return tuple(dict.fromkeys(remark for route in self.routes if route.name == name for remark in route.remarks))

    @property
    def remarks_apart(self) -> tuple[str, ...]:
        """Return what is to be read beside the rates of routes that no effect is about: they are in tables only."""
        compared = {effect.hosted for effect in self.main_effects}
        names = dict.fromkeys(route.name for route in self.routes if route.name not in compared)
        return tuple(remark for name in names for remark in self.remarks_of(name))

    @property
    def main_effects(self) -> tuple[Effect, ...]:
        """One effect per hosted route, over all families."""
        return tuple(effect for effect in self.effects if effect.scope == "all")

    @property
    def family_effects(self) -> tuple[Effect, ...]:
        """The effects within families."""
        return tuple(effect for effect in self.effects if effect.scope != "all")
