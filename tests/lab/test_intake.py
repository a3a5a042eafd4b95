"""The same conversation in every dialect is the same to the lab; what is no request is told in a sentence."""

import json
from typing import Any

import pytest

from probe.lab.intake import BadRequestError, Place, dialect_of, place_of, read_request
from probe.traces.values import Message, Sampling, Trace
from probe.wire.catalogue import load_backend
from probe.wire.dialects import dialect

SYSTEM = "Answer in verse."
TURNS = [
    {"role": "user", "content": "How do I water roses?"},
    {"role": "assistant", "content": "In the morning."},
    {"role": "user", "content": "And ferns?"},
]
WHOLE = [{"role": "system", "content": SYSTEM}, *TURNS]
SAMPLING = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 12, "stop": ["x"]}
STATED = {"temperature": 0.5, "top_p": 0.9, "stop": ["x"]}
AMAZON = {"temperature": 0.5, "topP": 0.9, "maxTokens": 12, "stopSequences": ["x"]}
GOOGLE = {"temperature": 0.5, "topP": 0.9, "maxOutputTokens": 12, "stopSequences": ["x"]}


def parts(text: str, **more: str) -> list[dict[str, str]]:
    """A text in two parts."""
    return [{**more, "text": text[:4]}, {**more, "text": text[4:]}]


BODIES: dict[str, dict[str, Any]] = {
    "openai-chat": {"model": "toy", "messages": WHOLE, **STATED, "max_completion_tokens": 12},
    "ollama-chat": {"model": "toy", "messages": WHOLE, "options": {**STATED, "num_predict": 12}},
    "openai-responses": {
        "model": "toy",
        "instructions": SYSTEM,
        "input": [{"type": "message", **turn, "content": parts(turn["content"], type="input_text")} for turn in TURNS],
        **STATED,
        "max_output_tokens": 12,
    },
    "anthropic-messages": {
        "model": "toy",
        "system": parts(SYSTEM, type="text"),
        "messages": [{**turn, "content": parts(turn["content"], type="text")} for turn in TURNS],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["x"],
        "max_tokens": 12,
    },
    "gemini": {
        "systemInstruction": {"parts": parts(SYSTEM)},
        "contents": [
            {"role": "model" if turn["role"] == "assistant" else "user", "parts": parts(turn["content"])}
            for turn in TURNS
        ],
        "generationConfig": GOOGLE,
    },
    "bedrock-converse": {
        "system": parts(SYSTEM),
        "messages": [{**turn, "content": parts(turn["content"])} for turn in TURNS],
        "inferenceConfig": AMAZON,
        "additionalModelRequestFields": {"top_k": None},
    },
}


@pytest.mark.parametrize("name", BODIES)
def test_a_conversation_is_the_same_in_every_dialect(name: str) -> None:
    model = "toy" if name in {"gemini", "bedrock-converse"} else None
    asked = read_request(Place(name, model, False), json.dumps(BODIES[name]).encode())
    assert (asked.model, asked.messages, asked.stream, asked.raw) == ("toy", WHOLE, False, False)
    assert asked.sampling == SAMPLING


def test_a_rendered_prompt_is_raw() -> None:
    for name, more in (("openai-completions", {}), ("ollama-generate", {"raw": True})):
        body = {"model": "toy", "prompt": "<|user|>Hello<|end|><|assistant|>", **more}
        asked = read_request(Place(name), json.dumps(body).encode())
        assert asked.raw
        assert asked.messages[0]["content"] == body["prompt"]


def test_a_plain_prompt_of_ollama_is_a_turn() -> None:
    body = {"model": "toy", "prompt": "Hello", "system": SYSTEM, "stream": False}
    asked = read_request(Place("ollama-generate"), json.dumps(body).encode())
    assert asked.messages == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Hello"}]
    assert not asked.stream


def test_what_a_request_does_not_state_is_the_dialects_default() -> None:
    turn = {"model": "toy", "messages": [{"role": "user", "content": "Hello"}]}
    assert read_request(Place("ollama-chat"), json.dumps(turn).encode()).stream
    assert not read_request(Place("openai-chat"), json.dumps(turn).encode()).stream
    prompt = {"model": "toy", "prompt": ["Hello"], "stream": True, "stream_options": {"include_usage": True}}
    asked = read_request(Place("openai-completions"), json.dumps(prompt).encode())
    assert asked.sampling == {"max_tokens": 16}
    assert (asked.stream, asked.include_usage) == (True, True)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("v1/chat/completions", Place("openai-chat")),
        ("api/v1/chat/completions", Place("openai-chat")),
        ("openai/deployments/my%2Dtoy/chat/completions", Place("openai-chat", "my-toy")),
        ("v1/completions", Place("openai-completions")),
        ("v1beta/models/toy:streamGenerateContent", Place("gemini", "toy", True)),
        ("v1/models/toy:generateContent", Place("gemini", "toy", False)),
        ("model/lab.toy-v1%3A0/converse", Place("bedrock-converse", "lab.toy-v1:0", False)),
        (
            "model/arn%3Aaws%3Abedrock%3Ax%2Ftoy/converse-stream",
            Place("bedrock-converse", "arn:aws:bedrock:x/toy", True),
        ),
        ("v1/models", None),
        ("v1/chat/completions/x", None),
    ],
)
def test_a_path_names_dialect_model_and_manner(path: str, place: Place | None) -> None:
    assert place_of(path) == place


def test_every_front_speaks_a_dialect() -> None:
    assert dialect_of("groq") == "openai-chat"
    assert dialect_of("anthropic") == "anthropic-messages"


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("openai-chat", "nothing", "no JSON"),
        ("openai-chat", [], "no object"),
        ("openai-chat", {"messages": TURNS}, "model"),
        ("openai-chat", {"model": "toy", "messages": []}, "messages"),
        ("openai-completions", {"model": "toy", "prompt": [1, 2]}, "prompt"),
        ("anthropic-messages", {"model": "toy", "messages": TURNS}, "max_tokens: Field required"),
        ("gemini", {"model": "toy", "contents": []}, "contents"),
        ("bedrock-converse", {"model": "toy", "messages": [{"role": "user", "content": [{"image": {}}]}]}, "text"),
    ],
)
def test_what_is_no_request_is_told_in_a_sentence(name: str, body: Any, says: str) -> None:
    data = b"{" if body == "nothing" else json.dumps(body).encode()
    with pytest.raises(BadRequestError, match=says):
        read_request(Place(name), data)


SPOKEN = {
    "openai-chat": ("openai", "/v1"),
    "openai-responses": ("openai", "/v1"),
    "openai-completions": ("openai", "/v1"),
    "ollama-chat": ("ollama", ""),
    "ollama-generate": ("ollama", ""),
    "anthropic-messages": ("anthropic", "/v1"),
    "gemini": ("gemini", "/v1beta"),
    "bedrock-converse": ("bedrock", ""),
}
"""Dialect → a backend whose requests are built in it, and how the path of its URL ends."""


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", SPOKEN)
def test_what_our_own_dialects_build_is_understood(name: str, stream: bool) -> None:
    """Both sides were written from the vendors' documents: the lab has to find the trace in the request."""
    backend, base = SPOKEN[name]
    model = "lab.toy-v1:0" if name == "bedrock-converse" else "toy"
    turns = WHOLE if name != "ollama-generate" else WHOLE[:2]
    trace = Trace("t", tuple(Message(**turn) for turn in turns), Sampling(temperature=0.5, max_tokens=12))  # type: ignore[arg-type]
    prompt = "<|system|>Answer in verse.<|end|><|user|>How do I water roses?<|end|><|assistant|>"
    built = dialect(name).build(
        trace, model=model, stream=stream, backend=load_backend(backend), request={}, logprobs=0, prompt=prompt
    )
    place = place_of(f"{base}{built.path}".removeprefix("/").partition("?")[0])
    assert place is not None
    assert place.dialect == name
    asked = read_request(place, built.body)
    assert (asked.model, asked.stream) == (model, stream)
    if asked.raw:
        assert asked.messages[0]["content"] == prompt
    else:
        assert [{"role": turn["role"], "content": turn["content"]} for turn in asked.messages] == turns
    assert asked.sampling["max_tokens"] == 12
    assert asked.sampling.get("temperature", 0.5) == 0.5
    assert ("temperature" in asked.sampling) != ("temperature" in built.dropped)
