"""What cannot be served is refused in each vendor's words; what is listed has each vendor's form."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from probe.lab.platform_spec import Platform
from probe.lab.server import LabServer
from probe.serve.llamacpp import LlamaCppServer
from tests.lab.dialect_kit import FRONTS, body_of, path_of
from tests.lab.raw import QUESTION


@pytest.fixture(scope="module")
def platforms(toy_server: LlamaCppServer) -> Iterator[LabServer]:
    assert toy_server.info is not None
    with LabServer([Platform(front, front=front) for front in FRONTS], toy_server.info.url, "toy", seed=9) as server:
        yield server


def refusal(url: str, data: bytes | None) -> tuple[int, Any, dict[str, str]]:
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    with caught.value as error:
        return error.code, json.loads(error.read()), {name.lower(): value for name, value in error.headers.items()}


WORDS = {
    "openai-completions": (404, "error.code", "model_not_found"),
    "openai-responses": (404, "error.code", "model_not_found"),
    "ollama-generate": (404, "error", "model 'other' not found"),
    "anthropic": (404, "error.type", "not_found_error"),
    "gemini": (404, "error.status", "NOT_FOUND"),
    "bedrock": (400, "message", "The provided model identifier is invalid."),
}


@pytest.mark.parametrize("front", FRONTS)
def test_an_unknown_model_is_answered_in_the_vendors_words(platforms: LabServer, front: str) -> None:
    body = json.dumps(body_of(front, QUESTION, stream=False, max_tokens=4, model="other")).encode()
    url = f"{platforms.url}/{front}{path_of(front, stream=False, model='other')}"
    status, document, headers = refusal(url, body)
    wanted, path, word = WORDS[front]
    value = document
    for key in path.split("."):
        value = value[key]
    assert (status, value) == (wanted, word)
    assert headers.get("x-amzn-errortype", "") == ("ValidationException" if front == "bedrock" else "")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"{}", b'{"model":"toy","messages":3}'])
@pytest.mark.parametrize("front", FRONTS)
def test_a_body_that_is_none_is_a_bad_request(platforms: LabServer, front: str, body: bytes) -> None:
    status, document, _ = refusal(f"{platforms.url}/{front}{path_of(front, stream=False)}", body)
    assert status == 400
    assert "error" in document or front == "bedrock"


@pytest.mark.parametrize("front", FRONTS)
def test_a_path_of_another_dialect_is_not_found(platforms: LabServer, front: str) -> None:
    assert refusal(f"{platforms.url}/{front}/v1/chat/completions", b"{}")[0] == 404


def listed(lab: LabServer, path: str) -> Any:
    with urllib.request.urlopen(f"{lab.url}/{path}", timeout=30) as answer:
        return json.load(answer)


def test_models_are_listed_in_the_vendors_form(platforms: LabServer) -> None:
    assert listed(platforms, "anthropic/v1/models")["data"][0]["type"] == "model"
    assert listed(platforms, "gemini/v1beta/models")["models"][0]["name"] == "models/toy"
    assert listed(platforms, "gemini/v1beta/models/toy")["supportedGenerationMethods"] == ["generateContent"]
    assert listed(platforms, "ollama-generate/api/tags")["models"][0]["name"] == "toy"
    assert listed(platforms, "openai-responses/v1/models")["data"][0]["id"] == "toy"
