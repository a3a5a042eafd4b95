"""The fronts of vendors, byte by byte, over text that the real embedded weights write."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from probe.lab.fronts.base import FrontSettings
from probe.lab.fronts.openrouter import OpenRouterFront
from probe.lab.limits import REFUSALS, go_duration
from probe.lab.platform_spec import LabLimits, Platform, Screen
from probe.lab.providers import Provider
from probe.lab.server import LabServer
from probe.lab.shapes import BLOCK_SHAPES
from probe.serve.llamacpp import LlamaCppServer
from tests.lab.emulator_kit import ECHO, METADATA, chat, chunks, deltas, events, get, request
from tests.lab.raw import QUESTION, Answered, ask, structure, union

HIDDEN = "You are a careful assistant."
HARMLESS = "How do I water roses?"
TEXTS = ("I will not talk about that, for this platform forbids it.",)
TRIGGER = Screen(words=("glimmerdust",))
HOSTS = (
    Provider("Alpha", "alpha/bf16", "bf16", 4096, 1e-6, 2e-6, share=0.7),
    Provider("Beta", "beta/fp8", "fp8", 2048, 5e-7, 1e-6, moderated=True, share=0.3),
)
FRONTS = ("azure", "dashscope", "groq", "fireworks", "litellm", "portkey", "nemo", "higress")
OTHER_DIALECTS = ("anthropic", "gemini", "bedrock")
MIDNIGHT = 1_800_057_600.0
"""Unix time of the start of a day of UTC, from which the lab's clock starts."""


def acting(front: str, envelope: Any) -> Platform:
    return Platform(
        f"{front}-{envelope}", front=front, screen=TRIGGER, action="injected_text", texts=TEXTS, envelope=envelope
    )


def blocking(front: str, block: str, **more: Any) -> Platform:
    return Platform(block, front=front, screen=TRIGGER, action="declared_block", block=block, **more)


PLATFORMS = [
    Platform("or", providers=HOSTS, generation_after_s=30.0),
    Platform("or-free", free=True),
    Platform("or-hidden", hidden_system=HIDDEN),
    Platform("or-quiet", hidden_system=HIDDEN, echo_hidden=True),
    Platform("or-redact", screen=TRIGGER, action="redaction"),
    Platform("or-surprise", providers=HOSTS, surprise=1.0),
    Platform("or-fault", stream_fault=1.0),
    Platform("or-flag", screen=TRIGGER, action="flag"),
    Platform("or-wait", screen=TRIGGER, action="refuse_more", hold_s=0.4, keep_alive_s=0.02),
    blocking("openrouter", "openrouter-guardrail"),
    *(acting(front, envelope) for front in FRONTS for envelope in ("matched", "sloppy")),
    *(Platform(f"{front}-fault", front=front, stream_fault=1.0) for front in FRONTS),
    Platform("azure-asynchronous", front="azure", asynchronous=True),
    Platform("azure-flag", front="azure", screen=TRIGGER, action="flag"),
    Platform("portkey-flag", front="portkey", screen=TRIGGER, action="flag"),
    Platform("higress-checks", front="higress", buffered=True),
    blocking("dashscope", "dashscope-native-output"),
    blocking("nemo", "nemo-native-output"),
    blocking("higress", "higress-native-guard"),
    blocking("azure", "azure-native-prompt"),
    blocking("azure", "azure-native-completion-text"),
]


@pytest.fixture(scope="module")
def clock() -> list[float]:
    return [MIDNIGHT]


@pytest.fixture(scope="module")
def emulators(toy_server: LlamaCppServer, clock: list[float]) -> Iterator[LabServer]:
    assert toy_server.info is not None
    with LabServer(PLATFORMS, toy_server.info.url, "toy", seed=7, clock=lambda: clock[0]) as server:
        yield server


# ── OpenRouter ──


def test_openrouter_streams_as_recorded(emulators: LabServer) -> None:
    answer = chat(emulators.url, "or", headers=METADATA, **ECHO)
    lines = answer.body.decode().split("\n")
    assert lines[0] == ": OPENROUTER PROCESSING"
    assert b"\r" not in answer.body
    assert lines[-3:] == ["data: [DONE]", "", ""]
    first, *others, again = chunks(answer)
    assert first["choices"] == []
    assert all(chunk["choices"][0]["delta"]["role"] == "assistant" for chunk in others)
    assert all("content" in chunk["choices"][0]["delta"] for chunk in others)
    assert others[-1]["choices"] == again["choices"]
    assert again["choices"][0]["finish_reason"] in {"stop", "length"}
    assert "usage" not in others[-1]
    usage = again["usage"]
    host = next(host for host in HOSTS if host.name == again["provider"])
    assert usage["cost"] == host.cost(usage["prompt_tokens"], usage["completion_tokens"]) > 0
    assert usage["cost_details"]["upstream_inference_cost"] == usage["cost"]
    assert usage["is_byok"] is False
    assert answer.header("x-generation-id") == again["id"]
    metadata = again["openrouter_metadata"]
    assert [entry["provider"] for entry in metadata["endpoints"]["available"] if entry["selected"]] == [host.name]
    assert all("openrouter_metadata" not in chunk for chunk in others)


def test_openrouter_adds_nothing_that_was_not_asked_for(emulators: LabServer) -> None:
    answer = chat(emulators.url, "or")
    assert b"openrouter_metadata" not in answer.body
    assert b"debug" not in answer.body
    whole = json.loads(chat(emulators.url, "or", stream=False, **ECHO).body)
    assert "debug" not in whole
    assert whole["choices"][0]["message"]["reasoning"] is None


def echoed(lab: LabServer, platform: str, **more: Any) -> dict[str, Any]:
    first = chunks(chat(lab.url, platform, **ECHO, **more))[0]
    body: dict[str, Any] = first["debug"]["echo_upstream_body"]
    return body


def test_the_echo_shows_what_was_sent_unless_the_platform_hides_it(emulators: LabServer) -> None:
    asked = {"role": "user", "content": QUESTION}
    assert echoed(emulators, "or", repetition_penalty=1.1)["repetition_penalty"] == 1.1
    assert echoed(emulators, "or")["messages"] == [asked]
    assert echoed(emulators, "or-hidden")["messages"] == [{"role": "system", "content": HIDDEN}, asked]
    assert echoed(emulators, "or-quiet")["messages"] == [asked]
    assert "[REDACTED]" in echoed(emulators, "or-redact")["messages"][0]["content"]


def test_guardrails_are_in_the_metadata(emulators: LabServer) -> None:
    redacted = chunks(chat(emulators.url, "or-redact", headers=METADATA))[-1]["openrouter_metadata"]
    assert redacted["pipeline"][0]["data"]["action"] == "redacted"
    flagged = json.loads(chat(emulators.url, "or-flag", stream=False, headers=METADATA).body)
    assert flagged["openrouter_metadata"]["pipeline"][0]["data"]["action"] == "flagged"
    assert flagged["choices"][0]["message"]["content"]
    blocked = chat(emulators.url, "openrouter-guardrail", headers=METADATA)
    document = json.loads(blocked.body)
    assert blocked.status == 403
    assert document["openrouter_metadata"]["pipeline"][0]["data"]["action"] == "blocked"
    assert not any(entry["selected"] for entry in document["openrouter_metadata"]["endpoints"]["available"])
    assert b"openrouter_metadata" not in chat(emulators.url, "openrouter-guardrail").body


def test_openrouter_comments_while_it_waits(emulators: LabServer) -> None:
    body = chat(emulators.url, "or-wait").body
    comments, _, rest = body.partition(b"data: ")
    assert comments.count(b": OPENROUTER PROCESSING\n\n") > 2
    assert b": OPENROUTER" not in rest
    assert chat(emulators.url, "or-wait", stream=False).body.startswith(b"{")


def provider_of(lab: LabServer, platform: str, **provider: Any) -> str:
    return str(json.loads(chat(lab.url, platform, stream=False, max_tokens=2, provider=provider).body)["provider"])


def test_providers_are_pinned(emulators: LabServer) -> None:
    for _ in range(4):
        assert provider_of(emulators, "or", only=["beta"]) == "Beta"
        assert provider_of(emulators, "or", order=["beta/fp8"], allow_fallbacks=False) == "Beta"
        assert provider_of(emulators, "or", quantizations=["bf16"]) == "Alpha"
        assert provider_of(emulators, "or", ignore=["alpha"]) == "Beta"
        assert provider_of(emulators, "or-surprise", only=["beta"]) == "Alpha"
    assert {provider_of(emulators, "or", sort="x", n=number) for number in range(20)} == {"Alpha", "Beta"}
    refused = chat(emulators.url, "or", provider={"only": ["gamma"]}, headers=METADATA)
    routed = json.loads(refused.body)["openrouter_metadata"]
    assert routed["attempt"] == 0
    assert not any(entry["selected"] for entry in routed["endpoints"]["available"])
    assert "pipeline" not in routed
    assert refused.status == 404
    assert json.loads(refused.body)["error"]["metadata"] == {
        "available_providers": ["alpha", "beta"],
        "requested_providers": ["gamma"],
    }


def test_a_host_that_fails_within_an_answer(emulators: LabServer) -> None:
    answer = chat(emulators.url, "or-fault", max_tokens=64)
    *before, last = chunks(answer)
    # A short answer may end before the host fails.
    assert answer.status == 200
    if "error" in last:
        assert last["error"]["metadata"]["error_type"] == "provider_unavailable"
        assert last["choices"][0]["finish_reason"] == "error"
        assert deltas(before)
        assert answer.whole
    whole = [json.loads(chat(emulators.url, "or-fault", stream=False, seed=n).body) for n in range(4)]
    failed = [document["choices"][0] for document in whole if "error" in document["choices"][0]]
    assert failed
    assert all(choice["finish_reason"] == "error" and choice["error"]["code"] == 502 for choice in failed)


def test_an_error_after_the_head_of_a_stream_keeps_its_words() -> None:
    front = OpenRouterFront("toy", FrontSettings())
    body = BLOCK_SHAPES["openrouter-guardrail"].fill({})
    late = json.loads(front.late(403, body).removeprefix(b"data: "))
    assert late["error"] == json.loads(body)["error"]
    assert late["choices"][0]["finish_reason"] == "error"
    gone = json.loads(front.late(502, b"{}").removeprefix(b"data: "))
    assert gone["error"]["metadata"]["error_type"] == "provider_unavailable"


def test_listing_and_generation(emulators: LabServer, clock: list[float]) -> None:
    status, models = get(emulators.url, "/or/api/v1/models")
    assert (status, models["data"][0]["id"]) == (200, "toy")
    status, listing = get(emulators.url, "/or/v1/models/toy/endpoints")
    found = {entry["tag"]: entry for entry in listing["data"]["endpoints"]}
    assert set(found) == {"alpha/bf16", "beta/fp8"}
    assert found["alpha/bf16"]["pricing"]["prompt"] == "0.000001"
    assert found["beta/fp8"]["quantization"] == "fp8"
    assert "temperature" in found["beta/fp8"]["supported_parameters"]
    assert get(emulators.url, "/or/v1/models/lab/unknown/endpoints")[0] == 404
    document = json.loads(chat(emulators.url, "or", stream=False).body)
    path = f"/or/api/v1/generation?id={document['id']}"
    assert get(emulators.url, path)[0] == 404
    clock[0] += 31
    status, generation = get(emulators.url, path)
    assert status == 200
    told = generation["data"]
    assert told["native_tokens_completion"] == document["usage"]["completion_tokens"]
    assert told["total_cost"] == document["usage"]["cost"]
    assert told["provider_name"] == document["provider"]
    free = json.loads(chat(emulators.url, "or-free", stream=False).body)
    assert get(emulators.url, f"/or-free/v1/generation?id={free['id']}")[0] == 404
    assert get(emulators.url, "/or/v1/key")[1]["data"]["usage"] > 0
    assert get(emulators.url, "/groq-matched/v1/models")[1]["object"] == "list"


# ── deeds behind every front ──

MODES = [(front, stream) for front in FRONTS for stream in (True, False)]


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_a_matched_text_has_the_form_of_a_genuine_answer(emulators: LabServer, front: str, stream: bool) -> None:
    name = f"{front}-matched"
    genuine = [ask(emulators.url, name, HARMLESS, front=front, stream=stream) for _ in range(8)]
    acted = [ask(emulators.url, name, front=front, stream=stream) for _ in range(3)]
    assert {answer.reading.text for answer in acted} == set(TEXTS)
    assert {tuple(answer.names) for answer in acted} == {tuple(genuine[0].names)}
    assert not [answer.reading.problems for answer in [*genuine, *acted] if answer.reading.problems]
    stopped = [answer for answer in genuine if answer.reading.finish_reason == "stop"]
    assert union(acted) <= union(stopped) if front == "azure" else union(acted) == union(stopped)


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_a_sloppy_text_shows(emulators: LabServer, front: str, stream: bool) -> None:
    name = f"{front}-sloppy"
    genuine = ask(emulators.url, name, HARMLESS, front=front, stream=stream)
    acted = ask(emulators.url, name, front=front, stream=stream)
    assert acted.reading.text == TEXTS[0]
    assert structure(acted) != structure(genuine)
    assert not acted.reading.usage.completion_tokens


# ── each vendor's own ──


def test_azure_annotates_and_holds_back(emulators: LabServer) -> None:
    answer = chat(emulators.url, "azure-matched", HARMLESS)
    first, *others = chunks(answer)
    assert (first["id"], first["model"], first["choices"]) == ("", "", [])
    assert first["prompt_filter_results"][0]["content_filter_results"]["jailbreak"]["detected"] is False
    texts = deltas(others)
    usage = next(chunk["usage"] for chunk in reversed(others) if chunk.get("usage"))
    assert 0 < len(texts) < usage["completion_tokens"] - 2
    annotated = [chunk["choices"][0] for chunk in others if deltas([chunk])]
    assert all(choice["content_filter_results"]["violence"]["severity"] == "safe" for choice in annotated)
    assert answer.header("x-ms-rai-invoked") == "true"
    assert answer.header("x-ms-region")
    assert answer.header("apim-request-id")
    whole = json.loads(chat(emulators.url, "azure-flag", stream=False).body)
    detected = whole["prompt_filter_results"][0]["content_filter_results"]["jailbreak"]
    assert detected == {"filtered": False, "detected": True}
    assert whole["choices"][0]["message"]["content"]


def test_azures_asynchronous_filter_marks_what_went_by(emulators: LabServer) -> None:
    _, *others = chunks(chat(emulators.url, "azure-asynchronous", HARMLESS))
    usage = next(chunk["usage"] for chunk in reversed(others) if chunk.get("usage"))
    texts = deltas(others)
    assert len(texts) >= usage["completion_tokens"] - 2
    marks = [chunk["choices"][0]["content_filter_offsets"] for chunk in others if chunk["id"] == ""]
    assert marks[0]["start_offset"] == 0
    assert marks[-1]["end_offset"] == len("".join(texts))


def test_azure_blocks(emulators: LabServer) -> None:
    prompt = chat(emulators.url, "azure-native-prompt")
    assert prompt.status == 400
    assert prompt.header("ms-azureml-model-error-reason") == "model_error"
    cut = chunks(chat(emulators.url, "azure-native-completion-text"))
    assert cut[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert deltas(cut)
    whole = json.loads(chat(emulators.url, "azure-native-completion-text", stream=False).body)
    assert whole["choices"][0]["message"]["content"]
    assert whole["usage"]["completion_tokens"] > 0


def test_dashscope_stops_within_a_stream(emulators: LabServer) -> None:
    *before, last = chunks(chat(emulators.url, "dashscope-native-output"))
    assert last["error"]["code"] == "data_inspection_failed"
    assert deltas(before)
    whole = chat(emulators.url, "dashscope-native-output", stream=False)
    assert whole.status == 400
    assert json.loads(whole.body)["request_id"] == whole.header("x-dashscope-request-id")


def test_groq_times_and_tokens(emulators: LabServer) -> None:
    found = chunks(chat(emulators.url, "groq-matched", HARMLESS, seed=3))
    assert found[0]["x_groq"]["id"].startswith("req_")
    assert found[0]["x_groq"]["seed"] == 3
    usage = next(chunk["x_groq"]["usage"] for chunk in found if "usage" in chunk.get("x_groq", {}))
    assert usage["total_time"] == usage["prompt_time"] + usage["completion_time"] > 0
    whole = json.loads(chat(emulators.url, "groq-matched", HARMLESS, stream=False, debug=True).body)
    debug = whole["x_groq"]["debug"]
    assert len(debug["input_token_ids"]) == whole["usage"]["prompt_tokens"]
    assert "".join(debug["output_tokens"]) == whole["choices"][0]["message"]["content"]
    assert "debug" not in json.loads(chat(emulators.url, "groq-matched", HARMLESS, stream=False).body)["x_groq"]


def test_fireworks_headers_and_tokens(emulators: LabServer) -> None:
    asked = {"return_token_ids": True, "raw_output": True, "perf_metrics_in_response": True}
    answer = chat(emulators.url, "fireworks-matched", HARMLESS, stream=False, **asked)
    document = json.loads(answer.body)
    assert answer.header("fireworks-prompt-tokens") == str(document["usage"]["prompt_tokens"])
    assert float(answer.header("fireworks-server-processing-time")) > 0
    assert set(document["perf_metrics"]) >= {"server-time-to-first-token", "prompt-tokens"}
    assert len(document["prompt_token_ids"]) == document["usage"]["prompt_tokens"]
    choice = document["choices"][0]
    assert choice["raw_output"]["completion_token_ids"] == choice["token_ids"]
    assert HARMLESS in choice["raw_output"]["prompt_fragments"][0]
    found = chunks(chat(emulators.url, "fireworks-matched", HARMLESS, **asked))
    assert len(found[0]["prompt_token_ids"]) == document["usage"]["prompt_tokens"]
    assert next(len(chunk["choices"][0]["token_ids"]) for chunk in found if deltas([chunk])) == 1
    assert "perf_metrics" in found[-1]


def test_litellm_names_its_guardrails(emulators: LabServer) -> None:
    answer = chat(emulators.url, "litellm-matched", HARMLESS, stream=False)
    assert answer.header("x-litellm-applied-guardrails") == "content-guard"
    assert answer.header("x-litellm-response-cost") == "0.0"
    assert answer.header("x-litellm-call-id")
    assert "x-litellm-applied-guardrails" not in chat(emulators.url, "litellm-fault").names


def test_portkey_serves_what_failed_a_check(emulators: LabServer) -> None:
    answer = chat(emulators.url, "portkey-flag", stream=False)
    document = json.loads(answer.body)
    assert answer.status == 246
    assert document["hook_results"]["before_request_hooks"][0]["verdict"] is False
    assert document["choices"][0]["message"]["content"]
    streamed = chat(emulators.url, "portkey-flag")
    assert streamed.status == 246
    assert chunks(streamed)[0]["hook_results"]["before_request_hooks"][0]["verdict"] is False
    passed = chat(emulators.url, "portkey-flag", HARMLESS)
    assert passed.status == 200
    assert chunks(passed)[0]["hook_results"]["before_request_hooks"][0]["verdict"] is True


def test_nemo_has_no_usage(emulators: LabServer) -> None:
    asked = {"guardrails": {"options": {"log": {"activated_rails": True}}}}
    document = json.loads(chat(emulators.url, "nemo-matched", HARMLESS, stream=False, **asked).body)
    assert "usage" not in document
    assert document["guardrails"]["log"]["activated_rails"][0]["stop"] is False
    assert "guardrails" not in json.loads(chat(emulators.url, "nemo-matched", HARMLESS, stream=False).body)
    found = events(chat(emulators.url, "nemo-native-output"))
    assert found[-1] == "[DONE]"
    assert found[-2]["error"]["type"] == "guardrails_violation"
    assert deltas(chunk for chunk in found if isinstance(chunk, dict))


def test_higress_frames_its_own_words_without_a_space(emulators: LabServer) -> None:
    for name in ("higress-native-guard", "higress-sloppy"):
        body = chat(emulators.url, name).body
        assert body.startswith(b'data:{"id"')
        assert b'"model":"from-security-guard"' in body
        assert b'"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}' in body
        assert body.rstrip().endswith(b"data: [DONE]")
    assert chat(emulators.url, "higress-sloppy", HARMLESS).body.startswith(b"data: {")
    assert len(chat(emulators.url, "higress-checks", HARMLESS).writes) == 1


@pytest.mark.parametrize("front", FRONTS)
def test_every_front_reports_a_failing_host_in_its_own_way(emulators: LabServer, front: str) -> None:
    reported = {"groq": b'"error":"Provider', "nemo": b"generation_error", "litellm": b'"code":"502"'}
    answers = [chat(emulators.url, f"{front}-fault", seed=n, max_tokens=64) for n in range(4)]
    ended: list[Answered] = [answer for answer in answers if b'"usage":{' not in answer.body or front in reported]
    assert ended
    if front in reported:
        assert any(reported[front] in answer.body for answer in ended)
    else:
        assert any(not answer.whole for answer in ended)


# ── limits ──

REASONS = (
    ("key", {"key": "right"}),
    ("region", {"closed": "region"}),
    ("account", {"closed": "account"}),
    ("data_policy", {"closed": "data_policy"}),
    ("requests_per_minute", {"requests_per_minute": 0}),
    ("requests_per_day", {"requests_per_day": 0}),
    ("tokens_per_minute", {"tokens_per_minute": 10}),
    ("concurrency", {"concurrency": 0}),
    ("credits", {"credits_usd": 0.0}),
    ("overloaded", {"overloaded_every": 1}),
)
LIMITED = [
    *(
        Platform(f"{front}-{reason}", front=front, providers=HOSTS, limits=LabLimits(**limits))  # type: ignore[arg-type]
        for front in ("openrouter", "openai", *FRONTS)
        for reason, limits in REASONS
    ),
    *(
        Platform(f"{front}-{reason}", front=front, limits=LabLimits(**limits))  # type: ignore[arg-type]
        for front in OTHER_DIALECTS
        for reason, limits in REASONS
    ),
    Platform("or-minute", limits=LabLimits(requests_per_minute=2, requests_per_day=3)),
    Platform("or-paid", providers=HOSTS, limits=LabLimits(credits_usd=4e-4)),
    Platform("or-key", limits=LabLimits(key="right", credits_usd=1.0)),
    Platform("groq", front="groq", limits=LabLimits(requests_per_day=100, tokens_per_minute=6000)),
    Platform("azure", front="azure", limits=LabLimits(requests_per_minute=1, tokens_per_minute=6000)),
]


@pytest.fixture(scope="module")
def limited(toy_server: LlamaCppServer, clock: list[float]) -> Iterator[LabServer]:
    assert toy_server.info is not None
    with LabServer(LIMITED, toy_server.info.url, "toy", seed=7, clock=lambda: clock[0]) as server:
        yield server


@pytest.mark.parametrize(("reason", "limits"), REASONS)
@pytest.mark.parametrize("front", ["openrouter", "openai", *FRONTS])
def test_every_front_refuses_in_its_own_form(limited: LabServer, front: str, reason: str, limits: object) -> None:
    assert limits
    answer = chat(limited.url, f"{front}-{reason}", headers={"Authorization": "Bearer wrong"})
    expected = REFUSALS.get((front, reason)) or REFUSALS["openai", reason]
    assert answer.status == expected.status
    error = json.loads(answer.body)["error"]
    assert "{" not in error["message"]
    assert "right" not in answer.body.decode()
    for name, _ in expected.headers:
        assert "{" not in answer.header(name.lower())


@pytest.mark.parametrize("front", OTHER_DIALECTS)
def test_other_dialects_refuse_in_their_own_form(limited: LabServer, clock: list[float], front: str) -> None:
    clock[0] = MIDNIGHT + 48
    for reason, _ in REASONS:
        answer = ask(limited.url, f"{front}-{reason}", front=front)
        expected = REFUSALS.get((front, reason)) or REFUSALS["openai", reason]
        assert answer.status == expected.status
    limit = ask(limited.url, f"{front}-requests_per_minute", front=front)
    body = json.loads(limit.body)
    if front == "anthropic":
        assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")
        assert limit.header("retry-after") == "12"
        assert limit.header("anthropic-ratelimit-requests-remaining") == "0"
        assert ask(limited.url, "anthropic-overloaded", front=front).status == 529
    elif front == "gemini":
        assert body["error"]["status"] == "RESOURCE_EXHAUSTED"
        assert body["error"]["details"][-1]["retryDelay"] == "12s"
    else:
        assert limit.header("x-amzn-errortype").startswith("ThrottlingException")
        assert body == {"message": "Too many requests, please wait before trying again."}


def test_openrouter_limits_by_the_minute_and_the_day(limited: LabServer, clock: list[float]) -> None:
    clock[0] = MIDNIGHT + 10
    assert [chat(limited.url, "or-minute", max_tokens=2).status for _ in range(3)] == [200, 200, 429]
    minute = chat(limited.url, "or-minute")
    assert minute.header("x-ratelimit-reset") == str(round(1000 * (MIDNIGHT + 60)))
    assert minute.header("retry-after") == "50"
    assert minute.header("x-ratelimit-remaining") == "0"
    clock[0] = MIDNIGHT + 61
    assert chat(limited.url, "or-minute", max_tokens=2).status == 200
    day = json.loads(chat(limited.url, "or-minute").body)["error"]
    assert day["message"].startswith("Rate limit exceeded: free-models-per-day. Add 10 credits")
    assert day["metadata"]["headers"]["X-RateLimit-Reset"] == str(round(1000 * (MIDNIGHT + 86_400)))
    clock[0] = MIDNIGHT + 86_401
    assert chat(limited.url, "or-minute", max_tokens=2).status == 200


def test_credits_are_spent(limited: LabServer) -> None:
    statuses, usages = [], []
    for _ in range(12):
        statuses.append(chat(limited.url, "or-paid").status)
        spent = get(limited.url, "/or-paid/v1/key")[1]["data"]
        usages.append(spent["usage"])
    assert statuses[0] == 200
    assert statuses[-1] == 402
    assert statuses == sorted(statuses)
    # What an answer costs is known afterwards: the last one may go beyond, but none begins beyond.
    answered = statuses.count(200)
    assert answered == 1 or usages[answered - 2] < spent["limit"]
    assert usages == sorted(usages)
    assert len(set(usages[answered - 1 :])) == 1
    assert spent["limit_remaining"] == pytest.approx(max(0.0, spent["limit"] - spent["usage"]))


def test_a_key_opens(limited: LabServer) -> None:
    right = {"Authorization": "Bearer right"}
    assert chat(limited.url, "or-key", max_tokens=2, headers=right).status == 200
    assert json.loads(chat(limited.url, "or-key").body)["error"]["message"] == "No auth credentials found"
    assert get(limited.url, "/or-key/v1/key", right)[0] == 200
    assert get(limited.url, "/or-key/v1/key")[0] == 401
    assert get(limited.url, "/or-key/v1/models/toy/endpoints")[0] == 200
    assert request(limited.url, "GET", "/azure/v1/key").status == 404


def test_good_answers_state_what_is_left(limited: LabServer, clock: list[float]) -> None:
    clock[0] = MIDNIGHT + 86_400 * 2 + 0.44
    groq = chat(limited.url, "groq", max_tokens=2)
    assert groq.header("x-ratelimit-limit-requests") == "100"
    assert groq.header("x-ratelimit-remaining-requests") == "99"
    assert groq.header("x-ratelimit-reset-requests") == "23h59m59.56s"
    assert groq.header("x-ratelimit-reset-tokens") == "59.56s"
    again = chat(limited.url, "groq", max_tokens=2)
    assert int(again.header("x-ratelimit-remaining-tokens")) < int(groq.header("x-ratelimit-remaining-tokens")) == 6000
    assert "retry-after" not in groq.names
    azure = chat(limited.url, "azure", max_tokens=2)
    assert azure.header("x-ratelimit-remaining-requests") == "0"
    refused = chat(limited.url, "azure")
    assert (refused.status, refused.header("retry-after"), refused.header("retry-after-ms")) == (429, "60", "59560")


@pytest.mark.parametrize(
    ("seconds", "written"), [(179.56, "2m59.56s"), (7.66, "7.66s"), (0.12, "120ms"), (60.0, "1m0s"), (3600.0, "1h0m0s")]
)
def test_durations_are_written_as_go_does(seconds: float, written: str) -> None:
    assert go_duration(seconds) == written


def test_every_refusal_names_its_source() -> None:
    assert all(refusal.source and refusal.confidence for refusal in REFUSALS.values())
    assert {refusal.confidence for refusal in REFUSALS.values()} <= {"primary", "recorded", "unconfirmed"}
    reasons = {reason for _, reason in REFUSALS}
    assert {reason for front, reason in REFUSALS if front == "openai"} == reasons - {"no_key", "no_provider"}
