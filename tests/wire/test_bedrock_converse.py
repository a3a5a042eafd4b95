import json
from functools import cache
from io import BytesIO
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.parsers import EventStreamJSONParser, create_parser
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import WireError
from probe.traces.values import Message, Sampling, Trace
from probe.wire.bedrock_converse import BedrockConverse
from probe.wire.values import BuiltRequest, Reading, Usage
from tests.kit import JSON, make_exchange
from tests.wire.dialects_kit import ANSWERS, AWS, Said, aws, backend, message

DIALECT = BedrockConverse()
SYSTEM, USER, YES = Message("system", "Be brief."), Message("user", "Grüße?"), Message("assistant", "Yes?")
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1, max_size=12)
START = ("messageStart", {"role": "assistant"})


def build(*messages: Message, **changes: Any) -> BuiltRequest:
    arguments = {"model": "vendor.toy-v1:0", "stream": True, "request": {}, "logprobs": 0, **changes}
    return DIALECT.build(Trace("t", messages, Sampling(max_tokens=9)), backend=backend(DIALECT.name), **arguments)


def read(body: Any, **overrides: Any) -> Reading:
    return DIALECT.read(make_exchange(response_body=body, **overrides))


def stream(*events: tuple[str, Any], **overrides: Any) -> Reading:
    return read(aws(*events), response_headers=AWS, **overrides)


def text(words: str) -> tuple[str, Any]:
    return "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": words}}


def test_build() -> None:
    built = build(SYSTEM, USER, YES, USER, request={"guardrailConfig": {"guardrailIdentifier": "g"}})
    assert built.path == "/model/vendor.toy-v1%3A0/converse-stream"
    assert built.dropped == ("repeat_penalty", "presence_penalty", "frequency_penalty")
    assert json.loads(built.body) == {
        "messages": [
            {"role": "user", "content": [{"text": "Grüße?"}]},
            {"role": "assistant", "content": [{"text": "Yes?"}]},
            {"role": "user", "content": [{"text": "Grüße?"}]},
        ],
        "system": [{"text": "Be brief."}],
        "inferenceConfig": {"temperature": 1.0, "topP": 1.0, "maxTokens": 9},
        "additionalModelRequestFields": {"top_k": 0, "min_p": 0.0},
        "guardrailConfig": {"guardrailIdentifier": "g"},
    }
    profile = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.vendor.toy-v1:0"
    assert build(USER, stream=False, model=profile).path == (
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.vendor.toy-v1%3A0/converse"
    )


def test_the_request_is_what_boto_sends() -> None:
    client = botocore.session.get_session().create_client(
        "bedrock-runtime", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
    )
    sent: list[Any] = []
    client.meta.events.register("before-send.*.*", lambda request, **_: sent.append(request) or _answer())
    client.converse(
        modelId="vendor.toy-v1:0",
        system=[{"text": "Be brief."}],
        messages=[{"role": "user", "content": [{"text": "Grüße?"}]}],
        inferenceConfig={"temperature": 1.0, "topP": 1.0, "maxTokens": 9},
        additionalModelRequestFields={"top_k": 0, "min_p": 0.0},
    )
    built = build(SYSTEM, USER, stream=False)
    assert sent[0].url.endswith(built.path)
    assert json.loads(sent[0].body) == json.loads(built.body)
    found = DIALECT.read_request(sent[0].body, sent[0].url)
    assert found.model == "vendor.toy-v1:0"
    assert (found.messages, found.extra, found.sampling["top_k"]) == ((SYSTEM, USER), (), 0)


def _answer() -> AWSResponse:
    body = json.dumps(ANSWERS[DIALECT.name].whole(Said())).encode()
    return AWSResponse("https://example.org", 200, {"content-type": "application/json"}, _Raw(body))


@cache
def _operation() -> Any:
    service = botocore.session.get_session().get_service_model("bedrock-runtime")
    return service.operation_model("ConverseStream")


class _Raw(BytesIO):
    def stream(self) -> Any:
        yield self.read()


@given(st.lists(WORDS, min_size=1, max_size=5), st.lists(WORDS, max_size=3))
def test_a_stream_reads_as_boto_reads_it(pieces: list[str], thoughts: list[str]) -> None:
    body = ANSWERS[DIALECT.name].stream(Said(tuple(pieces), tuple(thoughts)))
    model = _operation()
    parser = create_parser("rest-json")
    assert isinstance(parser._event_stream_parser, EventStreamJSONParser)
    raw = _Raw(body)
    raw.stream = lambda: iter([body])  # type: ignore[method-assign]
    response = {"headers": dict(AWS), "status_code": 200, "body": raw, "context": {"operation_name": "ConverseStream"}}
    events = list(parser.parse(response, model.output_shape)["stream"])
    said = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    reading = read(body, response_headers=AWS)
    assert reading.text == "".join(delta.get("text", "") for delta in said)
    assert reading.reasoning == "".join(delta.get("reasoningContent", {}).get("text", "") for delta in said)
    assert reading.events == tuple(next(iter(event)) for event in events)
    (usage,) = (event["metadata"]["usage"] for event in events if "metadata" in event)
    assert reading.usage == Usage(usage["inputTokens"], usage["outputTokens"])


def test_a_guardrail() -> None:
    trace = {"guardrail": {"actionReason": "x", "modelOutput": []}}
    whole = ANSWERS[DIALECT.name].whole(Said(("Sorry.",))) | {"stopReason": "guardrail_intervened", "trace": trace}
    parts = (
        START,
        text("Sorry."),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "guardrail_intervened"}),
        ("metadata", {"usage": {"inputTokens": 5, "outputTokens": 2}, "metrics": {"latencyMs": 1500}, "trace": trace}),
    )
    for reading in (read(whole), stream(*parts)):
        assert (reading.state, reading.text) == ("answer", "Sorry.")
        assert (reading.finish_reason, reading.native_finish_reason) == ("guardrail_intervened",) * 2
        assert (reading.usage, reading.timings) == (Usage(5, 2), {"total": 1.5})
        assert any(document.get("trace") == trace for document in reading.documents)


def test_errors() -> None:
    headers = (
        *JSON,
        ("x-amzn-ErrorType", "ThrottlingException:http://internal.amazon.com/"),
        ("x-amzn-RequestId", "r"),
    )
    reading = read({"message": "Too many requests"}, status=429, response_headers=headers)
    assert (reading.state, reading.error) == ("error", "ThrottlingException: Too many requests")
    assert reading.response_id == "r"
    assert read({"Message": "no"}, status=403).error == "no"
    typed = {"__type": "com.amazon.coral.service#UnknownOperationException", "message": "no"}
    assert read(typed, status=404).error == "UnknownOperationException: no"
    assert read({"message": "no"}, status=403).error == "no"


@pytest.mark.parametrize("kind", ["throttlingException", "modelStreamErrorException", "internalServerException"])
def test_an_exception_in_a_stream(kind: str) -> None:
    reading = stream(START, text("Hel"), (kind, {"message": "gone"}))
    assert (reading.state, reading.text, reading.error) == ("error", "Hel", f"{kind}: gone")
    assert reading.events == ("messageStart", "contentBlockDelta", kind)
    assert len(reading.documents) == 3


def test_an_unmodelled_error_in_a_stream() -> None:
    error = message({":message-type": "error", ":error-code": "InternalError", ":error-message": "gone"}, b"")
    reading = read(aws(START, text("Hel")) + error, response_headers=AWS)
    assert (reading.state, reading.text, reading.error) == ("error", "Hel", "InternalError: gone")
    assert reading.events[-1] == "error"


def test_the_terminator() -> None:
    reading = stream(START, text("Hel"))
    assert (reading.state, reading.text, reading.terminated) == ("truncated", "Hel", False)
    reading = stream(START, text("Hel"), ("messageStop", {"stopReason": "end_turn"}), state="client_gone")
    assert (reading.state, reading.usage) == ("answer", Usage())
    assert read(b"", response_headers=AWS).state == "truncated"


def test_damage_is_told_and_the_rest_is_read() -> None:
    first, second, end = aws(text("Hel")), aws(text("lo.")), aws(("messageStop", {"stopReason": "end_turn"}))
    flipped = bytearray(second)
    flipped[-6] ^= 1
    reading = read(first + bytes(flipped) + end, response_headers=AWS)
    assert (reading.text, reading.terminated) == ("Hel", True)
    assert reading.problems == ("a message of the event stream does not match its checksum",)
    lost = bytearray(second)
    lost[3] ^= 1
    reading = read(first + bytes(lost) + end, response_headers=AWS)
    assert (reading.state, reading.text) == ("truncated", "Hel")
    assert "lengths" in reading.problems[0]
    broken = message({":event-type": "contentBlockDelta", ":message-type": "event"}, b"{")
    assert "not JSON" in read(first + broken + end, response_headers=AWS).problems[0]
    plain = message({":event-type": "contentBlockDelta", ":message-type": "event"}, b"7")
    assert "no object" in read(first + plain + end, response_headers=AWS).problems[0]


def test_content_types_that_are_wrong() -> None:
    body = ANSWERS[DIALECT.name].stream(Said())
    reading = read(body, response_headers=JSON)
    assert (reading.text, reading.streamed) == ("Hello.", True)
    assert "under the content type 'application/json'" in reading.problems[0]
    reading = read({"message": "no"}, status=400, response_headers=AWS)
    assert (reading.state, reading.error, reading.streamed) == ("error", "no", False)


def test_blocks() -> None:
    whole = ANSWERS[DIALECT.name].whole(Said())
    whole["output"]["message"]["content"] = [
        {"reasoningContent": {"redactedContent": "x"}},
        {"citationsContent": {"content": [{"text": "a"}], "citations": []}},
        {"text": "b"},
        {"toolUse": {"toolUseId": "x", "name": "y", "input": {}}},
        {},
        7,
    ]
    reading = read(whole)
    assert (reading.text, reading.state) == ("ab", "answer")
    assert "'toolUse'" in reading.problems[0]
    start = ("contentBlockStart", {"start": {"toolUse": {"name": "y"}}, "contentBlockIndex": 0})
    assert "'toolUse'" in stream(START, start, ("pigeon", {})).problems[0]
    assert "'pigeon'" in stream(START, start, ("pigeon", {})).problems[1]


@pytest.mark.parametrize("messages", [(SYSTEM, SYSTEM, USER), (USER, SYSTEM), (SYSTEM,)])
def test_conversations_that_do_not_fit(messages: tuple[Message, ...]) -> None:
    with pytest.raises(WireError, match="bedrock-converse"):
        build(*messages)


def test_requests_without_a_path() -> None:
    found = DIALECT.read_request(build(USER).body)
    assert (found.model, found.stream, found.messages) == (None, False, (USER,))
