from dataclasses import fields, replace

import numpy as np
import pytest
from small_study import Study

from probe.errors import StoreError
from probe.evidence.base import Evidence
from probe.store.derived import TABLES
from probe.store.rows import EffectRow, EvidenceRow, GateRow, OutcomeRow, VerdictRow
from probe.store.served import ServedRow, served_values


@pytest.fixture
def exchange_id(study: Study) -> str:
    exchange = study.exchange(0)
    study.store.save_exchange(exchange, "answered")
    return exchange.id


def fill(study: Study, key: str) -> None:
    store, route = study.store, study.route.id
    store.replace_outcomes([OutcomeRow(key, "rules", "1", "refused", 0.9, "It says no.")])
    store.replace_evidence([EvidenceRow(key, Evidence("declared", "1", None, 0.0, "Nothing."))])
    store.replace_verdicts([VerdictRow(key, "undecided", 0.5, 0.0, None, None, "Too little.", "0.1")])
    store.replace_gates([GateRow(route, route, "same", "The same.", "0.1")])
    store.replace_effects([EffectRow(route, route, "all", 1, 0, 0, "None.", "0.1")])
    store.put_derived("served", [served_values(ServedRow(key, "DeepInfra", "m", "deepinfra", False, "As pinned."))])


def test_outcomes_come_back_by_judge(study: Study, exchange_id: str) -> None:
    text_hash, excerpt = OutcomeRow.of_text("No. " * 200)
    assert OutcomeRow.of_text("") == (None, "")
    assert len(excerpt) == 300
    one = OutcomeRow(exchange_id, "rules", "1", "refused", 0.9, "It says no.", {"phrase": "No."}, text_hash, excerpt)
    other = replace(one, judge="human", outcome="complied", detail={"x": float("nan")})
    study.store.replace_outcomes([one, other])
    assert study.store.outcomes(judge="rules") == [one]
    assert [row.judge for row in study.store.outcomes(exchange_id=exchange_id)] == ["human", "rules"]
    study.store.replace_outcomes([replace(one, judge_version="2")])
    assert [row.judge_version for row in study.store.outcomes()] == ["1", "2"]


def test_evidence_comes_back_whole(study: Study, exchange_id: str) -> None:
    finding = Evidence(
        "declared",
        "3",
        np.float64(7.5),
        np.float64(2.0),
        "A header says so.",
        {"n": np.int64(3)},
        "x: y",
        True,
        "m",
        "l",
    )
    silent = Evidence("timing", "1", None, 0.0, "There are no controls.")
    study.store.replace_evidence([EvidenceRow(exchange_id, finding), EvidenceRow(exchange_id, silent)])
    assert study.store.evidence(exchange_id=exchange_id) == [
        EvidenceRow(exchange_id, replace(finding, facts={"n": 3})),
        EvidenceRow(exchange_id, silent),
    ]
    assert study.store.evidence(detector="timing")[0].evidence.abstains


def test_infinite_evidence_is_kept_and_nan_is_refused(study: Study, exchange_id: str) -> None:
    certain = Evidence("declared", "1", float("inf"), float("inf"), "Certain.")
    study.store.replace_evidence([EvidenceRow(exchange_id, certain)])
    assert study.store.evidence()[0].evidence == certain
    with pytest.raises(StoreError, match="refuses a row"):
        study.store.replace_evidence([EvidenceRow(exchange_id, replace(certain, llr=float("nan")))])


def test_verdicts_gates_and_effects_replace_their_own_kind(study: Study, exchange_id: str) -> None:
    store = study.store
    fill(study, exchange_id)
    verdict = VerdictRow(exchange_id, "platform", 0.99, 12.0, "declared_block", "gateway", "A header says so.", "0.2")
    gate = GateRow(study.route.id, study.route.id, "different", "Not the same.", "0.2", {"p": 0.001})
    numbers = {f.name: 0.25 for f in fields(EffectRow) if f.default is None}
    effect = EffectRow(study.route.id, study.route.id, "all", 9, 1, 2, "Some.", "0.2", detail={"k": [1]}, **numbers)
    store.replace_verdicts([verdict])
    store.replace_gates([gate])
    store.replace_effects([effect, replace(effect, scope="family:direct", q_value=None)])
    assert store.verdicts() == {exchange_id: verdict}
    assert store.gates() == store.gates(study.route.id) == [gate]
    assert store.effects()[0] == effect
    assert [row.scope for row in store.effects(study.route.id)] == ["all", "family:direct"]


def test_derived_tables_can_go_and_come_again(study: Study, exchange_id: str) -> None:
    def counts() -> list[int]:
        return [study.store.query(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES]

    fill(study, exchange_id)
    assert counts() == [1] * 6
    study.store.clear_derived("verdicts")
    assert counts() == [1, 1, 0, 1, 1, 1]
    study.store.clear_derived()
    assert counts() == [0] * 6
    fill(study, exchange_id)
    assert counts() == [1] * 6
    assert study.store.exchange(exchange_id).id == exchange_id
    with pytest.raises(ValueError, match="not a derived table"):
        study.store.clear_derived("exchanges")  # type: ignore[arg-type]

    def rebuild() -> None:
        with study.store.transaction():
            study.store.clear_derived()
            raise KeyError

    with pytest.raises(KeyError):
        rebuild()
    assert counts() == [1] * 6


def test_an_unknown_exchange_or_outcome_is_refused(study: Study, exchange_id: str) -> None:
    for row in (
        OutcomeRow("none", "rules", "1", "refused", 1.0, ""),
        OutcomeRow(exchange_id, "rules", "1", "maybe", 1.0, ""),  # type: ignore[arg-type]
    ):
        with pytest.raises(StoreError, match="refuses a row"):
            study.store.replace_outcomes([row])
    assert study.store.outcomes() == []
