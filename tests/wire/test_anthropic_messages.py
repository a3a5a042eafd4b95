import json
from typing import Any

import pytest

from probe.errors import WireError
from probe.traces.values import Message, Sampling, Trace
from probe.wire.anthropic_messages import AnthropicMessages
from probe.wire.values import Reading, Usage
from tests.kit import SSE, make_exchange
from tests.wire.dialects_kit import Said, anthropic, backend, named

DIALECT = AnthropicMessages()
SYSTEM, USER, YES = Message("system", "Be brief."), Message("user", "Grüße?"), Message("assistant", "Yes?")


def build(*messages: Message, **changes: Any) -> dict[str, Any]:
    arguments = {"model": "m", "stream": True, "request": {}, "logprobs": 0, **changes}
    built = DIALECT.build(Trace("t", messages, Sampling(max_tokens=9)), backend=backend(DIALECT.name), **arguments)
    assert built.path == "/messages"
    return dict(json.loads(built.body))


def read(body: Any, **overrides: Any) -> Reading:
    return DIALECT.read(make_exchange(response_body=body, **overrides))


def stream(*documents: dict[str, Any], **overrides: Any) -> Reading:
    return read(named(*documents), response_headers=SSE, **overrides)


def start(**changes: Any) -> dict[str, Any]:
    message = anthropic(Said(), content=[], stop_reason=None, usage={"input_tokens": 5, "output_tokens": 1}, **changes)
    return {"type": "message_start", "message": message}


def text(words: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": words}}


def end(reason: str, **delta: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, **delta}, "usage": {"output_tokens": 2}}


STOP = {"type": "message_stop"}


def test_build() -> None:
    assert build(SYSTEM, USER, YES, USER) == {
        "model": "m",
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Grüße?"},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "Grüße?"},
        ],
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": 9,
        "stream": True,
    }
    assert "system" not in build(USER)


def test_later_system_text_stays_where_it_is() -> None:
    body = build(SYSTEM, USER, Message("system", "More."), USER)
    assert [message["role"] for message in body["messages"]] == ["user", "system", "user"]
    with pytest.raises(WireError, match="no turn"):
        build(SYSTEM)


@pytest.mark.parametrize("key", ["system", "messages"])
def test_a_route_cannot_change_the_conversation(key: str) -> None:
    with pytest.raises(WireError, match=key):
        build(USER, request={key: []})


def test_a_refusal() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "x"}
    whole = read(anthropic(Said(), content=[], stop_reason="refusal", stop_details=details))
    parts = stream(start(), end("refusal", stop_details=details), STOP)
    for reading in (whole, parts):
        assert (reading.state, reading.finish_reason, reading.native_finish_reason) == ("empty", "refusal", "refusal")
        assert any("stop_details" in json.dumps(document) for document in reading.documents)
    after_text = stream(start(), text("Hel"), end("refusal"), STOP)
    assert (after_text.state, after_text.text, after_text.finish_reason) == ("answer", "Hel", "refusal")


@pytest.mark.parametrize(
    ("stop_reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "pause_turn"),
        ("model_context_window_exceeded", "model_context_window_exceeded"),
    ],
)
def test_finish_reasons(stop_reason: str, finish: str) -> None:
    reading = read(anthropic(Said(), stop_reason=stop_reason))
    assert (reading.finish_reason, reading.native_finish_reason) == (finish, stop_reason)


def test_errors() -> None:
    envelope = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
    whole = read(envelope, status=529)
    assert (whole.state, whole.error) == ("error", "Overloaded")
    parts = stream(start(), text("Hel"), envelope)
    assert (parts.state, parts.text, parts.error, parts.events[-1]) == ("error", "Hel", "Overloaded", "error")
    assert read(envelope).state == "error"


def test_the_terminator() -> None:
    pieces = (start(), {"type": "ping"}, text("Hel"), end("end_turn"))
    reading = stream(*pieces)
    assert (reading.state, reading.text, reading.terminated) == ("truncated", "Hel", False)
    assert read(named(*pieces) + b"data: [DONE]\n\n", response_headers=SSE).state == "truncated"
    assert stream(*pieces, STOP, state="client_gone").state == "answer"
    assert stream(*pieces, STOP, text("x")).problems == ("the stream goes on after message_stop",)


def test_blocks() -> None:
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Yes.", "citations": None},
        {"type": "tool_use", "id": "x", "name": "y", "input": {}},
    ]
    reading = read(anthropic(Said(), content=content))
    assert (reading.text, reading.reasoning) == ("Yes.", "Hm.")
    assert reading.problems == ("a content block of type 'tool_use' is not read",)
    deltas = [
        {"type": "content_block_start", "index": 0, "content_block": content[3]},
        {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}},
        {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "x"}},
        {"type": "content_block_delta", "delta": {"type": "morse_delta"}},
        {"type": "carrier_pigeon"},
    ]
    assert stream(start(), *deltas, end("tool_use"), STOP).problems == (
        "a content block of type 'tool_use' is not read",
        "a delta of type 'morse_delta' is not read",
        "an event of type 'carrier_pigeon' is not read",
    )


def test_cached_tokens_are_tokens_of_the_prompt() -> None:
    usage = {"input_tokens": 5, "cache_creation_input_tokens": 3, "cache_read_input_tokens": None, "output_tokens": 2}
    assert read(anthropic(Said(), usage=usage)).usage == Usage(8, 2)
    assert read(anthropic(Said(), usage={"input_tokens": "5", "output_tokens": 2})).usage == Usage(None, 2)
    assert read(anthropic(Said(), usage=[])).problems == ("usage is no object",)


def test_usage_of_a_stream_is_the_last() -> None:
    assert stream(start(), text("a"), end("end_turn"), STOP).usage == Usage(5, 2)


def test_requests() -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "source": {}}]}
    body = {
        "model": "m",
        "system": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
        "messages": [message, {"role": "system", "content": "More."}],
        "max_tokens": 9,
        "stop_sequences": ["x"],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "metadata": {"user_id": "u"},
        "tool_choice": {"type": "auto"},
    }
    found = DIALECT.read_request(json.dumps(body).encode())
    assert found.messages == (Message("system", "Be brief."), Message("user", "a"), Message("system", "More."))
    assert found.extra == ("messages[0].content", "stop_sequences", "thinking")
    with pytest.raises(WireError, match="no list of messages"):
        DIALECT.read_request(b"{}")
