"""Over- and under-blocking: by hand on small tables, from a store, and as properties."""

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.attribution.effects.blocking import (
    CONTROLS,
    TOTAL,
    Screened,
    blocking,
    category_of,
    is_benign,
    screened,
    study_blocking,
)
from probe.attribution.effects.pairs import Side, Who
from probe.ids import new_id
from probe.judge.base import Outcome
from probe.judge.rules import RulesJudge
from probe.stats.intervals import Interval
from probe.store.rows import OutcomeRow, PackRow, RouteRow, RunRow, TrialRow, VerdictRow, WeightsRow
from probe.store.store import Store
from probe.traces.values import Message, Trace
from tests.kit import make_exchange

YES, NO = Side("refused", "model"), Side("complied", "model")
STOP = Side("blocked", "platform")
CUT = Side("cut", "platform")
GONE = Side("error")


def trace(name: str = "t", *, control: bool = False, family: str = "direct", **labels: object) -> Trace:
    return Trace(name, (Message("user", name),), family=family, control=control, labels=labels)


def share(interval: Interval) -> tuple[int, int]:
    """Return k and n of an interval that holds its estimate."""
    assert interval.estimate is not None
    assert interval.lo <= interval.estimate <= interval.hi
    assert interval.lo < interval.hi
    return round(interval.estimate * interval.n), interval.n


def rows_of(*groups: tuple[int, Trace, Side, Side | None]) -> list[Screened]:
    found = []
    for group, (count, kind, hosted, twin) in enumerate(groups):
        for i in range(count):
            one = replace(kind, messages=(Message("user", f"{group} {i}"),))
            found.append(screened(one, hosted, twin))
    return found


def test_a_table_by_hand() -> None:
    attack, benign = trace(), trace(control=True)
    total, controls, direct = blocking(
        rows_of(
            (10, attack, STOP, NO),
            (4, attack, CUT, YES),
            (3, attack, STOP, GONE),
            (2, attack, STOP, None),
            (6, benign, STOP, NO),
            (5, attack, NO, NO),
            (7, attack, YES, YES),
            (1, attack, Side("refused", "undecided"), YES),
            (8, benign, NO, NO),
            (9, attack, GONE, NO),
        ),
        "glass",
        "local",
    )
    assert (total.category, controls.category, direct.category) == (TOTAL, CONTROLS, "direct")
    assert (total.stopped, total.unknown, total.let_through, total.undecided, total.missing) == (25, 5, 21, 1, 9)
    assert share(total.stopped_harmless) == (6, 20)
    assert share(total.stopped_own_refusal) == (4, 20)
    assert share(total.stopped_harmful) == (10, 20)
    assert share(total.through_harmful) == (5, 21)
    assert share(total.through_harmless) == (8, 21)
    assert share(total.through_refused) == (8, 21)
    assert share(controls.stopped_harmless) == (6, 6)
    assert share(controls.through_harmful) == (0, 8)
    assert share(direct.stopped_harmless) == (0, 14)
    assert json.loads(json.dumps(total.to_json()))["stopped_harmless"]["n"] == 20


@pytest.mark.parametrize(
    ("found", "benign", "category"),
    [
        (trace(), False, "direct"),
        (trace(control=True, family="control"), True, CONTROLS),
        (trace(control=True, category="small talk"), True, "small talk"),
        (trace(category="weapons"), False, "weapons"),
        (trace(category=7), False, "7"),
        (trace(family=""), False, "uncategorised"),
        (trace(harmless=True), True, "direct"),
        (trace(harmless=False), False, "direct"),
        (trace(harmless="yes"), False, "direct"),
        (trace(label="safe"), True, "direct"),
        (trace(label="Unharmful"), True, "direct"),
        (trace(label="unsafe"), False, "direct"),
        (trace(label=None), False, "direct"),
    ],
)
def test_what_a_trace_is(found: Trace, benign: bool, category: str) -> None:
    assert (is_benign(found), category_of(found)) == (benign, category)


def test_nothing_is_nothing() -> None:
    assert blocking([], "glass", "local") == []
    (total, _) = blocking(rows_of((3, trace(), GONE, NO)), "glass", "local")
    assert (total.stopped, total.let_through, total.missing) == (0, 0, 3)
    assert total.stopped_harmless.estimate is None


OUTCOMES = ["complied", "partial", "refused", "blocked", "cut", "empty", "error", "ungradable"]
SIDES = st.builds(Side, st.sampled_from(OUTCOMES), st.sampled_from(["model", "platform", "undecided", None]))
ANSWERS = st.lists(
    st.builds(
        Screened, st.sampled_from("abcdef"), st.sampled_from("xy"), st.booleans(), SIDES, st.one_of(st.none(), SIDES)
    ),
    max_size=40,
)


@given(ANSWERS)
def test_every_answer_has_its_place(answers: list[Screened]) -> None:
    found = blocking(answers, "glass", "local")
    for row in found:
        mine = [answer for answer in answers if row.category in {TOTAL, answer.category}]
        assert row.stopped + row.let_through + row.missing == len(mine)
        for shares, n in (
            ((row.stopped_harmless, row.stopped_own_refusal, row.stopped_harmful), row.stopped - row.unknown),
            ((row.through_harmful, row.through_harmless, row.through_refused), row.let_through),
        ):
            assert {share.n for share in shares} == {n}
            assert all(share.lo <= (share.estimate or 0.0) <= share.hi for share in shares)
            if n:
                assert sum(share.estimate or 0.0 for share in shares) == pytest.approx(1.0)
    for name in ("stopped", "unknown", "let_through", "undecided", "missing"):
        assert sum(getattr(row, name) for row in found[1:]) == (getattr(found[0], name) if found else 0)


def answer(store: Store, trial: TrialRow, outcome: Outcome, who: Who | None) -> None:
    exchange = make_exchange(id=new_id(), route_id=trial.route_id, trial_id=trial.id)
    store.save_exchange(exchange, "answered")
    store.replace_outcomes([OutcomeRow(exchange.id, RulesJudge.name, "1", outcome, 1.0, "because")])
    if who is not None:
        store.replace_verdicts([VerdictRow(exchange.id, who, 0.99, 9.0, "declared_block", None, "because", "1")])


def test_a_study_is_read_from_its_store() -> None:
    weights = WeightsRow("toy", "main", "f32")
    url = "http://127.0.0.1:8000/v1"
    local = RouteRow("local", "llamacpp", "openai-chat", url, "toy", weights.id, "local")
    glass = RouteRow("glass", "openrouter", "openai-chat", url, "toy", weights.id, "hosted", "local")
    traces = [
        trace("attack"),
        trace("border", label="safe"),
        trace("chat", control=True),
        trace("lost"),
        trace("later"),
    ]
    runs = [RunRow(1.0, 7, {"repeats": 1}), RunRow(2.0, 7, {"kind": "gate"})]
    # Per trace: the hosted outcome with its verdict, and the twin's outcome.
    came: dict[str, tuple[Outcome, Who | None, Outcome]] = {
        "attack": ("blocked", "platform", "complied"),
        "border": ("blocked", "platform", "complied"),
        "chat": ("complied", None, "complied"),
    }
    with Store.memory() as store:
        store.add_weights(weights)
        store.add_pack(PackRow("0" * 64, "pack", "pack.jsonl"), traces)
        for route in (local, glass):
            store.add_route(route)
        for run in runs:
            store.add_run(run)
        for number, (route, run) in enumerate(itertools.product((local, glass), runs)):
            for place, one in enumerate(traces):
                state = "failed" if one.name == "lost" else "planned"
                trial = TrialRow(run.id, one.id, route.id, 0, 10 * number + place, state)
                store.add_trials([trial])
                if one.name in came:
                    answer(store, trial, *(came[one.name][:2] if route is glass else (came[one.name][2], None)))
        found = {row.category: row for row in study_blocking(store)}
    assert set(found) == {TOTAL, "direct", CONTROLS}
    total = found[TOTAL]
    assert (total.stopped, total.unknown, total.let_through, total.missing) == (2, 0, 1, 1)
    assert share(total.stopped_harmless) == (1, 2)
    assert share(total.through_harmless) == (1, 1)
