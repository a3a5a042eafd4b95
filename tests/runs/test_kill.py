"""`kill -9` at twenty moments: the run goes on from there, and ends with every planned trial answered exactly once."""

import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from probe.lab.server import LabServer
from probe.serve.llamacpp import LlamaCppServer
from probe.store.store import Store
from probe.store.verify import verify
from tests.study_kit import hosted_route, local_route, write_config, write_pack

KILLS = 20
TRACES = 120


def answered(database: Path) -> int:
    """How many trials are answered, seen from outside; 0 while there is no schema yet."""
    if not database.exists():
        return 0
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)
    try:
        return int(connection.execute("SELECT count(*) FROM trials WHERE state = 'answered'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def start(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "probe", "run", "--json"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_every_trial_ends_answered_exactly_once(tmp_path: Path, toy_server: LlamaCppServer, lab: LabServer) -> None:
    assert toy_server.info is not None
    write_pack(tmp_path / "pack.jsonl", TRACES, max_tokens=4)
    pace = {"concurrency": 2, "requests_per_minute": 3000}
    routes = {
        "local": local_route(toy_server.info.url, pace=pace),
        "hosted": hosted_route(f"{lab.url}/transparent", pace=pace),
    }
    write_config(tmp_path / "probe.toml", routes)
    database = tmp_path / "probe.db"
    chance = random.Random(20)
    for _ in range(KILLS):
        # A random number of commits later, from "before anything" to "well under way", the process is gone.
        more = chance.choice([0, 0, 1, 2, 5, 9, 14])
        wanted = answered(database) + more
        process = start(tmp_path)
        while process.poll() is None and answered(database) < wanted:
            pass
        if more == 0 and process.stdout is not None and chance.random() < 0.5:
            # Half of the immediate kills hit the start-up itself; the others wait until the run holds its lock.
            lock = database.with_name("probe.db.lock")
            while process.poll() is None and not (lock.exists() and lock.read_text().strip() == str(process.pid)):
                pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = subprocess.run(
        [sys.executable, "-m", "probe", "run"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    with Store.open(database, create=False) as store:
        runs = store.runs()
        assert len(runs) == 1, "a killed run is taken up, not started again"
        assert runs[0].ended_at is not None
        trials = store.trials(runs[0].id)
        assert len(trials) == 3 * TRACES, "the twin has one more of each"
        assert {trial.state for trial in trials} == {"answered"}
        answers = Counter(ref.trial_id for ref in store.refs() if ref.answered)
        assert set(answers) == {trial.id for trial in trials}
        assert set(answers.values()) == {1}
        assert store.in_flight(runs[0].id) == [], "what a kill cut off was counted and closed"
        journal = Counter(dict(store.query("SELECT trial_id, count(*) FROM attempts GROUP BY trial_id")))
        hosted = {key for key, route in store.routes().items() if route.role == "hosted"}
        sent = Counter(ref.trial_id for ref in store.refs() if ref.route_id in hosted)
        assert not sent - journal, "no request left before it was noted"
    report = verify(database)
    assert report.sound, report.problems
