"""``probe backends`` and ``probe backends show``."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from probe.cli import cli
from probe.errors import CatalogueError
from probe.wire.catalogue import backend_names, load_backend
from tests.wire.catalogue_kit import GOOD, write


def backends(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["backends", *arguments])


def parsed(*arguments: str) -> Any:
    result = backends(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def words(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


def test_the_list_has_one_line_per_backend() -> None:
    result = backends()
    assert result.exit_code == 0
    head, *lines = result.output.splitlines()
    assert head.split() == ["name", "kind", "dialect", "signatures", "sources", "key", "title"]
    assert [line.split()[0] for line in lines] == list(backend_names())
    assert any(line.startswith("groq ") and "GROQ_API_KEY" in line and line.endswith("Groq") for line in lines)


def test_the_list_as_json() -> None:
    found = parsed()
    assert [entry["name"] for entry in found] == list(backend_names())
    for entry in found:
        backend = load_backend(entry["name"])
        assert entry["dialect"] == backend.dialect
        assert entry["signatures"] == [signature.id for signature in backend.signatures]
        assert {fact.source for fact in backend.facts} <= set(entry["sources"])
        assert sum(entry["confidence"].values()) == sum(
            map(len, (backend.facts, backend.reports, backend.signatures, backend.canned))
        )


@pytest.mark.parametrize("name", backend_names())
def test_one_backend_is_explained_with_everything_that_its_file_says(name: str) -> None:
    result = backends("show", name)
    assert result.exit_code == 0
    said, backend = words(result.output), load_backend(name)
    for fact in backend.facts:
        assert words(fact.says) in said
        assert words(f"{fact.confidence}: {fact.source}") in said
    for report in backend.reports:
        assert (report.header or words(report.field)) in said
        assert words(f"{report.confidence}: {report.source}") in said
    for signature in backend.signatures:
        assert words(f"{signature.id}: {signature.sentence}") in said
        assert words(f"{signature.confidence}: {signature.source}") in said
    for canned in backend.canned:
        assert words(canned.text) in said
    for line in result.output.splitlines():
        assert len(line) <= 110 or " " not in line.strip()


def test_what_is_added_dropped_and_limited_is_said() -> None:
    said = words(backends("show", "groq").output)
    assert "Key: taken from GROQ_API_KEY and sent as `Authorization: Bearer …`." in said
    assert "max_tokens as max_completion_tokens" in said
    assert "Not taken, recorded as dropped: top_k, min_p, repeat_penalty, presence_penalty, frequency_penalty." in said
    assert "Log-probabilities cannot be asked for." in said
    assert "30 requests a minute, 1,000 requests a day." in said
    said = words(backends("show", "openrouter").output)
    assert "Header X-OpenRouter-Metadata: enabled" in said
    assert 'Body of streams: debug = {"echo_upstream_body": true}' in said
    assert "for models whose id matches :free$." in said
    said = words(backends("show", "bedrock").output)
    assert "AWS credentials of the environment; requests are signed for the service bedrock." in said
    assert "Address: each installation has its own" in said
    assert "List of models: none that could be asked." in said
    said = words(backends("show", "nemo").output)
    assert "Answers are not streamed unless a route asks for it." in said
    assert "All of them are taken." in words(backends("show", "vllm").output)
    assert "Key: none." in words(backends("show", "ollama").output)


def test_what_is_unconfirmed_is_said_to_decide_nothing() -> None:
    said = words(backends("show", "azure").output)
    assert "azure-content-filter-blocked: An error code says that a content filter blocked the request." in said
    assert "decides nothing" in said
    assert "the header ms-azureml-model-time; not read" in said


def test_one_backend_as_json() -> None:
    found = parsed("show", "portkey")
    assert found["auth"] == {"kind": "header", "header": "x-portkey-api-key", "scheme": "", "service": ""}
    assert found["headers"] == {"x-portkey-strict-open-ai-compliance": "false"}
    assert "top_k" in found["dropped"]
    assert {"id", "mechanism", "layer", "author", "sentence", "source", "confidence"} <= found["signatures"][0].keys()
    assert {"field", "means", "unit", "needs", "source", "confidence"} == found["reports"][0].keys()
    assert parsed("show", "openrouter")["limits"]["only"] == ":free$"


def test_a_file_of_ones_own_is_explained_as_well(tmp_path: Path) -> None:
    result = backends("show", str(write(tmp_path, GOOD)))
    assert result.exit_code == 0
    assert result.output.startswith("Test (test)\n")
    assert "So it is." in result.output


@pytest.mark.parametrize(
    ("name", "words_of_it"),
    [
        ("gorq", "There is no backend 'gorq'; near it are: groq. `probe backends` lists all of them."),
        ("zzzzzzzz", "There is no backend 'zzzzzzzz'. `probe backends` lists all of them."),
        ("nowhere.toml", "nowhere.toml cannot be read"),
    ],
)
def test_an_unknown_name_is_one_sentence(name: str, words_of_it: str) -> None:
    error = backends("show", name).exception
    assert isinstance(error, CatalogueError)
    assert words_of_it in str(error)
    assert "\n" not in str(error)
