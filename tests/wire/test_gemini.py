import json
from typing import Any

import pytest

from probe.errors import WireError
from probe.traces.values import Message, Sampling, Trace
from probe.wire.arrivals import document_ends
from probe.wire.gemini import Gemini
from probe.wire.values import BuiltRequest, Reading, TokenLogprob, Usage
from tests.kit import JSON, SSE, make_exchange
from tests.wire.dialects_kit import Said, backend, candidate, events, gemini_array

DIALECT = Gemini()
SYSTEM, USER, YES = Message("system", "Be brief."), Message("user", "Grüße?"), Message("assistant", "Yes?")
STREAM_URL = "https://example.org/v1beta/models/toy:streamGenerateContent"


def build(*messages: Message, **changes: Any) -> BuiltRequest:
    arguments = {"model": "toy", "stream": True, "request": {}, "logprobs": 0, **changes}
    return DIALECT.build(Trace("t", messages, Sampling(max_tokens=9)), backend=backend(DIALECT.name), **arguments)


def read(body: Any, **overrides: Any) -> Reading:
    return DIALECT.read(make_exchange(response_body=body, **overrides))


def stream(*documents: Any, **overrides: Any) -> Reading:
    return read(events(*(("", d) for d in documents)), **{"response_headers": SSE, **overrides})


def test_build() -> None:
    built = build(SYSTEM, USER, YES, USER, logprobs=3, request={"safetySettings": [{"threshold": "OFF"}]})
    assert built.path == "/models/toy:streamGenerateContent?alt=sse"
    assert built.dropped == ("min_p", "repeat_penalty")
    assert json.loads(built.body) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Grüße?"}]},
            {"role": "model", "parts": [{"text": "Yes?"}]},
            {"role": "user", "parts": [{"text": "Grüße?"}]},
        ],
        "generationConfig": {
            "temperature": 1.0,
            "topP": 1.0,
            "topK": 0,
            "presencePenalty": 0.0,
            "frequencyPenalty": 0.0,
            "maxOutputTokens": 9,
            "responseLogprobs": True,
            "logprobs": 3,
        },
        "safetySettings": [{"threshold": "OFF"}],
    }
    assert build(USER, stream=False, model="models/toy").path == "/models/toy:generateContent"


@pytest.mark.parametrize("messages", [(SYSTEM, SYSTEM, USER), (USER, SYSTEM), (SYSTEM,)])
def test_conversations_that_do_not_fit(messages: tuple[Message, ...]) -> None:
    with pytest.raises(WireError, match=r"'t' cannot be sent in the dialect gemini.*\.$"):
        build(*messages)


@pytest.mark.parametrize("key", ["contents", "systemInstruction", "system_instruction", "cachedContent"])
def test_a_route_cannot_change_the_conversation(key: str) -> None:
    with pytest.raises(WireError, match=key):
        build(USER, request={key: []})


def test_a_blocked_prompt() -> None:
    document = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 5}}
    for reading in (read(document), stream(document), read([document], url=STREAM_URL)):
        assert (reading.state, reading.text) == ("empty", "")
        assert (reading.finish_reason, reading.native_finish_reason) == ("PROHIBITED_CONTENT", "PROHIBITED_CONTENT")
        assert (reading.terminated, reading.documents, reading.usage) == (True, (document,), Usage(5))


@pytest.mark.parametrize(
    ("native", "finish"), [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "SAFETY"), ("RECITATION",) * 2]
)
def test_finish_reasons(native: str, finish: str) -> None:
    for reading in (read(candidate("a", finishReason=native)), stream(candidate("a", finishReason=native))):
        assert (reading.finish_reason, reading.native_finish_reason, reading.state) == (finish, native, "answer")
    assert read(candidate(None, finishReason=native)).state == "empty"


def test_a_stream_ends_with_the_finish_reason() -> None:
    reading = stream(candidate("Hel"), {**candidate("lo."), "candidates": candidate("lo.")["candidates"]})
    assert (reading.state, reading.text, reading.terminated) == ("truncated", "Hello.", False)
    unspecified = candidate("a", finishReason="FINISH_REASON_UNSPECIFIED")
    assert stream(unspecified).state == "truncated"
    late = {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 1}}
    reading = stream(candidate("a", finishReason="STOP"), late)
    assert (reading.state, reading.problems, reading.usage) == ("answer", (), Usage(5, 1))


def test_thoughts() -> None:
    whole = candidate("Yes.", finishReason="STOP")
    whole["candidates"][0]["content"]["parts"].insert(0, {"text": "Hm.", "thought": True, "thoughtSignature": "x"})
    whole["usageMetadata"] = {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 7}
    reading = read(whole)
    assert (reading.text, reading.reasoning, reading.usage) == ("Yes.", "Hm.", Usage(5, 9, 7))
    only = candidate(None, finishReason="MAX_TOKENS")
    only["usageMetadata"] = {"promptTokenCount": 5, "thoughtsTokenCount": 7}
    assert read(only).usage == Usage(5, 7, 7)


def test_logprobs() -> None:
    result = {
        "topCandidates": [
            {"candidates": [{"token": "a", "logProbability": -0.5}, {"token": "b", "logProbability": -1}]},
            {},
        ],
        "chosenCandidates": [
            {"token": "a", "tokenId": 1, "logProbability": -0.5},
            {"token": "c", "logProbability": -2},
        ],
    }
    reading = read(candidate("ac", finishReason="STOP", logprobsResult=result))
    assert reading.logprobs == (TokenLogprob("a", -0.5, (("a", -0.5), ("b", -1.0))), TokenLogprob("c", -2.0))
    for broken in ({"chosenCandidates": [7]}, {"chosenCandidates": 7}):
        reading = read(candidate("a", logprobsResult=broken))
        assert (reading.logprobs, reading.problems) == (None, ("logprobs cannot be read",))
    assert read(candidate("a", logprobsResult={})).problems == ()


def test_the_stream_as_one_array() -> None:
    said = Said(("Hé", "llo."), ("Hm.",), reasoned=1)
    body = gemini_array(said)
    exchange = make_exchange(response_body=body, response_headers=JSON, url=STREAM_URL)
    reading = DIALECT.read(exchange)
    assert (reading.state, reading.text, reading.reasoning) == ("answer", "Héllo.", "Hm.")
    assert (reading.streamed, reading.terminated, reading.usage) == (True, True, Usage(5, 2, 1))
    assert len(document_ends(exchange)) == len(reading.documents) == 4
    cut = read(body[: body.index(b"llo.")], url=STREAM_URL, state="cut")
    assert (cut.state, cut.text, cut.streamed, cut.problems) == ("truncated", "Hé", True, ())
    assert read(b"[", url=STREAM_URL, state="cut").state == "truncated"
    assert read(b"[7, {]", url=STREAM_URL).state in {"truncated", "malformed"}


def test_errors() -> None:
    error = {"error": {"code": 429, "message": "gone", "status": "RESOURCE_EXHAUSTED"}}
    for body in (error, [error]):
        for url in (STREAM_URL, STREAM_URL.replace("streamGenerate", "generate")):
            reading = read(body, status=429, url=url)
            assert (reading.state, reading.error) == ("error", "gone")
    reading = stream(candidate("Hel"), error)
    assert (reading.state, reading.text, reading.error) == ("error", "Hel", "gone")


def test_other_parts_and_candidates_are_named() -> None:
    document = candidate("a", finishReason="STOP")
    document["candidates"][0]["content"]["parts"] += [{"functionCall": {}}, {"thoughtSignature": "x"}, 7]
    document["candidates"] += [{"index": 1}, 7]
    reading = read(document)
    assert reading.text == "a"
    assert reading.problems == (
        "a part of kind 'functionCall' is not read",
        "more than one candidate; the first is read",
        "a candidate is no object",
    )


@pytest.mark.parametrize(
    ("path", "model", "streams"),
    [
        ("/v1beta/models/toy:generateContent", "toy", False),
        ("https://x/v1beta/models/a%2Fb:streamGenerateContent?alt=sse", "a/b", True),
        ("/v1/projects/p/locations/l/publishers/google/models/toy:streamGenerateContent", "toy", True),
        ("", None, False),
    ],
)
def test_the_path_says_model_and_stream(path: str, model: str | None, streams: bool) -> None:
    found = DIALECT.read_request(build(USER).body, path)
    assert (found.model, found.stream) == (model, streams)


def test_requests_in_both_spellings() -> None:
    body = {
        "system_instruction": "Be brief.",
        "contents": [{"role": "user", "parts": [{"text": "a"}]}],
        "generation_config": {"max_output_tokens": 9, "top_k": 3, "stop_sequences": ["x"], "candidate_count": 1},
        "safety_settings": [{}],
        "tools": [{"google_search": {}}],
    }
    found = DIALECT.read_request(json.dumps(body).encode())
    assert found.messages == (Message("system", "Be brief."), Message("user", "a"))
    assert found.sampling == {"max_tokens": 9, "top_k": 3}
    assert found.extra == ("tools", "generationConfig.stopSequences")
    with pytest.raises(WireError, match="no list of contents"):
        DIALECT.read_request(b"{}")
