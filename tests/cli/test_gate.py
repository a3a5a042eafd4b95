"""``probe gate`` on real weights behind lab platforms: what is sent, what is answered, what others leave alone."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from probe.attribution.gate.send import TWIN_DRAWS, gate_traces, plan_gate
from probe.attribution.gate.stored import gate_runs
from probe.attribution.gate.values import CANNOT_TELL, DIFFERENT, PROMPT, SAME, gate_of_json
from probe.cli import cli
from probe.config import load_config
from probe.errors import ProbeError
from probe.lab.server import LabServer
from probe.runs.execute import load_packs
from probe.serve.llamacpp import LlamaCppServer
from probe.store.store import Store
from probe.traces.pack import find_pack, read_pack
from tests.study_kit import hosted_route, local_route, write_config, write_pack

PROMPTS = 12
PER_PROMPT = 1 + TWIN_DRAWS + 1 + 1
"""Hosted and twin at temperature 1, both at temperature 0."""


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def probe(folder: Path, *arguments: str) -> Done:
    """Run a command in this process, which has loaded everything already; errors come as they do from `main`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(cli, list(arguments))
    if isinstance(result.exception, ProbeError):
        return Done(1, result.stdout, f"Error: {result.exception}")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def study(tmp_path: Path, toy_server: LlamaCppServer, lab: LabServer) -> Path:
    assert toy_server.info is not None
    routes = {
        "local": local_route(toy_server.info.url),
        "transparent": hosted_route(f"{lab.url}/transparent"),
        "prompted": hosted_route(f"{lab.url}/prompted"),
    }
    write_config(tmp_path / "probe.toml", routes)
    write_pack(tmp_path / "pack.jsonl", 4)
    return tmp_path


def ask(folder: Path, *arguments: str) -> dict[str, object]:
    done = probe(folder, "gate", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_a_hidden_prompt_is_found_and_named(study: Path) -> None:
    found = ask(study, "prompted", "--pack", "fictional", "--prompts", str(PROMPTS))
    assert (found["hosted"], found["twin"]) == ("prompted", "local")
    assert (found["answer"], found["cause"]) == (DIFFERENT, PROMPT)
    assert {"answer", "cause", "tests", "n_needed", "n", "delta", "alpha", "sentence"} <= set(found)
    tests = found["tests"]
    assert isinstance(tests, dict)
    for test in tests.values():
        assert {"statistic", "p", "n", "unit", "sentence"} <= set(test)
    assert found["sent"]["trials"] == found["sent"]["answered"] == PROMPTS * PER_PROMPT  # type: ignore[index]
    with Store.open(study / "probe.db", create=False) as store:
        (row,) = store.gates()
        assert row.answer == DIFFERENT
        stored = {key: value for key, value in row.detail.items() if key != "prompt_finding"}
        assert gate_of_json(stored).to_json() == stored
        assert stored["tests"] == tests
    text = (study / "probe.toml").read_text(encoding="utf-8")
    without = text.replace('role = "local"', 'role = "local"\nscorer = "none"')
    (study / "probe.toml").write_text(without, encoding="utf-8")
    again = probe(study, "gate", "prompted", "--stored")
    assert "was kept" in again.stderr
    with Store.open(study / "probe.db", create=False) as store:
        assert store.gates() == [row]


def test_the_run_asks_what_the_tests_need_and_stays_apart(study: Path) -> None:
    sent = ask(study, "transparent", "-n", str(PROMPTS))
    assert sent["answer"] in {SAME, DIFFERENT, CANNOT_TELL}
    with Store.open(study / "probe.db", create=False) as store:
        (run,) = store.runs()
        assert gate_runs(store) == {run.id}
        assert run.ended_at is not None
        names = {key: route.name for key, route in store.routes().items()}
        traces = store.traces()
        asked = Counter((names[t.route_id], traces[t.trace_id].sampling.temperature) for t in store.trials(run.id))
        assert asked == {
            ("transparent", 1.0): PROMPTS,
            ("transparent", 0.0): PROMPTS,
            ("local", 1.0): PROMPTS * TWIN_DRAWS,
            ("local", 0.0): PROMPTS,
        }
        for ref in store.refs(answered=True):
            body = json.loads(store.exchange(ref.id).request_body)
            assert body["temperature"] == traces[ref.trace_id or ""].sampling.temperature
            assert body["max_tokens"] == 64
    # Twelve prompts tell nothing else yet, but the counts agree.
    assert sent["tests"]["counts"]["statistic"] == 0.0  # type: ignore[index]

    # An ordinary run with the same routes, pack and seed is another one, and the analysis is about that one.
    ran = probe(study, "run", "-r", "transparent", "--json")
    assert ran.returncode == 0, ran.stderr
    assert not json.loads(ran.stdout)["resumed"]
    analysed = probe(study, "analyze", "--json")
    assert analysed.returncode == 0, analysed.stderr
    with Store.open(study / "probe.db", create=False) as store:
        own = {ref.id for ref in store.refs(run_id=run.id)}
        assert own
        assert not own & store.verdicts().keys()
        assert not own & {row.exchange_id for row in store.outcomes()}
        (before,) = store.gates()
        # Whatever else is asked of the store, what an analysis found beside the gate stays.
        store.replace_gates(
            [type(before)(**{**row_values(before), "detail": {**before.detail, "prompt_finding": "x"}})]
        )
    again = ask(study, "transparent", "--stored")
    assert again["sent"] is None
    with Store.open(study / "probe.db", create=False) as store:
        (after,) = store.gates()
        assert after.detail["prompt_finding"] == "x"
        assert after.answer == again["answer"] == before.answer
        assert len(store.runs()) == 2


def row_values(row: object) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}  # type: ignore[attr-defined]


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


def test_a_killed_gate_goes_on_and_a_finished_one_begins_anew(study: Path) -> None:
    text = (study / "probe.toml").read_text(encoding="utf-8")
    slow = text.replace('twin = "local"', 'twin = "local"\npace = { concurrency = 1, requests_per_minute = 1200 }')
    (study / "probe.toml").write_text(slow, encoding="utf-8")
    arguments = ("transparent", "--pack", "fictional", "-n", "8")
    process = subprocess.Popen(
        [sys.executable, "-m", "probe", "gate", *arguments, "--json"],
        cwd=study,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    database = study / "probe.db"
    while process.poll() is None and answered(database) < 10:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = ask(study, *arguments)
    sent = found["sent"]
    assert isinstance(sent, dict)
    assert sent["resumed"]
    assert sent["answered_before"] >= 10
    assert sent["answered_before"] + sent["answered"] == sent["trials"] == 8 * PER_PROMPT
    with Store.open(database, create=False) as store:
        (run,) = store.runs()
        answers = Counter(ref.trial_id for ref in store.refs(run_id=run.id) if ref.answered)
        assert set(answers.values()) == {1}
    assert not ask(study, *arguments)["sent"]["resumed"]  # type: ignore[index]


def test_a_twin_that_cannot_score_leaves_the_other_tests(study: Path) -> None:
    config = (
        (study / "probe.toml").read_text(encoding="utf-8").replace('role = "local"', 'role = "local"\nscorer = "none"')
    )
    (study / "probe.toml").write_text(config, encoding="utf-8")
    done = probe(study, "gate", "transparent", "--pack", "fictional", "-n", "6", "--json")
    assert done.returncode == 0, done.stderr
    assert "cannot score texts" in done.stderr
    assert json.loads(done.stdout)["answer"] in {SAME, DIFFERENT, CANNOT_TELL}
    shown = probe(study, "gate", "transparent", "--stored")
    assert shown.returncode == 0, shown.stderr
    assert "transparent against local" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "There is no route 'nowhere'"),
        (["local"], "is local"),
        (["alone"], "has no twin"),
        (["transparent", "--pack", "pack.jsonl"], "holds no controls"),
        (["transparent", "--pack", "no-such-pack"], "There is no pack"),
        (["transparent", "--delta", "1.5"], "gate_delta"),
        (["transparent", "--alpha", "0"], "alpha"),
        (["transparent", "--prompts", "0"], "Invalid value"),
        (["transparent", "--stored"], "There is no database"),
        (["gone", "-n", "1"], "cannot be reached"),
    ],
)
def test_mistakes_are_one_sentence(study: Path, arguments: list[str], expected: str) -> None:
    with (study / "probe.toml").open("a", encoding="utf-8") as file:
        keys = '\nbackend = "openai"\nurl = "http://127.0.0.1:9/v1"\nmodel = "toy"\nrole = "hosted"\nkey_env = ""\n'
        file.write(f'\n[routes.alone]{keys}\n[routes.gone]{keys}twin = "local"\nweights = "toy"\n')
    done = probe(study, "gate", *arguments)
    assert done.returncode != 0
    assert expected in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_stored_without_any_answer_cannot_tell(study: Path) -> None:
    assert probe(study, "run", "-r", "transparent").returncode == 0
    found = ask(study, "transparent", "--stored")  # a run without controls
    assert found["answer"] == CANNOT_TELL
    assert found["n"] == 0
    unknown = probe(study, "gate", "nowhere", "--stored")
    assert unknown.returncode == 1
    assert "There is no route 'nowhere'" in unknown.stderr


def test_the_shipped_pack() -> None:
    path = find_pack("gate")
    _, traces = read_pack(path)
    assert len(traces) == len({trace.messages for trace in traces}) == 120
    assert len({trace.family for trace in traces}) == 12
    for trace in traces:
        assert trace.control
        assert [message.role for message in trace.messages] == ["user"]
        assert (trace.sampling.temperature, trace.sampling.max_tokens, trace.sampling.seed) == (1.0, 64, None)
    (pack,) = load_packs(["gate"])
    assert pack.row.licence == "CC0-1.0"
    # The first N are a mix: no subject comes twice before all came once.
    assert len({trace.family for trace in traces[:12]}) == 12


def test_the_plan_is_the_same_for_the_same_seed(study: Path) -> None:
    config = load_config(study / "probe.toml")
    hosted, twin = config.routes["transparent"], config.routes["local"]
    (pack,) = load_packs(["gate"])
    plans = [
        plan_gate(config.only(("transparent",)), [hosted], twin, pack, prompts=5, seed=seed)[1] for seed in (1, 1, 2)
    ]
    orders = [[(trial.trace_id, trial.route_id, trial.repeat) for trial in trials] for trials in plans]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert len(orders[0]) == 5 * PER_PROMPT


def test_both_temperatures_are_sent_with_everything_else_off() -> None:
    _, traces = read_pack(find_pack("fictional"))
    asked = gate_traces(traces, 3)
    assert [trace.sampling.temperature for trace in asked] == [1.0, 0.0] * 3
    assert {trace.sampling.top_p for trace in asked} == {1.0}
    assert asked[0].messages == asked[1].messages
    assert asked[0].id != asked[1].id
    assert all(trace.control for trace in asked)
    assert gate_traces([trace for trace in traces if not trace.control], 3) == []
