import sqlite3
from pathlib import Path

import pytest
from small_study import Study

from probe.errors import StoreError
from probe.store import Store, migrations
from probe.store.db import connect
from probe.store.verify import verify


def test_numbers_run_from_one_without_gaps(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("SELECT 1;")
    (tmp_path / "0003_b.sql").write_text("SELECT 1;")
    with pytest.raises(StoreError, match="not numbered"):
        migrations.read(tmp_path)
    (tmp_path / "0003_b.sql").rename(tmp_path / "b.sql")
    with pytest.raises(StoreError, match="has no number"):
        migrations.read(tmp_path)
    (tmp_path / "b.sql").rename(tmp_path / "0002_b.sql")
    assert [m.name for m in migrations.read(tmp_path)] == ["a", "b"]


def test_a_script_falls_into_statements() -> None:
    sql = (
        "-- one; two\nCREATE TABLE a (b); -- c;\nCREATE TRIGGER t AFTER INSERT ON a\nBEGIN\n SELECT 1;\nEND;\n-- end\n"
    )
    found = list(migrations.statements(sql))
    assert len(found) == 2
    assert found[1].rstrip().endswith("END;")
    assert list(migrations.statements("SELECT 1")) == ["SELECT 1"]


def test_a_migration_that_fails_leaves_nothing(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = migrations.shipped()
    bad = migrations.Migration(len(good) + 1, "bad", "CREATE TABLE half (a);\nCREATE TABLE routes (a);\n")
    monkeypatch.setattr(migrations, "shipped", lambda: (*good, bad))
    with pytest.raises(StoreError, match="already exists"):
        Store.open(database)
    monkeypatch.undo()
    with Store.open(database) as store:
        assert store.query("SELECT name FROM sqlite_master WHERE name = 'half'") == []
        assert store.query("PRAGMA user_version") == [(len(good),)]


def test_every_table_is_strict_and_has_a_reason() -> None:
    for migration in migrations.shipped():
        for statement in migrations.statements(migration.sql):
            if "CREATE TABLE" in statement:
                above = statement.partition("CREATE TABLE")[0]
                assert "-- " in above
                assert statement.rstrip().endswith("STRICT;")


RECORDED = ("weights", "routes", "packs", "traces", "pack_traces", "runs", "trials", "blobs", "exchanges")


def older_copy(study: Study, path: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write what a study recorded into a file with the schema of an older version."""
    older = migrations.shipped()[:version]
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "shipped", lambda: older)
        connection = connect(path, create=True, readonly=False)
    connection.execute("ATTACH DATABASE ? AS source", (str(study.store.path),))
    for table in RECORDED:
        names = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
        connection.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM source.{table} ORDER BY rowid")
    connection.close()


@pytest.mark.parametrize("version", [2, 4])
def test_a_study_of_an_older_version_keeps_its_trials_and_their_exchanges(
    study: Study, tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.store.save_exchange(study.exchange(2), "answered")
    old = tmp_path / "old.db"
    older_copy(study, old, version, monkeypatch)
    with pytest.raises(StoreError, match="any command that writes brings it up to date"):
        Store.open(old, readonly=True)
    with Store.open(old) as store:
        assert store.trials() == study.store.trials()
        assert list(store.exchanges()) == list(study.store.exchanges())
        store.mark_trials([trial.id for trial in study.trials], "spared")
        assert store.count_trials(study.run.id) == {"planned": 0, "answered": 1, "failed": 0, "spared": 3}
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            store.connection.execute("DELETE FROM trials")
    assert verify(old).sound
