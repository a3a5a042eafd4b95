import json
from typing import Any

import pytest

from probe.errors import WireError
from probe.traces.values import Message, Sampling, Trace
from probe.wire.backend import Parameter, ParameterMap
from probe.wire.openai_responses import OpenAiResponses
from probe.wire.values import Reading, TokenLogprob, Usage
from tests.kit import SSE, make_exchange
from tests.wire.dialects_kit import Said, backend, events, named, response

DIALECT = OpenAiResponses()
TRACE = Trace(
    "t",
    (Message("system", "Be brief."), Message("user", "Hi."), Message("assistant", "Yes?"), Message("user", "Grüße?")),
    Sampling(max_tokens=9),
)
LOGPROBS = [{"token": "a", "logprob": -1, "top_logprobs": [{"token": "b", "logprob": -2}], "bytes": [97]}]


def read(body: Any, **overrides: Any) -> Reading:
    return DIALECT.read(make_exchange(response_body=body, **overrides))


def stream(*documents: dict[str, Any], **overrides: Any) -> Reading:
    return read(named(*documents), response_headers=SSE, **overrides)


def delta(text: str, kind: str = "output_text", **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "item_id": "msg_1", "output_index": 0, "delta": text, **fields}


def last(said: Said, status: str = "completed", **changes: Any) -> dict[str, Any]:
    return {"type": f"response.{status}", "response": response(said, status=status, **changes)}


def test_build() -> None:
    built = DIALECT.build(TRACE, model="m", stream=False, backend=backend(DIALECT.name), request={}, logprobs=2)
    assert built.path == "/responses"
    body = json.loads(built.body)
    assert body["input"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Grüße?"},
    ]
    assert (body["store"], body["stream"], body["max_output_tokens"]) == (False, False, 9)
    assert (body["top_logprobs"], body["include"]) == (2, ["message.output_text.logprobs"])
    assert "instructions" not in body


def test_the_token_limit_has_one_name() -> None:
    for chats in ("max_tokens", "max_completion_tokens"):
        names = ParameterMap({"max_tokens": Parameter(chats)})
        spoken = backend(DIALECT.name, parameters=names)
        built = DIALECT.build(TRACE, model="m", stream=False, backend=spoken, request={}, logprobs=0)
        body = json.loads(built.body)
        assert (body["max_output_tokens"], chats in body) == (9, False)


@pytest.mark.parametrize("key", ["instructions", "previous_response_id", "conversation", "prompt"])
def test_a_route_cannot_add_to_the_conversation(key: str) -> None:
    with pytest.raises(WireError, match=key):
        DIALECT.build(TRACE, model="m", stream=True, backend=backend(DIALECT.name), request={key: "x"}, logprobs=0)


def test_a_refusal_and_logprobs() -> None:
    parts = [{"type": "refusal", "refusal": "No."}, {"type": "output_text", "text": "a", "logprobs": LOGPROBS}]
    reading = read(response(Said(), output=[{"type": "message", "content": parts}]))
    assert (reading.refusal, reading.text) == ("No.", "a")
    assert reading.logprobs == (TokenLogprob("a", -1.0, (("b", -2.0),)),)
    reading = stream(delta("N", "refusal"), delta("o.", "refusal"), delta("a", logprobs=LOGPROBS), last(Said(("a",))))
    assert (reading.refusal, reading.text, reading.state) == ("No.", "a", "answer")
    assert reading.logprobs == (TokenLogprob("a", -1.0, (("b", -2.0),)),)


def test_reasoning_is_taken_once() -> None:
    both = {
        "type": "reasoning",
        "content": [{"type": "reasoning_text", "text": "raw"}],
        "summary": [{"type": "summary_text", "text": "short"}],
    }
    assert read(response(Said(), output=[both])).reasoning == "raw"
    assert read(response(Said(), output=[{**both, "content": None}])).reasoning == "short"
    pieces = (delta("short", "reasoning_summary_text"), delta("raw", "reasoning_text"))
    assert stream(*pieces, last(Said())).reasoning == "raw"
    assert stream(pieces[0], last(Said())).reasoning == "short"
    assert stream(delta("Hello."), last(Said(thoughts=("only at the end",)))).reasoning == "only at the end"


def test_incomplete() -> None:
    filtered = {"reason": "content_filter"}
    whole = read(response(Said(("Hel",)), status="incomplete", incomplete_details=filtered))
    parts = stream(delta("Hel"), last(Said(("Hel",)), "incomplete", incomplete_details=filtered))
    for reading in (whole, parts):
        assert (reading.state, reading.text, reading.finish_reason) == ("answer", "Hel", "content_filter")
    empty = stream(last(Said(("",)), "incomplete", incomplete_details=filtered, output=[]))
    assert (empty.state, empty.native_finish_reason) == ("empty", "content_filter")
    cut = {"reason": "max_output_tokens"}
    assert read(response(Said(), status="incomplete", incomplete_details=cut)).finish_reason == "length"


def test_failed() -> None:
    error = {"code": "server_error", "message": "gone"}
    for reading in (
        read(response(Said(), status="failed", error=error, output=[])),
        stream(delta("Hel"), last(Said(()), "failed", error=error, output=[])),
    ):
        assert (reading.state, reading.error) == ("error", "gone")
    assert stream(last(Said(()), "failed", error=None, output=[])).error == "the response is failed"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "x", "message": "gone", "param": None, "sequence_number": 3},
        {"type": "error", "error": {"type": "x", "message": "gone"}},
        {"error": {"message": "gone"}},
    ],
)
def test_an_error_in_a_stream(event: dict[str, Any]) -> None:
    reading = read(events(("", delta("Hel")), (event.get("type", ""), event)), response_headers=SSE)
    assert (reading.state, reading.text, reading.error) == ("error", "Hel", "gone")


def test_a_stream_without_its_last_event_is_truncated() -> None:
    reading = stream({"type": "response.created", "response": response(Said(), status="in_progress")}, delta("Hel"))
    assert (reading.state, reading.text, reading.terminated, reading.response_id) == (
        "truncated",
        "Hel",
        False,
        "resp_1",
    )
    # A marker of another dialect is no end.
    body = named(delta("Hel")) + b"data: [DONE]\n\n"
    assert read(body, response_headers=SSE).state == "truncated"
    assert read(named(delta("Hel"), last(Said(("Hel",)))) + b"data: [DONE]\n\n", response_headers=SSE).problems == ()


def test_a_stream_that_gives_only_the_whole() -> None:
    reading = stream(last(Said()))
    assert (reading.state, reading.text, reading.usage) == ("answer", "Hello.", Usage(5, 2, None))


def test_a_text_that_was_replaced_at_the_end_is_told() -> None:
    reading = stream(delta("Hello."), last(Said(("I cannot say.",))))
    assert reading.text == "Hello."
    assert reading.problems == ("the final response holds another text than its pieces",)


def test_events_are_named_and_kept() -> None:
    reading = stream(delta("a"), last(Said(("a",))))
    assert reading.events == ("response.output_text.delta", "response.completed")
    assert len(reading.documents) == 2
    assert stream(delta("a"), last(Said(("a",))), delta("b")).problems == ("the stream goes on after its last event",)


def test_other_output_is_named() -> None:
    items = [{"type": "web_search_call"}, {"type": "message", "content": [{"type": "image"}]}, 7]
    reading = read(response(Said(), output=items))
    assert reading.state == "empty"
    assert "'web_search_call'" in reading.problems[0]
    assert "'image'" in reading.problems[1]
    assert read(response(Said(), output=7)).problems[0] == "output is no list"


def test_requests() -> None:
    body = {
        "model": "m",
        "input": "Hello?",
        "instructions": "Be brief.",
        "reasoning": {"effort": "low"},
        "previous_response_id": "resp_0",
        "tool_choice": "auto",
        "text": {"format": {"type": "json_object"}},
    }
    found = DIALECT.read_request(json.dumps(body).encode())
    assert found.messages == (Message("system", "Be brief."), Message("user", "Hello?"))
    assert found.extra == ("reasoning", "previous_response_id", "text")
    tools = DIALECT.read_request(json.dumps({**body, "tools": [{"type": "x"}]}).encode())
    assert set(tools.extra) - set(found.extra) == {"tools", "tool_choice"}
    with pytest.raises(WireError, match="no input"):
        DIALECT.read_request(b'{"input": []}')
