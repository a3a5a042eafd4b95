import threading
from dataclasses import replace
from types import MappingProxyType

import pytest
from small_study import Study

from probe.errors import StoreError
from probe.store.rows import FactRow, PackRow, RouteRow, RunRow, TrialRow, WeightsRow
from probe.traces.values import Message, Sampling, Trace


def test_everything_comes_back(study: Study) -> None:
    store = study.store
    assert list(store.weights().values()) == [WeightsRow("toy", "main", "f32")]
    assert store.routes() == {study.route.id: study.route}
    assert store.route_named("local") == study.route
    assert store.runs() == [study.run]
    assert [t.position for t in store.trials(study.run.id)] == [0, 1, 2, 3]
    assert store.packs() == {"0" * 64: PackRow("0" * 64, "pack", "pack.jsonl")}
    assert [t.name for t in store.traces(pack_id="0" * 64).values()] == [f"trace {n}" for n in range(4)]
    assert store.traces(run_id=study.run.id) == store.traces() == store.traces(pack_id="0" * 64)
    assert store.traces(run_id="none") == {}


def test_a_trace_comes_back_with_its_id(study: Study) -> None:
    trace = Trace(
        "ünïcode \x00",
        (Message("system", "lone \udcff"), Message("user", "你好")),
        Sampling(temperature=0.7, top_k=20, seed=3),
        family="f",
        control=True,
        labels=MappingProxyType({"severity": 2, "tags": ["a"]}),
    )
    study.store.add_traces([trace])
    got = study.store.traces()[trace.id]
    assert got == replace(trace, labels=dict(trace.labels))
    assert got.id == trace.id


def test_adding_again_changes_nothing_but_what_describes_a_trace(study: Study) -> None:
    store = study.store
    trace = next(iter(store.traces().values()))
    store.add_route(study.route)
    store.add_run(replace(study.run, seed=8))
    store.add_trials(replace(trial, id="other", state="failed") for trial in study.trials[:1])
    store.add_pack(PackRow("1" * 64, "second", "second.jsonl"), [replace(trace, name="renamed", control=True), trace])
    assert store.runs() == [study.run]
    assert store.trials(study.run.id) == study.trials
    assert len(store.traces()) == 4
    assert store.traces(pack_id="1" * 64) == {trace.id: trace}
    store.add_traces([replace(trace, name="renamed", control=True)])
    assert store.traces()[trace.id].name == "renamed"


def test_an_edited_route_is_a_new_route(study: Study) -> None:
    edited = replace(study.route, request=MappingProxyType({"a": [2]}))
    study.store.add_route(edited)
    assert edited.id != study.route.id
    assert study.store.route_named("local").id == edited.id
    assert list(study.store.routes()) == [study.route.id, edited.id]
    with pytest.raises(StoreError, match="no route 'hosted'"):
        study.store.route_named("hosted")


def test_a_route_needs_its_weights(study: Study) -> None:
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        study.store.add_route(RouteRow("x", "vllm", "openai-chat", "http://x", "m", "no weights", "local"))


def test_facts_are_kept_in_the_order_of_time(study: Study) -> None:
    facts = [FactRow(study.route.id, at, kind, value) for at, kind, value in ((2.0, "a", 1), (1.0, "a", None))]
    study.store.add_facts([*facts, FactRow(study.route.id, 3.0, "b", {"models": ["m"]})])
    assert study.store.facts(study.route.id, "a") == [facts[1], facts[0]]
    assert [fact.value for fact in study.store.facts(study.route.id)] == [None, 1, {"models": ["m"]}]


def test_trials_can_be_given_up_and_opened_again(study: Study) -> None:
    store, ids = study.store, [trial.id for trial in study.trials]
    store.save_exchange(study.exchange(0), "answered")
    store.mark_trials(ids, "failed")
    assert store.count_trials(study.run.id) == {"planned": 0, "answered": 1, "failed": 3, "spared": 0}
    store.mark_trials(ids, "planned")
    assert store.count_trials(study.run.id) == {"planned": 3, "answered": 1, "failed": 0, "spared": 0}
    assert len(store.trials(route_id=study.route.id, state="planned")) == 3
    with pytest.raises(ValueError, match="by saving its exchange"):
        store.mark_trials(ids, "answered")


def test_a_run_ends_and_is_taken_up_again(study: Study) -> None:
    study.store.end_run(study.run.id, 5.5)
    assert study.store.runs()[0].ended_at == 5.5
    study.store.end_run(study.run.id, None)
    assert study.store.runs() == [study.run]


def test_a_seed_that_does_not_fit_is_a_sentence(study: Study) -> None:
    with pytest.raises(StoreError, match="cannot be stored"):
        study.store.add_run(RunRow(1.0, 2**64, {}))


def test_a_transaction_is_all_or_nothing_and_nests(study: Study) -> None:
    store = study.store

    def fail() -> None:
        with store.transaction():
            store.add_run(RunRow(1.0, 1, {}))
            with store.transaction():
                store.add_run(RunRow(2.0, 1, {}))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.runs() == [study.run]
    with store.transaction():
        store.add_run(RunRow(1.0, 1, {}))
    assert len(store.runs()) == 2


def test_threads_share_a_store(study: Study) -> None:
    def add(number: int) -> None:
        for repeat in range(20):
            study.store.add_trials(
                [TrialRow(study.run.id, study.trials[0].trace_id, study.route.id, 100 * number + repeat, repeat)]
            )

    threads = [threading.Thread(target=add, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(study.store.trials(study.run.id)) == 84
