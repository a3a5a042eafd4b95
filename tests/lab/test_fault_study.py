"""The study of faults: sound on the real runner, and its count finds what it is there to find."""

import hashlib
import json
import sqlite3
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from probe.lab.fault_study import FaultStudy, _after
from probe.lab.unfriendly import Asked


@pytest.mark.parametrize(
    ("arrivals", "sent_at", "late"),
    [
        ([], 1.0, 0),
        ([1.0], None, 0),
        ([1.003], 1.0, 0),
        ([1.0, 2.0], 2.001, 0),
        ([1.0, 2.0], 1.0, 1),
        ([3, 1, 2], 1, 2),
    ],
)
def test_requests_after_the_answered_one(arrivals: list[float], sent_at: float | None, late: int) -> None:
    assert _after(arrivals, sent_at) == late


@pytest.mark.slow
def test_a_small_study_with_kills_is_sound_and_what_is_planted_is_found(tmp_path: Path) -> None:
    study = FaultStudy(tmp_path, traces=30, kills=2, seed=5, budget_usd=1.0)
    found = study.run()
    assert (found.trials, found.kills, found.lost, found.sent_twice, found.problems) == (150, 2, 0, 0, ())
    assert found.answered + sum(found.named_states.values()) == found.trials
    assert found.billed_usd <= found.claimed_usd + 1e-9
    assert set(found.faults) - {"answered"}
    # One more request for a trial that has its answer, of which no journal knows.
    answered = (
        "SELECT messages FROM trials JOIN traces ON traces.id = trace_id JOIN routes ON routes.id = route_id "
        "WHERE state = 'answered' AND routes.name = 'stream'"
    )
    with sqlite3.connect(tmp_path / "probe.db") as connection:
        words = json.loads(connection.execute(answered).fetchone()[0])[-1]["content"]
    late = Asked(time.time() + 60, hashlib.sha256(words.encode()).hexdigest()[:24], "answered", 0.0)
    with (tmp_path / "stream.log").open("a") as log:
        log.write(json.dumps(asdict(late)) + "\n")
    planted = study._count(2, 1, 0.0)
    assert (planted.lost, planted.sent_twice) == (1, 1)
    # A trial that forgot why it has no answer.
    with sqlite3.connect(tmp_path / "probe.db") as connection:
        connection.execute("UPDATE trials SET reason = '' WHERE id = (SELECT id FROM trials WHERE state != 'answered')")
    assert study._count(2, 1, 0.0).lost == 2
