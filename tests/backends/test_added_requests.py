"""What is sent to servers, providers and gateways that take less than others, or reveal more if they are asked.

The rules are those of the facts in the backends' files.
"""

import json
from typing import Any

import pytest

from probe.traces.values import Message, Sampling, Trace
from probe.wire.catalogue import load_backend
from probe.wire.dialects import dialect
from probe.wire.values import BuiltRequest

PENALTIES = {"presence_penalty", "frequency_penalty"}


def built(name: str, *, stream: bool = True, logprobs: int = 0, **request: Any) -> tuple[BuiltRequest, dict[str, Any]]:
    backend = load_backend(name)
    trace = Trace("lake", (Message("system", "Be brief."), Message("user", "Name a lake.")), Sampling(seed=7))
    made = dialect(backend.dialect).build(
        trace, model="m", stream=stream, backend=backend, request=request, logprobs=logprobs
    )
    body: dict[str, Any] = json.loads(made.body)
    return made, body


@pytest.mark.parametrize(
    ("name", "refused", "limit"),
    [
        # Refused with HTTP 400 or 422, or taken for something else.
        (
            "groq",
            {*PENALTIES, "top_k", "min_p", "repetition_penalty", "logprobs", "max_tokens"},
            "max_completion_tokens",
        ),
        ("cerebras", {*PENALTIES, "top_k", "min_p", "repetition_penalty", "max_tokens"}, "max_completion_tokens"),
        ("sambanova", {"seed", "logprobs", "top_k", "min_p"}, "max_tokens"),
        ("together", {"top_k", "logprobs", "seed"}, "max_tokens"),
        ("deepinfra", {"top_k", "min_p", "seed", "repetition_penalty"}, "max_tokens"),
        ("tgi", {"top_p", "presence_penalty", "top_k", "min_p", "repetition_penalty"}, "max_tokens"),
        ("lmstudio", {"min_p", "repetition_penalty"}, "max_tokens"),
        ("azure", {"top_k", "min_p", "repetition_penalty"}, "max_tokens"),
        ("nemo", {"seed", "top_k", "min_p", "repetition_penalty", "logprobs"}, "max_tokens"),
        ("litellm", {"top_k", "min_p", "repetition_penalty"}, "max_tokens"),
        ("kong", {"top_k", "min_p", "repetition_penalty"}, "max_tokens"),
        ("anthropic", {*PENALTIES, "temperature", "top_p", "top_k", "seed", "logprobs"}, "max_tokens"),
    ],
)
def test_what_is_refused_is_not_sent_and_recorded_as_dropped(name: str, refused: set[str], limit: str) -> None:
    made, body = built(name, logprobs=3)
    assert refused.isdisjoint(body)
    assert body[limit] == 256
    taken = load_backend(name).parameters.by_name
    missing = {"temperature", "top_p", "top_k", "min_p", "repeat_penalty", *PENALTIES, "max_tokens", "seed"} - set(
        taken
    )
    assert missing <= set(made.dropped)
    assert ("logprobs" in made.dropped) == (not load_backend(name).logprobs)


@pytest.mark.parametrize("name", ["gemini", "vertex"])
def test_google_gets_what_every_model_of_it_takes(name: str) -> None:
    made, body = built(name, logprobs=3)
    assert body["generationConfig"] == {"temperature": 1.0, "topP": 1.0, "maxOutputTokens": 256, "seed": 7}
    assert {"top_k", "min_p", "repeat_penalty", *PENALTIES, "logprobs"} == set(made.dropped)
    assert made.path == "/models/m:streamGenerateContent?alt=sse"


def test_bedrock_gets_its_three_parameters_and_a_guardrail_where_the_route_names_one() -> None:
    guardrail = {"guardrailIdentifier": "gr-1", "guardrailVersion": "1", "trace": "enabled"}
    made, body = built("bedrock", guardrailConfig=guardrail)
    assert body["inferenceConfig"] == {"temperature": 1.0, "topP": 1.0, "maxTokens": 256}
    assert body["guardrailConfig"] == guardrail
    assert {"seed", "top_k"} <= set(made.dropped)
    assert made.path == "/model/m/converse-stream"


def test_sglang_and_vllm_switch_top_k_off_in_their_own_way() -> None:
    for name in ("sglang", "vllm"):
        made, body = built(name)
        assert (body["top_k"], body["repetition_penalty"], made.dropped) == (-1, 1.0, ())


def test_fireworks_is_asked_for_all_that_it_tells() -> None:
    _, body = built("fireworks", logprobs=3)
    assert {name: body[name] for name in ("perf_metrics_in_response", "return_token_ids", "raw_output")} == {
        "perf_metrics_in_response": True,
        "return_token_ids": True,
        "raw_output": True,
    }
    assert body["context_length_exceeded_behavior"] == "error"
    assert (body["logprobs"], body["top_logprobs"]) == (True, 3)


def test_nemo_is_asked_for_its_log_beside_the_routes_own_configuration() -> None:
    _, body = built("nemo", stream=False, guardrails={"config_id": "study"})
    assert body["guardrails"] == {
        "config_id": "study",
        "options": {"log": {"activated_rails": True, "llm_calls": True}},
    }
    assert not load_backend("nemo").stream_default


def test_gateways_are_told_to_hide_nothing() -> None:
    assert load_backend("vllm-semantic-router").headers == {
        "x-vsr-debug": "true",
        "x-disable-router-memory": "true",
    }
    assert load_backend("portkey").headers == {"x-portkey-strict-open-ai-compliance": "false"}
    assert load_backend("litellm").headers == {"x-litellm-num-retries": "0"}
    assert load_backend("anthropic").headers == {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(
    ("name", "header", "scheme"),
    [
        ("groq", "Authorization", "Bearer"),
        ("azure", "api-key", ""),
        ("anthropic", "x-api-key", ""),
        ("gemini", "x-goog-api-key", ""),
        ("vertex", "Authorization", "Bearer"),
        ("portkey", "x-portkey-api-key", ""),
        ("kong", "apikey", ""),
    ],
)
def test_how_keys_are_sent(name: str, header: str, scheme: str) -> None:
    backend = load_backend(name)
    assert backend.auth is not None
    assert (backend.auth.kind, backend.auth.header, backend.auth.scheme) == ("header", header, scheme)
    assert backend.key_env


def test_requests_to_bedrock_are_signed() -> None:
    auth = load_backend("bedrock").auth
    assert auth is not None
    assert (auth.kind, auth.service) == ("sigv4", "bedrock")


@pytest.mark.parametrize("name", ["openrouter", "openai", "litellm", "portkey", "kong", "higress"])
def test_before_whom_anybody_may_stand_all_signatures_are_known(name: str) -> None:
    ids = [signature.id for signature in load_backend(name).signatures]
    vendors = [signature.id for signature in load_backend("openai").signatures if signature.id.startswith(VENDORS)]
    assert [entry for entry in ids if entry.startswith(VENDORS)] == vendors


VENDORS = ("azure-", "anthropic-", "google-", "bedrock-", "dashscope-", "zhipu-", "portkey-", "nemo-", "vsr-", "wso2-")


@pytest.mark.parametrize(
    ("name", "prefixes"),
    [
        ("azure", ("azure-", "openai-", "refusal-field", "finish-reason-")),
        ("anthropic", ("anthropic-",)),
        ("gemini", ("google-",)),
        ("bedrock", ("bedrock-",)),
        ("groq", ("finish-reason-",)),
        ("fireworks", ("finish-reason-",)),
    ],
)
def test_a_host_has_its_own_signatures_only(name: str, prefixes: tuple[str, ...]) -> None:
    signatures = load_backend(name).signatures
    assert signatures
    assert all(signature.id.startswith(prefixes) for signature in signatures)


def test_a_route_to_rails_of_colang_2_asks_for_no_log() -> None:
    _, body = built("nemo", guardrails={"options": {"log": {"activated_rails": False, "llm_calls": False}}})
    assert body["guardrails"] == {"options": {"log": {"activated_rails": False, "llm_calls": False}}}
