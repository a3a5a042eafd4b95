"""What answers reveal beside their text, read as the backends' files say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probe.wire.backend import Report
from probe.wire.catalogue import load_backend, read_backend
from probe.wire.dialects import dialect
from probe.wire.reports import Reported, read_answer, reported, timings_of, with_reports
from probe.wire.values import HeaderPairs
from tests.kit import JSON, NDJSON, SSE, completion, delta, make_exchange, ndjson, sse
from tests.wire.catalogue_kit import GOOD, write

Sample = tuple[str, HeaderPairs, Any, dict[str, float]]


def whole(**more: Any) -> dict[str, Any]:
    return {**completion("A tide chart."), **more}


def usage(**more: Any) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8, **more}}


GROQ = {"queue_time": 0.21, "prompt_time": 0.0012, "completion_time": 0.0105, "total_time": 0.0117}
READ_GROQ = {"queue": 0.21, "prompt": 0.0012, "generation": 0.0105, "total": 0.0117}
PERF = {
    "prompt-tokens": 5,
    "server-time-to-first-token": 0.081,
    "server-processing-time": 0.402,
    "prefill-duration": 0.02,
    "generation-duration": 0.3,
}
SAMPLES: dict[str, Sample] = {
    "groq": ("groq", JSON, whole(**usage(**GROQ)), READ_GROQ),
    "groq stream": (
        "groq",
        SSE,
        sse(
            delta("A tide"), delta(" chart."), {**delta(finish_reason="stop"), "x_groq": {"id": "req_1", "usage": GROQ}}
        ),
        READ_GROQ,
    ),
    "fireworks headers": (
        "fireworks",
        (*JSON, ("Fireworks-Server-Time-To-First-Token", "0.081"), ("fireworks-server-processing-time", "0.402")),
        whole(),
        {"first_token": 0.081, "total": 0.402},
    ),
    "fireworks stream": (
        "fireworks",
        SSE,
        sse(delta("A tide chart."), {**delta(finish_reason="stop"), "perf_metrics": PERF}),
        {"first_token": 0.081, "total": 0.402, "prompt": 0.02, "generation": 0.3},
    ),
    "cerebras": (
        "cerebras",
        JSON,
        whole(time_info={"queue_time": 0.1, "prompt_time": 0.002, "completion_time": 0.03, "total_time": 0.14}),
        {"queue": 0.1, "prompt": 0.002, "generation": 0.03, "total": 0.14},
    ),
    "cerebras stream": (
        "cerebras",
        SSE,
        sse(delta("A."), {**delta(finish_reason="stop"), "time_info": {"completion_time": 0.03, "total_time": 0.14}}),
        {"generation": 0.03, "total": 0.14},
    ),
    "sambanova": (
        "sambanova",
        JSON,
        whole(**usage(time_to_first_token=0.11, total_latency=0.52)),
        {"first_token": 0.11, "total": 0.52},
    ),
    "together": ("together", (*JSON, ("X-Total-Time", "1234.5")), whole(), {"total": 1.2345}),
    "tgi": (
        "tgi",
        (*JSON, ("x-queue-time", "2"), ("x-inference-time", "310"), ("x-total-time", "315")),
        whole(),
        {"queue": 0.002, "inference": 0.31, "total": 0.315},
    ),
    "llamacpp": (
        "llamacpp",
        JSON,
        whole(timings={"prompt_n": 5, "prompt_ms": 12.5, "predicted_n": 3, "predicted_ms": 40.0}),
        {"prompt": 0.0125, "generation": 0.04},
    ),
    "vllm": (
        "vllm",
        JSON,
        whole(metrics={"queue_time_ms": 1.0, "time_to_first_token_ms": 20.0, "generation_time_ms": 50.0}),
        {"queue": 0.001, "first_token": 0.02, "generation": 0.05},
    ),
    "lmstudio": (
        "lmstudio",
        JSON,
        whole(stats={"time_to_first_token": 0.111, "generation_time": 0.954, "stop_reason": "eosFound"}),
        {"first_token": 0.111, "generation": 0.954},
    ),
    "openai": ("openai", (*JSON, ("openai-processing-ms", "256")), whole(), {"total": 0.256}),
    "litellm": ("litellm", (*JSON, ("x-litellm-response-duration-ms", "812.25")), whole(), {"total": 0.81225}),
    "nemo": (
        "nemo",
        JSON,
        whole(guardrails={"log": {"stats": {"total_duration": 2.5, "input_rails_duration": 0.8}}}),
        {"total": 2.5, "moderation": 0.8},
    ),
    "envoy": ("envoy-ai-gateway", (*JSON, ("x-envoy-upstream-service-time", "91")), whole(), {"total": 0.091}),
    "ollama": (
        "ollama",
        NDJSON,
        ndjson(
            {"model": "toy", "message": {"role": "assistant", "content": "A."}, "done": False},
            {
                "model": "toy",
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "done_reason": "stop",
                "total_duration": 3_000_000,
                "load_duration": 500_000,
                "prompt_eval_duration": 700_000,
                "eval_duration": 900_000,
                "prompt_eval_count": 5,
                "eval_count": 3,
            },
        ),
        {"total": 0.003, "load": 0.0005, "prompt": 0.0007, "generation": 0.0009},
    ),
    "bedrock": (
        "bedrock",
        JSON,
        {
            "output": {"message": {"role": "assistant", "content": [{"text": "A."}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 5, "outputTokens": 3},
            "metrics": {"latencyMs": 312},
        },
        {"total": 0.312},
    ),
}


@pytest.mark.parametrize(("name", "headers", "body", "expected"), SAMPLES.values(), ids=SAMPLES)
def test_durations_are_read_in_seconds(name: str, headers: HeaderPairs, body: Any, expected: dict[str, float]) -> None:
    backend = load_backend(name)
    exchange = make_exchange(response_headers=headers, response_body=body)
    reading = dialect(backend.dialect).read(exchange)
    assert timings_of(backend, exchange, reading) == pytest.approx(expected)
    assert read_answer(backend, exchange).timings == pytest.approx(expected)


@pytest.mark.parametrize("name", ["groq", "fireworks", "tgi", "ollama", "openrouter", "bedrock"])
def test_an_answer_that_reveals_nothing_is_read_as_before(name: str) -> None:
    backend = load_backend(name)
    for exchange in (
        make_exchange(),
        make_exchange(response_body=sse(delta("A."), delta(finish_reason="stop")), response_headers=SSE),
        make_exchange(status=None, response_body=b"", state="unreachable"),
        make_exchange(status=429, response_body={"error": {"message": "Slow down."}}),
        make_exchange(response_body=b"\xff\xfe[", response_headers=()),
    ):
        reading = dialect(backend.dialect).read(exchange)
        assert with_reports(backend, exchange, reading) == reading


def test_token_ids_of_a_stream_are_joined_also_where_pieces_are_alike() -> None:
    pieces = [delta(text, token_ids=ids) for text, ids in ((" ha", [7]), (" ha", [7]), (" ha", [7]), (".", [8, 9]))]
    first = {**delta(None), "prompt_token_ids": [1, 2, 3]}
    exchange = make_exchange(response_body=sse(first, *pieces, delta(finish_reason="stop")), response_headers=SSE)
    for name in ("fireworks", "vllm"):
        backend = load_backend(name)
        found = reported(backend, exchange, dialect(backend.dialect).read(exchange))
        assert found.token_ids == {"prompt_token_ids": (1, 2, 3), "completion_token_ids": (7, 7, 7, 8, 9)}


def test_one_id_that_cannot_be_read_makes_all_useless() -> None:
    exchange = make_exchange(response_body=whole(prompt_token_ids=[1, "2"]))
    backend = load_backend("vllm")
    assert reported(backend, exchange, dialect(backend.dialect).read(exchange)).token_ids == {}


def test_fireworks_shows_the_prompt_as_the_weights_got_it() -> None:
    raw = {"prompt_fragments": ["<|user|>", "Hello?"], "prompt_token_ids": [4, 5], "completion": "A tide chart."}
    body = whole()
    body["choices"][0]["raw_output"] = raw
    backend = load_backend("fireworks")
    exchange = make_exchange(response_body=body)
    found = reported(backend, exchange, dialect(backend.dialect).read(exchange))
    assert found.token_ids["prompt_token_ids"] == (4, 5)
    assert found.others["prompt_text"] == ["<|user|>", "Hello?"]
    assert found.others["raw_text"] == "A tide chart."


def test_counts_fill_what_the_body_does_not_say() -> None:
    headers = (*JSON, ("x-prompt-tokens", "12"), ("x-generated-tokens", "7"))
    body = completion("A.")
    del body["usage"]
    read = read_answer(load_backend("tgi"), make_exchange(response_body=body, response_headers=headers))
    assert (read.usage.prompt_tokens, read.usage.completion_tokens) == (12, 7)
    both = read_answer(load_backend("tgi"), make_exchange(response_headers=headers))
    assert (both.usage.prompt_tokens, both.usage.completion_tokens) == (5, 3)


def test_the_provider_that_served_is_read_from_a_header() -> None:
    headers = (*JSON, ("X-Inference-Provider", "novita"))
    assert read_answer(load_backend("huggingface"), make_exchange(response_headers=headers)).provider == "novita"
    named = whole(provider="DeepInfra")
    assert read_answer(load_backend("openrouter"), make_exchange(response_body=named)).provider == "DeepInfra"


def test_nemo_shows_what_the_model_wrote_before_the_rails() -> None:
    log = {
        "activated_rails": [{"name": "self check output", "stop": True}],
        "llm_calls": [{"prompt": "Hello?", "completion": "First, warm the glowmoss."}],
    }
    body = whole(guardrails={"config_id": "study", "log": log})
    backend = load_backend("nemo")
    exchange = make_exchange(response_body=body)
    others = reported(backend, exchange, dialect(backend.dialect).read(exchange)).others
    assert others["raw_text"] == ["First, warm the glowmoss."]
    assert others["guardrail"] == ["self check output"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.5", 0.0005),
        ("12ms", 0.012),
        ("0.25 s", 0.25),
        ("1e3", 1.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("12, 13", None),
        ("1790000000000", None),
    ],
)
def test_headers_that_are_no_durations_are_not_read(value: str, expected: float | None) -> None:
    exchange = make_exchange(response_headers=(*JSON, ("openai-processing-ms", value)))
    assert read_answer(load_backend("openai"), exchange).timings == ({} if expected is None else {"total": expected})


@pytest.mark.parametrize("value", ["true", '"x"', "null", "[]", "{}", "-1", "1" + "0" * 400, "1e999"])
def test_values_of_another_kind_are_not_read(value: str) -> None:
    body = f'{{"choices": [], "time_info": {{"total_time": {value}}}}}'
    assert read_answer(load_backend("cerebras"), make_exchange(response_body=body)).timings == {}


def test_an_unconfirmed_report_is_not_read(tmp_path: Path) -> None:
    report = '[[reports]]\nfield = "spent"\nmeans = "total"\nunit = "s"\nsource = "memory"\nconfidence = "{}"\n'
    exchange = make_exchange(response_body=whole(spent=2))
    for confidence, timings in (("primary", {"total": 2.0}), ("recorded", {"total": 2.0}), ("unconfirmed", {})):
        backend = read_backend(write(tmp_path, GOOD + report.format(confidence)))
        assert read_answer(backend, exchange).timings == timings


def test_an_expression_that_meets_another_type_finds_nothing(tmp_path: Path) -> None:
    report = '[[reports]]\nfield = "sum(times)"\nmeans = "total"\nunit = "s"\nsource = "x"\nconfidence = "primary"\n'
    backend = read_backend(write(tmp_path, GOOD + report))
    assert read_answer(backend, make_exchange(response_body=whole(times=[1, 2]))).timings == {"total": 3.0}
    assert read_answer(backend, make_exchange(response_body=whole(times="soon"))).timings == {}


def test_a_dialect_of_the_exchange_goes_before_the_backends() -> None:
    body = {"type": "message", "content": [{"type": "text", "text": "A."}], "stop_reason": "end_turn"}
    read = read_answer(load_backend("litellm"), make_exchange(response_body=body), "anthropic-messages")
    assert read.text == "A."


def test_long_values_are_cut_and_halves_of_characters_mended() -> None:
    backend = replace(
        load_backend("openai"),
        reports=(
            Report("note", "host", "x", "primary", search=lambda document: document["note"], keys=frozenset({"note"})),
        ),
    )
    exchange = make_exchange(response_body='{"choices": [], "note": "\\ud83d' + "x" * 5000 + '"}')
    found = reported(backend, exchange, dialect(backend.dialect).read(exchange))
    assert found == Reported({}, {}, {}, {"host": "\ufffd" + "x" * 1999})
