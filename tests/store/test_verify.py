import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from small_study import Study

from probe.errors import StoreError
from probe.store import Store, migrations
from probe.store.columns import to_json
from probe.store.exchanges import COLUMNS
from probe.store.verify import EACH, verify
from probe.wire.values import Chunk


@pytest.fixture
def recorded(study: Study) -> Study:
    study.store.save_exchange(study.exchange(0, response_body=b"a" * 900, request_body=b"q" * 300), "answered")
    study.store.save_exchange(study.exchange(1, status=500), "planned")
    study.store.save_exchange(study.exchange(), "answered")
    return study


def tamper(study: Study, sql: str) -> None:
    """Change the file as a stranger with a raw connection would, and put the triggers back."""
    study.store.close()
    raw = sqlite3.connect(study.store.path, isolation_level=None)
    triggers = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        raw.execute(f"DROP TRIGGER {name}")
    assert raw.execute(sql).rowcount != 0
    for _, make in triggers:
        raw.execute(make)
    raw.close()


def test_a_sound_database_has_no_problems(recorded: Study) -> None:
    report = verify(recorded.store.path)
    assert report.sound
    assert report.problems == ()
    assert report.checked == {
        "exchanges": 3,
        "blobs": 4,
        "trials": 4,
        "traces": 4,
        "routes": 1,
        "weights": 1,
        "runs": 1,
        "attempts": 0,
    }


def test_verifying_writes_nothing(recorded: Study) -> None:
    recorded.store.close()
    before = recorded.store.path.read_bytes()
    verify(recorded.store.path)
    assert recorded.store.path.read_bytes() == before


@pytest.mark.parametrize("column", [column for column in COLUMNS if column not in {"id", "trial_id", "route_id"}])
def test_a_change_of_any_recorded_column_shows(recorded: Study, column: str) -> None:
    values = {
        "request_body": "response_body",
        "response_body": "request_body",
        "state": "'cut'",
        "answered": "1 - answered",
        "chunks": "'[[900,1]]'",
        "request_headers": '\'[["a","b"]]\'',
        "response_headers": "'[]'",
    }
    number = (
        "1" if column in {"attempt", "started_at", "status", "sent_at", "head_at", "ended_at", "redactions"} else "'x'"
    )
    change = values.get(column, f"coalesce({column}, 0) + 1" if number == "1" else number)
    tamper(recorded, f"UPDATE exchanges SET {column} = {change} WHERE attempt = 1 AND status = 200")
    assert any("its checksum differs" in problem for problem in verify(recorded.store.path).problems)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE blobs SET data = x'0011' WHERE codec = 'zstd'", "is damaged"),
        ("UPDATE blobs SET data = zeroblob(size), codec = 'raw' WHERE size = 900", "is not what its hash says"),
        ("UPDATE blobs SET size = size + 1", "bytes instead of"),
        ("INSERT INTO blobs VALUES ('00', 'raw', 0, x'')", "belongs to no exchange"),
        ("DELETE FROM blobs WHERE size = 900", "of exchanges refers to a row of blobs that does not exist"),
        ("UPDATE trials SET state = 'answered' WHERE state = 'planned'", "is answered and has no exchange marked"),
        ("UPDATE trials SET state = 'planned' WHERE state = 'answered'", "is planned and has 1 exchange marked"),
        ("UPDATE traces SET messages = '[]'", "The trace"),
        ("UPDATE routes SET url = 'http://elsewhere'", "The route"),
        ("UPDATE weights SET revision = 'other'", "The set of weights"),
        ("UPDATE migrations SET sha256 = 'edited' WHERE number = 1", "0001_recording is not the file"),
        ("DELETE FROM migrations WHERE number = 2", "0002_derived is not recorded"),
        ("INSERT INTO migrations VALUES (99, 'ghost', '', 0)", "0099_ghost was applied and does not exist"),
        ("DROP INDEX exchanges_one_answer", "index exchanges_one_answer is missing"),
        ("ALTER TABLE runs ADD COLUMN more TEXT", "table runs is not as the migrations made it"),
        ("UPDATE traces SET messages = 'no json'", "cannot be stored"),
    ],
)
def test_every_kind_of_damage_is_named(recorded: Study, sql: str, words: str) -> None:
    tamper(recorded, sql)
    problems = verify(recorded.store.path).problems
    assert any(words in problem for problem in problems), problems
    assert all(problem.endswith(".") for problem in problems)


def test_an_edited_migration_shows(recorded: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *rest = migrations.shipped()
    edited = (replace(first, sql=first.sql + "\n-- edited\n"), *rest)
    monkeypatch.setattr(migrations, "shipped", lambda: edited)
    (problem,) = verify(recorded.store.path).problems
    assert "0001_recording is not the file that this database applied" in problem


def test_broken_pages_are_found_and_the_other_checks_go_on(
    database: Path, make_study: Callable[[Path, int], Study]
) -> None:
    study = make_study(database, 400)
    study.store.close()
    content = bytearray(database.read_bytes())
    for page in range(20, len(content) // 4096):
        content[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    database.write_bytes(content)
    problems = verify(database).problems
    assert problems
    assert all("Error" not in problem for problem in problems)


def test_chunks_that_do_not_add_up_are_named(study: Study) -> None:
    study.store.save_exchange(study.exchange(0, response_body=b"abc", chunks=(Chunk(2, 0.1),)), "answered")
    (problem,) = verify(study.store.path).problems
    assert "add up to 2 bytes, and its response body has 3" in problem


def test_a_credential_in_a_header_is_named_without_its_value(study: Study) -> None:
    headers = (("Authorization", "Bearer sk-very-secret"), ("Cookie", "[redacted]"))
    study.store.save_exchange(study.exchange(0, request_headers=headers), "answered")
    (problem,) = verify(study.store.path).problems
    assert "Authorization" in problem
    assert "secret" not in problem


def test_many_problems_are_counted_and_not_listed(database: Path, make_study: Callable[[Path, int], Study]) -> None:
    study = make_study(database, 50)
    tamper(study, "UPDATE trials SET state = 'answered'")
    problems = verify(database).problems
    assert len(problems) == EACH + 1
    assert problems[-1] == "… and 30 more of this kind."


def test_tables_of_the_user_are_no_problem(recorded: Study) -> None:
    recorded.store.connection.execute("CREATE TABLE notes (text TEXT)")
    assert verify(recorded.store.path).sound


def test_what_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no database"):
        verify(tmp_path / "study.db")
    with Store.open(tmp_path / "empty.db"):
        assert verify(tmp_path / "empty.db").sound
    assert to_json([]) == "[]"
