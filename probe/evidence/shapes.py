"""Shapes of JSON documents and ids: what stays the same from answer to answer, whatever is said in it.

Left out, because they depend on what was said and would accuse a model of its refusal: texts and their lengths, token
counts, tool calls, whether there was reasoning; and what depends on the size of an answer or on a cache.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from probe.wire.arrivals import said_length
from probe.wire.fields import table
from probe.wire.pieces import TextPiece

SPOKEN = frozenset(
    {
        *("content", "refusal", "reasoning", "reasoning_content", "reasoning_details", "thinking", "tool_calls"),
        *("function_call", "annotations", "citations", "audio", "images", "logprobs", "token_ids", "stop_reason"),
        *("prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details"),
        *("finish_reason", "native_finish_reason", "done_reason", "error"),
        # Ollama leaves them out where the prompt was cached.
        *("prompt_eval_count", "prompt_eval_duration"),
        # Responses, Anthropic, Gemini and Bedrock.
        *("output", "parts", "incomplete_details", "stop_details", "stop_sequence", "stopReason", "finishReason"),
        *("finishMessage", "promptTokensDetails", "candidatesTokensDetails", "candidatesTokenCount"),
        *("thoughtsTokenCount", "cachedContentTokenCount", "cacheTokensDetails", "text", "reasoningContent"),
    }
)
"""Keys whose value depends on what was said, or on a prompt cache. That one is absent or null may tell something, where
others have it null or not at all; what it holds tells nothing here."""

_FILTERS = re.compile(r"filter|moderation|safety|guardrail|draft", re.IGNORECASE)
"""Keys of findings about the content, and of speculative decoding: their inner shape depends on the text."""

_TEXTS = frozenset({"content", "refusal", "reasoning", "reasoning_content", "thinking"})

_DEPTH, _PATHS = 6, 120

_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_PARTS = re.compile(r"([^0-9A-Za-z]+)")
_LONG = 12
"""Characters from which a part of an id is long enough to tell digits, hexadecimal and other letters apart by chance
(a hexadecimal one of 12 has digits only once in 280)."""


def shape(document: Any) -> str:
    """Return the key paths of a JSON value with the kinds of their values, in the order in which they stand."""
    found: list[str] = []
    _paths(document, "", 0, found)
    return " ".join(found[:_PATHS])


def _paths(value: Any, path: str, depth: int, found: list[str]) -> None:
    if len(found) >= _PATHS:
        return
    if isinstance(value, dict) and value and depth < _DEPTH:
        for key, inner in value.items():
            if key in SPOKEN:
                continue
            below = f"{path}.{key[:40]}" if path else key[:40]
            if _is_filter(key):
                continue
            if isinstance(inner, dict | list):
                _paths(inner, below, depth + 1, found)
            else:
                found.append(f"{below}:{_kind(inner)}")
    elif isinstance(value, list) and value and depth < _DEPTH:
        _paths(value[0], f"{path}[]", depth + 1, found)
    else:
        found.append(f"{path}:{_kind(value)}")


@lru_cache(maxsize=1024)
def _is_filter(key: str) -> bool:
    return _FILTERS.search(key) is not None


# A count may be written as 0 or 0.00012: both are numbers.
_KINDS: Mapping[type, str] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "text",
    dict: "object",
    list: "list",
}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "null")


def spoken(document: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Yield the keys of one object that are in ``SPOKEN``: ``null`` where empty, ``None`` where they hold something."""
    for key in document:
        if key in SPOKEN:
            yield key, None if document[key] else "null"


def id_pattern(value: str) -> str:
    """Return the pattern of an id: words in front stay, random parts become their kind and length.

    ``gen-1758000000-a1B2…`` becomes ``gen-9{10}-x{20}``; 9 stands for digits, h for hexadecimal, x for letters and
    digits. Short numbers count upwards and have no length.
    """
    value = _UUID.sub("\0", value[:200])
    parts = _PARTS.split(value)
    return "".join(part if i % 2 else _part(part, first=i == 0) for i, part in enumerate(parts)).replace("\0", "uuid")


def _part(part: str, *, first: bool) -> str:
    length = len(part)
    if not part:
        return ""
    if part.isdigit():
        return "9" if length < 9 else f"9{{{length}}}"
    if length < _LONG:
        return part if first and part.isalpha() else f"x{{{length}}}"
    kind = "h" if re.fullmatch(r"[0-9a-f]+", part) else "H" if re.fullmatch(r"[0-9A-F]+", part) else "x"
    return f"{kind}{{{length}}}"


def choice_of(document: Any) -> Mapping[str, Any]:
    """Return the first choice of a chat completion (or chunk), empty where there is none."""
    choices = document.get("choices") if isinstance(document, dict) else None
    return table(choices[0]) if choices and isinstance(choices, list) else {}


def message_of(document: Any) -> Mapping[str, Any]:
    """Return the message or delta of a document of either dialect, empty where there is none."""
    choice = choice_of(document)
    if choice:
        for key in ("delta", "message"):
            found = choice.get(key)
            if found and isinstance(found, dict):
                return found
    return table(table(document).get("message"))


def text_length(document: Any) -> int:
    """Return the number of characters that a document adds to the text, its reasoning or its refusal."""
    if type(document) is TextPiece:
        return document.length
    message, total = message_of(document), 0
    if "role" not in message and "content" not in message:
        total = said_length(document)
    for key, value in message.items():
        if key not in _TEXTS or not value:
            continue
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, list):
            total += sum(len(part["text"]) for part in value if isinstance(table(part).get("text"), str))
    return total


def text_lengths(documents: tuple[Any, ...]) -> list[int]:
    """Return ``text_length`` of every document."""
    return [text_length(document) for document in documents]
