from pathlib import Path

import pytest

from probe.errors import CatalogueError
from probe.traces.values import Sampling
from probe.wire.backend import Auth, Describe
from probe.wire.catalogue import backend_names, load_backend, read_backend

GOOD = """
title = "Test"
kind = "hosted"
dialect = "openai-chat"
[parameters]
temperature = "temperature"
top_k = { wire = "top_k", off = -1 }
[describe]
models = "/v1/models"
[[facts]]
about = ["parameters", "describe"]
says = "So it is."
source = "https://example.org"
confidence = "primary"
"""

SIGNATURE = """
[[signatures]]
id = "a"
mechanism = "declared_block"
layer = "gateway"
author = "platform"
sentence = "It blocked."
source = "https://example.org"
confidence = "primary"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "test.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_small_file(tmp_path: Path) -> None:
    backend = read_backend(write(tmp_path, GOOD))
    assert (backend.name, backend.kind, backend.url, backend.auth, backend.stream_default) == (
        "test",
        "hosted",
        None,
        None,
        True,
    )
    sent, dropped = backend.parameters.to_wire(Sampling())
    assert sent == {"temperature": 1.0, "top_k": -1}
    assert dropped == ("top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "max_tokens")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('title = "Test"', "", "title is missing"),
        ('title = "Test"', 'title = ""', "title is empty"),
        ('title = "Test"', "title = 5", "title must be a text, not 5"),
        ('title = "Test"', 'title = "Test"\ncolour = 1', "colour is an unknown key"),
        ('kind = "hosted"', 'kind = "near"', "kind must be one of local, hosted, not 'near'"),
        ('"openai-chat"', '"morse"', "dialect must be one of openai-chat, "),
        ('temperature = "temperature"', 'heat = "temperature"', "parameters.heat is no sampling parameter"),
        ("off = -1", "on = -1", "parameters.top_k.off is missing"),
        ('models = "/v1/models"', "", "describe.models is missing"),
        ('about = ["parameters", "describe"]', 'about = ["describe"]', "parameters has no source"),
        ('source = "https://example.org"', "", "facts[0].source is missing"),
        ('"primary"', '"sure"', "facts[0].confidence must be one of"),
        ("[parameters]", "[headers]\nX = 1\n[parameters]", "headers.X must be a text"),
        ("[parameters]", '[headers]\nX = "1"\n[parameters]', "headers.X has no source"),
        ("[parameters]", "[request]\nx = 1\n[parameters]", "request.x has no source"),
        ('dialect = "openai-chat"', 'dialect = "openai-chat"\nlogprobs = 1', "logprobs must be true or false"),
        ('dialect = "openai-chat"', 'dialect = "openai-chat"\ninclude = ["../x"]', "include must be names"),
        ('dialect = "openai-chat"', 'dialect = "openai-chat"\ninclude = ["none"]', "cannot be read"),
        ('title = "Test"', 'title = "Test', "is not valid TOML"),
    ],
)
def test_mistakes_are_one_sentence_with_file_and_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(CatalogueError) as caught:
        read_backend(write(tmp_path, GOOD.replace(old, new, 1)))
    assert words in str(caught.value)
    assert ".toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("", "signatures[0] states no condition"),
        ("status = 'x'", "signatures[0].status must be a number"),
        ("status = []", "signatures[0].status must be a number"),
        ("finish_reason = '('", "signatures[0].finish_reason is not a regular expression"),
        ("json = { 'a b' = 'x' }", "is not a JMESPath expression"),
        ("json = { a = 1 }", "signatures[0].json.a must be a text"),
        ("headers = { a = '(' }", "is not a regular expression"),
        ("body = 'x'", "signatures[0].body needs a status of 400 or above"),
        ("body = 'x'\nstatus = [200, 400]", "signatures[0].body needs a status of 400 or above"),
        ("status = 400\ntext = 'much'", "signatures[0].text must be one of none, some"),
        ("status = 400\nweather = 'x'", "signatures[0].weather is an unknown key"),
    ],
)
def test_mistakes_in_signatures(tmp_path: Path, condition: str, words: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        read_backend(write(tmp_path, GOOD + SIGNATURE + condition))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"platform"', '"model"', 'author is "model" exactly where'),
        ('"declared_block"', '"model_refusal"', 'author is "model" exactly where'),
        ('"declared_block"', '"redaction"', 'author must be "unknown"'),
        ('layer = "gateway"', 'layer = "cloud"', "layer must be one of"),
        ('source = "https://example.org"', "", "signatures[0].source is missing"),
    ],
)
def test_words_of_signatures_must_agree(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        read_backend(write(tmp_path, GOOD + SIGNATURE.replace(old, new) + "status = 400"))
    assert words in str(caught.value)


def test_an_id_stands_once(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="'a' twice"):
        read_backend(write(tmp_path, GOOD + 2 * (SIGNATURE + "status = 400\n")))


def test_a_folder_of_ones_own_goes_before_the_shipped_files(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert load_backend("test", tmp_path).title == "Test"
    assert "test" in backend_names(tmp_path)
    (tmp_path / "vllm.toml").write_text(GOOD)
    assert load_backend("vllm", tmp_path).title == "Test"
    assert load_backend("vllm").title == "vLLM"


@pytest.mark.parametrize("name", ["nowhere", "", "../backends/vllm", "common/gateways", "/etc/passwd"])
def test_unknown_backends(name: str) -> None:
    with pytest.raises(CatalogueError, match="there are: llamacpp, ollama, openai, openrouter, vllm"):
        load_backend(name)


def test_parts_are_included_before_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "part.toml").write_text(SIGNATURE.replace('"a"', '"b"') + "status = 400")
    text = GOOD.replace('title = "Test"', 'title = "Test"\ninclude = ["part"]') + SIGNATURE + "status = 400"
    assert [signature.id for signature in read_backend(write(tmp_path, text)).signatures] == ["b", "a"]


def test_the_shipped_backends() -> None:
    assert backend_names() == ("llamacpp", "ollama", "openai", "openrouter", "vllm")
    openrouter = load_backend("openrouter")
    assert openrouter.auth == Auth("Authorization", "Bearer")
    assert openrouter.headers["X-OpenRouter-Metadata"] == "enabled"
    assert openrouter.describe == Describe("/v1/models")
    for name in ("llamacpp", "vllm", "ollama"):
        backend = load_backend(name)
        assert (backend.kind, backend.signatures, backend.parameters.to_wire(Sampling())[1]) == ("local", (), ())
        assert any("timings" in fact.about for fact in backend.facts)
