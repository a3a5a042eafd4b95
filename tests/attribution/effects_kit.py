"""A store with trials, outcomes and verdicts, as an analysis leaves them: what the effects are made from."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from probe.store import Store
from probe.store.rows import OutcomeRow, RouteRow, RunRow, TrialRow, TrialState, VerdictRow, WeightsRow
from probe.traces.values import Message, Trace
from tests.store.small_study import exchange_of

Said = tuple[str, Literal["model", "platform", "undecided"] | None]
"""Outcome, and who is behind it."""

YES: Said = ("refused", "model")
NO: Said = ("complied", "model")
STOP: Said = ("blocked", "platform")
ERROR: Said = ("error", None)


class Desk:
    """Builds a study in memory; trials are sent in the order in which they are added."""

    def __init__(self) -> None:
        self.store = Store.memory()
        self.routes: dict[str, RouteRow] = {}
        self._position = 0

    def route(self, name: str, *, twin: str | None = None, weights: str = "toy", url: str = "http://x") -> RouteRow:
        """Add a route; with a twin it is a hosted one."""
        row = WeightsRow(weights)
        self.store.add_weights(row)
        role: Literal["hosted", "local"] = "hosted" if twin else "local"
        made = RouteRow(name, "vllm", "openai-chat", url, weights, row.id, role, twin)
        self.store.add_route(made)
        self.routes[name] = made
        return made

    def run(self, number: int = 0, **manifest: Any) -> RunRow:
        """Add a run."""
        made = RunRow(1000.0 + number, number, manifest)
        self.store.add_run(made)
        return made

    def traces(self, count: int, *, family: str = "a", control: bool = False, text: str = "") -> list[Trace]:
        """Add traces."""
        made = [
            Trace(f"{family}{n}", (Message("user", f"{family} {n} {text}"),), family=family, control=control)
            for n in range(count)
        ]
        self.store.add_traces(made)
        return made

    def ask(
        self,
        run: RunRow,
        route: str,
        traces: Iterable[Trace],
        said: Iterable[Said] | Said,
        *,
        repeat: int = 1,
        state: TrialState = "answered",
    ) -> None:
        """Add a trial per trace with what came of it."""
        chosen = list(traces)
        answers = [said] * len(chosen) if isinstance(said, tuple) else list(said)
        with self.store.transaction():
            for trace, (outcome, who) in zip(chosen, answers, strict=True):  # type: ignore[misc]
                self._one(run, self.routes[route], trace, repeat, state, outcome, who)

    def _one(
        self, run: RunRow, route: RouteRow, trace: Trace, repeat: int, state: TrialState, outcome: str, who: Any
    ) -> None:
        trial = TrialRow(run.id, trace.id, route.id, repeat, self._position)
        self._position += 1
        self.store.add_trials([trial])
        if state != "answered":
            self.store.mark_trials([trial.id], state)
            return
        exchange = exchange_of(route.id, trial.id)
        self.store.save_exchange(exchange, "answered")
        self.store.replace_outcomes([OutcomeRow(exchange.id, "rules", "1", outcome, 1.0, "so")])  # type: ignore[arg-type]
        if who is not None:
            self.store.replace_verdicts([VerdictRow(exchange.id, who, 0.5, 0.0, None, None, "so", "0")])

    def both(
        self, run: RunRow, traces: Iterable[Trace], hosted: Any, twin: Any, names: Mapping[str, str] | None = None
    ) -> None:
        """Ask the hosted route ``glass`` and the twin ``local`` the same traces."""
        chosen, given = list(traces), names or {"hosted": "glass", "twin": "local"}
        self.ask(run, given["hosted"], chosen, hosted)
        self.ask(run, given["twin"], chosen, twin)


def desk() -> Desk:
    """A study with a twin ``local`` and a hosted route ``glass``."""
    made = Desk()
    made.route("local")
    made.route("glass", twin="local")
    return made
