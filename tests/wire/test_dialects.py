"""What holds of every dialect."""

import contextlib
import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.errors import CatalogueError, WireError
from probe.traces.values import Message, Sampling, Trace
from probe.wire.arrivals import document_ends, said_length
from probe.wire.dialect import DIALECT_NAMES, ONE_TEXT
from probe.wire.dialects import dialect
from probe.wire.values import BuiltRequest, Reading, Usage
from tests.kit import JSON, make_exchange
from tests.wire.dialects_kit import ANSWERS, PARAMETERS, REQUEST_BODIES, Said, backend
from tests.wire.strategies import BODIES, MESSAGES, SAMPLINGS, STATES, STATUSES, TYPES

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=12)
"""Texts without ``<think>``, which would be taken out of them."""
SAID = st.builds(
    Said,
    st.lists(WORDS, min_size=1, max_size=6).map(tuple),
    st.lists(WORDS, max_size=3).map(tuple),
    st.integers(0, 10_000),
    st.integers(10, 10_000),
    st.none() | st.integers(0, 10),
    st.booleans(),
)
MODEL = "vendor/some model:v1"
URL = "https://example.org/v1"


def build(name: str, trace: Trace, **changes: Any) -> BuiltRequest:
    arguments = {"model": MODEL, "stream": True, "request": {}, "logprobs": 0, "backend": backend(name), **changes}
    if name in ONE_TEXT:
        arguments.setdefault("prompt", "".join(f"<|{m.role}|>{m.content}" for m in trace.messages))
    return dialect(name).build(trace, **arguments)


def carried(name: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return as much of a conversation as a dialect can carry."""
    if name in {"gemini", "bedrock-converse"}:
        messages = (*messages[:1], *(message for message in messages[1:] if message.role != "system"))
    first_only_system = len(messages) == 1 and messages[0].role == "system"
    if first_only_system and name in {"gemini", "bedrock-converse", "anthropic-messages"}:
        return (*messages, Message("user", ""))
    return messages


def read(name: str, body: Any, **overrides: Any) -> Reading:
    return dialect(name).read(make_exchange(response_body=body, **overrides))


def test_there_is_code_for_every_name() -> None:
    assert [dialect(name).name for name in DIALECT_NAMES] == list(DIALECT_NAMES)
    with pytest.raises(CatalogueError, match="there are: openai-chat, "):
        dialect("morse")


@pytest.mark.parametrize("name", [name for name in DIALECT_NAMES if name not in ONE_TEXT])
@given(MESSAGES, SAMPLINGS, st.booleans())
def test_build_and_read_request_are_inverse(
    name: str, messages: tuple[Message, ...], sampling: Sampling, streamed: bool
) -> None:
    trace = Trace("t", carried(name, messages), sampling)
    built = build(name, trace, stream=streamed)
    assert built == build(name, Trace("other name", trace.messages, sampling, control=True), stream=streamed)
    found = dialect(name).read_request(built.body, URL + built.path)
    assert (found.messages, found.stream, found.model, found.extra) == (trace.messages, streamed, MODEL, ())
    sent = {key: value for key, value in vars_of(sampling).items() if key in PARAMETERS[name] and value is not None}
    assert found.sampling == sent
    assert {*built.dropped} == {key for key, value in vars_of(sampling).items() if value is not None} - sent.keys()


def vars_of(sampling: Sampling) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in Sampling.__dataclass_fields__}


@pytest.mark.parametrize("name", sorted(ONE_TEXT))
@given(st.text(min_size=1), SAMPLINGS, st.booleans())
def test_a_rendered_prompt_is_read_back_as_one_text(name: str, prompt: str, sampling: Sampling, streamed: bool) -> None:
    built = build(name, Trace("t", (Message("user", "x"),), sampling), prompt=prompt, stream=streamed)
    found = dialect(name).read_request(built.body)
    assert (found.messages, found.stream, found.model) == ((Message("user", prompt),), streamed, MODEL)
    assert found.extra == (("prompt",) if name == "openai-completions" else ("raw",))
    assert found.sampling == {key: value for key, value in vars_of(sampling).items() if value is not None}


@pytest.mark.parametrize("name", DIALECT_NAMES)
@given(st.sampled_from(["model", "messages", "prompt", "system", "input", "contents", "systemInstruction", "stream"]))
def test_a_route_cannot_change_the_conversation(name: str, key: str) -> None:
    trace = Trace("t", (Message("system", "Be brief."), Message("user", "Hello?")))
    body = json.loads(build(name, trace).body)
    if key in body:
        with pytest.raises(WireError, match=key):
            build(name, trace, request={key: 1})


@pytest.mark.parametrize("name", DIALECT_NAMES)
def test_a_route_may_add_to_nested_tables(name: str) -> None:
    trace = Trace("t", (Message("user", "Hello?"),))
    request = {"generationConfig": {"thinkingConfig": {"x": 1}}, "inferenceConfig": {"x": 1}, "options": {"x": 1}}
    body = json.loads(build(name, trace, request=request).body)
    for table, added in request.items():
        before = json.loads(build(name, trace).body).get(table, {})
        assert body[table] == {**before, **added}


@pytest.mark.parametrize("name", DIALECT_NAMES)
def test_logprobs_are_asked_for_or_named_as_dropped(name: str) -> None:
    trace = Trace("t", (Message("user", "Hello?"),))
    asked, none = build(name, trace, logprobs=3), build(name, trace)
    assert ("logprobs" in asked.dropped) == (name in {"anthropic-messages", "bedrock-converse"})
    assert (asked.body == none.body) == ("logprobs" in asked.dropped)
    without = build(name, trace, logprobs=3, backend=backend(name, logprobs=False))
    assert (without.body, without.dropped) == (none.body, (*none.dropped, "logprobs"))


@pytest.mark.parametrize("name", ANSWERS)
@given(SAID)
def test_a_stream_reads_as_the_whole_answer_does(name: str, said: Said) -> None:
    answers = ANSWERS[name]
    whole = read(name, answers.whole(said))
    parts = read(name, answers.stream(said), response_headers=answers.headers)
    for reading in (whole, parts):
        assert (reading.text, reading.reasoning) == (said.text, said.reasoning)
        assert reading.finish_reason == ("stop" if said.ends else "length")
        reasoned = said.reasoned if answers.counts_reasoning else None
        assert reading.usage == Usage(said.prompt, said.generated, reasoned)
        assert reading.problems == ()
        assert reading.state == ("answer" if said.text or said.reasoning else "empty")
    assert (whole.streamed, parts.streamed, parts.terminated) == (False, True, True)
    assert (whole.model, whole.response_id) == (parts.model, parts.response_id)
    assert whole.native_finish_reason == parts.native_finish_reason


@pytest.mark.parametrize("name", ANSWERS)
@given(SAID, st.data())
def test_a_stream_that_is_cut_off_reads_as_its_beginning(name: str, said: Said, data: st.DataObject) -> None:
    answers = ANSWERS[name]
    body = answers.stream(said)
    part = body[: data.draw(st.integers(0, len(body)))]
    reading = read(name, part, response_headers=answers.headers, state="cut")
    whole = read(name, body, response_headers=answers.headers)
    assert whole.text.startswith(reading.text)
    assert whole.reasoning.startswith(reading.reasoning)
    assert reading.state in {"truncated", whole.state}
    assert "not JSON" not in " ".join(reading.problems)


@pytest.mark.parametrize("name", ANSWERS)
@given(SAID)
def test_what_each_document_adds_and_where_it_ends(name: str, said: Said) -> None:
    answers = ANSWERS[name]
    exchange = make_exchange(response_body=answers.stream(said), response_headers=answers.headers)
    reading = dialect(name).read(exchange)
    lengths = [said_length(d) if name != "ollama-chat" else len(said_in_chat(d)) for d in reading.documents]
    assert [n for n in lengths if n] == [len(piece) for piece in (*said.thoughts, *said.pieces) if piece]
    ends = document_ends(exchange)
    assert len(ends) == len(reading.documents)
    assert ends == sorted(ends)
    for count, end in enumerate(ends, 1):
        begun = dialect(name).read(make_exchange(response_body=exchange.response_body[:end], state="cut"))
        assert len(begun.documents) <= count
    assert ends[-1] <= len(exchange.response_body)


def said_in_chat(document: Any) -> str:
    return str(document["message"].get("content", "") + document["message"].get("thinking", ""))


@pytest.mark.parametrize("name", ANSWERS)
def test_gzip_and_unicode(name: str) -> None:
    said, answers = Said(("Grüße 👍", " 你好"), ends=False), ANSWERS[name]
    coding = ("Content-Encoding", "gzip")
    whole = gzip.compress(json.dumps(answers.whole(said), ensure_ascii=False).encode())
    assert read(name, whole, response_headers=(*JSON, coding)).text == said.text
    stream = gzip.compress(answers.stream(said))
    assert read(name, stream, response_headers=(*answers.headers, coding)).text == said.text
    broken = read(name, stream[:-9], response_headers=(*answers.headers, coding), state="cut")
    assert "gzip" in broken.problems[0]


@pytest.mark.parametrize("name", DIALECT_NAMES)
@pytest.mark.parametrize(
    ("body", "status", "state"),
    [
        (b"", 200, "malformed"),
        (b"", 204, "malformed"),
        (b"", 500, "error"),
        ({}, 200, "malformed"),
        ([], 200, "malformed"),
        ("7", 200, "malformed"),
        ("{", 200, "malformed"),
        (b"<html><title>502 Bad Gateway</title>", 502, "error"),
        ({"error": {"message": "gone", "code": 1}}, 400, "error"),
        ({"error": "gone"}, 200, "error"),
        ({"message": "gone"}, 403, "error"),
    ],
)
def test_what_is_no_answer(name: str, body: Any, status: int, state: str) -> None:
    reading = read(name, body, status=status)
    assert reading.state == state
    if "gone" in json.dumps(str(body)) and isinstance(body, dict) and "error" in body:
        assert reading.error == "gone"
    assert (reading.error is None) == (state != "error")
    assert reading.error or reading.problems or body == {}


@pytest.mark.parametrize("name", DIALECT_NAMES)
def test_no_response_is_missing(name: str) -> None:
    assert read(name, b"", status=None, state="timeout").state == "missing"


@pytest.mark.parametrize("name", ANSWERS)
def test_fields_of_the_wrong_type_are_problems_and_no_exceptions(name: str) -> None:
    document = ANSWERS[name].whole(Said(thoughts=("hm",), reasoned=1))
    for path in paths_of(document):
        for value in (None, 7, -1, "x", [], {}, [None], True, 1e400):
            changed = replaced(document, path, value)
            reading = read(name, json.dumps(changed))
            assert reading.state in {"answer", "empty", "malformed", "error", "truncated"}, (path, value)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, entry in inner for found in paths_of(entry, (*path, key))] + ([path] if path else [])


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("name", DIALECT_NAMES)
@settings(max_examples=200)
@given(BODIES, TYPES, STATUSES, STATES)
def test_reading_never_raises(name: str, body: bytes, headers: Any, status: int | None, state: Any) -> None:
    reading = read(name, body, response_headers=headers, status=status, state=state)
    (reading.text + reading.reasoning + (reading.error or "") + "".join(reading.problems)).encode()


@pytest.mark.parametrize("name", DIALECT_NAMES)
@given(BODIES)
def test_reading_requests_raises_nothing_but_wire_errors(name: str, body: bytes) -> None:
    with contextlib.suppress(WireError):
        assert dialect(name).read_request(body, "/model/%ff/converse").messages


@pytest.mark.parametrize(("path", "body"), REQUEST_BODIES)
def test_what_other_clients_send(path: str, body: dict[str, Any]) -> None:
    names = {
        "/completions": ("openai-completions", ("prompt", "echo")),
        "/responses": ("openai-responses", ("input[1].type",)),
        "/api/generate": ("ollama-generate", ()),
        "/messages": ("anthropic-messages", ()),
        "/models/toy:streamGenerateContent": ("gemini", ("contents[1].parts", "generationConfig.thinkingConfig")),
        "/model/toy/converse": (
            "bedrock-converse",
            ("inferenceConfig.stopSequences", "additionalModelRequestFields.thinking"),
        ),
    }
    name, extra = names[path]
    found = dialect(name).read_request(json.dumps(body).encode(), URL + path)
    assert found.extra == extra
    assert found.model == "toy"
    assert found.stream == (name in {"ollama-generate", "gemini"})
    if name == "openai-completions":
        assert found.messages == (Message("user", "<|user|>Hello?"),)
    else:
        assert found.messages[:2] == (Message("system", "Be brief."), Message("user", "Hello?"))
    assert found.sampling
