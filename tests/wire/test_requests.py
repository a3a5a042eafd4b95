import contextlib
import json
from typing import Any

import pytest
from hypothesis import given

from probe.errors import WireError
from probe.traces.values import Message
from probe.wire.requests import read_ollama_request, read_openai_request
from tests.wire.strategies import BODIES

USER = {"role": "user", "content": "Hello?"}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [USER], **fields}).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no object"),
        (b"{}", "no list of messages"),
        (b'{"messages": []}', "no list of messages"),
        (b'{"messages": [1]}', "messages[0] is no object"),
    ],
)
def test_no_request(data: bytes, words: str) -> None:
    with pytest.raises(WireError) as caught:
        read_openai_request(data)
    assert words in str(caught.value)
    assert str(caught.value).endswith(".")


def test_all_spellings_of_parameters() -> None:
    found = read_openai_request(
        body(temperature=0, repetition_penalty=1.1, top_k=-1, max_completion_tokens=9, seed=None)
    )
    assert found.sampling == {"temperature": 0, "repeat_penalty": 1.1, "top_k": 0, "max_tokens": 9}
    assert found.extra == ()
    assert not found.stream


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"stop": ["x"]},
        {"logit_bias": {"1": 5}},
        {"unknown_key": 1},
        {"reasoning_effort": "low"},
        {"plugins": [{"id": "web"}]},
        {"temperature": "hot"},
        {"max_tokens": 1.5},
    ],
)
def test_what_may_change_the_prompt_is_named(fields: dict[str, Any]) -> None:
    assert read_openai_request(body(**fields)).extra == tuple(fields)


def test_two_spellings_that_disagree_are_named() -> None:
    found = read_openai_request(body(max_tokens=5, max_completion_tokens=6))
    assert found.sampling == {"max_tokens": 5}
    assert found.extra == ("max_completion_tokens",)


def test_what_changes_nothing_is_not_named() -> None:
    found = read_openai_request(
        body(
            stream=True,
            stream_options={"include_usage": True},
            provider={"only": ["x"]},
            plugins=[{"id": "context-compression", "enabled": False}],
            debug={"echo_upstream_body": True},
            user="u",
            logprobs=True,
            tools=[],
            response_format=None,
            n=1,
        )
    )
    assert found.extra == ()
    assert found.stream


def test_roles_and_parts() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": None, "tool_calls": [{}]},
        {"role": "tool", "content": "4"},
    ]
    found = read_openai_request(body(messages=messages))
    assert found.messages == (
        Message("system", "Be brief."),
        Message("user", "a"),
        Message("assistant", ""),
        Message("user", "4"),
    )
    assert found.extra == ("messages[0].role", "messages[1].content", "messages[2].tool_calls", "messages[3].role")


def test_ollama() -> None:
    found = read_ollama_request(
        body(
            options={"num_predict": 9, "top_k": 0, "num_ctx": 4096, "mirostat": 1},
            truncate=False,
            shift=True,
            temperature=1,
        )
    )
    assert found.sampling == {"max_tokens": 9, "top_k": 0}
    # A parameter beside `options` is ignored by Ollama; that it stands there is worth telling.
    assert found.extra == ("shift", "temperature", "options.mirostat")
    assert found.stream


@given(BODIES)
def test_only_wire_errors_are_raised(data: bytes) -> None:
    for read in (read_openai_request, read_ollama_request):
        with contextlib.suppress(WireError):
            assert read(data).messages
