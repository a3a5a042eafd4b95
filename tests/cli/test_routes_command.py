"""``probe routes``: list, check, expand."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent.parent / "routers"))  # for router_kit, in whatever way pytest imports

from router_kit import DEEPINFRA, MODEL, NOVITA, Router, document, running

from probe.cli import cli
from probe.config import load_config
from probe.errors import ConfigError, ModelError, ProbeError, RouteError

LOCAL = '[routes.local]\nbackend = "vllm"\nurl = "http://127.0.0.1:9/v1"\nmodel = "m"\nweights = "Qwen/Qwen3-8B@abc"\n'


@pytest.fixture
def router() -> Iterator[Router]:
    with running() as found:
        found.tell(f"/models/{MODEL}/endpoints", document(DEEPINFRA, NOVITA))
        found.tell("/models", {"data": [{"id": MODEL, "top_provider": {"is_moderated": True}}]})
        yield found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["routes", *arguments], catch_exceptions=True)


def expand(router: Router, *more: str) -> Result:
    return run("expand", "openrouter", MODEL, "--url", router.url, *more)


def test_expand_prints_routes_that_load(router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = expand(router)
    assert result.exit_code == 0
    assert result.stdout.startswith("# The list of models says that the top provider")
    (tmp_path / "probe.toml").write_text(result.stdout, encoding="utf-8")
    routes = load_config(tmp_path / "probe.toml").routes
    assert list(routes) == ["openrouter-deepinfra-bf16", "openrouter-novita-fp8"]
    assert routes["openrouter-novita-fp8"].request["provider"]["only"] == ["novita/fp8"]
    assert routes["openrouter-novita-fp8"].url == router.url


def test_expand_as_json_is_a_list(router: Router) -> None:
    found = json.loads(expand(router, "--json", "--weights", "w").stdout)
    assert [row["name"] for row in found] == ["openrouter-deepinfra-bf16", "openrouter-novita-fp8"]
    first = found[0]
    assert (first["provider"], first["tag"], first["quantization"]) == ("DeepInfra", "deepinfra/bf16", "bf16")
    assert (first["context_length"], first["price"]) == (40960, {"prompt": 0.05, "completion": 0.4, "request": 0.0})
    assert first["request"]["provider"]["allow_fallbacks"] is False
    assert 'weights = "w"' in first["toml"]


def test_expand_writes_behind_what_is_there(router: Router, tmp_path: Path) -> None:
    path = tmp_path / "probe.toml"
    before = ("\ufeff# Überschrift\r\n" + LOCAL.replace("\n", "\r\n") + "# no line break at the end").encode()
    path.write_bytes(before)
    path.chmod(0o640)
    result = expand(router, "--config", str(path), "--twin", "local", "--write")
    assert result.exit_code == 0, result.output
    assert "Wrote 2 routes" in result.stdout
    assert path.read_bytes().startswith(before)
    assert path.stat().st_mode & 0o777 == 0o640
    routes = load_config(path).routes
    assert list(routes) == ["local", "openrouter-deepinfra-bf16", "openrouter-novita-fp8"]
    pinned = routes["openrouter-deepinfra-bf16"]
    assert (pinned.twin, pinned.weights) == ("local", "Qwen/Qwen3-8B@abc"), "the twin's weights"
    assert [file.name for file in tmp_path.iterdir()] == ["probe.toml"]

    after = path.read_bytes()
    again = expand(router, "--config", str(path), "--twin", "local", "--write")
    assert isinstance(again.exception, ConfigError)
    assert "has a route 'openrouter-deepinfra-bf16' already" in str(again.exception)
    assert path.read_bytes() == after


def test_expand_writes_nothing_that_would_not_load(router: Router, tmp_path: Path) -> None:
    path = tmp_path / "probe.toml"
    path.write_text(LOCAL, encoding="utf-8")
    result = expand(router, "--config", str(path), "--twin", "nobody", "--write")
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(f"Nothing was written: {path}, line ")
    assert "'nobody' is not a route" in str(result.exception)
    assert path.read_text(encoding="utf-8") == LOCAL
    assert [file.name for file in tmp_path.iterdir()] == ["probe.toml"]
    missing = expand(router, "--config", str(tmp_path / "none.toml"), "--write")
    assert "probe init" in str(missing.exception)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["vllm", "m"], RouteError, "has no listing of endpoints"),
        (["nonsense", "m"], ProbeError, "There is no backend 'nonsense'"),
        (["openrouter", "no/such", "--url", "URL"], ModelError, "lists no model 'no/such'"),
    ],
)
def test_expand_has_one_sentence_for_a_mistake(
    router: Router, arguments: list[str], error: type[Exception], words: str
) -> None:
    result = run("expand", *(router.url if argument == "URL" else argument for argument in arguments))
    assert isinstance(result.exception, error)
    assert words in str(result.exception)


def test_the_bare_command_still_lists(tmp_path: Path) -> None:
    path = tmp_path / "probe.toml"
    path.write_text(LOCAL, encoding="utf-8")
    assert "vllm" in run("--config", str(path)).stdout
    rows = json.loads(run("--config", str(path), "--json").stdout)["routes"]
    assert [row["name"] for row in rows] == ["local"]
    assert "sentence" not in rows[0]


def test_check_prints_findings_and_fails_where_a_route_cannot_be_used(router: Router, tmp_path: Path) -> None:
    path = tmp_path / "probe.toml"
    keys = f'backend = "openrouter"\nurl = "{router.url}"\nmodel = "{MODEL}"\nkey_env = ""\n'
    pin = 'request = {{ provider = {{ only = ["{}"], allow_fallbacks = false }} }}\n'
    good = f"[routes.good]\n{keys}{pin.format('deepinfra/bf16')}"
    path.write_text(good, encoding="utf-8")
    result = run("--config", str(path), "--check")
    assert result.exit_code == 0, result.output
    assert "good: ok: model listed" in result.stdout
    assert "  warning: the list of models says that its top provider moderates prompts" in result.stdout
    assert "  note: deepinfra/bf16: $0.05 per million prompt tokens" in result.stdout

    path.write_text(f"{good}[routes.bad]\n{keys}{pin.format('gone')}", encoding="utf-8")
    result = run("--config", str(path), "--check", "--json")
    assert result.exit_code == 1
    rows = {row["name"]: row for row in json.loads(result.stdout)["routes"]}
    assert rows["good"]["usable"] is True
    assert rows["bad"]["usable"] is False
    assert {finding["level"] for finding in rows["bad"]["findings"]} >= {"error"}


def test_check_compares_with_the_study_s_own_traces(router: Router, tmp_path: Path) -> None:
    router.tell(f"/models/{MODEL}/endpoints", document(DEEPINFRA | {"max_completion_tokens": 16}))
    trace = {"name": "t", "messages": [{"role": "user", "content": "How?"}], "sampling": {"max_tokens": 64}}
    pack = tmp_path / "pack.jsonl"
    pack.write_text(json.dumps(trace) + "\n", encoding="utf-8")
    text = f'[run]\npacks = ["{pack}", "no-such-pack"]\n[routes.a]\nbackend = "openrouter"\nurl = "{router.url}"\n'
    text += f'model = "{MODEL}"\nkey_env = ""\nrequest = {{ provider = {{ only = ["deepinfra"] }} }}\n'
    (tmp_path / "probe.toml").write_text(text, encoding="utf-8")
    result = run("--config", str(tmp_path / "probe.toml"), "--check")
    assert "writes 16 tokens at most, and the traces ask for 64" in result.stdout
