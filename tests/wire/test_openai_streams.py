from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.wire.openai_chat import OpenAiChat
from probe.wire.values import Reading, TokenLogprob, Usage
from tests.kit import SSE, completion, delta, make_exchange, sse

DIALECT = OpenAiChat()


def read(body: Any, **overrides: Any) -> Reading:
    return DIALECT.read(make_exchange(response_body=body, **overrides))


def stream(*documents: Any, **overrides: Any) -> Reading:
    return read(sse(*documents), response_headers=SSE, **overrides)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_an_answer(newline: str) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    body = b": ping\n\n" + sse(
        delta(""), delta("Hel"), delta("lo."), delta(finish_reason="stop"), usage, newline=newline
    )
    reading = read(body, response_headers=SSE)
    assert (reading.state, reading.text, reading.finish_reason) == ("answer", "Hello.", "stop")
    assert reading.usage == Usage(5, 2)
    assert (reading.streamed, reading.terminated, len(reading.documents), len(reading.events)) == (True, True, 5, 6)
    assert reading.problems == ()


def test_missing_terminator() -> None:
    reading = read(sse(delta("Hel"), done=False), response_headers=SSE)
    assert (reading.state, reading.text, reading.terminated) == ("truncated", "Hel", False)


def test_nothing_but_a_head() -> None:
    assert read(b"", response_headers=SSE).state == "truncated"
    assert read(b": ping\n\n", response_headers=SSE).state == "truncated"


def test_cut_within_an_event() -> None:
    reading = read(sse(delta("Hel"), done=False) + b'data: {"choices": [{"del', response_headers=SSE, state="cut")
    assert (reading.state, reading.text, reading.problems) == ("truncated", "Hel", ())


def test_terminator_without_a_blank_line_counts() -> None:
    reading = read(sse(delta("Hello."), done=False) + b"data: [DONE]", response_headers=SSE, state="client_gone")
    assert reading.state == "answer"


def test_mid_stream_error() -> None:
    failed = {**delta("", finish_reason="error"), "error": {"code": "server_error", "message": "gone"}}
    reading = read(sse(delta("Hel"), failed, done=False), response_headers=SSE)
    assert (reading.state, reading.text, reading.error, reading.finish_reason) == ("error", "Hel", "gone", "error")


def test_named_error_event() -> None:
    reading = read(b'event: error\ndata: {"type":"error","message":"gone"}\n\n', response_headers=SSE)
    assert (reading.state, reading.error, reading.events) == ("error", "gone", ("error",))


def test_json_error_under_the_content_type_of_a_stream() -> None:
    reading = read({"error": {"message": "no"}}, status=400, response_headers=SSE)
    assert (reading.state, reading.error, reading.streamed) == ("error", "no", False)


def test_openrouter_sends_the_last_chunk_twice_and_a_debug_chunk_first() -> None:
    debug = {**delta(), "choices": [], "debug": {"echo_upstream_body": {"messages": []}}}
    last = {**delta("", finish_reason="stop", native_finish_reason="eos"), "provider": "Host"}
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 0}}
    reading = stream(debug, delta("Hi"), last, {**last, "usage": usage})
    assert (reading.text, reading.native_finish_reason, reading.provider) == ("Hi", "eos", "Host")
    assert reading.usage == Usage(5, 1, 0)
    assert reading.state == "answer"


def test_reasoning_refusal_and_logprobs_add_up() -> None:
    def piece(**fields: Any) -> dict[str, Any]:
        return delta(delta={"role": "assistant", "content": None, **fields})

    one = {"content": [{"token": "a", "logprob": -1}]}
    reading = stream(
        piece(reasoning="H"),
        piece(reasoning="m"),
        piece(refusal="N"),
        piece(refusal="o"),
        delta("a", logprobs=one),
        delta("b", logprobs=one),
    )
    assert (reading.reasoning, reading.refusal, reading.text) == ("Hm", "No", "ab")
    assert reading.logprobs == (TokenLogprob("a", -1.0), TokenLogprob("a", -1.0))


def test_llamacpp_timings_and_fingerprint_on_the_last_chunk() -> None:
    last = {
        **delta(finish_reason="length"),
        "system_fingerprint": "b1",
        "timings": {"prompt_ms": 12.5, "predicted_ms": 40},
    }
    reading = stream(delta("a"), last)
    assert reading.timings == {"prompt": 0.0125, "generation": 0.04}
    assert (reading.fingerprint, reading.finish_reason) == ("b1", "length")


def test_azure_begins_with_an_empty_envelope() -> None:
    first = {"id": "", "object": "", "model": "", "choices": [], "prompt_filter_results": []}
    reading = stream(first, delta("a"))
    assert (reading.model, reading.response_id, reading.text) == ("toy", "chatcmpl-1", "a")


def test_a_change_of_model_is_told() -> None:
    assert "model changes" in stream(delta("a"), {**delta("b"), "model": "other"}).problems[0]


def test_a_whole_answer_in_one_event() -> None:
    assert stream(completion("Hello.")).text == "Hello."
    assert stream(delta("Hel"), delta("lo."), completion("Hello.")).text == "Hello."


def test_other_choices_are_left_out() -> None:
    reading = stream(delta("a"), delta("b", index=1))
    assert (reading.text, reading.problems) == ("a", ("more than one choice; the first is read",))


def test_broken_events_are_problems() -> None:
    reading = stream("{", "7", delta("a"))
    assert (reading.state, reading.text, len(reading.problems)) == ("answer", "a", 2)
    assert stream("{").state == "malformed"


def test_no_data_but_done_is_malformed() -> None:
    assert read(b"data: [DONE]\n\n", response_headers=SSE).state == "malformed"


def test_the_terminator_alone_makes_no_answer() -> None:
    assert stream(delta(""), delta(finish_reason="stop")).state == "empty"


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=8), st.data())
def test_a_stream_reads_the_same_however_it_is_cut_off(pieces: list[str], data: st.DataObject) -> None:
    body = sse(*(delta(piece) for piece in pieces))
    whole = read(body, response_headers=SSE)
    part = read(body[: data.draw(st.integers(0, len(body)))], response_headers=SSE, state="cut")
    if "<think>" not in "".join(pieces):
        assert whole.text.startswith(part.text)
    assert part.state in {"truncated", whole.state}
