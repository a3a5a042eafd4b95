"""What a report takes from a store: the numbers, the gate and the settings of the analysis, and nothing of its own."""

import asyncio

import pytest

from probe.attribution.pipeline import analyze
from probe.attribution.settings import Settings
from probe.errors import ReportError
from probe.report.gather import gather, stored_settings
from probe.store.rows import RunRow, TrialRow
from probe.store.store import Store
from tests.report.bad_bodies import bodies
from tests.report.bad_study import BadStudy, fill

CHOSEN = Settings(delta=0.02, alpha=0.1, gate_delta=0.07, level=0.9)


def analysed(store: Store) -> BadStudy:
    study = fill(store, bodies()[:40])
    asyncio.run(analyze(store, {}, settings=CHOSEN))
    return study


def test_the_report_has_the_numbers_of_the_analysis() -> None:
    with Store.memory() as store:
        analysed(store)
        assert stored_settings(store) == CHOSEN
        study = gather(store)
        rows = {(row.scope, row.sentence) for row in store.effects()}
        gate = store.gates()[0]
    assert {(effect.scope, effect.sentence) for effect in study.effects} == rows
    (main,) = study.main_effects
    assert main.gate is not None
    assert (main.gate.answer, main.gate.sentence) == (gate.answer, gate.sentence)
    assert main.settings.delta == CHOSEN.delta
    assert study.facts["margin δ"] == "0.02"
    assert main.difference.level == study.routes[0].refusal_rate.level == 0.9


def test_trials_of_the_gate_count_nowhere() -> None:
    with Store.memory() as store:
        filled = analysed(store)
        before = gather(store)
        run = RunRow(5000.0, 1, {"kind": "gate", "purpose": "the gate's own"})
        store.add_run(run)
        trace_id = next(trial.trace_id for trial in store.trials(route_id=filled.hosted.id))
        store.add_trials([TrialRow(run.id, trace_id, filled.hosted.id, 0, 0, "failed")])
        after = gather(store)
    assert after.routes == before.routes
    assert after.facts == before.facts
    assert after.blocking == before.blocking


def test_spared_trials_are_counted_apart() -> None:
    with Store.memory() as store:
        filled = analysed(store)
        before = gather(store)
        run = RunRow(5000.0, 1, {"repeats": 1})
        store.add_run(run)
        trace_id = next(trial.trace_id for trial in store.trials(route_id=filled.hosted.id))
        trial = TrialRow(run.id, trace_id, filled.hosted.id, 0, 0)
        store.add_trials([trial])
        store.mark_trials([trial.id], "spared")
        after = gather(store)
    summaries = {route.name: route for route in after.routes}
    assert summaries["glass"].spared == 1
    assert summaries["glass"].trials == next(route for route in before.routes if route.name == "glass").trials


def test_before_the_analysis_there_is_nothing_to_report() -> None:
    with Store.memory() as store:
        fill(store, bodies()[:3])
        with pytest.raises(ReportError, match="Nothing was analysed"):
            gather(store)
