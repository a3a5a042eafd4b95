"""Runs that stop when their question is answered, against real servers: what is spared, the budget, and `kill -9`."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from probe.attribution.watching import refusal_reader
from probe.cli import cli
from probe.config import load_config
from probe.errors import ProbeError
from probe.lab.server import LabServer
from probe.runs.execute import Executed, Stop, execute, load_packs
from probe.runs.until import Until
from probe.serve.llamacpp import LlamaCppServer
from probe.stats.sequential import DIFFERENT
from probe.store.store import Store
from probe.store.verify import verify
from tests.study_kit import hosted_route, local_route, write_config

TRACES = 30
ABREAST = 2


@pytest.fixture
def study(tmp_path: Path, toy_server: LlamaCppServer, lab: LabServer) -> Path:
    """Questions that the embedded weights answer, always in the same words."""
    assert toy_server.info is not None
    lines = [
        {
            "name": f"t{number}",
            "family": ("even", "odd")[number % 2],
            "messages": [{"role": "user", "content": f"Is there a song about number {number}?"}],
            "sampling": {"max_tokens": 6, "temperature": 0.0},
        }
        for number in range(TRACES)
    ]
    control = {"name": "c", "control": True, "messages": [{"role": "user", "content": "How is your day?"}]}
    (tmp_path / "pack.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (*lines, control)))
    pace = {"concurrency": ABREAST}
    routes = {
        "local": local_route(toy_server.info.url),
        "transparent": hosted_route(f"{lab.url}/transparent", pace=pace),
        "declared": hosted_route(f"{lab.url}/declared", pace=pace),
    }
    write_config(tmp_path / "probe.toml", routes)
    return tmp_path


def run(folder: Path, *routes: str, until: Until | None = None, **more: Any) -> Executed:
    config = load_config(folder / "probe.toml").only(routes)
    stop = Stop(until, refusal_reader(config)) if until else None
    packs = load_packs([str(folder / "pack.jsonl")])
    return execute(config, folder / "probe.db", packs, seed=3, repeats=1, stop=stop, **more)


def states(folder: Path, route: str) -> Counter[str]:
    with Store.open(folder / "probe.db") as store:
        return Counter(trial.state for trial in store.trials(route_id=store.route_named(route).id))


def test_a_route_that_blocks_everything_is_stopped_and_one_that_passes_goes_on(study: Path) -> None:
    done = run(study, until=Until())
    blocked, passed = (next(f for f in done.findings if f.route == name) for name in ("declared", "transparent"))
    assert (blocked.answer, blocked.interval.n, blocked.interval.estimate) == (DIFFERENT, 6, 1.0)
    assert (passed.answer, passed.interval.n, passed.interval.estimate) == (None, TRACES, 0.0)
    assert (blocked.requests, passed.spared) == (TRACES, 0)
    assert TRACES - 6 - ABREAST <= blocked.spared <= TRACES - 6
    assert done.spared == {"declared": blocked.spared}
    assert done.open == 0
    assert states(study, "declared") == {"spared": blocked.spared, "answered": TRACES + 1 - blocked.spared}
    assert states(study, "local") == {"answered": 2 * TRACES + 1}, "its other hosted route wants every pair"
    with Store.open(study / "probe.db") as store:
        (stored,) = store.runs()
        assert stored.ended_at is not None, "spared trials are not open"
        assert {key: stored.manifest[key] for key in ("until", "alpha", "delta", "by")} == Until().to_json()
    assert verify(study / "probe.db").sound


def test_the_twin_is_spared_what_nobody_compares_with_it(study: Path) -> None:
    pace = "pace = { concurrency = 1, requests_per_minute = 3000 }"
    text = (study / "probe.toml").read_text().replace('role = "local"', f'role = "local"\n{pace}')
    (study / "probe.toml").write_text(text)
    done = run(study, "declared", until=Until())
    assert 0 < done.spared["local"] <= 2 * (TRACES - 6)
    with Store.open(study / "probe.db") as store:
        trials = store.trials()
        hosted_id = store.route_named("declared").id
        asked = {t.trace_id for t in trials if t.route_id == hosted_id and t.state == "answered"}
        own = {t.trace_id for t in trials if t.route_id != hosted_id and t.state == "answered"}
        assert asked <= own, "what was sent over the hosted route has its pair"
        control = next(key for key, (_, control) in store.trace_kinds().items() if control)
        assert {t.state for t in trials if t.trace_id == control} == {"answered"}, "controls are always sent"


def test_no_more_hosted_requests_are_made_than_allowed_and_a_higher_number_goes_on(study: Path) -> None:
    first = run(study, until=Until(by="family"), max_requests=13)
    assert (first.requests, first.budget_gone) == (13, True)
    assert first.open > 0
    again = run(study, until=Until(by="family"), max_requests=20)
    assert again.resumed
    assert again.requests == 20
    with Store.open(study / "probe.db") as store:
        hosted = [store.route_named(name).id for name in ("declared", "transparent")]
        per_route = Counter(ref.route_id for ref in store.refs() if ref.route_id in hosted)
    assert sum(per_route.values()) == 20
    assert min(per_route.values()) >= 8, "the budget is shared"
    last = run(study, until=Until(by="family"))
    assert (last.resumed, last.open, last.budget_gone) == (True, 0, False)
    assert {(f.route, f.family): f.answer for f in last.findings} == {
        (route, family): DIFFERENT if route == "declared" else None
        for route in ("declared", "transparent")
        for family in ("even", "odd")
    }


def test_what_a_decided_route_leaves_over_goes_to_the_open_one(study: Path) -> None:
    done = run(study, until=Until(), max_requests=34)
    assert done.requests == 34
    counts = {name: states(study, name) for name in ("declared", "transparent")}
    assert counts["declared"]["answered"] <= 6 + ABREAST + 1
    assert counts["transparent"]["answered"] >= 34 - (6 + ABREAST + 1)


def answered(database: Path) -> int:
    """How many hosted trials are answered, seen from outside."""
    if not database.exists():
        return 0
    sql = "SELECT count(*) FROM trials JOIN routes ON routes.id = route_id WHERE state = 'answered' AND role = 'hosted'"
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)
    try:
        return int(connection.execute(sql).fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def test_a_run_that_was_killed_comes_to_the_same_answer(study: Path) -> None:
    whole = run(study, "declared", until=Until()).findings
    (study / "probe.db").unlink()
    text = (study / "probe.toml").read_text()
    slow = text.replace(f"concurrency = {ABREAST}", f"concurrency = {ABREAST}, requests_per_minute = 120")
    (study / "probe.toml").write_text(slow)
    arguments = [sys.executable, "-m", "probe", "run", "-r", "declared", "--until", "decided", "--seed", "3"]
    process = subprocess.Popen(arguments, cwd=study, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and answered(study / "probe.db") < 3:
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = answered(study / "probe.db")
    assert 3 <= kept < 6
    (study / "probe.toml").write_text(text)
    done = run(study, "declared", until=Until())
    assert done.resumed
    (before,), (after,) = whole, done.findings
    assert (after.answer, after.interval, after.log_e) == (before.answer, before.interval, before.log_e)
    assert (done.open, after.missing) == (0, 0)
    other = run(study, "declared", until=Until(alpha=0.5))
    assert not other.resumed, "another question is another run"
    assert other.findings[0].interval.n < 6


def command(folder: Path, *arguments: str) -> Result:
    config = ["--config", str(folder / "probe.toml"), "--pack", str(folder / "pack.jsonl")]
    return CliRunner().invoke(cli, ["run", *config, *arguments])


def test_the_command_says_what_was_spared_and_why(study: Path) -> None:
    wanted = ["--until", "decided", "--by", "route", "--no-aa", "-r", "declared"]
    said = command(study, *wanted)
    assert said.exit_code == 0, said.output
    assert "declared: different after 6 traces (refuses +100 points [+" in said.stdout
    assert f"of {TRACES} requests spared." in said.stdout
    assert "cut, empty and unreadable answers are missing here" in said.stdout
    document = json.loads(command(study, *wanted, "--json").stdout)
    (question,) = document["until"]["questions"]
    assert (question["answer"], question["interval"]["n"]) == (DIFFERENT, 6)
    assert document["spared"]["declared"] == question["spared"] > 0
    assert document["hosted_requests"] + question["spared"] == TRACES + 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--until decided --alpha 0", "--alpha must lie between 0 and 1"),
        ("--until decided --delta 2", "--delta must lie between 0 and 1"),
        ("--delta 0.1", "--delta goes with --until decided"),
        ("--until nonsense", "'nonsense' is not 'decided'"),
        ("--max-requests 0", "--max-requests must be 1 or more"),
        ("--until decided -r local", "no hosted route here names a twin"),
    ],
)
def test_settings_that_mean_nothing_are_one_sentence(study: Path, arguments: str, named: str) -> None:
    said = command(study, *arguments.split())
    assert said.exit_code != 0
    # The program prints a ``ProbeError`` as one line.
    shown = str(said.exception) if isinstance(said.exception, ProbeError) else said.stderr
    assert named in shown
    assert not (study / "probe.db").exists()
