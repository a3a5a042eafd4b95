"""Which stored answers the gate is asked about, and what is kept beside its answer."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from probe.attribution.cases import ScoringDesk
from probe.attribution.gate import stored
from probe.attribution.gate.values import CANNOT_TELL, Gate
from probe.attribution.settings import Settings
from probe.evidence.case import Case
from probe.ids import new_id
from probe.store.rows import RouteRow, RunRow, TrialRow, WeightsRow
from probe.store.store import Store
from probe.traces.values import Message, Sampling, Trace
from tests.kit import completion, make_exchange

REFUSAL = "I'm sorry, but I can't help with that."
WEIGHTS = WeightsRow("toy")
LOCAL = RouteRow("local", "llamacpp", "openai-chat", "http://127.0.0.1:1/v1", "toy", WEIGHTS.id, "local")
GLASS = RouteRow("glass", "openrouter", "openai-chat", "http://127.0.0.1:2/v1", "toy", WEIGHTS.id, "hosted", "local")
Says = Callable[[int], str]


def control(number: int, temperature: float = 1.0) -> Trace:
    return Trace(f"c{number}", (Message("user", f"Q{number}?"),), Sampling(temperature=temperature), control=True)


def study(traces: Sequence[Trace], hosted: Says, twin: Says, *, kind: str = "", repeats: int = 1) -> Store:
    store = Store.memory()
    store.add_weights(WEIGHTS)
    for route in (LOCAL, GLASS):
        store.add_route(route)
    store.add_traces(traces)
    record(store, traces, hosted, twin, kind=kind, repeats=repeats)
    return store


def record(
    store: Store, traces: Sequence[Trace], hosted: Says, twin: Says, *, kind: str = "", repeats: int = 1
) -> None:
    run = RunRow(0.0, 0, {"kind": kind} if kind else {})
    store.add_run(run)
    for number, trace in enumerate(traces):
        for route, says in ((GLASS, hosted), (LOCAL, twin)):
            for repeat in range(1, repeats + 1):
                trial = TrialRow(run.id, trace.id, route.id, repeat, 0)
                store.add_trials([trial])
                body = {
                    "messages": [{"role": m.role, "content": m.content} for m in trace.messages],
                    "temperature": trace.sampling.temperature,
                }
                made = make_exchange(
                    id=new_id(), route_id=route.id, trial_id=trial.id, request_body=body,
                    response_body=completion(says(number)),
                )  # fmt: skip
                store.save_exchange(made, "answered")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Case], list[Case]]]:
    """What the tests were asked about, in place of the tests."""
    seen: list[tuple[list[Case], list[Case]]] = []

    def listen(hosted: Sequence[Case], twin: Sequence[Case], settings: Settings) -> Gate:
        seen.append((list(hosted), list(twin)))
        return Gate(CANNOT_TELL, None, "Heard.", {}, len(hosted), None, settings.gate_delta, settings.alpha)

    monkeypatch.setattr(stored, "ask", listen)
    return seen


def ask(store: Store) -> Gate:
    desk = ScoringDesk(store, None, WEIGHTS.id)
    return asyncio.run(stored.ask_stored(store, GLASS, LOCAL, desk, Settings()))


def test_only_answers_to_controls_that_comply(asked: list[tuple[list[Case], list[Case]]]) -> None:
    traces = [control(n) for n in range(10)]
    traces[9] = replace(traces[9], control=False)
    store = study(traces, lambda n: REFUSAL if n < 2 else f"Answer {n}.", lambda n: f"Own answer {n}.")
    ask(store)
    hosted, twin = asked[0]
    assert sorted(case.text for case in hosted) == [f"Answer {n}." for n in range(2, 9)]
    assert len(twin) == 9
    assert {case.unscored for case in hosted} == {"no twin scores texts"}


def test_prompts_that_the_twin_declines_take_no_part_at_any_temperature(
    asked: list[tuple[list[Case], list[Case]]],
) -> None:
    traces = [control(n, t) for n in range(4) for t in (1.0, 0.0)]
    store = study(traces, lambda n: f"Answer {n}.", lambda n: REFUSAL if n == 2 else f"Own answer {n}.")
    ask(store)
    hosted, twin = asked[0]
    # Number 2 is the second prompt at temperature 1; its answer at temperature 0 goes with it.
    assert sorted(case.text for case in hosted) == [f"Answer {n}." for n in (0, 1, 4, 5, 6, 7)]
    assert {case.text for case in twin} == {f"Own answer {n}." for n in (0, 1, 4, 5, 6, 7)}


def test_a_text_that_answers_everything_is_not_about_the_weights(asked: list[tuple[list[Case], list[Case]]]) -> None:
    traces = [control(n) for n in range(8)]
    said = "This topic is not available here."
    gate = ask(study(traces, lambda n: said if n < 3 else f"Answer {n}.", lambda n: f"Own answer {n}."))
    assert len(asked[0][0]) == 5
    assert "3 answers were left out" in gate.sentence
    # Twice may be chance, and what the twin says too may be the weights'.
    ask(study(traces, lambda n: said if n < 2 else f"Answer {n}.", lambda n: f"Own answer {n}."))
    ask(study(traces, lambda n: said if n < 3 else f"Answer {n}.", lambda n: said if n == 7 else f"Own answer {n}."))
    assert [len(hosted) for hosted, _ in asked[1:]] == [8, 8]


def test_a_large_study_is_read_in_part_and_the_gate_s_own_run_first(
    asked: list[tuple[list[Case], list[Case]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "PROMPTS", 5)
    traces = [control(n) for n in range(20)] + [control(n, 0.0) for n in range(20)]
    store = study(traces, lambda n: f"Answer {n}.", lambda n: f"Own answer {n}.", repeats=6)
    record(store, traces[:3], lambda n: f"Gate answer {n}.", lambda n: f"Own gate answer {n}.", kind="gate")
    ask(store)
    hosted, twin = asked[0]
    counted = {temperature: set() for temperature in (1.0, 0.0)}  # type: dict[float, set[str]]
    for case in hosted:
        counted[case.sampling["temperature"]].add(case.trace_id)
    assert {len(found) for found in counted.values()} == {5}
    assert {trace.id for trace in traces[:3]} <= counted[1.0]
    assert sum(case.text.startswith("Gate answer") for case in hosted) == 3
    per_trace = [case.trace_id for case in hosted]
    assert max(per_trace.count(key) for key in per_trace) == stored.HOSTED_ANSWERS
    assert {case.trace_id for case in twin} == {case.trace_id for case in hosted}


def test_nothing_stored_is_no_error(asked: list[tuple[list[Case], list[Case]]]) -> None:
    ask(study([], lambda n: "", lambda n: ""))
    assert asked == [([], [])]


def test_what_an_analysis_found_beside_the_gate_stays(asked: list[tuple[list[Case], list[Case]]]) -> None:
    store = study([control(0)], lambda n: "Answer.", lambda n: "Own answer.")
    gate = ask(store)
    stored.save_gate(store, GLASS, LOCAL, gate, "1")
    assert store.gates(GLASS.id)[0].detail["prompt_finding"] is None
    store.replace_gates([stored.gate_row(GLASS, LOCAL, gate, "the route reports 21 more prompt tokens", "1")])
    stored.save_gate(store, GLASS, LOCAL, replace(gate, sentence="New."), "2")
    (row,) = store.gates(GLASS.id)
    assert (row.sentence, row.code_version) == ("New.", "2")
    assert row.detail["prompt_finding"] == "the route reports 21 more prompt tokens"
