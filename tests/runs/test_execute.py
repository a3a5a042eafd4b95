"""Runs against real servers: plan, order, resume, secrets, and what goes wrong."""

import http.server
import itertools
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from probe.lab.server import LabServer
from probe.serve.llamacpp import LlamaCppServer
from probe.store.store import Store
from probe.store.verify import verify
from tests.study_kit import hosted_route, local_route, write_config, write_pack

PLANTED = "sk-planted-0123456789abcdef"


def probe(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "probe", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=env)


@pytest.fixture
def study(tmp_path: Path, toy_server: LlamaCppServer, lab: LabServer) -> Path:
    assert toy_server.info is not None
    write_pack(tmp_path / "pack.jsonl", 6)
    routes = {
        "local": local_route(toy_server.info.url),
        "transparent": hosted_route(f"{lab.url}/transparent"),
        "declared": hosted_route(f"{lab.url}/declared"),
    }
    write_config(tmp_path / "probe.toml", routes)
    return tmp_path


def free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        return int(probe_socket.getsockname()[1])


def test_a_run_answers_every_trial_and_a_second_one_is_new(study: Path) -> None:
    first = json.loads(probe(study, "run", "--json").stdout)
    assert (first["trials"], first["answered"], first["open"], first["resumed"]) == (24, 24, 0, False)
    second = json.loads(probe(study, "run", "--json").stdout)
    assert second["run"] != first["run"]
    assert not second["resumed"]
    assert verify(study / "probe.db").sound


def test_the_order_is_shuffled_and_stored(study: Path) -> None:
    assert probe(study, "run").returncode == 0
    with Store.open(study / "probe.db") as store:
        run = store.runs()[0]
        trials = store.trials(run.id)
        assert [trial.position for trial in trials] == list(range(24))
        routes = [trial.route_id for trial in trials]
        blocks = sum(a != b for a, b in itertools.pairwise(routes))
        assert blocks > 4, "routes must be interleaved"
        assert run.manifest["seed"] == run.seed == 0
        for route_id in store.routes():
            (fact,) = store.facts(route_id, "check")
            assert fact.value["usable"]
            assert fact.value["model_there"]


def test_the_same_trace_is_the_same_bytes_on_every_route_of_a_dialect(study: Path) -> None:
    assert probe(study, "run").returncode == 0
    with Store.open(study / "probe.db") as store:
        names = {key: route.name for key, route in store.routes().items()}
        bodies: dict[str, dict[str, bytes]] = {}
        for ref in store.refs():
            bodies.setdefault(ref.trace_id or "", {})[names[ref.route_id]] = store.exchange(ref.id).request_body
    for by_route in bodies.values():
        assert by_route["transparent"] == by_route["declared"]
        local, hosted = json.loads(by_route["local"]), json.loads(by_route["transparent"])
        assert local["messages"] == hosted["messages"]
        assert local["temperature"] == hosted["temperature"] == 1.0
        assert local["max_tokens"] == hosted["max_tokens"] == 16


@pytest.mark.slow
def test_no_key_is_stored_logged_or_printed(study: Path, lab: LabServer) -> None:
    config = (study / "probe.toml").read_text().replace('key_env = ""', 'key_env = "PLANTED_KEY"')
    (study / "probe.toml").write_text(config)
    outputs = []
    for arguments in (["run"], ["routes", "--check"], ["analyze"], ["report"], ["show"], ["analyze", "--json"]):
        done = probe(study, *arguments, PLANTED_KEY=PLANTED)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout + done.stderr)
    with Store.open(study / "probe.db") as store:
        shown = probe(study, "show", store.refs()[0].id, PLANTED_KEY=PLANTED)
        requests = [store.exchange(ref.id).request_headers for ref in store.refs()]
    sent = [(name.lower(), value) for headers in requests for name, value in headers]
    assert ("authorization", "[redacted]") in sent
    outputs.append(shown.stdout + shown.stderr)
    for text in outputs:
        assert PLANTED not in text
    for file in study.iterdir():
        assert PLANTED.encode() not in file.read_bytes(), file.name
    with Store.open(study / "probe.db") as store:
        for ref in store.refs():
            assert PLANTED not in repr(store.exchange(ref.id))
    assert not any(PLANTED in repr(entry) for entry in vars(lab.log).values())


def test_a_missing_key_is_said_before_anything_is_sent(study: Path) -> None:
    config = (study / "probe.toml").read_text().replace('key_env = ""', 'key_env = "NOT_SET_ANYWHERE"')
    (study / "probe.toml").write_text(config)
    done = probe(study, "run")
    assert done.returncode == 1
    assert "NOT_SET_ANYWHERE" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"url": "http://127.0.0.1:9/v1"}, "cannot be reached"),
        ({"url": "http://no-such-host.invalid/v1"}, "cannot be reached"),
        ({"model": "another"}, "does not know the model 'another'"),
    ],
)
def test_a_route_that_cannot_be_used_stops_alone(
    study: Path, toy_server: LlamaCppServer, lab: LabServer, change: dict[str, str], expected: str
) -> None:
    assert toy_server.info is not None
    routes = {"local": local_route(toy_server.info.url), "bad": hosted_route(f"{lab.url}/transparent", **change)}
    write_config(study / "probe.toml", routes)
    done = probe(study, "run")
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    with Store.open(study / "probe.db") as store:
        states = {trial.route_id: trial.state for trial in store.trials()}
        local = store.route_named("local")
        assert states[local.id] == "answered", "the other route goes on"
        assert store.count_trials(store.runs()[0].id)["answered"] == 2 * 6
    assert verify(study / "probe.db").sound
    write_config(study / "probe.toml", {**routes, "bad": hosted_route(f"{lab.url}/transparent")})
    assert probe(study, "routes", "--check").returncode == 0


def test_routes_check_says_what_is_wrong(study: Path, toy_server: LlamaCppServer, lab: LabServer) -> None:
    assert toy_server.info is not None
    routes = {
        "local": local_route(toy_server.info.url),
        "gone": local_route("http://127.0.0.1:9"),
        "model": hosted_route(f"{lab.url}/transparent", model="another"),
        "key": hosted_route(f"{lab.url}/transparent", key_env="NOT_SET_ANYWHERE"),
    }
    write_config(study / "probe.toml", routes)
    done = probe(study, "routes", "--check", "--json")
    assert done.returncode == 1
    rows = {row["name"]: row for row in json.loads(done.stdout)["routes"]}
    assert rows["local"]["usable"]
    assert rows["gone"]["sentence"].startswith("nobody answers")
    assert "it has toy" in rows["model"]["sentence"]
    assert "NOT_SET_ANYWHERE" in rows["key"]["sentence"]


def test_two_runs_at_once_are_refused(study: Path) -> None:
    from probe.store.lock import RunLock

    with RunLock(study / "probe.db"):
        done = probe(study, "run")
    assert done.returncode == 1
    assert "Another run writes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_full_disk_stops_the_run_with_a_sentence_and_keeps_what_was_recorded(study: Path) -> None:
    write_pack(study / "pack.jsonl", 120)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_300_000, 1_300_000))

    # The signal of the limit ends a process; ignored, the write fails as on a full disk.
    code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from probe.cli import main; main()"
    command = [sys.executable, "-c", code, "run"]
    done = subprocess.run(
        command, cwd=study, capture_output=True, text=True, timeout=300, check=False, preexec_fn=limit
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr
    with Store.open(study / "probe.db") as store:
        kept = store.count_trials(store.runs()[0].id)["answered"]
    assert verify(study / "probe.db").sound
    again = json.loads(probe(study, "run", "--json").stdout)
    assert again["resumed"]
    assert again["answered_before"] == kept
    assert again["open"] == 0


def test_a_broken_pack_names_its_lines(study: Path) -> None:
    with (study / "pack.jsonl").open("a") as file:
        file.write("{broken\n")
    done = probe(study, "run")
    assert done.returncode == 1
    assert "line 7" in done.stderr
    assert not (study / "probe.db").exists() or verify(study / "probe.db").sound


def test_the_proxy_says_that_its_port_is_taken(study: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = probe(study, "proxy", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refused_key_stops_the_route_with_the_name_of_its_variable(study: Path, toy_server: LlamaCppServer) -> None:
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            key = self.headers["authorization"]
            body = json.dumps({"error": {"message": f"No auth credentials found for {key}", "code": 401}}).encode()
            self.send_response(401)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    assert toy_server.info is not None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        routes = {"local": local_route(toy_server.info.url), "shut": hosted_route(url, key_env="PLANTED_KEY")}
        write_config(study / "probe.toml", routes)
        done = probe(study, "run", PLANTED_KEY=PLANTED)
        server.shutdown()
    assert done.returncode == 1
    assert "refused its key (HTTP 401): check the value of PLANTED_KEY" in done.stderr
    assert "Traceback" not in done.stderr
    assert PLANTED not in done.stderr + done.stdout
    for file in study.iterdir():
        assert PLANTED.encode() not in file.read_bytes(), file.name
    with Store.open(study / "probe.db") as store:
        shut = store.route_named("shut")
        exchange = next(store.exchanges(route_id=shut.id))
    assert exchange.status == 401
    assert PLANTED.encode() not in exchange.response_body
    assert exchange.redactions >= 2


@pytest.mark.slow
def test_evidence_from_scores_is_not_replaced_by_evidence_without(study: Path, toy_server: LlamaCppServer) -> None:
    assert toy_server.info is not None
    assert probe(study, "run").returncode == 0
    assert probe(study, "analyze").returncode == 0
    with Store.open(study / "probe.db") as store:
        before = store.evidence()
    config = (study / "probe.toml").read_text()
    (study / "probe.toml").write_text(config.replace(toy_server.info.url, "http://127.0.0.1:9"))
    refused = probe(study, "analyze")
    assert refused.returncode == 1
    assert "--without-scores" in refused.stderr
    assert "Traceback" not in refused.stderr
    with Store.open(study / "probe.db") as store:
        assert store.evidence() == before
    assert probe(study, "analyze", "--without-scores").returncode == 0
    (study / "probe.toml").write_text(config)
    assert probe(study, "analyze").returncode == 0
    with Store.open(study / "probe.db") as store:
        assert store.evidence() == before, "the same exchanges and scores give the same rows"
