import json
from typing import Any

import pytest
from hypothesis import given, settings

from probe.traces.values import Message, Sampling, Trace
from probe.wire.catalogue import load_backend
from probe.wire.ollama_chat import OllamaChat
from probe.wire.values import Reading, TokenLogprob, Usage
from tests.kit import NDJSON, make_exchange, ndjson
from tests.wire.strategies import BODIES, MESSAGES, SAMPLINGS, STATES, STATUSES, TYPES

DIALECT = OllamaChat()
BACKEND = load_backend("ollama")
LAST = {
    "model": "toy",
    "message": {"role": "assistant", "content": ""},
    "done": True,
    "done_reason": "stop",
    "total_duration": 2_000_000_000,
    "load_duration": 5_000_000,
    "prompt_eval_count": 5,
    "prompt_eval_duration": 250_000_000,
    "eval_count": 2,
    "eval_duration": 1_500_000_000,
}


def piece(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "toy", "message": {"role": "assistant", "content": text}, "done": False, **fields}


def read(body: Any, **overrides: Any) -> Reading:
    return DIALECT.read(make_exchange(response_body=body, **overrides))


def lines(*documents: Any, **overrides: Any) -> Reading:
    return read(ndjson(*documents), response_headers=NDJSON, **overrides)


def test_build() -> None:
    trace = Trace("t", (Message("user", "Grüße?"),), Sampling(temperature=0.5, seed=7))
    built = DIALECT.build(
        trace, model="m", stream=False, backend=BACKEND, request={"options": {"num_ctx": 4096}}, logprobs=2
    )
    assert built.path == "/api/chat"
    assert built.dropped == ()
    assert json.loads(built.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Grüße?"}],
        "options": {
            "temperature": 0.5,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repeat_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "num_predict": 256,
            "seed": 7,
            "num_ctx": 4096,
        },
        "stream": False,
        "logprobs": True,
        "top_logprobs": 2,
        "truncate": False,
        "shift": False,
    }


@given(MESSAGES, SAMPLINGS)
def test_build_and_read_request_are_inverse(messages: tuple[Message, ...], sampling: Sampling) -> None:
    trace = Trace("t", messages, sampling)
    built = DIALECT.build(trace, model="m", stream=True, backend=BACKEND, request={}, logprobs=0)
    found = DIALECT.read_request(built.body)
    assert (found.messages, found.model, found.stream, found.extra) == (messages, "m", True, ())
    assert Sampling(**found.sampling) == sampling


def test_a_stream() -> None:
    reading = lines(piece("Hel"), piece("lo.", logprobs=[{"token": "lo.", "logprob": -0.5}]), LAST)
    assert (reading.state, reading.text, reading.finish_reason, reading.streamed) == ("answer", "Hello.", "stop", True)
    assert reading.usage == Usage(5, 2)
    assert reading.timings == {"total": 2.0, "load": 0.005, "prompt": 0.25, "generation": 1.5}
    assert reading.logprobs == (TokenLogprob("lo.", -0.5),)
    assert (reading.model, reading.problems, len(reading.documents)) == ("toy", (), 3)


def test_a_document() -> None:
    reading = read({**LAST, "message": {"role": "assistant", "content": "Yes.", "thinking": "Hm."}})
    assert (reading.state, reading.text, reading.reasoning, reading.streamed) == ("answer", "Yes.", "Hm.", False)


def test_a_stream_under_another_content_type() -> None:
    assert read(ndjson(piece("a"), LAST)).text == "a"


def test_no_newline_at_the_end() -> None:
    assert read(ndjson(piece("a"), LAST)[:-1], response_headers=NDJSON, state="client_gone").state == "answer"


def test_missing_end() -> None:
    reading = lines(piece("Hel"), state="cut")
    assert (reading.state, reading.text, reading.terminated) == ("truncated", "Hel", False)
    assert read(piece("Hel")).state == "truncated"
    assert read(ndjson(piece("Hel"))[:-9], response_headers=NDJSON, state="cut").state == "truncated"


@pytest.mark.parametrize("status", [200, 500])
def test_errors(status: int) -> None:
    reading = lines(piece("Hel"), {"error": "gone"}, status=status)
    assert (reading.state, reading.text, reading.error) == ("error", "Hel", "gone")
    reading = read({"error": "model 'x' not found"}, status=404)
    assert (reading.state, reading.error) == ("error", "model 'x' not found")
    assert read({"error": {"message": "no"}}, status=400).error == "no"
    assert "HTTP 502" in (read("<html>", status=502).error or "")


def test_empty_and_malformed() -> None:
    assert lines(LAST).state == "empty"
    assert read(LAST).state == "empty"
    assert read({"hello": 1}).state == "malformed"
    assert read({"choices": []}).state == "malformed"
    assert read("[]").state == "malformed"
    assert lines({**piece("a"), "message": 5}, LAST).state == "empty"


def test_a_forwarded_model_is_told() -> None:
    assert "ollama.com" in lines({**LAST, "remote_host": "https://ollama.com"}).problems[0]


def test_numbers_of_the_wrong_type_are_problems() -> None:
    reading = lines(piece("a"), {**LAST, "eval_count": "2", "eval_duration": None, "total_duration": True})
    assert reading.usage == Usage(5, None)
    assert set(reading.timings) == {"load", "prompt"}
    assert len(reading.problems) == 2


def test_no_response() -> None:
    assert read(b"", status=None, state="timeout").state == "missing"


@settings(max_examples=300)
@given(BODIES, TYPES, STATUSES, STATES)
def test_reading_never_raises(body: bytes, headers: Any, status: int | None, state: Any) -> None:
    reading = read(body, response_headers=headers, status=status, state=state)
    (reading.text + reading.reasoning + (reading.error or "") + "".join(reading.problems)).encode()
