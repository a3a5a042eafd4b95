import json
from typing import Any

import pytest

from probe.errors import WireError
from probe.traces.values import Message, Sampling, Trace
from probe.wire.openai_completions import OpenAiCompletions
from probe.wire.values import Reading, TokenLogprob, Usage
from tests.kit import SSE, make_exchange, sse
from tests.wire.dialects_kit import backend

DIALECT = OpenAiCompletions()
TRACE = Trace("greeting", (Message("user", "Hello?"),), Sampling(max_tokens=9, seed=7))


def choice(text: str, **fields: Any) -> dict[str, Any]:
    return {"id": "cmpl-1", "model": "toy", "choices": [{"index": 0, "text": text, **fields}]}


def read(body: Any, **overrides: Any) -> Reading:
    return DIALECT.read(make_exchange(response_body=body, **overrides))


def stream(*documents: Any, **overrides: Any) -> Reading:
    return read(sse(*documents, **overrides), response_headers=SSE)


def test_build() -> None:
    built = DIALECT.build(
        TRACE, model="m", stream=True, backend=backend(DIALECT.name), request={"n": 1}, logprobs=2, prompt="<|user|>Hé"
    )
    assert built.path == "/completions"
    assert json.loads(built.body) == {
        "model": "m",
        "prompt": "<|user|>Hé",
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": 9,
        "seed": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": 2,
        "n": 1,
    }


def test_without_a_template_nothing_can_be_sent() -> None:
    with pytest.raises(WireError, match=r"'greeting' .* set `template` on the route .*\.$"):
        DIALECT.build(TRACE, model="m", stream=True, backend=backend(DIALECT.name), request={}, logprobs=0)


def test_legacy_logprobs() -> None:
    logprobs = {
        "tokens": ["Hel", "lo"],
        "token_logprobs": [-0.5, -1],
        "top_logprobs": [{"Hel": -0.5, "He": -2}, None],
        "text_offset": [0, 3],
    }
    reading = read(choice("Hello", finish_reason="stop", logprobs=logprobs))
    assert reading.logprobs == (
        TokenLogprob("Hel", -0.5, (("Hel", -0.5), ("He", -2.0))),
        TokenLogprob("lo", -1.0),
    )
    assert stream(choice("Hello", logprobs=logprobs), choice("!", logprobs=logprobs)).logprobs == (
        *(reading.logprobs or ()),
        *(reading.logprobs or ()),
    )


def test_llamacpp_logprobs_have_the_form_of_chats() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -1, "top_logprobs": [{"token": "b", "logprob": -2}]}]}
    assert read(choice("a", logprobs=logprobs)).logprobs == (TokenLogprob("a", -1.0, (("b", -2.0),)),)


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": ["a"], "token_logprobs": []},
        {"tokens": ["a"], "token_logprobs": [None]},
        {"tokens": [1], "token_logprobs": [-1]},
        {"tokens": "a", "token_logprobs": [-1]},
    ],
)
def test_logprobs_that_cannot_be_read(logprobs: dict[str, Any]) -> None:
    reading = read(choice("a", logprobs=logprobs))
    assert (reading.logprobs, reading.problems, reading.text) == (None, ("logprobs cannot be read",), "a")


def test_logprobs_that_were_not_asked_for() -> None:
    assert read(choice("a", logprobs={"tokens": None, "token_logprobs": None})).problems == ()
    assert read(choice("a", logprobs=7)).problems == ("logprobs is no object",)


def test_errors_in_a_stream() -> None:
    reading = stream(choice("Hel"), {"error": {"message": "gone", "code": 500}}, done=False)
    assert (reading.state, reading.text, reading.error) == ("error", "Hel", "gone")
    assert stream(choice("Hel", finish_reason="error")).state == "error"
    reading = stream(choice("Hel"), done=False)
    assert (reading.state, reading.terminated) == ("truncated", False)


def test_only_the_first_choice_is_read() -> None:
    body = choice("a")
    body["choices"].append({"index": 1, "text": "b"})
    reading = read(body)
    assert (reading.text, reading.problems) == ("a", ("more than one choice; the first is read",))


def test_reasoning_inside_the_text() -> None:
    reading = read(choice("<think>\nhm\n</think>Yes.", finish_reason="stop"))
    assert (reading.text, reading.reasoning) == ("Yes.", "hm")


def test_usage_and_timings() -> None:
    last = {**choice("", finish_reason="length"), "usage": {"prompt_tokens": 5, "completion_tokens": 1}}
    reading = stream(choice("a"), {**last, "timings": {"prompt_ms": 12.5, "predicted_ms": 40}})
    assert (reading.usage, reading.timings) == (Usage(5, 1), {"prompt": 0.0125, "generation": 0.04})
    assert reading.finish_reason == "length"


@pytest.mark.parametrize("prompt", [None, [], ["a", "b"], [1, 2], {"a": 1}])
def test_a_request_without_one_text(prompt: Any) -> None:
    with pytest.raises(WireError, match="no prompt that is one text"):
        DIALECT.read_request(json.dumps({"model": "m", "prompt": prompt}).encode())


def test_a_request_of_one_text_in_a_list() -> None:
    found = DIALECT.read_request(json.dumps({"prompt": ["a"], "suffix": "b", "stream": True}).encode())
    assert (found.messages, found.extra, found.stream) == ((Message("user", "a"),), ("prompt", "suffix"), True)
