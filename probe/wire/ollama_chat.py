"""The dialect ``ollama-chat``: ``POST …/api/chat``, answered with JSON or newline-delimited JSON.

Source: Ollama ``docs/api.md``, ``api/types.go`` (ChatRequest, ChatResponse, Metrics), ``server/routes.go``.
"""

from collections.abc import Mapping
from typing import Any

from probe.traces.values import Trace
from probe.wire.backend import Backend
from probe.wire.building import additions, checked_logprobs, encode, messages_of
from probe.wire.collecting import Collected, body_of, content_type, decoded_text, error_message, missing, read_whole
from probe.wire.fields import NotJson, count_field, number_field, parse, table, text_field
from probe.wire.framing import NdjsonParser
from probe.wire.requests import read_ollama_request
from probe.wire.values import BuiltRequest, Exchange, Reading, RequestReading, Usage

_DURATIONS = {
    "total_duration": "total",
    "load_duration": "load",
    "prompt_eval_duration": "prompt",
    "eval_duration": "generation",
}
"""Fields of the last object, in nanoseconds → names of ``Reading.timings``."""


class OllamaChat:
    """Builds and reads Ollama's native chats."""

    name = "ollama-chat"

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
        """Build the request of a trace; see ``Dialect.build``. Sampling parameters stand in ``options``."""
        sampling, dropped = backend.parameters.to_wire(trace.sampling)
        body: dict[str, Any] = {
            "model": model,
            "messages": messages_of(trace),
            "options": sampling,
            "stream": stream,
        }
        asked, dropped = checked_logprobs(logprobs, backend, dropped)
        if asked:
            body |= {"logprobs": True, "top_logprobs": asked}
        return BuiltRequest("/api/chat", encode(additions(body, backend, request, stream=stream)), dropped)

    def read_request(self, body: bytes) -> RequestReading:
        """Read a request body; see ``Dialect.read_request``. Ollama streams unless told otherwise."""
        return read_ollama_request(body)

    def read(self, exchange: Exchange) -> Reading:
        """Read a response; see ``Dialect.read``."""
        if exchange.status is None:
            return missing(exchange)
        collected = Collected()
        data = body_of(exchange, collected.problems)
        text = decoded_text(data, collected.problems)
        if content_type(exchange) in {"application/x-ndjson", "application/ndjson"} or _has_lines(text):
            _read_lines(data, collected)
        else:
            objects = read_whole(text, collected, exchange)
            for document in objects:
                _read_document(document, collected)
            # Only a chat has an end to wait for; an error has none.
            if collected.completion and not any(document.get("done") is True for document in objects):
                collected.terminated = False
        return collected.reading(exchange)


def _has_lines(text: str) -> bool:
    """Tell a stream with a wrong content type from a document: its first line is a whole object and others follow."""
    first, _, rest = text.strip().partition("\n")
    if not rest:
        return False
    try:
        return isinstance(parse(first), dict)
    except NotJson:
        return False


def _read_lines(data: bytes, collected: Collected) -> None:
    collected.streamed, collected.terminated = True, False
    parser = NdjsonParser()
    for line in [*parser.feed(data), *parser.close()]:
        if collected.terminated:
            collected.problems.add("the stream goes on after done")
        document = collected.document(line.data, complete=line.complete)
        if isinstance(document, dict):
            _read_document(document, collected)
            collected.terminated = collected.terminated or document.get("done") is True
        elif document is not None:
            collected.problems.add("a line is JSON but no object")


def _read_document(document: Mapping[str, Any], collected: Collected) -> None:
    problems = collected.problems
    if document.get("error"):
        collected.fail(error_message(document["error"]))
    collected.name("model", text_field(document, "model", problems))
    collected.finish_reason = text_field(document, "done_reason", problems) or collected.finish_reason
    collected.merge_usage(
        Usage(count_field(document, "prompt_eval_count", problems), count_field(document, "eval_count", problems))
    )
    for key, name in _DURATIONS.items():
        nanoseconds = number_field(document, key, problems)
        if nanoseconds is not None:
            collected.timings[name] = nanoseconds / 1e9
    collected.add_logprobs(document.get("logprobs"))
    if document.get("remote_host") or document.get("remote_model"):
        # Ollama forwards its cloud models: then this route is not local, whatever its address says.
        problems.add(f"answered by another host: {str(document.get('remote_host') or document['remote_model'])[:80]}")
    message = document.get("message")
    if message is None:
        collected.completion = collected.completion or "done" in document
        return
    collected.completion = True
    if not isinstance(message, dict):
        problems.add("the message is no object")
        return
    collected.text.append(text_field(message, "content", problems))
    collected.reasoning.append(text_field(table(message), "thinking", problems))
    if message.get("tool_calls"):
        problems.add("tool calls are not read")
