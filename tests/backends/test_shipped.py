"""Every shipped signature is shown at work: on samples that carry it, and on near misses that do not.

Samples lie in ``samples/<file of the signature>/<id>.json``: ``{"matches": […], "near_misses": […]}``, each entry a
response with ``status``, ``headers`` and a JSON ``body`` or the ``events`` of a stream. Shapes are those of the
documents and recordings that the signatures name as their sources; the texts are harmless.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from probe.resources import data_folder
from probe.wire.backend import Signature
from probe.wire.catalogue import backend_names, load_backend
from probe.wire.dialects import dialect
from probe.wire.signatures import Match, match_signatures
from probe.wire.values import Exchange
from tests.kit import JSON, SSE, completion, delta, make_exchange, sse

SAMPLES = Path(__file__).parent / "samples"
FILES = sorted([*data_folder("backends").glob("*.toml"), *data_folder("backends").glob("common/*.toml")])
SIGNATURES = [
    (path.stem, signature["id"])
    for path in FILES
    for signature in tomllib.loads(path.read_text()).get("signatures", [])
]
PAIRS = [(name, signature) for name in backend_names() for signature in load_backend(name).signatures]


def sample(part: str, name: str) -> dict[str, list[dict[str, Any]]]:
    loaded: dict[str, list[dict[str, Any]]] = json.loads((SAMPLES / part / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def exchange_of(entry: dict[str, Any]) -> Exchange:
    assert set(entry) <= {"status", "headers", "body", "events"}
    extra = tuple(entry.get("headers", {}).items())
    if "events" in entry:
        return make_exchange(
            status=entry["status"], response_headers=(*SSE, *extra), response_body=sse(*entry["events"])
        )
    return make_exchange(status=entry["status"], response_headers=(*JSON, *extra), response_body=entry["body"])


def matches(backend_name: str, exchange: Exchange) -> dict[str, Match]:
    backend = load_backend(backend_name)
    reading = dialect(backend.dialect).read(exchange)
    return {match.signature: match for match in match_signatures(backend, exchange, reading)}


def part_of(signature: Signature) -> str:
    return next(part for part, name in SIGNATURES if name == signature.id)


def test_ids_are_unique_over_all_files() -> None:
    names = [name for _, name in SIGNATURES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("part", "name"), SIGNATURES)
def test_every_signature_has_samples_and_near_misses(part: str, name: str) -> None:
    found = sample(part, name)
    assert set(found) == {"matches", "near_misses"}
    assert found["matches"]
    assert found["near_misses"]


def test_there_are_no_samples_without_a_signature() -> None:
    assert {(path.parent.name, path.stem) for path in SAMPLES.glob("*/*")} == set(SIGNATURES)


def test_every_shared_part_is_included_somewhere() -> None:
    assert {name for _, name in SIGNATURES} == {signature.id for _, signature in PAIRS}


@pytest.mark.parametrize(("name", "signature"), PAIRS, ids=lambda value: getattr(value, "id", value))
def test_samples_match(name: str, signature: Signature) -> None:
    for entry in sample(part_of(signature), signature.id)["matches"]:
        found = matches(name, exchange_of(entry))
        assert signature.id in found, entry
        match = found[signature.id]
        assert match.exhibit.startswith(f"HTTP {entry['status']}\n")
        assert (match.mechanism, match.layer) == (signature.mechanism, signature.layer)


@pytest.mark.parametrize(("name", "signature"), PAIRS, ids=lambda value: getattr(value, "id", value))
def test_near_misses_do_not_match(name: str, signature: Signature) -> None:
    for entry in sample(part_of(signature), signature.id)["near_misses"]:
        assert signature.id not in matches(name, exchange_of(entry)), entry


@pytest.mark.parametrize("name", ["openai", "openrouter"])
def test_a_model_that_quotes_every_sample_is_not_taken_for_a_platform(name: str) -> None:
    for part, signature in SIGNATURES:
        for entry in sample(part, signature)["matches"]:
            quoted = json.dumps(entry.get("body", entry.get("events")), ensure_ascii=False)
            whole = make_exchange(response_body=completion(quoted))
            body = sse(delta(quoted[:7]), delta(quoted[7:]), delta(finish_reason="stop"))
            assert matches(name, whole) == {}
            assert matches(name, make_exchange(response_body=body, response_headers=SSE)) == {}


@pytest.mark.parametrize("name", ["llamacpp", "vllm", "ollama"])
def test_local_servers_have_no_signatures(name: str) -> None:
    assert load_backend(name).signatures == ()


def test_every_sentence_reads_as_one() -> None:
    for _, signature in PAIRS:
        assert signature.sentence.endswith(".")


def test_what_leads_each_answer_is_the_most_telling() -> None:
    """The first match is the one that a verdict names: an upstream's words go before the router's."""
    inner = {"error": {"message": "Input data may contain inappropriate content.", "code": "data_inspection_failed"}}
    body = {
        "error": {
            "message": "Provider returned error",
            "code": 400,
            "metadata": {"raw": json.dumps(inner), "error_type": "content_policy_violation"},
        }
    }
    found = list(matches("openrouter", make_exchange(status=400, response_body=body)).values())
    assert [match.signature for match in found] == ["dashscope-input", "dashscope-either", "openrouter-content-policy"]
    assert found[0].layer == "host_input"
