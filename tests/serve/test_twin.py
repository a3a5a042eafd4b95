"""Twins that `probe serve` starts: a real llama.cpp, and stand-ins with the command lines of vLLM and Ollama."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probe.config import load_config
from probe.errors import ServeError
from probe.resources import data_folder
from probe.serve.ollama import PROGRAM_VARIABLE, OllamaServer
from probe.serve.process import get_json, request
from probe.serve.twin import Wanted, describe, engine_for, make_server
from probe.serve.vllm import PYTHON_VARIABLE, VllmServer

TOY = data_folder("backends") / "toy"
SWITCH = (
    "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking is defined and not enable_thinking %}"
    "[quiet]{% else %}[loud]{% endif %}"
)


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    program = tmp_path / "ollama"
    script = Path(__file__).with_name("fake_ollama.py")
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv(PROGRAM_VARIABLE, str(program))
    monkeypatch.setenv("OLLAMA_FAKE", str(tmp_path))
    # The program gets no variable of Ollama's from outside, so the stand-in is told through another name.
    program.write_text(
        f'#!/bin/sh\nOLLAMA_FAKE="{tmp_path}" exec "{sys.executable}" "{script}" "$@"\n', encoding="utf-8"
    )
    return lambda: [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]


@pytest.fixture
def fake_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    python = tmp_path / "python"
    script = Path(__file__).with_name("fake_vllm.py")
    report = tmp_path / "arguments.json"
    python.write_text(
        f'#!/bin/sh\n"{sys.executable}" -c \'import json, sys; json.dump(sys.argv[2:], open(sys.argv[1], "w"))\' '
        f'"{report}" "$@"\nexec "{sys.executable}" "{script}" "$@"\n'
    )
    python.chmod(0o755)
    monkeypatch.setenv(PYTHON_VARIABLE, str(python))
    return report


@pytest.mark.parametrize(
    ("weights", "engine"),
    [
        ("toy", "llamacpp"),
        ("a/b/kettle.gguf", "llamacpp"),
        (str(TOY), "vllm"),
        ("Qwen/Qwen3-8B@abc", "vllm"),
        ("qwen3:8b", "ollama"),
    ],
)
def test_weights_go_with_an_engine(weights: str, engine: str) -> None:
    assert engine_for(Wanted(weights)) == engine
    assert engine_for(Wanted(weights, engine="ollama")) == "ollama"


def test_a_llamacpp_twin_is_described_and_its_route_loads(tmp_path: Path) -> None:
    engine, server = make_server(Wanted("toy", context=512))
    with server:
        served = describe(Wanted("toy", context=512), engine, server)
        (tmp_path / "probe.toml").write_text(served.route("local"))
    route = load_config(tmp_path / "probe.toml").routes["local"]
    assert (route.backend.name, route.model, route.role, route.scorer) == ("llamacpp", "toy", "local", "llamacpp")
    assert served.weights == f"toy@{served.facts['weights_sha256'][:22]}"
    assert len(served.facts["weights_sha256"]) == len(served.facts["template_sha256"]) == 64
    # The embedded template has no thinking mode, so nothing is pinned.
    assert served.request == {}


@pytest.mark.parametrize(("thinking", "ending"), [(False, "[quiet]"), (True, "[loud]"), (None, None)])
def test_the_template_and_its_thinking_mode_are_pinned(
    tmp_path: Path, thinking: bool | None, ending: str | None
) -> None:
    template = tmp_path / "t.jinja"
    template.write_text(SWITCH)
    wanted = Wanted("toy", template=template, thinking=thinking, context=256, parallel=1)
    engine, server = make_server(wanted)
    with server:
        served = describe(wanted, engine, server)
        port = int(served.url.rsplit(":", 1)[1].removesuffix("/v1"))
        said = {"messages": [{"role": "user", "content": "kettle"}], **served.request}
        prompts = [
            json.loads(request(port, "POST", "/apply-template", body)[1])["prompt"]
            # By the server's own default, and by what the route says.
            for body in ({"messages": said["messages"]}, said)
        ]
    # Left to itself, llama.cpp decides whether a template thinks, and that is why it is pinned.
    assert ending is None or prompts == [f"kettle{ending}"] * 2
    expected = {} if thinking is None else {"chat_template_kwargs": {"enable_thinking": thinking}}
    assert served.request == expected
    assert tomllib.loads(served.route("x"))["routes"]["x"].get("request", {}) == expected


def test_ollama_is_started_without_cloud_and_with_a_fixed_context(
    ollama: Callable[[], list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "or-key-that-is-nobodys-business")
    monkeypatch.setenv("OLLAMA_KEEP_ALIVE", "5m")
    wanted = Wanted("kettle:8b", context=2048)
    engine, server = make_server(wanted)
    with server:
        served = describe(wanted, engine, server)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["OLLAMA_NO_CLOUD"] == "1"
    assert environment["OLLAMA_CONTEXT_LENGTH"] == "2048"
    assert environment["OLLAMA_KEEP_ALIVE"] == "-1"
    assert "or-key-that-is-nobodys-business" not in json.dumps(environment)
    assert served.request == {"think": False, "options": {"num_ctx": 2048}}
    assert (served.weights, served.facts["quantization"]) == (f"kettle:8b@{'d' * 64}", "Q8_0")
    assert [path for path, _ in ollama()] == ["/api/show", "/api/generate", "/api/show"]
    (tmp_path / "probe.toml").write_text(served.route("local"))
    assert load_config(tmp_path / "probe.toml").routes["local"].backend.name == "ollama"


def test_a_gguf_file_is_handed_to_ollama_once(ollama: Callable[[], list[Any]]) -> None:
    wanted = Wanted("toy", engine="ollama")
    engine, server = make_server(wanted)
    with server:
        served = describe(wanted, engine, server)
    created = [body for path, body in ollama() if path == "/api/create"]
    assert len(created) == 1
    assert created[0]["model"] == served.model
    assert served.facts["weights_sha256"][:12] in served.model
    assert created[0]["files"] == {"toy.gguf": f"sha256:{served.facts['weights_sha256']}"}


def test_what_ollama_cannot_serve_is_one_sentence(
    ollama: Callable[[], list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del ollama
    with pytest.raises(ServeError, match=r"does not have 'absent:1b': `ollama pull absent:1b` fetches it"):
        make_server(Wanted("absent:1b"))[1].start()
    monkeypatch.setenv("FAKE_CLOUD", "1")
    with pytest.raises(ServeError, match="'kettle:8b' is a cloud model"):
        OllamaServer("kettle:8b").start()
    monkeypatch.setenv("FAKE_ENDS", "1")
    with pytest.raises(ServeError, match="Ollama ended with status 1 before it answered: Error: listen tcp"):
        OllamaServer("kettle:8b").start()
    monkeypatch.setenv(PROGRAM_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(ServeError, match="Ollama is not installed"):
        OllamaServer("kettle:8b").start()


def test_vllm_gets_the_flags_of_a_twin(fake_vllm: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    template = tmp_path / "t.jinja"
    template.write_text(SWITCH)
    _, server = make_server(Wanted(str(tmp_path / "weights"), template=template, device="gpu", context=4096))
    with server:
        pass
    given = json.loads(fake_vllm.read_text())
    stated = dict(itertools.pairwise(given))
    assert stated["--generation-config"] == "vllm"
    assert stated["--logprobs-mode"] == "raw_logprobs"
    assert stated["--chat-template"] == str(template)
    assert json.loads(stated["--default-chat-template-kwargs"]) == {"enable_thinking": False}
    assert (stated["--dtype"], stated["--max-model-len"], stated["--host"]) == ("auto", "4096", "127.0.0.1")
    assert "--enforce-eager" not in given


def test_vllm_pins_the_revision_of_a_hub_id_and_may_ask_the_hub(
    fake_vllm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", "/somewhere")
    server = VllmServer("org/kettle", model_id="org/kettle", revision="abc")
    with server:
        pass
    given = json.loads(fake_vllm.read_text())
    assert given[given.index("--revision") + 1] == given[given.index("--tokenizer-revision") + 1] == "abc"
    environment = server.environment(1)
    assert environment["HF_HOME"] == "/somewhere"
    assert "HF_HUB_OFFLINE" not in environment
    assert VllmServer(TOY, model_id="toy").environment(1)["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("nowhere.gguf"), "there is no model file nowhere.gguf"),
        (Wanted("org/name", engine="llamacpp"), "llama.cpp serves GGUF files"),
        (Wanted("x.gguf", engine="vllm"), "a GGUF file goes with llamacpp or ollama"),
        (Wanted("toy", template=Path("nowhere.jinja")), "There is no template file nowhere.jinja"),
        (Wanted(str(TOY / "config.json")), "neither a GGUF file nor a model folder"),
    ],
)
def test_mistakes_are_one_sentence(wanted: Wanted, words: str) -> None:
    with pytest.raises(ServeError, match=words):
        make_server(wanted)[1].start()


def test_the_command_prints_a_route_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "probe", "serve", "toy", "--context", "256", "--name", "twin"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("role"):
                break
        text = "".join(lines)
        url = tomllib.loads(text)["routes"]["twin"]["url"]
        port = int(url.split(":")[2].removesuffix("/v1"))
        assert get_json(port, "/v1/models")["data"][0]["id"] == "toy"
        process.send_signal(signal.SIGINT)
        _, problems = process.communicate(timeout=60)
    assert process.returncode == 0
    assert problems.strip() == "Stopped."
    with pytest.raises(OSError, match="refused"):
        get_json(port, "/v1/models")


@pytest.mark.ollama
@pytest.mark.skipif(shutil.which("ollama") is None, reason="there is no real ollama on the path")
def test_a_real_ollama_serves_the_embedded_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    wanted = Wanted("toy", engine="ollama", context=512, device="cpu")
    engine, server = make_server(wanted)
    with server:
        served = describe(wanted, engine, server)
        port = int(served.url.rsplit(":", 1)[1])
        body = {"model": served.model, "messages": [{"role": "user", "content": "Hello"}], "stream": False}
        assert request(port, "POST", "/api/chat", body)[0] == 200
    assert any(tmp_path.iterdir())
