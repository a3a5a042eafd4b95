"""What a client asks of a lab platform: from each dialect's path and body to one conversation for the local server.

Sources: the request schemas of the OpenAI API reference (chat, completions, responses), Anthropic's Messages API,
Google's ``GenerateContentRequest`` (ai.google.dev/api/generate-content), botocore's ``ConverseRequest``, Ollama's
``docs/api.md``.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from probe.lab.upstream import RAW


class BadRequestError(Exception):
    """The body is not what the dialect asks for; the text says what is wrong, for the client."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request went: its dialect, and the model and the manner where the path states them."""

    dialect: str
    model: str | None = None
    stream: bool | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the lab understands it. ``sampling`` is under llama.cpp's names; ``body`` is what the client sent.

    A prompt that the client has rendered itself is one user message marked ``RAW``.
    """

    model: str
    messages: list[dict[str, Any]]
    sampling: dict[str, Any]
    stream: bool
    include_usage: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def raw(self) -> bool:
        """Whether the prompt goes to the model as it is."""
        return any(RAW in message for message in self.messages)


_NAMES = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "seed": "seed",
    "stop": "stop",
    "stop_sequences": "stop",
    # Google's and Amazon's
    "topP": "top_p",
    "topK": "top_k",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "maxOutputTokens": "max_tokens",
    "maxTokens": "max_tokens",
    "stopSequences": "stop",
}
"""Names that clients use, and llama.cpp's names for them."""

_PATHS = (
    (re.compile(r"(?:.*/)?openai/deployments/(?P<model>[^/]+)/chat/completions"), "openai-chat", None),
    (re.compile(r"(?:.*/)?chat/completions"), "openai-chat", None),
    (re.compile(r"v1/completions"), "openai-completions", None),
    (re.compile(r"v1/responses"), "openai-responses", None),
    (re.compile(r"api/chat"), "ollama-chat", None),
    (re.compile(r"api/generate"), "ollama-generate", None),
    (re.compile(r"v1/messages"), "anthropic-messages", None),
    (re.compile(r"v1(?:beta)?/models/(?P<model>[^/:]+):generateContent"), "gemini", False),
    (re.compile(r"v1(?:beta)?/models/(?P<model>[^/:]+):streamGenerateContent"), "gemini", True),
    (re.compile(r"model/(?P<model>[^/]+)/converse"), "bedrock-converse", False),
    (re.compile(r"model/(?P<model>[^/]+)/converse-stream"), "bedrock-converse", True),
)

_SPOKEN = {
    "ollama": "ollama-chat",
    "openai-completions": "openai-completions",
    "openai-responses": "openai-responses",
    "ollama-generate": "ollama-generate",
    "anthropic": "anthropic-messages",
    "gemini": "gemini",
    "bedrock": "bedrock-converse",
}


def dialect_of(front: str) -> str:
    """Return the dialect that a front speaks; the hosts and gateways all speak openai-chat."""
    return _SPOKEN.get(front, "openai-chat")


def place_of(path: str) -> Place | None:
    """Read a path below the platform's, percent-encoded as it came; ``None`` for one that no dialect has."""
    for pattern, dialect, stream in _PATHS:
        found = pattern.fullmatch(path)
        if found is not None:
            model = found.groupdict().get("model")
            return Place(dialect, None if model is None else unquote(model), stream)
    return None


def read_request(place: Place, data: bytes) -> Asked:
    """Read a request. Raises ``BadRequestError``."""
    try:
        body = json.loads(data)
    except ValueError:
        raise BadRequestError("the body is no JSON") from None
    if not isinstance(body, dict):
        raise BadRequestError("the body is no object")
    model = place.model if place.model is not None else body.get("model")
    if not isinstance(model, str):
        raise BadRequestError("model: a text is required")
    try:
        messages, stated = _READERS[place.dialect](body)
    except (AttributeError, TypeError, KeyError) as error:
        raise BadRequestError(f"the body lacks or has an odd part: {error}") from None
    stream = place.stream if place.stream is not None else bool(body.get("stream", place.dialect.startswith("ollama")))
    return Asked(
        model,
        messages,
        {_NAMES[key]: value for key, value in stated.items() if key in _NAMES and value is not None},
        stream,
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        body=body,
    )


_Read = tuple[list[dict[str, Any]], Mapping[str, Any]]
"""The conversation, and an object that states sampling parameters."""


def _chat(body: Mapping[str, Any]) -> _Read:
    if not isinstance(body["messages"], list) or not body["messages"]:
        raise BadRequestError("messages: a list with an entry at least is required")
    return [dict(message) for message in body["messages"]], body


def _ollama_chat(body: Mapping[str, Any]) -> _Read:
    return _chat(body)[0], {**body, **(body.get("options") or {})}


def _completions(body: Mapping[str, Any]) -> _Read:
    prompt = body["prompt"]
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise BadRequestError("prompt: one text is required")
    return [_rendered(prompt)], {"max_tokens": 16, **body}


def _generate(body: Mapping[str, Any]) -> _Read:
    stated = {**body, **(body.get("options") or {})}
    if body.get("raw"):
        return [_rendered(str(body["prompt"]))], stated
    system = [{"role": "system", "content": str(body["system"])}] if body.get("system") else []
    return [*system, {"role": "user", "content": str(body["prompt"])}], stated


def _responses(body: Mapping[str, Any]) -> _Read:
    given = body["input"]
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not turns:
        raise BadRequestError("input: a text or a list with an entry at least is required")
    system = _system(body.get("instructions"))
    return [*system, *({"role": turn["role"], "content": _joined(turn["content"])} for turn in turns)], body


def _anthropic(body: Mapping[str, Any]) -> _Read:
    if body.get("max_tokens") is None:
        raise BadRequestError("max_tokens: Field required")
    turns = [{"role": turn["role"], "content": _joined(turn["content"])} for turn in _chat(body)[0]]
    return [*_system(body.get("system")), *turns], body


def _gemini(body: Mapping[str, Any]) -> _Read:
    system = body.get("systemInstruction") or body.get("system_instruction") or {}
    if not body["contents"]:
        raise BadRequestError("contents is not specified")
    turns = [
        {"role": "assistant" if turn.get("role") == "model" else "user", "content": _joined(turn["parts"])}
        for turn in body["contents"]
    ]
    return [*_system(system.get("parts")), *turns], body.get("generationConfig") or {}


def _bedrock(body: Mapping[str, Any]) -> _Read:
    turns = [{"role": turn["role"], "content": _joined(turn["content"])} for turn in _chat(body)[0]]
    stated = {**(body.get("additionalModelRequestFields") or {}), **(body.get("inferenceConfig") or {})}
    return [*_system(body.get("system")), *turns], stated


_READERS: Mapping[str, Callable[[Mapping[str, Any]], _Read]] = {
    "openai-chat": _chat,
    "openai-completions": _completions,
    "openai-responses": _responses,
    "ollama-chat": _ollama_chat,
    "ollama-generate": _generate,
    "anthropic-messages": _anthropic,
    "gemini": _gemini,
    "bedrock-converse": _bedrock,
}


def _rendered(prompt: str) -> dict[str, Any]:
    return {"role": "user", "content": prompt, RAW: True}


def _system(given: str | Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    return [{"role": "system", "content": _joined(given)}] if given else []


def _joined(content: str | Sequence[Mapping[str, Any]]) -> str:
    """Return a content as one text. The lab's model reads texts only."""
    if isinstance(content, str):
        return content
    parts = [part.get("text") for part in content]
    if not all(isinstance(part, str) for part in parts):
        raise BadRequestError("content: only parts of text are supported")
    return "".join(part for part in parts if isinstance(part, str))
