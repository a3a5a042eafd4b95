"""What carries one vendor's declaration carries no other one's, and what is no block is none for anybody.

Every near miss of every signature and every ordinary refusal of ``probe/lab/refusals.toml`` is read by every backend;
where one of them does carry another declaration, that is listed here with the reason.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import probe.lab
from probe.wire.catalogue import load_backend
from probe.wire.dialects import dialect
from probe.wire.signatures import match_signatures
from tests.backends.test_shipped import RAW, SAMPLES, SIGNATURES, SIGNING, exchange_of, sample
from tests.kit import JSON, SSE, completion, make_exchange, sse

OTHER_SIDE = {
    "cloudflare-prompt": {"cloudflare-response"},
    "cloudflare-response": {"cloudflare-prompt"},
    "cloudflare-dlp-request": {"cloudflare-dlp-response", "cloudflare-prompt"},
    "cloudflare-dlp-response": {"cloudflare-dlp-request", "cloudflare-prompt"},
    "dashscope-input": {"dashscope-output", "dashscope-either", "sensenova-output"},
    "dashscope-output": {"dashscope-input", "dashscope-either"},
    "minimax-input": {"minimax-output"},
    "minimax-output": {"minimax-input"},
    "volcengine-input": {"volcengine-output"},
    "volcengine-output": {"volcengine-input"},
    "volcengine-either": {"volcengine-input"},
    "zhipu-1301-input": {"zhipu-1301", "zhipu-1301-output"},
    "zhipu-1301-output": {"zhipu-1301", "zhipu-1301-input"},
    "bedrock-trace-input": {"bedrock-trace-output", "bedrock-guardrail-unwritten"},
    "bedrock-trace-output": {"bedrock-trace-input", "bedrock-guardrail-unwritten"},
    "helicone-threat": {"helicone-moderation"},
}
"""A near miss that shows the other side (input, output) of the same vendor's block."""

LESS = {
    "azure-prompt-annotation": {"azure-prompt-filter", "azure-responsible-ai"},
    "azure-responsible-ai": {"azure-prompt-filter"},
    "litellm-in-band": set(),
    "google-openai-layer": set(),
    "openrouter-native-gemini": set(),
}
"""One that lacks a field of the more telling declaration and has the one of the less telling one; those whose set is
empty state the finish reason content_filter alone."""

TEXT_OR_NONE = {
    "azure-completion-filter": {"azure-completion-filter-cut"},
    "azure-completion-filter-cut": {"azure-completion-filter"},
    "nemo-stream-violation": {"nemo-stream-violation-cut"},
    "nemo-stream-violation-cut": {"nemo-stream-violation"},
    "minimax-flagged-text": {"minimax-output-flag"},
    "openrouter-content-policy-cut": {"openrouter-content-policy"},
    "openrouter-finish-content-filter": set(),
    "openrouter-finish-content-filter-cut": set(),
}
"""One with text where the signature is about none, or the other way round: the same block in both."""

NOT_SILENT = {
    "azure-completion-detected": {"azure-completion-filter"},
    "bedrock-trace-anonymized": {"bedrock-trace-input", "bedrock-guardrail-unwritten"},
    "cloudflare-dlp-flag": {"cloudflare-dlp-block", "cloudflare-dlp-request"},
    "openrouter-pipeline-flagged": {"openrouter-pipeline-blocked"},
    "openrouter-pipeline-redacted": {"openrouter-pipeline-blocked"},
    "openrouter-refusal": {"openrouter-content-policy"},
    "openrouter-native-refusal": {"openrouter-native-refusal-anthropic"},
    "finish-reason-refusal": {"anthropic-finish-refusal"},
    "finish-reason-type-only": set(),
    "finish-reason-content-filter": set(),
}
"""One of a signature that accuses nobody, which shows the form that does."""

FINISH = {"finish-reason-content-filter", "openrouter-finish-content-filter", "openrouter-finish-content-filter-cut"}
"""Near misses that end with content_filter for whatever reason; OpenRouter takes the word as a filter of any host."""
ENDS_SO = {
    *("azure-completion-detected", "azure-completion-filter", "azure-completion-filter-cut", "google-openai-layer"),
    *("litellm-in-band", "finish-reason-content-filter", "finish-reason-type-only", "openrouter-native-gemini"),
    *("openrouter-finish-content-filter", "openrouter-finish-content-filter-cut"),
}

EXPLAINED = {
    name: {other for table in (OTHER_SIDE, LESS, TEXT_OR_NONE, NOT_SILENT) for other in table.get(name, ())}
    | (FINISH if name in ENDS_SO else set())
    for _, name in SIGNATURES
}

SLOTS = {
    "model": "m",
    "request_id": "req-1",
    "limit": "20",
    "used": "20",
    "requested": "256",
    "afford": "12",
    "seconds": "30",
    "milliseconds": "30000",
    "duration": "30s",
    "reset_ms": "1790000000000",
    "available": '["a"]',
    "asked_for": '["b"]',
}
REFUSALS: list[dict[str, Any]] = tomllib.loads(
    (Path(probe.lab.__file__).parent / "refusals.toml").read_text(encoding="utf-8")
)["refusals"]


def filled(text: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda slot: SLOTS.get(slot[1], slot[0]), text)


def accused(name: str, exchange: Any) -> set[str]:
    backend = load_backend(name)
    reading = dialect(backend.dialect).read(exchange)
    return {m.signature for m in match_signatures(backend, exchange, reading) if m.author == "platform"}


def test_what_is_explained_is_there() -> None:
    names = {name for _, name in SIGNATURES}
    assert {other for others in EXPLAINED.values() for other in others} | ENDS_SO <= names
    assert {name for table in (OTHER_SIDE, LESS, TEXT_OR_NONE, NOT_SILENT) for name in table} <= names


@pytest.mark.parametrize("backend", SIGNING)
def test_a_near_miss_is_nobody_elses_block(backend: str) -> None:
    for part, name in SIGNATURES:
        for entry in sample(part, name)["near_misses"]:
            assert accused(backend, exchange_of(entry)) <= EXPLAINED[name], (name, entry)


@pytest.mark.parametrize("backend", SIGNING)
def test_an_ordinary_refusal_is_nobodys_block(backend: str) -> None:
    for refusal in REFUSALS:
        headers = (*JSON, *((key, filled(value)) for key, value in refusal.get("headers", {}).items()))
        exchange = make_exchange(
            status=refusal["status"], response_headers=headers, response_body=filled(refusal.get("body", ""))
        )
        assert accused(backend, exchange) == set(), refusal


@pytest.mark.parametrize("backend", SIGNING)
def test_what_accuses_nobody_goes_beside_no_accusation_of_the_same_bytes(backend: str) -> None:
    """Samples of signatures whose author is unknown or the model; what is explained states another thing as well."""
    beside = {
        "bedrock-guardrail-acted": {"bedrock-guardrail-unwritten"},
        # The filter's own finish reason stands beside the annotation.
        "volcengine-moderation-hit": FINISH,
        # The same word of an endpoint that is no LiteLLM's.
        "litellm-finish-content-filter": FINISH,
        # Hosts with such fields are never asked through OpenRouter with them.
        "finish-reason-type-only": FINISH - {"finish-reason-content-filter"},
    }
    for signature in (entry for signatures in RAW.values() for entry in signatures):
        if signature["author"] == "platform" and signature["confidence"] != "unconfirmed":
            continue
        part = next(part for part, name in SIGNATURES if name == signature["id"])
        for entry in sample(part, signature["id"])["matches"]:
            assert accused(backend, exchange_of(entry)) <= beside.get(signature["id"], set()), (signature["id"], entry)


def called(dialect_name: str, value: Any) -> dict[str, Any]:
    """Return an answer whose tool call has a value for its arguments, an object where the dialect sends one."""
    if dialect_name == "anthropic-messages":
        block = {"type": "tool_use", "id": "t1", "name": "write", "input": value}
        return {"type": "message", "model": "m", "content": [block], "stop_reason": "tool_use"}
    if dialect_name == "gemini":
        parts = [{"functionCall": {"name": "write", "args": value}}, {"text": "Written.", "thought": True}]
        return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}
    if dialect_name == "openai-responses":
        call = {"type": "function_call", "name": "write", "arguments": json.dumps(value), "status": "completed"}
        said = {"type": "reasoning", "summary": [{"type": "summary_text", "text": json.dumps(value)}]}
        return {"object": "response", "status": "completed", "model": "m", "output": [said, call]}
    if dialect_name == "bedrock-converse":
        content = [{"toolUse": {"toolUseId": "t1", "name": "write", "input": value}}]
        return {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "tool_use"}
    function = {"name": "write", "arguments": json.dumps(value, ensure_ascii=False)}
    body = completion(None, finish_reason="tool_calls")
    body["choices"][0]["message"] |= {
        "tool_calls": [{"id": "t1", "type": "function", "function": function}],
        "function_call": {"name": "write", "arguments": value},
        "reasoning_content": function["arguments"],
        "parsed": value,
    }
    return body


@pytest.mark.parametrize("backend", SIGNING)
def test_what_a_model_hands_to_a_tool_accuses_nobody(backend: str) -> None:
    for part, name in SIGNATURES:
        for entry in sample(part, name)["matches"]:
            for value in [entry["body"]] if "body" in entry else entry["events"]:
                body = called(load_backend(backend).dialect, value)
                assert accused(backend, make_exchange(response_body=body)) == set(), (name, value)


def quoted(dialect_name: str, text: str) -> list[Any]:
    """Return an answer that is this text, whole and as the events of a stream, in dialects with forms of their own."""
    if dialect_name == "openai-responses":
        message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
        whole = {"object": "response", "status": "completed", "model": "m", "output": [message]}
        delta = {"type": "response.output_text.delta", "delta": text}
        return [whole, [delta, {"type": "response.completed", "response": whole}]]
    if dialect_name == "openai-completions":
        whole = {"object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": "stop"}]}
        return [whole, [whole]]
    if dialect_name == "gemini":
        parts = {"content": {"role": "model", "parts": [{"text": text}]}}
        return [
            {"candidates": [{**parts, "finishReason": "STOP"}]},
            [{"candidates": [parts]}, {"candidates": [{"finishReason": "STOP"}]}],
        ]
    if dialect_name == "anthropic-messages":
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
        return [[{"type": "message_start", "message": {"model": "m", "content": []}}, delta, end]]
    return []


FORMS = [name for name in SIGNING if quoted(load_backend(name).dialect, "")]


@pytest.mark.parametrize("backend", FORMS)
def test_a_model_that_quotes_a_block_in_any_dialect_accuses_nobody(backend: str) -> None:
    for part, name in SIGNATURES:
        for entry in sample(part, name)["matches"]:
            text = json.dumps(entry.get("body", entry.get("events")), ensure_ascii=False)
            for body in quoted(load_backend(backend).dialect, text):
                streamed = isinstance(body, list)
                exchange = make_exchange(
                    response_headers=SSE if streamed else JSON, response_body=sse(*body) if streamed else body
                )
                assert accused(backend, exchange) == set(), (name, body)


def test_litellms_word_for_all_ends_accuses_nobody() -> None:
    """It writes content_filter for ``refusal`` and ``OTHER`` as well; Azure's annotation beside it still tells."""
    for text in ("", "The lake"):
        body = completion(text, finish_reason="content_filter")
        assert accused("litellm", make_exchange(response_body=body)) == set()
        assert accused("openai", make_exchange(response_body=body)) == {"finish-reason-content-filter"}
        body["choices"][0]["content_filter_results"] = {"violence": {"filtered": True, "severity": "high"}}
        assert accused("litellm", make_exchange(response_body=body))


def test_samples_are_where_they_are_looked_for() -> None:
    assert SAMPLES.is_dir()
    assert len(REFUSALS) > 30
