import json
from pathlib import Path

import pytest

from probe.config import Route, load_config
from probe.errors import ConfigError, WireError
from probe.resources import data_folder
from probe.runs.requests import build_request
from probe.traces.values import Message, Trace
from tests.wire.dialects_kit import backend

TRACE = Trace("t", (Message("user", "Hi."), Message("assistant", "Yes?"), Message("user", "Bye.")))
TOY = str(data_folder("backends") / "toy" / "tokenizer_config.json")


def route(dialect: str, template: str | None = None) -> Route:
    return Route(
        name="one", backend=backend(dialect), url="http://127.0.0.1:9", model="m", weights="w", role="hosted",
        template=template,
    )  # fmt: skip


@pytest.mark.parametrize("dialect", ["openai-completions", "ollama-generate"])
def test_the_template_of_a_route_writes_the_prompt(dialect: str) -> None:
    body = json.loads(build_request(route(dialect, TOY), TRACE).body)
    assert body["prompt"] == "<|user|>Hi.<|end|><|assistant|>Yes?<|end|><|user|>Bye.<|end|><|assistant|>"
    with pytest.raises(WireError, match=r"^Route 'one': Trace 't' .* set `template` on the route"):
        build_request(route(dialect), TRACE)


def test_a_chat_needs_no_template() -> None:
    assert build_request(route("openai-chat", "/nowhere"), TRACE) == build_request(route("openai-chat"), TRACE)


def test_a_template_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^Route 'one': The chat template .* cannot be read"):
        build_request(route("openai-completions", str(tmp_path / "none")), TRACE)
    path = tmp_path / "chat.jinja"
    path.write_text("{{ raise_exception('no') }}", encoding="utf-8")
    with pytest.raises(WireError, match=r"^Route 'one': Trace 't' cannot be written by the chat template .*: no\.$"):
        build_request(route("openai-completions", str(path)), TRACE)


def test_the_configuration_names_it(tmp_path: Path) -> None:
    path = tmp_path / "probe.toml"
    path.write_text(
        f'[routes.one]\nbackend = "llamacpp"\nurl = "http://127.0.0.1:9/v1"\nmodel = "m"\ntemplate = "{TOY}"\n',
        encoding="utf-8",
    )
    assert load_config(path).routes["one"].template == TOY
