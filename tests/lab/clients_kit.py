"""The official clients as they are used, one function each: ask a question, return what the client understood."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import anthropic
import boto3
import ollama
import openai
from botocore.config import Config
from google import genai
from google.genai import types

from tests.lab.dialect_kit import rendered

BEDROCK_MODEL = "lab.toy-v1:0"
"""A model id with a colon, as Bedrock's have; in paths it is percent-encoded."""
ACCESS_KEY, SECRET_KEY = "AKIDLABLABLABLAB", "lab-secret-access-key-0123456789"
SEED, TEMPERATURE = 7, 1.0


@dataclass(frozen=True)
class Understood:
    """What a client made of an answer; ``finish`` is the vendor's own word."""

    text: str
    finish: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    response_id: str | None
    model: str | None
    pieces: int = 1


Ask = Callable[[str, str, bool, int], Understood]
"""Base URL of the platform, question, whether to stream, and the longest answer → what was understood."""


def _openai(base: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{base}/v1", api_key="sk-of-the-client-012345", max_retries=0, timeout=30)


def openai_chat(base: str, question: str, stream: bool, max_tokens: int) -> Understood:
    asked: dict[str, Any] = {
        "model": "toy",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "temperature": TEMPERATURE,
        "seed": SEED,
    }
    with _openai(base) as client:
        if not stream:
            whole = client.chat.completions.create(**asked)
            choice, usage = whole.choices[0], whole.usage
            text, finish = choice.message.content or "", choice.finish_reason
            return Understood(text, finish, usage.prompt_tokens, usage.completion_tokens, whole.id, whole.model)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    texts = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    ends = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    counts = _counted(chunks[-1].usage)
    return Understood("".join(texts), ends[0], *counts, chunks[0].id, chunks[0].model, len(texts))


def _counted(usage: Any) -> tuple[int | None, int | None]:
    return (None, None) if usage is None else (usage.prompt_tokens, usage.completion_tokens)


def openai_completions(base: str, question: str, stream: bool, max_tokens: int) -> Understood:
    asked: dict[str, Any] = {
        "model": "toy",
        "prompt": rendered(question),
        "max_tokens": max_tokens,
        "temperature": TEMPERATURE,
        "seed": SEED,
    }
    with _openai(base) as client:
        if not stream:
            whole = client.completions.create(**asked)
            choice, usage = whole.choices[0], whole.usage
            finish = choice.finish_reason
            return Understood(choice.text, finish, usage.prompt_tokens, usage.completion_tokens, whole.id, whole.model)
        chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    texts = [choice.text for chunk in chunks for choice in chunk.choices if choice.text]
    ends = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    counts = _counted(chunks[-1].usage)
    return Understood("".join(texts), ends[0], *counts, chunks[0].id, chunks[0].model, len(texts))


def openai_responses(base: str, question: str, stream: bool, max_tokens: int) -> Understood:
    asked: dict[str, Any] = {
        "model": "toy",
        "input": question,
        "max_output_tokens": max_tokens,
        "temperature": TEMPERATURE,
        "extra_body": {"seed": SEED},
    }
    with _openai(base) as client:
        if not stream:
            return _responded(client.responses.create(**asked), 1)
        events: list[Any] = list(client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    understood = _responded(events[-1].response, len(texts))
    assert understood.text == "".join(texts)
    return understood


def _responded(response: Any, pieces: int) -> Understood:
    usage, details = response.usage, response.incomplete_details
    finish = response.status if details is None else details.reason
    return Understood(
        response.output_text, finish, usage.input_tokens, usage.output_tokens, response.id, response.model, pieces
    )


def anthropic_messages(base: str, question: str, stream: bool, max_tokens: int) -> Understood:
    asked: dict[str, Any] = {
        "model": "toy",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "extra_body": {"seed": SEED, "temperature": TEMPERATURE},
    }
    with anthropic.Anthropic(base_url=base, api_key="sk-ant-of-the-client", max_retries=0, timeout=30) as client:
        if not stream:
            return _said(client.messages.create(**asked), 1)
        with client.messages.stream(**asked) as events:
            pieces = sum(1 for _ in events.text_stream)
            return _said(events.get_final_message(), pieces)


def _said(message: Any, pieces: int) -> Understood:
    text = "".join(block.text for block in message.content if block.type == "text")
    usage = message.usage
    return Understood(
        text, message.stop_reason, usage.input_tokens, usage.output_tokens, message.id, message.model, pieces
    )


def google_genai(base: str, question: str, stream: bool, max_tokens: int) -> Understood:
    options = types.HttpOptions(base_url=base, retry_options=types.HttpRetryOptions(attempts=1))
    config = types.GenerateContentConfig(max_output_tokens=max_tokens, temperature=TEMPERATURE, seed=SEED)
    with genai.Client(api_key="AIza-of-the-client-0123", http_options=options) as client:
        if stream:
            chunks = list(client.models.generate_content_stream(model="toy", contents=question, config=config))
        else:
            chunks = [client.models.generate_content(model="toy", contents=question, config=config)]
    texts = [chunk.text for chunk in chunks if chunk.text]
    last = chunks[-1]
    reason = last.candidates[0].finish_reason if last.candidates else last.prompt_feedback.block_reason
    usage = last.usage_metadata
    return Understood(
        "".join(texts),
        reason.value,
        usage.prompt_token_count,
        usage.candidates_token_count,
        last.response_id,
        last.model_version,
        len(texts),
    )


def ollama_chat(base: str, question: str, stream: bool, max_tokens: int) -> Understood:
    options = {"num_predict": max_tokens, "temperature": TEMPERATURE, "seed": SEED}
    turns = [{"role": "user", "content": question}]
    client = ollama.Client(host=base)
    with closing(client._client):
        if stream:
            parts = list(client.chat(model="toy", messages=turns, stream=True, options=options))
        else:
            parts = [client.chat(model="toy", messages=turns, options=options)]
    texts = [part.message.content for part in parts if part.message.content]
    return _ended("".join(texts), parts[-1], len(texts))


def ollama_generate(base: str, question: str, stream: bool, max_tokens: int) -> Understood:
    options = {"num_predict": max_tokens, "temperature": TEMPERATURE, "seed": SEED}
    client = ollama.Client(host=base)
    with closing(client._client):
        if stream:
            parts = list(client.generate(model="toy", prompt=question, stream=True, options=options))
        else:
            parts = [client.generate(model="toy", prompt=question, options=options)]
    texts = [part.response for part in parts if part.response]
    assert parts[-1].context
    return _ended("".join(texts), parts[-1], len(texts))


def _ended(text: str, last: Any, pieces: int) -> Understood:
    assert last.done
    return Understood(text, last.done_reason, last.prompt_eval_count, last.eval_count, None, last.model, pieces)


def bedrock(base: str, question: str, stream: bool, max_tokens: int, *, secret: str = SECRET_KEY) -> Understood:
    asked: dict[str, Any] = {
        "modelId": BEDROCK_MODEL,
        "messages": [{"role": "user", "content": [{"text": question}]}],
        "inferenceConfig": {"maxTokens": max_tokens, "temperature": TEMPERATURE},
        "additionalModelRequestFields": {"seed": SEED},
    }
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=base,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30),
    )
    with closing(client):
        answer = client.converse_stream(**asked) if stream else client.converse(**asked)
        request_id = answer["ResponseMetadata"]["RequestId"]
        if not stream:
            usage = answer["usage"]
            text = "".join(block["text"] for block in answer["output"]["message"]["content"])
            finish = answer["stopReason"]
            return Understood(text, finish, usage["inputTokens"], usage["outputTokens"], request_id, None)
        texts, found = [], {}
        with closing(answer["stream"]):
            for event in answer["stream"]:
                found |= event
                if "contentBlockDelta" in event:
                    texts.append(event["contentBlockDelta"]["delta"]["text"])
    usage = found["metadata"]["usage"]
    finish = found["messageStop"]["stopReason"]
    return Understood("".join(texts), finish, usage["inputTokens"], usage["outputTokens"], request_id, None, len(texts))


@dataclass(frozen=True)
class Client:
    """An official client: the platform's front that it talks to, and our dialect for it."""

    ask: Ask
    front: str
    dialect: str


CLIENTS: Mapping[str, Client] = {
    "openai-chat": Client(openai_chat, "openai", "openai-chat"),
    "openai-completions": Client(openai_completions, "openai-completions", "openai-completions"),
    "openai-responses": Client(openai_responses, "openai-responses", "openai-responses"),
    "anthropic": Client(anthropic_messages, "anthropic", "anthropic-messages"),
    "google-genai": Client(google_genai, "gemini", "gemini"),
    "ollama-chat": Client(ollama_chat, "ollama", "ollama-chat"),
    "ollama-generate": Client(ollama_generate, "ollama-generate", "ollama-generate"),
    "boto3": Client(bedrock, "bedrock", "bedrock-converse"),
}
