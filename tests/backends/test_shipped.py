"""Every shipped signature is shown at work: on samples that carry it, and on near misses that do not.

Samples lie in ``samples/<file of the signature>/<id>.json``: ``{"matches": […], "near_misses": […]}``, each entry a
response with ``status``, ``headers`` and a JSON ``body`` or the ``events`` of a stream. Shapes are those of the
documents and recordings that the signatures name as their sources; the texts are harmless. Each is read in the dialect
of every backend that has the signature; an entry with ``dialects`` in those only.
"""

import json
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from probe.resources import data_folder
from probe.wire.backend import Canned, Signature
from probe.wire.catalogue import backend_names, load_backend
from probe.wire.dialects import dialect
from probe.wire.signatures import Match, match_signatures
from probe.wire.values import Exchange
from tests.kit import JSON, SSE, completion, delta, make_exchange, sse

SAMPLES = Path(__file__).parent / "samples"
FILES = sorted([*data_folder("backends").glob("*.toml"), *data_folder("backends").glob("common/*.toml")])
RAW = {path: tomllib.loads(path.read_text(encoding="utf-8")).get("signatures", []) for path in FILES}
SIGNATURES = [(path.stem, signature["id"]) for path, signatures in RAW.items() for signature in signatures]
PARTS = {name: part for part, name in SIGNATURES}
SIGNING = [name for name in backend_names() if load_backend(name).signatures]
CHATS = [name for name in SIGNING if load_backend(name).dialect == "openai-chat"]
ANY_CHAT = ["openai", "openrouter", "litellm"]
"""Backends behind which anybody may stand."""

UPSTREAMS = set(tomllib.loads((data_folder("backends") / "common" / "upstreams.toml").read_text())["include"])


@cache
def sample(part: str, name: str) -> dict[str, list[dict[str, Any]]]:
    loaded: dict[str, list[dict[str, Any]]] = json.loads((SAMPLES / part / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def exchange_of(entry: dict[str, Any]) -> Exchange:
    assert set(entry) <= {"status", "headers", "body", "events", "dialects"}
    extra = tuple(entry.get("headers", {}).items())
    if "events" in entry:
        return make_exchange(
            status=entry["status"], response_headers=(*SSE, *extra), response_body=sse(*entry["events"])
        )
    return make_exchange(status=entry["status"], response_headers=(*JSON, *extra), response_body=entry["body"])


def entries_for(dialect_name: str, part: str, name: str, kind: str) -> list[dict[str, Any]]:
    """Return the entries that can be told in a dialect; Bedrock's streams are no event streams."""
    entries = [e for e in sample(part, name)[kind] if dialect_name in e.get("dialects", [dialect_name])]
    return [e for e in entries if "body" in e] if dialect_name == "bedrock-converse" else entries


def matches(backend_name: str, exchange: Exchange) -> dict[str, Match]:
    backend = load_backend(backend_name)
    reading = dialect(backend.dialect).read(exchange)
    return {match.signature: match for match in match_signatures(backend, exchange, reading)}


def test_ids_are_unique_over_all_files() -> None:
    names = [name for _, name in SIGNATURES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("part", "name"), SIGNATURES)
def test_every_signature_has_samples_and_near_misses(part: str, name: str) -> None:
    found = sample(part, name)
    assert set(found) == {"matches", "near_misses"}
    assert found["matches"]
    # A wrong accusation is the worst fault, so two ways to be wrong are shown at least.
    assert len(found["near_misses"]) >= 2


def test_there_are_no_samples_without_a_signature() -> None:
    assert {(path.parent.name, path.stem) for path in SAMPLES.glob("*/*")} == set(SIGNATURES)


def test_every_shared_part_is_included_somewhere() -> None:
    included = {signature.id for name in SIGNING for signature in load_backend(name).signatures}
    assert {name for _, name in SIGNATURES} == included


@pytest.mark.parametrize("name", SIGNING)
def test_samples_match(name: str) -> None:
    for signature in load_backend(name).signatures:
        entries = entries_for(load_backend(name).dialect, PARTS[signature.id], signature.id, "matches")
        assert entries, signature.id
        for entry in entries:
            found = matches(name, exchange_of(entry))
            assert signature.id in found, (signature.id, entry)
            match = found[signature.id]
            assert match.exhibit.split("\n")[0] == f"HTTP {entry['status']}"
            assert match.layer == signature.layer
            assert match.mechanism in {signature.mechanism, signature.with_text}


@pytest.mark.parametrize("name", SIGNING)
def test_near_misses_do_not_match(name: str) -> None:
    for signature in load_backend(name).signatures:
        for entry in entries_for(load_backend(name).dialect, PARTS[signature.id], signature.id, "near_misses"):
            assert signature.id not in matches(name, exchange_of(entry)), (signature.id, entry)


def said(dialect_name: str, text: str) -> dict[str, Any]:
    """Return an ordinary answer with this text in one of the dialects."""
    if dialect_name == "anthropic-messages":
        content = [{"type": "text", "text": text}]
        usage = {"input_tokens": 5, "output_tokens": 3}
        return {"type": "message", "model": "m", "content": content, "stop_reason": "end_turn", "usage": usage}
    if dialect_name == "gemini":
        content_of = {"role": "model", "parts": [{"text": text}]}
        return {"candidates": [{"index": 0, "content": content_of, "finishReason": "STOP"}]}
    if dialect_name == "bedrock-converse":
        message = {"role": "assistant", "content": [{"text": text}]}
        return {"output": {"message": message}, "stopReason": "end_turn", "metrics": {"latencyMs": 900}}
    return completion(text)


@pytest.mark.parametrize("name", [*ANY_CHAT, "anthropic", "gemini", "bedrock"])
def test_a_model_that_quotes_every_sample_is_not_taken_for_a_platform(name: str) -> None:
    speaks = load_backend(name).dialect
    for part, signature in SIGNATURES:
        for entry in sample(part, signature)["matches"]:
            quoted = json.dumps(entry.get("body", entry.get("events")), ensure_ascii=False)
            assert matches(name, make_exchange(response_body=said(speaks, quoted))) == {}
            if speaks == "openai-chat":
                body = sse(delta(quoted[:7]), delta(quoted[7:]), delta(finish_reason="stop"))
                assert matches(name, make_exchange(response_body=body, response_headers=SSE)) == {}


ECHOES: dict[str, Callable[[Any, str], Any]] = {
    "message": lambda _, text: {"error": {"message": f"Invalid value: {text}", "code": "invalid_value"}},
    "openrouter": lambda _, text: {"error": {"message": "No.", "metadata": {"flagged_input": text}}},
    "groq": lambda _, text: {"error": {"message": "Bad call.", "failed_generation": text, "code": "tool_use_failed"}},
    "fastapi": lambda body, _: {"detail": [{"loc": ["body"], "msg": "Not valid", "type": "string", "input": body}]},
    "fastapi-text": lambda _, text: {"detail": [{"loc": ["body"], "msg": "Not valid", "input": text}], "body": text},
    "raw": lambda body, text: {
        "error": {
            "message": "Provider returned error",
            "metadata": {"raw": json.dumps({"error": {"message": f"Bad: {text}", "param": text, "value": body}})},
        }
    },
    "litellm": lambda _, text: {"error": {"message": f"litellm.BadRequestError: OpenAIException - Bad value {text}"}},
    "wrapped": lambda _, text: {"error": text.join(["Bad value: ", ""]), "input": text},
}
"""Errors that show what a user or a model wrote: the texts and values of a sample, where servers echo them."""

ORDINARY: dict[str, Any] = {
    "auth": {"error": {"message": "Incorrect API key provided: sk-…", "code": "invalid_api_key", "type": "auth_error"}},
    "forbidden": {"error": {"message": "You do not have access to this model.", "code": 403, "type": "forbidden"}},
    "rate": {"error": {"message": "Rate limit exceeded: 20 requests per minute", "code": "rate_limit_exceeded"}},
    "quota": {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}},
    "context": {"error": {"message": "This model's maximum context is 8192 tokens", "code": "context_length_exceeded"}},
    "parameter": {
        "error": {"message": "Unsupported parameter: top_k", "code": "unsupported_parameter", "param": "top_k"}
    },
    "kong": {"error": {"message": "bad request"}},
    "overloaded": {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    "siliconflow": {"code": 20012, "message": "Model does not exist", "data": None},
    "zod": {"success": False, "error": {"name": "ZodError", "message": '[{"code": "invalid_type", "path": ["a"]}]'}},
    "minimax": {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "input_sensitive": False},
    "detail": {"detail": "Not Found"},
    "region": {"error": {"code": 403, "message": "No.", "availability": {"code": "region_restricted"}}},
    "waf": "<!doctype html><title>Attention Required! | Cloudflare</title><h1>Sorry, you have been blocked</h1>",
    "waf-2": "<html><head><title>403 Forbidden</title></head><body>Request blocked. Reference #18.2f</body></html>",
    "text": "upstream connect error or disconnect/reset before headers",
}


def authors(backend: str, status: int, body: Any) -> set[str]:
    return {match.author for match in matches(backend, make_exchange(status=status, response_body=body)).values()}


@pytest.mark.parametrize("kind", ECHOES)
@pytest.mark.parametrize("name", ANY_CHAT)
def test_what_an_error_echoes_accuses_nobody(name: str, kind: str) -> None:
    for part, signature in SIGNATURES:
        for entry in sample(part, signature)["matches"]:
            for body in [entry["body"]] if "body" in entry else entry["events"]:
                echo = ECHOES[kind](body, json.dumps(body, ensure_ascii=False))
                assert authors(name, max(entry["status"], 400), echo) <= {"unknown"}, signature
                assert authors(name, 200, echo) <= {"unknown"}, signature


CUTTING = [(name, signature) for name in CHATS for signature in load_backend(name).signatures if signature.with_text]


@pytest.mark.parametrize(("name", "signature"), CUTTING, ids=lambda value: getattr(value, "id", value))
def test_what_ends_an_answer_after_some_text_cut_it(name: str, signature: Signature) -> None:
    """The same sample as an event: alone it is a block, after a piece of text it is a cut."""
    found = set()
    for entry in entries_for("openai-chat", PARTS[signature.id], signature.id, "matches"):
        for event in [entry["body"]] if "body" in entry else entry["events"]:
            for before in ([], [delta("The first words")]):
                exchange = make_exchange(response_body=sse(*before, event), response_headers=SSE)
                match = matches(name, exchange).get(signature.id)
                if match is not None and match.author == "platform":
                    found.add((bool(before), match.mechanism))
    assert (True, "cut_stream") in found
    assert (True, "declared_block") not in found


def texts_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for entry in entries for text in texts_in(entry)]


@pytest.mark.parametrize("name", ANY_CHAT)
def test_the_words_of_a_block_in_a_prompt_that_is_echoed_accuse_nobody(name: str) -> None:
    samples = [entry for part, s in SIGNATURES for entry in sample(part, s)["matches"]]
    for status, text in {(entry["status"], text) for entry in samples for text in texts_in(entry) if " " in text}:
        for words in (f"Invalid prompt: {text}", f'The value "{text}" is too long.'):
            body = {"error": {"message": words, "type": "invalid_request_error", "code": "invalid_value"}}
            assert authors(name, status, body) <= {"unknown"}, text
            assert authors(name, status, {"message": words, "detail": words}) <= {"unknown"}, text


@pytest.mark.parametrize("kind", ORDINARY)
@pytest.mark.parametrize("name", ANY_CHAT)
def test_ordinary_errors_are_no_blocks(name: str, kind: str) -> None:
    statuses = {entry["status"] for part, s in SIGNATURES for entry in sample(part, s)["matches"]}
    for status in sorted(statuses | {401, 402, 404, 408, 429, 500, 502, 503, 529}):
        # Portkey's 446 and 246 need its own fields; HTTP 451 is reported and accuses nobody.
        assert authors(name, status, ORDINARY[kind]) <= ({"unknown"} if status == 451 else set()), status


def test_gateways_wrap_each_other_many_times() -> None:
    """Nested error strings: OpenRouter around OpenRouter around LiteLLM around the host's own words."""
    for part, name in SIGNATURES:
        for entry in sample(part, name)["matches"]:
            if part not in UPSTREAMS or entry["status"] < 400 or "error" not in entry.get("body", {}):
                continue
            inner = json.dumps(entry["body"], ensure_ascii=False)
            if name not in {"http-451", "azure-prompt-annotation"}:  # their status is part of them
                for _ in range(3):
                    inner = json.dumps({"error": {"message": "Provider returned error", "metadata": {"raw": inner}}})
                body = {"error": {"message": f"litellm.BadRequestError: OpenAIException - {inner}. Received Model=x"}}
                assert name in matches("openrouter", make_exchange(status=502, response_body=body)), name
                stream = sse(delta("The first"), json.loads(inner))
                if "text" not in raw_signature(name):
                    assert name in matches("openai", make_exchange(response_body=stream, response_headers=SSE)), name


def raw_signature(name: str) -> dict[str, Any]:
    return next(signature for signatures in RAW.values() for signature in signatures if signature["id"] == name)


def test_local_servers_have_no_signatures() -> None:
    local = {name for name in backend_names() if load_backend(name).kind == "local"}
    assert local == {"llamacpp", "lmstudio", "ollama", "ollama-generate", "sglang", "tgi", "vllm"}
    assert local.isdisjoint(SIGNING)


CANNED = [(name, canned) for name in backend_names() for canned in load_backend(name).canned]


@pytest.mark.parametrize(("name", "canned"), CANNED, ids=lambda value: getattr(value, "text", value)[:40])
def test_canned_texts_are_mentioned_and_accuse_nobody(name: str, canned: Canned) -> None:
    def told(text: str) -> dict[str, Match]:
        return matches(name, make_exchange(response_body=said(load_backend(name).dialect, text)))

    for text in (canned.text, f" {canned.text.rstrip('.')}\n"):
        (found,) = told(text).values()
        assert (found.author, found.source) == ("unknown", canned.source)
        assert canned.by in found.sentence
    assert told(f"They said: {canned.text} Is that so?") == {}
    assert bool(told(f"An answer.\n{canned.text}")) == (canned.place == "end")


@pytest.mark.parametrize("text", ["I'm sorry, but I can't assist with that request.", "I can't help with that.", ""])
def test_what_models_usually_say_is_not_canned(text: str) -> None:
    for name in SIGNING:
        assert matches(name, make_exchange(response_body=said(load_backend(name).dialect, text))) == {}


def test_every_sentence_reads_as_one() -> None:
    for name in SIGNING:
        assert all(signature.sentence.endswith(".") for signature in load_backend(name).signatures)


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
