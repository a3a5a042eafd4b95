"""``probe.toml``: what is read, and one sentence with file and line for everything that is wrong."""

from pathlib import Path

import pytest

from probe.cli.init import TEMPLATE
from probe.config import load_config
from probe.errors import ConfigError

LOCAL = '[routes.local]\nbackend = "llamacpp"\nurl = "http://127.0.0.1:1/v1"\nmodel = "m"\n'


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "probe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_template_is_a_valid_study(tmp_path: Path) -> None:
    found = load_config(config(tmp_path, TEMPLATE))
    assert [route.role for route in found.routes.values()] == ["local", "hosted"]
    hosted = found.routes["openrouter"]
    assert hosted.url == "https://openrouter.ai/api/v1"
    assert hosted.key_env == "OPENROUTER_API_KEY"
    assert hosted.twin == "local"
    assert found.routes["local"].scorer == "llamacpp"


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("[run\n", None, "not valid TOML"),
        ("", None, "names no routes"),
        ("[run]\nrepeat = 2\n" + LOCAL, 2, "unknown key 'repeat'"),
        ("[run]\nrepeats = 0\n" + LOCAL, 2, "1 or more"),
        ('[run]\nseed = "x"\n' + LOCAL, 2, "whole number"),
        (LOCAL + "colour = 1\n", 5, "unknown key 'colour'"),
        (LOCAL + "stream = 1\n", 5, "true or false"),
        (LOCAL + 'role = "remote"\n', 5, '"local" or "hosted"'),
        (LOCAL + "pace = { concurrency = 0 }\n", 5, "more than 0"),
        (LOCAL + "pace = { concurrency = 1_000_000_000 }\n", 5, "1,000 or less"),
        (LOCAL + f"pace = {{ timeout_s = {10**400} }}\n", 5, "or less"),
        (LOCAL + "\n[routes.local.pace]\nconcurrency = 2\nrequests_per_minute = -1\n", 8, "more than 0"),
        (LOCAL + "pace.requests_per_day = 0\n", 5, "more than 0"),
        (LOCAL + "pace = {}\n" + LOCAL.replace("local", "h") + "pace = { max_usd = 0 }\n", 10, "more than 0"),
        (LOCAL + "pace = { speed = 3 }\n", None, "unknown key 'speed'"),
        (LOCAL.replace('"http://127.0.0.1:1/v1"', '"ftp://x"'), 3, "http://"),
        (LOCAL.replace("llamacpp", "llama"), 2, "no backend 'llama'"),
        (LOCAL.replace('model = "m"\n', ""), 1, "has no model"),
        (LOCAL.replace('model = "m"', 'model = ""'), 4, "has no model"),
        (LOCAL + '[routes.h]\nbackend = "openrouter"\nmodel = "m"\ntwin = "nobody"\n', 8, "'nobody' is not a route"),
        (LOCAL + 'twin = "local"\n', 5, "only hosted routes"),
        ("[routes.\"Bad Name\"]\nbackend = 'openai'\n", 1, "lower-case"),
        ("[other]\n" + LOCAL, 1, "unknown table"),
        ("routes = 3\n", None, "names no routes"),
    ],
)
def test_each_mistake_is_one_sentence_with_its_line(tmp_path: Path, text: str, line: int | None, expected: str) -> None:
    path = config(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert expected in message
    assert str(path) in message
    assert message.endswith(".")
    if line is not None:
        assert f"line {line}:" in message


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="probe init"):
        load_config(tmp_path / "probe.toml")


def test_only_keeps_the_twin(tmp_path: Path) -> None:
    found = load_config(config(tmp_path, TEMPLATE))
    assert set(found.only(("openrouter",)).routes) == {"openrouter", "local"}
    assert set(found.only(("local",)).routes) == {"local"}
    with pytest.raises(ConfigError, match="no route 'x'"):
        found.only(("x",))
