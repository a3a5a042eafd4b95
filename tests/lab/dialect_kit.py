"""Requests in every dialect of the lab's fronts, as bare JSON, and the dialects that read the answers."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from botocore.eventstream import EventStreamBuffer

DIALECTS: Mapping[str, str] = {
    "ollama": "ollama-chat",
    "openai-completions": "openai-completions",
    "openai-responses": "openai-responses",
    "ollama-generate": "ollama-generate",
    "anthropic": "anthropic-messages",
    "gemini": "gemini",
    "bedrock": "bedrock-converse",
}
"""Front → dialect; all others speak openai-chat."""

FRONTS = tuple(front for front in DIALECTS if front != "ollama")
"""The fronts that speak neither openai-chat nor ollama-chat."""

SIGNED_BY: Mapping[str, str] = {"openai-responses": "openai", "openai-completions": "openai"}
"""Front → backend whose signatures an answer is matched against, where that is not the front's name."""

MODEL = "toy"


def rendered(question: str) -> str:
    """A question as the toy's chat template writes it."""
    return f"<|user|>{question}<|end|><|assistant|>"


def path_of(front: str, *, stream: bool, model: str = MODEL) -> str:
    """The path below the platform."""
    encoded = quote(model, safe="")
    return {
        "ollama": "/api/chat",
        "openai-completions": "/v1/completions",
        "openai-responses": "/v1/responses",
        "ollama-generate": "/api/generate",
        "anthropic": "/v1/messages",
        "gemini": f"/v1beta/models/{encoded}:" + ("streamGenerateContent?alt=sse" if stream else "generateContent"),
        "bedrock": f"/model/{encoded}/converse" + ("-stream" if stream else ""),
    }.get(front, "/v1/chat/completions")


def body_of(front: str, question: str, *, stream: bool, max_tokens: int, model: str = MODEL) -> dict[str, Any]:
    """A request body with one question; temperature 1."""
    turn = {"role": "user", "content": question}
    sampling = {"max_tokens": max_tokens, "temperature": 1.0}
    named: dict[str, Any] = {"model": model, "stream": stream}
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    options = {"num_predict": max_tokens, "temperature": 1.0}
    bodies: Mapping[str, dict[str, Any]] = {
        "ollama": {**named, "messages": [turn], "options": options},
        "openai-completions": {**named, "prompt": rendered(question), **sampling, **usage},
        "openai-responses": {**named, "input": question, "max_output_tokens": max_tokens, "temperature": 1.0},
        "ollama-generate": {**named, "prompt": question, "options": options},
        "anthropic": {**named, "messages": [turn], **sampling},
        "gemini": {
            "contents": [{"role": "user", "parts": [{"text": question}]}],
            "generationConfig": {"maxOutputTokens": max_tokens, "temperature": 1.0},
        },
        "bedrock": {
            "messages": [{"role": "user", "content": [{"text": question}]}],
            "inferenceConfig": {"maxTokens": max_tokens, "temperature": 1.0},
        },
    }
    return bodies.get(front) or {**named, "messages": [turn], **sampling, "stream_options": {"include_usage": True}}


def frames(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """Headers and payload of each binary frame, as botocore decodes them (it checks both CRCs)."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(message.headers, message.payload) for message in buffer]
