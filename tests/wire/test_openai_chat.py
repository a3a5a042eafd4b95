import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.errors import WireError
from probe.traces.values import Message, Sampling, Trace
from probe.wire.catalogue import load_backend
from probe.wire.openai_chat import OpenAiChat
from probe.wire.values import BuiltRequest, Reading, TokenLogprob, Usage
from tests.kit import JSON, completion, delta, make_exchange, sse
from tests.wire.strategies import BODIES, MESSAGES, SAMPLINGS, STATES, STATUSES, TYPES

DIALECT = OpenAiChat()
TRACE = Trace("t", (Message("system", "Be brief."), Message("user", "Grüße?")), Sampling(temperature=0.5, seed=7))


def build(backend: str = "llamacpp", trace: Trace = TRACE, **changes: Any) -> BuiltRequest:
    arguments = {"model": "m", "stream": True, "request": {}, "logprobs": 0, **changes}
    return DIALECT.build(trace, backend=load_backend(backend), **arguments)


def read(body: Any, **overrides: Any) -> Reading:
    return DIALECT.read(make_exchange(response_body=body, **overrides))


class TestBuild:
    def test_every_parameter_is_sent(self) -> None:
        body = json.loads(build().body)
        assert body == {
            "model": "m",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße?"}],
            "temperature": 0.5,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repeat_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "max_tokens": 256,
            "seed": 7,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        assert "Grüße".encode() in build().body
        assert build().path == "/chat/completions"

    def test_spellings_differ_by_backend(self) -> None:
        body = json.loads(build("vllm").body)
        assert body["repetition_penalty"] == 1.0
        assert body["top_k"] == -1
        limited = Trace("t", TRACE.messages, Sampling(top_k=5))
        assert json.loads(build("vllm", limited).body)["top_k"] == 5

    def test_what_a_backend_cannot_take_is_named(self) -> None:
        assert build("openai").dropped == ("top_k", "min_p", "repeat_penalty")
        assert build("llamacpp").dropped == ()

    def test_no_seed_is_neither_sent_nor_dropped(self) -> None:
        built = build("openai", Trace("t", TRACE.messages))
        assert "seed" not in json.loads(built.body)
        assert "seed" not in built.dropped

    def test_without_a_stream_there_are_no_stream_options(self) -> None:
        body = json.loads(build("openrouter", stream=False).body)
        assert body["stream"] is False
        assert "stream_options" not in body
        assert "debug" not in body
        assert json.loads(build("openrouter").body)["debug"] == {"echo_upstream_body": True}

    def test_logprobs(self) -> None:
        body = json.loads(build(logprobs=4).body)
        assert (body["logprobs"], body["top_logprobs"]) == (True, 4)
        assert "logprobs" not in json.loads(build().body)

    def test_the_route_goes_before_the_backend_and_tables_are_merged(self) -> None:
        route = {"provider": {"only": ["x"]}, "debug": {"echo_upstream_body": False, "more": 1}, "plugins": []}
        body = json.loads(build("openrouter", request=route).body)
        assert body["provider"] == {"only": ["x"]}
        assert body["debug"] == {"echo_upstream_body": False, "more": 1}
        assert body["plugins"] == []

    @pytest.mark.parametrize("key", ["model", "messages", "stream"])
    def test_a_route_cannot_change_the_conversation(self, key: str) -> None:
        with pytest.raises(WireError, match=key):
            build(request={key: 1})

    def test_a_value_that_is_no_json_is_refused(self) -> None:
        with pytest.raises(WireError, match="JSON"):
            build(request={"x": float("nan")})

    def test_half_a_character_still_goes_over_the_wire(self) -> None:
        body = build(trace=Trace("t", (Message("user", "\ud83d"),))).body
        assert json.loads(body)["messages"][0]["content"] == "\ud83d"


@given(MESSAGES, SAMPLINGS, st.booleans(), st.sampled_from(["llamacpp", "vllm", "openrouter"]))
def test_build_and_read_request_are_inverse(
    messages: tuple[Message, ...], sampling: Sampling, streamed: bool, backend: str
) -> None:
    trace = Trace("t", messages, sampling)
    built = build(backend, trace, stream=streamed)
    assert built == build(backend, Trace("other name", messages, sampling, control=True), stream=streamed)
    found = DIALECT.read_request(built.body)
    assert found.messages == messages
    assert found.stream is streamed
    assert found.model == "m"
    assert found.extra == ()
    assert Sampling(**found.sampling) == sampling


class TestDocument:
    def test_an_answer(self) -> None:
        reading = read(completion("Hello."))
        assert (reading.state, reading.text, reading.finish_reason) == ("answer", "Hello.", "stop")
        assert reading.usage == Usage(5, 3)
        assert (reading.model, reading.response_id, reading.streamed, reading.terminated) == (
            "toy",
            "chatcmpl-1",
            False,
            True,
        )
        assert len(reading.documents) == 1
        assert reading.problems == ()

    def test_gzip(self) -> None:
        body = gzip.compress(json.dumps(completion("Hello.")).encode())
        assert read(body, response_headers=(*JSON, ("Content-Encoding", "gzip"))).text == "Hello."

    def test_no_content_type_is_sniffed(self) -> None:
        assert read(completion("Hello."), response_headers=()).text == "Hello."
        reading = read(sse(delta("Hello.")), response_headers=())
        assert (reading.text, reading.streamed) == ("Hello.", True)
        assert "event stream" in reading.problems[0]

    @pytest.mark.parametrize(
        ("body", "state"),
        [
            ({"choices": []}, "empty"),
            ({"choices": [{"index": 0, "finish_reason": "content_filter: PROHIBITED_CONTENT"}]}, "empty"),
            (completion(None), "empty"),
            (completion(""), "empty"),
            ({"hello": 1}, "malformed"),
            ([], "malformed"),
            ("1", "malformed"),
            ("not JSON", "malformed"),
            ("", "malformed"),
            ({"choices": 7}, "malformed"),
            ({"choices": [7]}, "empty"),
            ({"choices": [{"message": "x"}]}, "empty"),
        ],
    )
    def test_states_without_text(self, body: Any, state: str) -> None:
        reading = read(body)
        assert (reading.state, reading.text) == (state, "")

    @pytest.mark.parametrize(
        ("status", "body", "words"),
        [
            (400, {"error": {"message": "no", "code": 400}}, "no"),
            (400, {"error": "no"}, "no"),
            (
                400,
                {"error": {"message": {"error": "Violated guardrail policy"}, "type": "None"}},
                "Violated guardrail policy",
            ),
            (422, {"detail": "no"}, "no"),
            (422, {"detail": [{"loc": ["body"], "msg": "bad"}]}, '[{"loc": ["body"], "msg": "bad"}]'),
            (400, {"object": "error", "message": "no", "code": 40001}, "no"),
            (400, {"code": 20012, "message": "no", "data": None}, "no"),
            (400, [{"error": {"message": "no"}}], "no"),
            (400, {"success": False, "error": {"name": "ZodError", "message": "[…]"}}, "[…]"),
            (403, "<!DOCTYPE html><html><title>Sorry, you have been blocked</title>", "blocked"),
            (502, "Bad gateway", "HTTP 502: Bad gateway"),
            (503, "", "HTTP 503"),
            (307, "", "HTTP 307"),
            (200, {"error": {"message": "no"}}, "no"),
            (
                200,
                {"base_resp": {"status_code": 1027, "status_msg": "output new_sensitive"}},
                "output new_sensitive (1027)",
            ),
            (200, "<html><head><title>Login</title></head>", "Login"),
            (
                429,
                {"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "slow down"}}},
                "Provider returned error: slow down",
            ),
        ],
    )
    def test_errors_of_every_shape(self, status: int, body: Any, words: str) -> None:
        reading = read(body, status=status)
        assert reading.state == "error"
        assert reading.error is not None
        assert words in reading.error

    def test_an_error_beside_text_keeps_the_text(self) -> None:
        body = completion("Half", finish_reason="error", error={"code": 502, "message": "gone"})
        reading = read(body)
        assert (reading.state, reading.text, reading.error, reading.finish_reason) == ("error", "Half", "gone", "error")

    def test_an_answer_under_an_error_status_is_an_answer(self) -> None:
        reading = read(completion("Hello."), status=400)
        assert reading.state == "answer"
        assert reading.problems == ("HTTP 400 with an answer",)

    def test_parts(self) -> None:
        parts = [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm. "}]},
            {"type": "text", "text": "Hel"},
            {"type": "text", "text": "lo."},
            {"type": "refusal", "refusal": "No."},
            {"type": "image_url"},
        ]
        body = completion(None)
        body["choices"][0]["message"]["content"] = parts
        reading = read(body)
        assert (reading.text, reading.reasoning, reading.refusal) == ("Hello.", "Hm. ", "No.")
        assert reading.problems == ("a content part of type 'image_url' is not read",)

    @pytest.mark.parametrize(
        "fields",
        [
            {"reasoning": "Hm."},
            {"reasoning_content": "Hm."},
            {"thinking": "Hm."},
            {"reasoning": "Hm.", "reasoning_content": "Hm."},
            {"reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "Hm."},
                    {"type": "reasoning.encrypted", "data": "x"},
                ]
            },
            {"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm."}]},
        ],
    )
    def test_reasoning_fields(self, fields: dict[str, Any]) -> None:
        body = completion("Yes.")
        body["choices"][0]["message"] |= fields
        reading = read(body)
        assert (reading.text, reading.reasoning) == ("Yes.", "Hm.")

    @pytest.mark.parametrize(
        ("raw", "text", "reasoning"),
        [
            ("<think>\nHm.\n</think>\n\nYes.", "\n\nYes.", "Hm."),
            ("\n<think></think>Yes.", "Yes.", ""),
            ("<think>Hm", "", "Hm"),
            ("Hm.\n</think>\n\nYes.", "\n\nYes.", "Hm."),
            ("The tag <think> begins and </think>\n ends it.", "The tag <think> begins and </think>\n ends it.", ""),
            ("Close it with </think> then.", "Close it with </think> then.", ""),
        ],
    )
    def test_inline_thinking(self, raw: str, text: str, reasoning: str) -> None:
        reading = read(completion(raw))
        assert (reading.text, reading.reasoning) == (text, reasoning)

    def test_refusal_field(self) -> None:
        body = completion(None)
        body["choices"][0]["message"]["refusal"] = "No."
        reading = read(body)
        assert (reading.state, reading.refusal, reading.text) == ("answer", "No.", "")

    def test_logprobs(self) -> None:
        content = [
            {"token": "Hel", "logprob": -0.5, "bytes": [72], "top_logprobs": [{"token": "Hel", "logprob": -0.5}]},
            {"token": "lo.", "logprob": 0, "top_logprobs": []},
        ]
        reading = read(completion("Hello.", logprobs={"content": content}))
        assert reading.logprobs == (TokenLogprob("Hel", -0.5, (("Hel", -0.5),)), TokenLogprob("lo.", 0.0))
        assert read(completion("Hello.", logprobs=None)).logprobs is None

    @pytest.mark.parametrize("entry", [{"token": 1, "logprob": 0}, {"token": "a", "logprob": "x"}, 7, {"token": "a"}])
    def test_one_bad_token_spoils_the_logprobs(self, entry: Any) -> None:
        good = {"token": "a", "logprob": -1.0}
        reading = read(completion("Hello.", logprobs={"content": [good, entry]}))
        assert reading.logprobs is None
        assert reading.problems == ("logprobs cannot be read",)

    def test_numbers_of_the_wrong_type_are_problems(self) -> None:
        body = completion("Hello.")
        body["usage"] = {
            "prompt_tokens": "5",
            "completion_tokens": -3,
            "completion_tokens_details": {"reasoning_tokens": 2.0},
        }
        body["timings"] = {"prompt_ms": "fast", "predicted_ms": 1500}
        body["model"] = 5
        reading = read(body)
        assert reading.usage == Usage(None, None, 2)
        assert reading.timings == {"generation": 1.5}
        assert len(reading.problems) == 4
        assert reading.state == "answer"

    def test_timings_of_vllm(self) -> None:
        body = {**completion("Hello."), "metrics": {"queue_time_ms": 10, "generation_time_ms": 250.0}}
        assert read(body).timings == {"queue": 0.01, "generation": 0.25}

    def test_a_cut_document(self) -> None:
        body = json.dumps(completion("Hello.")).encode()[:-20]
        assert read(body, state="cut").state == "truncated"
        assert read(body).state == "malformed"
        assert read(b"", state="cut").state == "truncated"

    def test_a_whole_document_is_an_answer_even_if_the_client_left(self) -> None:
        assert read(completion("Hello."), state="client_gone").state == "answer"

    def test_no_response(self) -> None:
        reading = read(b"", status=None, state="unreachable", error="connection refused", response_headers=())
        assert (reading.state, reading.error, reading.terminated) == ("missing", "connection refused", False)
        assert read(b"", status=None, state="timeout").error == "no answer came in time"

    def test_halves_of_a_character_meet(self) -> None:
        body = rb'{"choices":[{"message":{"content":"\ud83d\ude42 \ud83d"}}]}'
        assert read(body).text == "\U0001f642 �"


@settings(max_examples=300)
@given(BODIES, TYPES, STATUSES, STATES)
def test_reading_never_raises_and_gives_encodable_text(
    body: bytes, headers: Any, status: int | None, state: Any
) -> None:
    reading = read(body, response_headers=headers, status=status, state=state)
    (
        reading.text + reading.reasoning + (reading.error or "") + (reading.model or "") + "".join(reading.problems)
    ).encode()
    assert (reading.state == "missing") == (status is None)
    assert (reading.state == "error") == (reading.error is not None) or reading.state == "missing"
