"""Where in the bytes of a stream each of its documents ends, which tells when it arrived; and what it adds to the text.

One place for all framings: whoever looks at times needs no parser of their own.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from probe.wire.arrays import JsonArrayParser
from probe.wire.content import header
from probe.wire.eventstream import MEDIA_TYPE, EventStreamParser, looks_like_messages
from probe.wire.fields import kind_of, table
from probe.wire.values import Exchange

_LINES = re.compile(rb"(?:^|[\r\n])data:[^\r\n]*")
_ROWS = re.compile(rb"[^\n]*\S[^\n]*")

_DELTAS = frozenset(
    {
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
    }
)


def document_ends(exchange: Exchange) -> list[int]:
    """Return how many bytes of a stream were there when each document was whole, in the order of ``documents``.

    The caller compares the number with that of the documents: where it differs the framing was odd, and the ends say
    nothing. The body must have no content coding.
    """
    body = exchange.response_body
    declared = header(exchange.response_headers, "content-type").partition(";")[0].strip().lower()
    if declared == MEDIA_TYPE or looks_like_messages(body):
        return [message.end for message in EventStreamParser().feed(body) if message.payload]
    start = body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start == b"[":
        parser = JsonArrayParser()
        return [element.end for element in [*parser.feed(body), *parser.close()]]
    if start == b"{":
        return [found.end() for found in _ROWS.finditer(body)]
    return [found.end() for found in _LINES.finditer(body) if not found[0].endswith(b"[DONE]")]


def said_length(document: Any) -> int:
    """Return the number of characters that a document adds to text, reasoning or refusal, in the newer dialects.

    Text completions, responses, Ollama's generate, Anthropic's messages, Gemini and Bedrock; 0 for everything else,
    such as a whole chat completion.
    """
    fields = table(document)
    return sum(len(text) for text in (*_of_events(fields), *_of_answers(fields)) if isinstance(text, str))


def _of_events(document: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the texts of an event that is only a piece of an answer."""
    kind, delta = kind_of(document), document.get("delta")
    if isinstance(delta, dict):  # Anthropic, Bedrock
        yield from (delta.get("text"), delta.get("thinking"), table(delta.get("reasoningContent")).get("text"))
    elif kind in _DELTAS:
        yield delta
    elif kind == "content_block_start":
        yield table(document.get("content_block")).get("text")


def _of_answers(document: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the texts of a document that may be a whole answer as well."""
    yield from (document.get("response"), document.get("thinking"))  # Ollama
    for choice in _tables(document.get("choices")):
        if "text" in choice:  # a chat completion has its text elsewhere
            yield from (choice["text"], choice.get("reasoning") or choice.get("reasoning_content"))
    for candidate in _tables(document.get("candidates")):
        yield from (part.get("text") for part in _tables(table(candidate.get("content")).get("parts")))
    output = document.get("output")
    if isinstance(output, dict):
        blocks = _tables(table(output.get("message")).get("content"))
    elif kind_of(document) == "message":
        blocks = _tables(document.get("content"))
    else:
        blocks = [part for item in _tables(output) for part in _tables(item.get("content"))]
    for block in blocks:
        yield from (block.get("text"), block.get("thinking"), block.get("refusal"))
        yield table(table(block.get("reasoningContent")).get("reasoningText")).get("text")


def _tables(values: Any) -> list[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
