"""The dialect ``openai-chat``: ``POST …/chat/completions``, answered with JSON or an event stream.

Spoken by llama.cpp, vLLM, OpenRouter and most others, each with fields of its own. Sources: OpenAI API reference (chat
completions); ``tools/server/README.md`` of llama.cpp; ``vllm/entrypoints/openai/chat_completion/protocol.py``;
OpenRouter API reference (streaming, errors and debugging).
"""

from collections.abc import Mapping
from typing import Any

from probe.traces.values import Trace
from probe.wire.backend import Backend
from probe.wire.building import additions, checked_logprobs, encode, messages_of, placed
from probe.wire.collecting import Collected, body_of, decoded_text, error_message, missing, read_whole
from probe.wire.fields import table, text_field
from probe.wire.framing import SseEvent, SseParser, plain_events
from probe.wire.openai_envelope import choices_of, read_envelope, read_error, read_finish
from probe.wire.pieces import Piece
from probe.wire.requests import read_openai_request
from probe.wire.streams import check_encoding, is_event_stream
from probe.wire.values import BuiltRequest, Exchange, Reading, RequestReading

_REASONING = ("reasoning", "reasoning_content", "thinking")
"""Fields for reasoning: vLLM, Ollama, Groq and OpenRouter; DeepSeek and its followers; Mistral. Some send two with the
same text, so the first that is there counts."""


class OpenAiChat:
    """Builds and reads chat completions."""

    name = "openai-chat"

    def build(
        self,
        trace: Trace,
        *,
        model: str,
        stream: bool,
        backend: Backend,
        request: Mapping[str, Any],
        logprobs: int,
        prompt: str | None = None,  # noqa: ARG002 - the server has the template
    ) -> BuiltRequest:
        """Build the request of a trace; see ``Dialect.build``."""
        sampling, dropped = backend.parameters.to_wire(trace.sampling)
        body = {"model": model, "messages": messages_of(trace), **placed(sampling), "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        asked, dropped = checked_logprobs(logprobs, backend, dropped)
        if asked:
            body |= {"logprobs": True, "top_logprobs": asked}
        return BuiltRequest("/chat/completions", encode(additions(body, backend, request, stream=stream)), dropped)

    def read_request(self, body: bytes, path: str = "") -> RequestReading:  # noqa: ARG002 - the body says all
        """Read a request body; see ``Dialect.read_request``."""
        return read_openai_request(body)

    def read(self, exchange: Exchange) -> Reading:
        """Read a response; see ``Dialect.read``."""
        if exchange.status is None:
            return missing(exchange)
        collected = Collected()
        data = body_of(exchange, collected.problems)
        if is_event_stream(exchange, data, collected.problems):
            _read_stream(data, collected)
        else:
            for document in read_whole(decoded_text(data, collected.problems), collected, exchange):
                _read_document(document, collected)
        return collected.reading(exchange)


def _read_stream(data: bytes, collected: Collected) -> None:
    collected.streamed, collected.terminated = True, False
    plain = plain_events(data)
    if plain is None:
        parser = SseParser()
        for event in [*parser.feed(data), *parser.close()]:
            _read_event(event, collected)
    else:
        _read_plain(plain, collected)
    check_encoding(data, collected)


def _read_plain(events: list[str], collected: Collected) -> None:
    """Read events as ``_read_event`` does; those that differ from the one before in nothing but their text at once."""
    piece: Piece | None = None
    for data in events:
        text = None if piece is None or collected.terminated else piece.text_of(data)
        if text is not None and piece is not None:
            collected.events.append("")
            collected.documents.append(piece.document(text))
            collected.text.append(text)
            continue
        count = len(collected.documents)
        _read_event(SseEvent(data), collected)
        piece = Piece.of(data, collected.documents[-1]) if len(collected.documents) > count else None


def _read_event(event: SseEvent, collected: Collected) -> None:
    collected.events.append(event.name)
    if event.data.strip() == "[DONE]":
        collected.terminated = True
        return
    if collected.terminated:
        collected.problems.add("the stream goes on after [DONE]")
    document = collected.document(event.data, complete=event.complete)
    if isinstance(document, dict):
        _read_document(document, collected)
    elif document is not None:
        collected.problems.add("an event is JSON but no object")
    if event.name == "error" and collected.error is None:
        collected.fail(error_message(document if isinstance(document, dict) else event.data))


def _read_document(document: Mapping[str, Any], collected: Collected) -> None:
    read_envelope(document, collected)
    read_error(document, collected)
    for choice in choices_of(document, collected):
        _read_choice(choice, collected)


def _read_choice(choice: Mapping[str, Any], collected: Collected) -> None:
    problems = collected.problems
    read_finish(choice, collected)
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict):
        collected.add_logprobs(logprobs.get("content"))
    message = choice.get("delta") if collected.streamed else choice.get("message")
    if not message and collected.streamed and not collected.text:
        message = choice.get("message")  # some gateways send one chunk in the shape of a whole answer
    if isinstance(message, dict):
        _read_message(message, collected)
    elif message is not None:
        problems.add("the message is no object")


def _read_message(message: Mapping[str, Any], collected: Collected) -> None:
    problems = collected.problems
    content = message.get("content")
    if isinstance(content, str):
        collected.text.append(content)
    elif isinstance(content, list):
        for part in content:
            _read_part(table(part), collected)
    else:
        collected.text.append(text_field(message, "content", problems))
    if message.get("refusal") is not None:
        collected.refusal.append(text_field(message, "refusal", problems))
    reasoning = _reasoning_of(message)
    if isinstance(reasoning, str):
        collected.reasoning.append(reasoning)
    elif reasoning is not None:
        problems.add("the reasoning is no text")
    elif "reasoning_details" in message:
        details = message["reasoning_details"]
        for detail in details if isinstance(details, list) else []:
            # OpenRouter: reasoning.text, reasoning.summary, reasoning.encrypted (the last stays unread).
            words = table(detail).get("text") or table(detail).get("summary")
            collected.reasoning.append(words if isinstance(words, str) else "")
    if message.get("tool_calls") or message.get("function_call"):
        problems.add("tool calls are not read")


def _reasoning_of(message: Mapping[str, Any]) -> Any:
    for key in _REASONING:
        if found := message.get(key):
            return found
    return None


def _read_part(part: Mapping[str, Any], collected: Collected) -> None:
    kind = part.get("type")
    if kind == "refusal":
        collected.refusal.append(text_field(part, "refusal", collected.problems))
    elif kind == "thinking":  # Mistral: text, or a list of parts
        thinking = part.get("thinking")
        pieces = [table(piece).get("text") for piece in thinking] if isinstance(thinking, list) else [thinking]
        collected.reasoning += [piece for piece in pieces if isinstance(piece, str)]
    elif isinstance(part.get("text"), str):
        collected.text.append(part["text"])
    else:
        collected.problems.add(f"a content part of type {str(kind)[:40]!r} is not read")
