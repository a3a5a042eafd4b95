from pathlib import Path
from typing import Any

import pytest
from small_study import Study

from probe.resources import data_folder
from probe.store.migrations import statements
from probe.store.rows import OutcomeRow, VerdictRow

QUERIES = sorted((data_folder("db") / "queries").glob("*.sql"))


@pytest.fixture
def judged(study: Study) -> Study:
    text_hash, excerpt = OutcomeRow.of_text("I can't help with that.")
    for number in range(3):
        exchange = study.exchange(number, ended_at=float(number))
        study.store.save_exchange(exchange, "answered")
        study.store.replace_outcomes(
            [OutcomeRow(exchange.id, "rules", "1", "refused", 0.9, "No.", {}, text_hash, excerpt)]
        )
        if number:
            study.store.replace_verdicts(
                [VerdictRow(exchange.id, "platform", 0.99, 5.0, None, None, "One text for all.", "0.1")]
            )
    study.store.save_exchange(study.exchange(3, status=429, error="rate limit"), "failed")
    return study


def rows(study: Study, name: str) -> list[dict[str, Any]]:
    sql = (data_folder("db") / "queries" / f"{name}.sql").read_text(encoding="utf-8")
    cursor = study.store.connection.execute(sql)
    return [dict(zip((c[0] for c in cursor.description), row, strict=True)) for row in cursor]


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_every_query_runs_says_what_it_is_for_and_only_reads(study: Study, path: Path) -> None:
    sql = path.read_text(encoding="utf-8")
    assert sql.startswith("-- ")
    assert len(list(statements(sql))) == 1
    study.store.connection.execute("PRAGMA query_only = ON")
    found = study.store.connection.execute(sql).fetchall()
    assert len(found) == (1 if path.stem == "missing_answers" else 0)  # nothing was sent yet


def test_refusals_are_counted_by_who_is_behind_them(judged: Study) -> None:
    assert [(row["behind"], row["refusals"], row["answers"]) for row in rows(judged, "refusals_by_route")] == [
        ("platform", 2, 3),
        ("not asked", 1, 3),
    ]


def test_the_slowest_come_first(judged: Study) -> None:
    found = rows(judged, "slowest_exchanges")
    assert [row["ended"] for row in found] == [2.0, 1.0, 0.25, 0.0]
    assert found[0]["first_byte"] == 0.25
    assert found[0]["chunks"] == 1
    assert found[0]["trace"] == "trace 2"


def test_shared_texts_are_found(judged: Study) -> None:
    (row,) = rows(judged, "shared_texts")
    assert (row["traces"], row["answers"], row["excerpt"]) == (3, 3, "I can't help with that.")


def test_what_is_missing_is_named(judged: Study) -> None:
    (row,) = rows(judged, "missing_answers")
    assert (row["state"], row["trials"], row["status"], row["for_example"]) == ("failed", 1, 429, "rate limit")
