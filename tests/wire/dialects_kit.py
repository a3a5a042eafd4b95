"""One backend per dialect, and answers of each dialect: whole, in pieces, and with every field that is read."""

import json
import struct
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probe.wire.backend import Backend, Describe, Parameter, ParameterMap
from probe.wire.values import HeaderPairs
from tests.kit import JSON, NDJSON, SSE, ndjson

AWS: HeaderPairs = (("Content-Type", "application/vnd.amazon.eventstream"),)

_OPENAI = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "max_tokens",
    "seed": "seed",
}
_MORE = "additionalModelRequestFields"
PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "openai-chat": _OPENAI,
    "openai-completions": _OPENAI,
    "openai-responses": {**_OPENAI, "max_tokens": "max_output_tokens"},
    "ollama-chat": {**_OPENAI, "max_tokens": "num_predict"},
    "ollama-generate": {**_OPENAI, "max_tokens": "options.num_predict", "seed": "options.seed"},
    "anthropic-messages": {name: name for name in ("temperature", "top_p", "top_k", "max_tokens")},
    "gemini": {
        "temperature": "temperature",
        "top_p": "topP",
        "top_k": "generationConfig.topK",
        "presence_penalty": "presencePenalty",
        "frequency_penalty": "frequencyPenalty",
        "max_tokens": "maxOutputTokens",
        "seed": "seed",
    },
    "bedrock-converse": {
        "temperature": "temperature",
        "top_p": "inferenceConfig.topP",
        "max_tokens": "maxTokens",
        "top_k": f"{_MORE}.top_k",
        "min_p": f"{_MORE}.min_p",
    },
}
"""What the wire calls each sampling parameter that a dialect takes, in both ways to say where it stands."""


def backend(dialect: str, **changes: Any) -> Backend:
    """Return a backend that speaks a dialect and takes all parameters that it has."""
    values: dict[str, Any] = {
        "name": "kit",
        "title": "Kit",
        "kind": "hosted",
        "dialect": dialect,
        "describe": Describe(models="/models"),
        "parameters": ParameterMap({ours: Parameter(wire) for ours, wire in PARAMETERS[dialect].items()}),
        "logprobs": True,
        **changes,
    }
    return Backend(**values)


@dataclass(frozen=True)
class Said:
    """What an answer says, in no dialect. ``pieces`` and ``thoughts`` are its text and reasoning as a stream cuts them.

    ``ends``: by itself, or else at the token limit.
    """

    pieces: tuple[str, ...] = ("Hel", "lo.")
    thoughts: tuple[str, ...] = ()
    prompt: int = 5
    generated: int = 2
    reasoned: int | None = None
    ends: bool = True

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    @property
    def reasoning(self) -> str:
        """The whole reasoning."""
        return "".join(self.thoughts)


def events(*pairs: tuple[str, Any], newline: str = "\n") -> bytes:
    """Return an event stream of named events; those without a name are data only."""
    lines = [
        (f"event: {name}{newline}" if name else "") + f"data: {json.dumps(data, ensure_ascii=False)}{newline}{newline}"
        for name, data in pairs
    ]
    return "".join(lines).encode()


def named(*documents: dict[str, Any], newline: str = "\n") -> bytes:
    """Return a stream of events that are named by their ``type``."""
    return events(*((document["type"], document) for document in documents), newline=newline)


def message(headers: Mapping[str, Any], payload: bytes) -> bytes:
    """Return one message of an AWS event stream."""
    packed = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack(">II", len(packed) + len(payload) + 16, len(packed))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


def _header(name: str, value: Any) -> bytes:
    start = bytes([len(name.encode())]) + name.encode()
    if isinstance(value, bool):
        return start + bytes([0 if value else 1])
    if isinstance(value, int):
        return start + b"\x05" + struct.pack(">q", value)
    if isinstance(value, uuid.UUID):
        return start + b"\x09" + value.bytes
    raw = value.encode() if isinstance(value, str) else value
    return start + (b"\x07" if isinstance(value, str) else b"\x06") + struct.pack(">H", len(raw)) + raw


def aws(*pairs: tuple[str, Any]) -> bytes:
    """Return an AWS event stream of these events; a name that ends in ``Exception`` makes an exception."""
    found = b""
    for name, document in pairs:
        kind = "exception" if name.endswith("Exception") else "event"
        headers = {f":{kind}-type": name, ":content-type": "application/json", ":message-type": kind}
        found += message(headers, json.dumps(document, ensure_ascii=False).encode())
    return found


def _completions(said: Said) -> tuple[Any, bytes]:
    finish = "stop" if said.ends else "length"
    base = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "toy"}
    usage = {
        "prompt_tokens": said.prompt,
        "completion_tokens": said.generated,
        **({} if said.reasoned is None else {"completion_tokens_details": {"reasoning_tokens": said.reasoned}}),
    }
    whole = {"index": 0, "text": said.text, "finish_reason": finish, "logprobs": None}
    if said.thoughts:
        whole["reasoning"] = said.reasoning
    thoughts = [{"index": 0, "text": "", "reasoning": piece, "finish_reason": None} for piece in said.thoughts]
    pieces = [{"index": 0, "text": piece, "finish_reason": None} for piece in said.pieces]
    chunks = [*thoughts, *pieces, {"index": 0, "text": "", "finish_reason": finish}]
    stream = [{**base, "choices": [chunk]} for chunk in chunks] + [{**base, "choices": [], "usage": usage}]
    body = events(*(("", document) for document in stream)) + b"data: [DONE]\n\n"
    return {**base, "choices": [whole], "usage": usage}, body


def response(said: Said, **changes: Any) -> dict[str, Any]:
    """Return a whole response object."""
    output: list[dict[str, Any]] = []
    if said.thoughts:
        words = [{"type": "reasoning_text", "text": said.reasoning}]
        output.append({"id": "rs_1", "type": "reasoning", "summary": [], "content": words})
    part = {"type": "output_text", "text": said.text, "annotations": []}
    output.append({"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]})
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_790_000_000,
        "model": "toy",
        "status": "completed" if said.ends else "incomplete",
        "incomplete_details": None if said.ends else {"reason": "max_output_tokens"},
        "error": None,
        "output": output,
        "usage": {
            "input_tokens": said.prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": said.generated,
            "output_tokens_details": {"reasoning_tokens": said.reasoned},
            "total_tokens": said.prompt + said.generated,
        },
        **changes,
    }


def _responses(said: Said) -> tuple[Any, bytes]:
    whole = response(said)
    begun = {**whole, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    kinds = [("response.reasoning_text.delta", piece) for piece in said.thoughts]
    kinds += [("response.output_text.delta", piece) for piece in said.pieces]
    deltas = [{"type": kind, "item_id": "msg_1", "output_index": 0, "delta": piece} for kind, piece in kinds]
    done = {"type": "response.output_text.done", "item_id": "msg_1", "output_index": 0, "text": said.text}
    last = {"type": f"response.{whole['status']}", "response": whole}
    return whole, named({"type": "response.created", "response": begun}, *deltas, done, last)


def _ollama(said: Said, message_of: Callable[[str, str], dict[str, Any]]) -> tuple[Any, bytes]:
    base = {"model": "toy", "created_at": "2026-01-01T00:00:00Z"}
    end = {
        "done": True,
        "done_reason": "stop" if said.ends else "length",
        "total_duration": 2_000_000_000,
        "prompt_eval_count": said.prompt,
        "eval_count": said.generated,
    }
    lines = [{**base, **message_of("", piece), "done": False} for piece in said.thoughts]
    lines += [{**base, **message_of(piece, ""), "done": False} for piece in said.pieces]
    whole = {**base, **message_of(said.text, said.reasoning), **end}
    return whole, ndjson(*lines, {**base, **message_of("", ""), **end})


def _chat_message(text: str, thinking: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text, **({"thinking": thinking} if thinking else {})}}


def _generated(text: str, thinking: str) -> dict[str, Any]:
    return {"response": text, **({"thinking": thinking} if thinking else {})}


def anthropic(said: Said, **changes: Any) -> dict[str, Any]:
    """Return a whole message."""
    thinking = [{"type": "thinking", "thinking": said.reasoning, "signature": "c2ln"}] if said.thoughts else []
    details = {} if said.reasoned is None else {"output_tokens_details": {"thinking_tokens": said.reasoned}}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "toy",
        "content": [*thinking, {"type": "text", "text": said.text}],
        "stop_reason": "end_turn" if said.ends else "max_tokens",
        "stop_sequence": None,
        "usage": {"input_tokens": said.prompt, "output_tokens": said.generated, **details},
        **changes,
    }


def _anthropic(said: Said) -> tuple[Any, bytes]:
    whole = anthropic(said)
    usage = {"input_tokens": said.prompt, "output_tokens": 1}
    start = {**whole, "content": [], "stop_reason": None, "usage": usage}
    found: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if said.thoughts:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in said.thoughts]
        signature = {"type": "signature_delta", "signature": "c2ln"}
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signature]))
    blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in said.pieces]))
    for index, (block, deltas) in enumerate(blocks):
        found.append({"type": "content_block_start", "index": index, "content_block": block})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    counts = {key: value for key, value in whole["usage"].items() if key != "input_tokens"}
    found += [{"type": "message_delta", "delta": end, "usage": counts}, {"type": "message_stop"}]
    return whole, named(*found)


def candidate(text: str | None, **fields: Any) -> dict[str, Any]:
    """Return a document with one candidate; ``thought`` marks its part, other keywords are the candidate's fields."""
    thought = {"thought": True} if fields.pop("thought", False) else {}
    content = {} if text is None else {"content": {"parts": [{"text": text, **thought}], "role": "model"}}
    return {"candidates": [{**content, "index": 0, **fields}], "modelVersion": "toy", "responseId": "r-1"}


def _gemini_documents(said: Said) -> tuple[Any, list[dict[str, Any]]]:
    thought = said.reasoned or 0
    usage = {
        "promptTokenCount": said.prompt,
        "candidatesTokenCount": said.generated - thought,
        "totalTokenCount": said.prompt + said.generated,
        **({} if said.reasoned is None else {"thoughtsTokenCount": said.reasoned}),
    }
    finish = "STOP" if said.ends else "MAX_TOKENS"
    documents = [candidate(piece, thought=True) for piece in said.thoughts]
    documents += [candidate(piece) for piece in said.pieces]
    documents.append({**candidate(None, finishReason=finish), "usageMetadata": usage})
    whole = {**candidate(said.text, finishReason=finish), "usageMetadata": usage}
    if said.thoughts:
        whole["candidates"][0]["content"]["parts"].insert(0, {"text": said.reasoning, "thought": True})
    return whole, documents


def _gemini(said: Said) -> tuple[Any, bytes]:
    whole, documents = _gemini_documents(said)
    return whole, events(*(("", document) for document in documents), newline="\r\n")


def gemini_array(said: Said) -> bytes:
    """Return the same stream as one JSON array, as Google sends it without ``alt=sse``."""
    return b"[" + b",\r\n".join(json.dumps(d, indent=2).encode() for d in _gemini_documents(said)[1]) + b"\n]\n"


def _bedrock(said: Said) -> tuple[Any, bytes]:
    stop = "end_turn" if said.ends else "max_tokens"
    usage = {
        "inputTokens": said.prompt,
        "outputTokens": said.generated,
        "totalTokens": said.prompt + said.generated,
    }
    content: list[dict[str, Any]] = [{"text": said.text}]
    if said.thoughts:
        content.insert(0, {"reasoningContent": {"reasoningText": {"text": said.reasoning, "signature": "c2ln"}}})
    whole = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": stop,
        "usage": usage,
        "metrics": {"latencyMs": 1500},
    }
    deltas = [{"reasoningContent": {"text": piece}} for piece in said.thoughts]
    deltas += [{"text": piece} for piece in said.pieces]
    stream = [("messageStart", {"role": "assistant", "p": "abc"})]
    stream += [("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta, "p": "ab"}) for delta in deltas]
    stream += [
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": stop}),
        ("metadata", {"usage": usage, "metrics": {"latencyMs": 1500}}),
    ]
    return whole, aws(*stream)


@dataclass(frozen=True)
class Answers:
    """How a dialect answers: its streams' content type, what it cannot say, and both forms of an answer."""

    make: Callable[[Said], tuple[Any, bytes]]
    headers: HeaderPairs = SSE
    counts_reasoning: bool = True

    def whole(self, said: Said) -> Any:
        """Return the answer as one document."""
        return self.make(said)[0]

    def stream(self, said: Said) -> bytes:
        """Return the answer as a stream."""
        return self.make(said)[1]


ANSWERS: Mapping[str, Answers] = {
    "openai-completions": Answers(_completions),
    "openai-responses": Answers(_responses),
    "ollama-chat": Answers(lambda said: _ollama(said, _chat_message), NDJSON, counts_reasoning=False),
    "ollama-generate": Answers(lambda said: _ollama(said, _generated), NDJSON, counts_reasoning=False),
    "anthropic-messages": Answers(_anthropic),
    "gemini": Answers(_gemini),
    "bedrock-converse": Answers(_bedrock, AWS, counts_reasoning=False),
}

REQUEST_BODIES: Sequence[tuple[str, dict[str, Any]]] = (
    ("/completions", {"model": "toy", "prompt": "<|user|>Hello?", "max_tokens": 9, "echo": True, "logprobs": 2}),
    (
        "/responses",
        {
            "model": "toy",
            "instructions": "Be brief.",
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello?"}]},
                {"type": "reasoning", "summary": []},
            ],
            "max_output_tokens": 9,
            "truncation": "disabled",
            "text": {"format": {"type": "text"}},
        },
    ),
    ("/api/generate", {"model": "toy", "system": "Be brief.", "prompt": "Hello?", "options": {"top_k": 3}}),
    (
        "/messages",
        {
            "model": "toy",
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}],
            "max_tokens": 9,
            "thinking": {"type": "disabled"},
        },
    ),
    (
        "/models/toy:streamGenerateContent",
        {
            "system_instruction": {"parts": [{"text": "Be brief."}]},
            "contents": [{"parts": [{"text": "Hello?"}]}, {"role": "model", "parts": [{"inlineData": {}}]}],
            "generationConfig": {"topK": 3, "maxOutputTokens": 9, "thinkingConfig": {"thinkingBudget": 0}},
        },
    ),
    (
        "/model/toy/converse",
        {
            "system": [{"text": "Be brief."}],
            "messages": [{"role": "user", "content": [{"text": "Hello?"}]}],
            "inferenceConfig": {"maxTokens": 9, "stopSequences": ["x"]},
            "additionalModelRequestFields": {"top_k": 3, "thinking": {"type": "enabled"}},
        },
    ),
)
"""What other clients send: path and body, with parts that may change what the model sees."""


def genuine() -> list[tuple[bytes, HeaderPairs]]:
    """Return whole answers and streams of all dialects, for fuzzing."""
    said = Said(thoughts=("hm",), reasoned=1)
    found: list[tuple[bytes, HeaderPairs]] = []
    for answers in ANSWERS.values():
        found.append((json.dumps(answers.whole(said)).encode(), JSON))
        found.append((answers.stream(said), answers.headers))
    return [*found, (gemini_array(said), JSON)]
