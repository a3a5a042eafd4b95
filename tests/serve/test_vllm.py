import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from probe.errors import ServeError
from probe.serve import guard
from probe.serve.info import ServerInfo
from probe.serve.vllm import PYTHON_VARIABLE, VllmServer
from tests.vllm_kit import MODEL_ID, clean_environment, processes_of, real_python, toy_model, vllm_server

__all__ = ["vllm_server"]

PARENT = """
    import sys, time
    from pathlib import Path
    from probe.serve.vllm import VllmServer

    server = VllmServer(Path(sys.argv[1]), model_id="toy", log_path=Path(sys.argv[2]))
    server.start()
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    python = tmp_path / "python"
    script = Path(__file__).with_name("fake_vllm.py")
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv(PYTHON_VARIABLE, str(python))
    return lambda mode: monkeypatch.setenv("VLLM_FAKE", mode)


def gone_within(group: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while processes_of(group):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_starts_answers_and_stops_all_that_it_started(fake: Callable[[str], None], model: Path, tmp_path: Path) -> None:
    fake("")
    log = tmp_path / "vllm.log"
    with VllmServer(model, model_id="toy", log_path=log) as server:
        assert server.info is not None
        assert (server.info.model, server.info.version) == ("toy", "0.0")
        assert server.info.url.startswith("http://127.0.0.1:")
        group = server.pid
        assert group is not None
        assert len(processes_of(group)) == 2
    assert not processes_of(group)
    assert log.exists()
    server.stop()


def test_starts_again_after_a_stop_and_not_twice_at_once(fake: Callable[[str], None], model: Path) -> None:
    fake("")
    server = VllmServer(model, model_id="toy")
    server.start()
    with pytest.raises(ServeError, match="already running"):
        server.start()
    server.stop()
    server.start()
    server.stop()


def test_outlives_the_thread_that_started_it(fake: Callable[[str], None], model: Path) -> None:
    fake("")
    server = VllmServer(model, model_id="toy")
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert server.pid is not None
    assert processes_of(server.pid)
    server.stop()


def test_a_worker_that_ignores_sigterm_is_killed(fake: Callable[[str], None], model: Path) -> None:
    fake("stubborn")
    server = VllmServer(model, model_id="toy")
    server.start()
    group = server.pid
    assert group is not None
    server.stop()
    assert not processes_of(group)


@pytest.mark.parametrize("victim", ["parent", "guard"])
def test_nothing_stays_when_the_parent_or_the_guard_is_killed(
    fake: Callable[[str], None], model: Path, tmp_path: Path, victim: str
) -> None:
    fake("")
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(model), str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment()) as parent:
        assert parent.stdout is not None
        group = int(parent.stdout.readline())
        assert processes_of(group)
        if victim == "guard":
            guard_pid = int(Path(f"/proc/{group}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(guard_pid, signal.SIGKILL)
            assert gone_within(group, 5)
        parent.kill()
    assert gone_within(group, 5)


def test_an_end_before_the_first_answer_is_told_with_its_cause(fake: Callable[[str], None], model: Path) -> None:
    fake("ends")
    with pytest.raises(
        ServeError, match=r"ended with status 3 before it answered: ValueError: the weights are torn"
    ) as e:
        VllmServer(model, model_id="toy").start()
    log = Path(str(e.value).rpartition("(log: ")[2].rstrip(")."))
    assert "initialization failed" in log.read_text()
    log.unlink()


def test_a_server_that_does_not_come_up_is_given_up_and_stopped(
    fake: Callable[[str], None], model: Path, tmp_path: Path
) -> None:
    fake("silent")
    (tmp_path / "log").write_text("ValueError: what an earlier server said\n")
    server = VllmServer(model, model_id="toy", timeout_s=0.5, log_path=tmp_path / "log")
    with pytest.raises(ServeError, match="did not answer within 0 s: it said nothing"):
        server.start()
    assert server.pid is None


def test_a_server_with_another_model_is_not_taken_for_ours(
    fake: Callable[[str], None], model: Path, tmp_path: Path
) -> None:
    fake("other-model")
    with pytest.raises(ServeError, match="offers another and not toy"):
        VllmServer(model, model_id="toy", log_path=tmp_path / "log").start()


def test_the_server_sees_no_key_and_no_python_path(
    fake: Callable[[str], None], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("")
    report = tmp_path / "environment.json"
    monkeypatch.setenv("VLLM_FAKE_ENVIRONMENT", str(report))
    for name in ("OPENROUTER_API_KEY", "VLLM_API_KEY", "HF_TOKEN", "PYTHONPATH", "https_proxy"):
        monkeypatch.setenv(name, "secret")
    with VllmServer(model, model_id="toy"):
        seen = json.loads(report.read_text())
    assert "secret" not in seen.values()
    assert seen["HF_HUB_OFFLINE"] == seen["VLLM_NO_USAGE_STATS"] == "1"


def test_what_is_missing_is_said(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "no-python"))
    with pytest.raises(ServeError, match=r"PROBE_VLLM_PYTHON names .*: run scripts/install-vllm"):
        VllmServer(model, model_id="toy").start()
    with pytest.raises(ServeError, match=r"not a model folder, it has no config.json"):
        VllmServer(tmp_path, model_id="toy").start()
    not_a_program = tmp_path / "python"
    not_a_program.write_bytes(b"\x00")
    not_a_program.chmod(0o755)
    monkeypatch.setenv(PYTHON_VARIABLE, str(not_a_program))
    with pytest.raises(ServeError, match=r"could not be started: OSError: .*Exec format error"):
        VllmServer(model, model_id="toy", log_path=tmp_path / "log").start()


def test_the_guard_needs_only_the_standard_library_and_passes_the_status_on() -> None:
    command = [sys.executable, "-I", "-S", guard.__file__, "sh", "-c", "exit 7"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.wait(timeout=10) == 7


# From here on the real one.


async def post(info: ServerInfo, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.post(info.url + path, json=body) as response:
        assert response.status == 200, await response.text()
        answer: dict[str, Any] = await response.json()
        return answer


async def prompt_logprobs(info: ServerInfo, ids: list[int], top: int, **sampling: Any) -> list[Any]:
    body = {"model": info.model, "prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": top, **sampling}
    entries: list[Any] = (await post(info, "/v1/completions", body))["choices"][0]["prompt_logprobs"]
    return entries


async def chat_ids(info: ServerInfo) -> list[int]:
    messages = [{"role": "user", "content": "Please tell me about the ghost lantern."}]
    ids: list[int] = (await post(info, "/tokenize", {"model": info.model, "messages": messages}))["tokens"]
    return ids


@pytest.mark.vllm
async def test_vllm_says_what_it_is_and_answers(vllm_server: ServerInfo) -> None:
    assert vllm_server.model == MODEL_ID
    assert vllm_server.version.count(".") >= 1
    body = {"model": MODEL_ID, "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 8, "temperature": 0}
    answer = await post(vllm_server, "/v1/chat/completions", body)
    assert answer["object"] == "chat.completion"
    assert 1 <= answer["usage"]["completion_tokens"] <= 8
    again = await post(vllm_server, "/v1/chat/completions", body)
    assert again["choices"][0]["message"] == answer["choices"][0]["message"]


@pytest.mark.vllm
async def test_prompt_logprobs_are_a_distribution(vllm_server: ServerInfo) -> None:
    ids = await chat_ids(vllm_server)
    whole = await prompt_logprobs(vllm_server, ids, -1)
    some = await prompt_logprobs(vllm_server, ids, 20)
    assert whole[0] is None
    assert len(whole) == len(some) == len(ids)
    for token, entry, part in zip(ids[1:], whole[1:], some[1:], strict=True):
        assert sum(math.exp(item["logprob"]) for item in entry.values()) == pytest.approx(1, abs=1e-4)
        assert len(part) in {20, 21}
        assert sum(math.exp(item["logprob"]) for item in part.values()) <= 1 + 1e-4
        assert str(token) in part
        assert part[str(token)]["logprob"] == pytest.approx(entry[str(token)]["logprob"], abs=1e-4)


@pytest.mark.vllm
async def test_the_greedy_token_has_rank_one(vllm_server: ServerInfo) -> None:
    ids = await chat_ids(vllm_server)
    body = {
        "model": MODEL_ID,
        "prompt": ids,
        "max_tokens": 6,
        "temperature": 0,
        "logprobs": 0,
        "return_token_ids": True,
    }
    choice = (await post(vllm_server, "/v1/completions", {**body, "ignore_eos": True}))["choices"][0]
    entries = await prompt_logprobs(vllm_server, ids + choice["token_ids"], 1)
    written = entries[len(ids) :]
    assert [entry[str(token)]["rank"] for token, entry in zip(choice["token_ids"], written, strict=True)] == [1] * 6
    found = [entry[str(token)]["logprob"] for token, entry in zip(choice["token_ids"], written, strict=True)]
    assert found == pytest.approx(choice["logprobs"]["token_logprobs"], abs=1e-4)


@pytest.mark.vllm
async def test_prompt_logprobs_do_not_depend_on_the_sampler(vllm_server: ServerInfo) -> None:
    ids = await chat_ids(vllm_server)
    plain = await prompt_logprobs(vllm_server, ids, 5)
    odd = await prompt_logprobs(vllm_server, ids, 5, temperature=2, top_p=0.1, logit_bias={"5": 50}, seed=1)
    assert odd == plain


@pytest.mark.vllm
@pytest.mark.slow
def test_a_real_vllm_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(real_python()))
    server = VllmServer(toy_model(), model_id="toy", log_path=tmp_path / "log")
    server.start()
    group = server.pid
    assert group is not None
    assert len(processes_of(group)) >= 2
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < guard.GRACE_S
    assert not processes_of(group)


@pytest.mark.vllm
@pytest.mark.slow
def test_a_real_vllm_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(toy_model()), str(tmp_path / "log")]
    environment = {**clean_environment(), PYTHON_VARIABLE: str(real_python())}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        group = int(parent.stdout.readline())
        assert len(processes_of(group)) >= 2
        parent.kill()
    assert gone_within(group, guard.GRACE_S + 5)
