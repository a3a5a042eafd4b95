"""Chat templates, with llama.cpp's own engine as the oracle."""

import json
import os
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from probe.errors import ConfigError, WireError
from probe.resources import data_folder
from probe.traces.values import Message, Trace
from probe.wire.templates import ChatTemplate, load_template
from tests.scoring.template_server import FORGETFUL, THINKING, template_server

TOY = data_folder("backends") / "toy" / "tokenizer_config.json"
CHATML = """\
{%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content | trim) + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LOOPS = """\
{% for message in messages %}
  {% if message.content == '你好' %}
    {% continue %}
  {% endif %}
  {% if loop.index > 3 %}
    {% break %}
  {% endif %}
{{ loop.index0 }} {{ message.content | tojson }}
{% endfor %}
{{ eos_token }}{{ 'tools' if tools is defined and tools else 'no tools' }}
"""
NAMESPACE = """\
{% set ns = namespace(all='') %}
{% for message in messages[::-1] %}
    {% set ns.all = message.role + ':' + message.content + ';' + ns.all %}
{% endfor %}
{{ ns.all }}{{ messages[0].content[:3] }}
"""
TEMPLATES = {
    "toy": json.loads(TOY.read_text(encoding="utf-8"))["chat_template"],
    "chatml": CHATML,
    "loops": LOOPS,
    "namespace": NAMESPACE,
    "thinking": THINKING,
    "forgetful": FORGETFUL,
}
CONVERSATIONS = (
    (Message("user", "How do I brew glimmerdust tonic?"),),
    (Message("system", "Be brief."), Message("user", " Grüße 👍 ")),
    (
        Message("user", "a\n\nb"),
        Message("assistant", 'He said "no" & <left>.'),
        Message("user", "你好"),
        Message("user", "x"),
    ),
)


def rendered(template: str, *messages: Message) -> str:
    return ChatTemplate(template, {"eos_token": "<|end|>"}).render(Trace("t", messages))


def apply_template(url: str, messages: tuple[Message, ...]) -> str:
    body = {"messages": [{"role": message.role, "content": message.content} for message in messages]}
    request = urllib.request.Request(
        f"{url}/apply-template", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return str(json.loads(answer.read())["prompt"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_same_text_as_llamacpp(name: str) -> None:
    with template_server(TEMPLATES[name]) as url:
        for messages in CONVERSATIONS:
            assert rendered(TEMPLATES[name], *messages) == apply_template(url, messages)


def test_the_embedded_weights() -> None:
    template = load_template(str(TOY))
    prompt = template.render(Trace("t", (Message("system", "Be brief."), Message("user", "Hi."))))
    assert prompt == "<|system|>Be brief.<|end|><|user|>Hi.<|end|><|assistant|>"
    assert template.tokens == {"eos_token": "<|end|>", "pad_token": "<|pad|>"}


def written(folder: Path, config: Any) -> str:
    path = folder / "tokenizer_config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    return str(path)


def test_special_tokens_and_the_first_of_them(tmp_path: Path) -> None:
    config = {
        "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
        "bos_token": {"content": "<s>", "lstrip": False},
        "eos_token": "</s>",
    }
    trace = Trace("t", (Message("user", "Hi."),))
    # A server puts it there itself.
    assert load_template(written(tmp_path, config)).render(trace) == "Hi.</s>"
    file = tmp_path / "other"
    file.mkdir()
    assert load_template(written(file, {**config, "add_bos_token": False})).render(trace) == "<s>Hi.</s>"


def test_one_of_several_templates(tmp_path: Path) -> None:
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "{{ messages[0].content }}"}]
    template = load_template(written(tmp_path, {"chat_template": several}))
    assert template.render(Trace("t", (Message("user", "Hi."),))) == "Hi."


def test_a_template_beside_the_configuration(tmp_path: Path) -> None:
    path = written(tmp_path, {"eos_token": "</s>"})
    with pytest.raises(ConfigError, match=r"holds no chat template, .*chat_template\.jinja beside it\.$"):
        load_template(path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}{{ eos_token }}", encoding="utf-8")
    os.utime(path, (1, 1))
    assert load_template(path).render(Trace("t", (Message("user", "Hi."),))) == "Hi.</s>"


def test_a_plain_file_and_its_change(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text("{% generation %}{{ messages[0].content }}{% endgeneration %}", encoding="utf-8")
    trace = Trace("t", (Message("user", "Hi."),))
    assert load_template(str(path)).render(trace) == "Hi."
    path.write_text("{{ strftime_now('%Y') }}", encoding="utf-8")
    os.utime(path, (1, 1))
    assert re.fullmatch(r"20\d\d", load_template(str(path)).render(trace))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{% if %}", "is no Jinja"),
        ("{{ 'a' | no_such_filter }}", "is no Jinja"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_a_file_that_is_no_template(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = tmp_path / "chat.jinja"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=words) as caught:
        load_template(str(path))
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("config", ["{", "[]", {"chat_template": 7}, {"chat_template": [7]}, {"chat_template": []}])
def test_a_configuration_without_a_template(tmp_path: Path, config: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        load_template(written(tmp_path, config))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.jinja cannot be read: No such file or directory\.$"):
        load_template(str(tmp_path / "none.jinja"))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('System role not supported') }}", "System role not supported."),
        ("{{ messages[7].content }}", "has no element 7"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for a in range(10**9) %}{% endfor %}", "OverflowError"),
    ],
)
def test_what_a_template_cannot_write(template: str, words: str) -> None:
    with pytest.raises(WireError, match=words) as caught:
        rendered(template, Message("user", "x"))
    assert str(caught.value).startswith("Trace 't' cannot be written by the chat template: ")
    assert str(caught.value).endswith(".")
