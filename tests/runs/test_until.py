"""Questions and turns by themselves: what they count, in which order, and whom they let wait."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from probe.config import Config, load_config
from probe.errors import ConfigError
from probe.runs.execute import load_packs
from probe.runs.plan import Pack, manifest, plan_run, same_plan
from probe.runs.turns import Turn, Turns
from probe.runs.until import Questions, Until
from probe.stats.sequential import DIFFERENT, SAME
from probe.store.rows import TrialRow
from probe.wire.values import Exchange
from tests.kit import completion, make_exchange
from tests.study_kit import hosted_route, local_route, write_config, write_pack

HOSTED = ("one", "two")


def answer(text: str) -> Exchange:
    return make_exchange(response_body=completion(text))


YES, NO, BROKEN = answer("yes"), answer("no"), answer("?")


def refused(_route_id: str, exchange: Exchange) -> bool | None:
    return {YES: False, NO: True}.get(exchange)


class Plan:
    """A plan over a twin and two hosted routes, with the trials to be told by name."""

    def __init__(self, folder: Path, traces: int, *, repeats: int = 1, by: str = "route") -> None:
        write_pack(folder / "pack.jsonl", traces)
        routes = {"local": local_route("http://127.0.0.1:1")}
        routes |= {name: hosted_route(f"http://127.0.0.1:1/{name}") for name in HOSTED}
        write_config(folder / "probe.toml", routes)
        self.config: Config = load_config(folder / "probe.toml")
        self.packs: list[Pack] = load_packs([str(folder / "pack.jsonl")])
        self.run, self.trials = plan_run(self.config, self.packs, seed=1, repeats=repeats)
        self.traces = {trace.id: trace for trace in self.packs[0].traces}
        self.ids = {name: route.row.id for name, route in self.config.routes.items()}
        until = Until(by="family" if by == "family" else "route")
        self.questions = Questions(until, self.config, self.trials, self.traces, refused)

    def of(self, name: str) -> Iterator[TrialRow]:
        return (trial for trial in self.trials if trial.route_id == self.ids[name])

    def tell(self, name: str, exchange: Exchange | None, count: int) -> None:
        for _, trial in zip(range(count), self.of(name), strict=False):
            self.questions.tell(trial, exchange)

    def finding(self, name: str, family: str | None = None):  # noqa: ANN201
        states = {trial.id: "planned" for trial in self.trials}
        return next(f for f in self.questions.findings(states) if (f.route, f.family) == (name, family))


def test_pairs_count_in_the_order_of_the_plan_and_not_as_they_come(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 12)
    plan.tell("local", YES, 99)
    first, *others = plan.of("one")
    for trial in others:
        plan.questions.tell(trial, NO)
    assert plan.finding("one").interval.n == 0, "the first of the plan is still on its way"
    plan.questions.tell(first, NO)
    found = plan.finding("one")
    assert (found.answer, found.interval.n) == (DIFFERENT, 6), "what came after the answer is not counted"
    assert plan.finding("two").answer is None


def test_the_state_follows_from_the_answers_in_whatever_order_they_are_told(tmp_path: Path) -> None:
    plan, again = Plan(tmp_path, 9), Plan(tmp_path, 9)
    told = [(trial, NO if trial.route_id == plan.ids["one"] else YES) for trial in plan.trials]
    for trial, exchange in told:
        plan.questions.tell(trial, exchange)
    for trial, exchange in sorted(told, key=lambda pair: pair[0].id, reverse=True):
        again.questions.tell(trial, exchange)
    assert plan.finding("one") == again.finding("one")
    assert plan.finding("two") == again.finding("two")


def test_answers_that_are_neither_and_trials_given_up_are_missing(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 5)
    plan.tell("local", YES, 99)
    for trial, exchange in zip(plan.of("one"), (NO, BROKEN, None, YES, NO), strict=True):
        plan.questions.tell(trial, exchange)
    found = plan.finding("one")
    assert (found.interval.n, found.missing, found.interval.estimate) == (3, 2, pytest.approx(2 / 3))


def test_repeats_of_a_trace_are_one_value(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 2, repeats=3)
    assert sum(1 for _ in plan.of("local")) == 2 * 4, "the twin has one more, to be compared with itself"
    plan.tell("local", YES, 99)
    for trial in plan.of("one"):
        plan.questions.tell(trial, {1: NO, 2: YES, 3: BROKEN}[trial.repeat])
    assert plan.finding("one").interval.to_json()["n"] == 2
    assert plan.finding("one").interval.estimate == 0.5


def test_the_twin_is_needed_as_long_as_one_hosted_route_is_open_or_was_asked(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 12)
    plan.tell("local", YES, 6 + 6)  # each trace twice: once for the pairs, once for the A/A control
    plan.tell("one", NO, 6)
    last_of_twin, last_of_one, last_of_two = (list(plan.of(name))[-1] for name in ("local", *HOSTED))
    assert not plan.questions.needed(last_of_one)
    assert plan.questions.needed(last_of_two)
    assert plan.questions.needed(last_of_twin), "route two still wants it"
    plan.tell("two", NO, 6)
    assert not plan.questions.needed(last_of_twin)
    plan.questions.begin(last_of_two)
    assert plan.questions.needed(last_of_twin), "it was sent over route two, so its pair is worth having"


def test_families_are_questions_of_their_own(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 30, by="family")
    plan.tell("local", YES, 99)
    for trial in plan.of("one"):
        plan.questions.tell(trial, NO if plan.traces[trial.trace_id].family == "even" else YES)
    assert plan.finding("one", "even").answer == DIFFERENT
    assert plan.finding("one", "odd").answer is None
    needed = [plan.questions.needed(t) for t in plan.of("one") if plan.traces[t.trace_id].family == "even"]
    assert not any(needed)


def test_a_route_that_never_differs_is_the_same_within_delta(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 130)
    for name in ("local", "one"):
        plan.tell(name, YES, 999)
    found = plan.finding("one")
    assert found.answer == SAME
    assert found.interval.n < 130


def test_hosted_requests_keep_abreast_of_a_slow_twin_and_go_on_when_it_is_gone(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 6)
    mine, own = list(plan.of("one")), list(plan.of("local"))

    async def scene() -> None:
        turns = Turns(questions=plan.questions)
        for trial in mine[:2]:
            assert await turns.turn(trial, 2, take=True) is Turn.SEND
            await turns.end(trial, NO)
        held = asyncio.ensure_future(turns.turn(mine[2], 2, take=True))
        await asyncio.sleep(0)
        assert not held.done(), "two traces wait for the twin"
        first = [trial for trial in own if trial.trace_id == mine[0].trace_id]
        for trial in first:
            await turns.end(trial, YES)
        assert await held is Turn.SEND
        late = asyncio.ensure_future(turns.turn(mine[3], 2, take=True))
        await asyncio.sleep(0)
        assert not late.done()
        await turns.leave(plan.ids["local"])
        assert await late is Turn.SEND, "nobody waits for a twin that sends nothing more"

    asyncio.run(scene())


def test_the_first_of_the_plan_never_waits_for_those_behind_it(tmp_path: Path) -> None:
    """As after a kill: the others were answered already."""
    plan = Plan(tmp_path, 6)
    first, *others = plan.of("one")
    for trial in others:
        plan.questions.tell(trial, NO)
    assert asyncio.run(Turns(questions=plan.questions).turn(first, 2, take=True)) is Turn.SEND


def test_trials_of_a_trace_stay_together_in_an_order_that_the_seed_gives(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 8, repeats=2)
    order = [trial.trace_id for trial in plan.trials]
    per_trace = 2 * 3 + 1
    assert all(len(set(order[at : at + per_trace])) == 1 for at in range(0, len(order), per_trace))
    assert list(dict.fromkeys(order)) != list(plan.traces), "shuffled"
    assert len({tuple(t.route_id for t in plan.trials[at : at + per_trace]) for at in range(0, 56, per_trace)}) > 1
    key = [(t.trace_id, t.route_id, t.repeat) for t in plan.trials]
    for seed, same in ((1, True), (2, False)):
        _, trials = plan_run(plan.config, plan.packs, seed=seed, repeats=2)
        assert ([(t.trace_id, t.route_id, t.repeat) for t in trials] == key) == same


def test_controls_are_not_asked_twice_and_a_run_may_do_without(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 4)
    write_pack(tmp_path / "control.jsonl", 3, control=True)
    packs = load_packs([str(tmp_path / "control.jsonl")])
    _, controls = plan_run(plan.config, packs, seed=1, repeats=1)
    assert len(controls) == 3 * 3
    run, without = plan_run(plan.config, plan.packs, seed=1, repeats=1, aa=False)
    assert (len(without), run.manifest["aa"]) == (4 * 3, False)
    assert plan.run.manifest["aa"] is True


def test_a_run_is_taken_up_with_the_same_question_only(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 2)
    until = Until(alpha=0.01).to_json()
    run, _ = plan_run(plan.config, plan.packs, seed=1, repeats=1, until=until)
    assert run.manifest["until"] == "decided"

    def wanted(seed: int = 1, *, aa: bool = True, **more: object) -> dict[str, object]:
        return manifest(plan.config, plan.packs, seed=seed, repeats=1, aa=aa, until=more)

    assert same_plan(run, wanted(**until))
    assert not same_plan(run, wanted(2, **until))
    assert not same_plan(run, wanted(aa=False, **until))
    assert not same_plan(run, wanted(**until | {"alpha": 0.05}))
    assert not same_plan(run, wanted())
    older = {key: value for key, value in plan.run.manifest.items() if key != "aa"}
    object.__setattr__(plan.run, "manifest", older)
    assert same_plan(plan.run, wanted()), "a run of a version without A/A controls is taken up"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"alpha": 0.0}, "--alpha"),
        ({"delta": 2.0}, "--delta"),
        ({"alpha": float("nan")}, "--alpha"),
        ({"by": "x"}, "--by"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Until(**settings)  # type: ignore[arg-type]
