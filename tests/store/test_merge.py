import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from small_study import Study

from probe.errors import StoreError
from probe.scoring.base import TextScore
from probe.store import RunLock, Store
from probe.store.merge import merge
from probe.store.rows import FactRow, OutcomeRow
from probe.store.verify import verify

Make = Callable[[Path, int], Study]


@pytest.fixture
def two(tmp_path: Path, make_study: Make) -> tuple[Study, Study]:
    """Two studies of the same pack and route, with a run each."""
    left, right = make_study(tmp_path / "left.db", 4), make_study(tmp_path / "right.db", 6)
    for study in (left, right):
        for number in range(3):
            study.store.save_exchange(study.exchange(number), "answered")
        study.store.add_facts([FactRow(study.route.id, 1.0, "version", "1")])
        study.store.save_score(study.run.id, TextScore((), 5), scorer="s", version="1", weights="toy")
        study.store.replace_outcomes(
            [OutcomeRow(ref.id, "rules", "1", "refused", 1.0, "No.") for ref in study.store.refs()]
        )
    return left, right


def test_two_files_become_one_study(two: tuple[Study, Study]) -> None:
    left, right = two
    wanted = {e.id: e for study in two for e in study.store.exchanges()}
    report = merge(right.store.path, left.store.path)
    assert report.added["exchanges"] == 3
    assert report.added["routes"] == 0
    assert report.added["traces"] == 2
    assert report.added["runs"] == 1
    assert report.cleared
    assert {e.id: e for e in left.store.exchanges()} == wanted
    assert len(left.store.runs()) == 2
    assert len(left.store.facts(left.route.id)) == 2
    assert left.store.score(right.run.id) is not None
    assert left.store.outcomes() == []
    assert left.store.count_trials(right.run.id) == {"planned": 3, "answered": 3, "failed": 0, "spared": 0}
    assert verify(left.store.path).problems == ()


def test_merging_again_changes_nothing(two: tuple[Study, Study]) -> None:
    left, right = two
    merge(right.store.path, left.store.path)
    left.store.replace_outcomes([OutcomeRow(left.store.refs()[0].id, "rules", "1", "refused", 1.0, "No.")])
    report = merge(right.store.path, left.store.path)
    assert set(report.added.values()) == {0}
    assert not report.cleared
    assert len(left.store.outcomes()) == 1


def test_a_new_file_can_be_made(two: tuple[Study, Study], tmp_path: Path) -> None:
    for study in two:
        merge(study.store.path, tmp_path / "both.db")
    assert verify(tmp_path / "both.db").checked["exchanges"] == 6
    assert verify(tmp_path / "both.db").sound


def test_a_run_that_went_on_elsewhere_comes_home(tmp_path: Path, make_study: Make) -> None:
    study = make_study(tmp_path / "here.db", 4)
    study.store.save_exchange(study.exchange(0), "answered")
    study.store.close()
    shutil.copy(tmp_path / "here.db", tmp_path / "there.db")
    with Store.open(tmp_path / "there.db") as there:
        there.save_exchange(study.exchange(1), "answered")
        there.end_run(study.run.id, 9.5)
        there.add_traces([replace(trace, name="renamed") for trace in there.traces().values()])
    merge(tmp_path / "there.db", tmp_path / "here.db")
    with Store.open(tmp_path / "here.db") as here:
        assert here.count_trials(study.run.id)["answered"] == 2
        assert here.runs()[0].ended_at == 9.5
        assert [trace.name for trace in here.traces().values()] == [f"trace {n}" for n in range(4)]
    assert verify(tmp_path / "here.db").sound
    with Store.open(tmp_path / "here.db") as here, Store.open(tmp_path / "there.db") as there:
        here.save_exchange(study.exchange(2), "answered")
        there.save_exchange(study.exchange(2), "answered")
        before = here.refs()
        with pytest.raises(StoreError, match="both answered the same trial"):
            merge(tmp_path / "there.db", tmp_path / "here.db")
        assert here.refs() == before


def test_what_cannot_be_merged_is_a_sentence(two: tuple[Study, Study], tmp_path: Path) -> None:
    left, right = two
    with pytest.raises(StoreError, match="into itself"):
        merge(left.store.path, left.store.path)
    with pytest.raises(StoreError, match="There is no database"):
        merge(tmp_path / "none.db", left.store.path)
    (tmp_path / "other.db").write_bytes(b"other" * 500)
    with pytest.raises(StoreError, match="not an SQLite file"):
        merge(tmp_path / "other.db", left.store.path)
    with RunLock(left.store.path), pytest.raises(StoreError, match="Another run"):
        merge(right.store.path, left.store.path)
