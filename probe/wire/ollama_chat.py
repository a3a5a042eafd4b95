"""The dialect ``ollama-chat``: ``POST …/api/chat``, answered with JSON or newline-delimited JSON.

Source: Ollama ``docs/api.md``, ``api/types.go`` (ChatRequest, ChatResponse, Metrics), ``server/routes.go``.
"""

from collections.abc import Mapping
from typing import Any

from probe.traces.values import Trace
from probe.wire.backend import Backend
from probe.wire.building import additions, checked_logprobs, encode, merged, messages_of, placed
from probe.wire.collecting import Collected
from probe.wire.fields import table, text_field
from probe.wire.ollama_reading import read_ollama
from probe.wire.requests import read_ollama_request
from probe.wire.values import BuiltRequest, Exchange, Reading, RequestReading


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
        start = {"model": model, "messages": messages_of(trace)}
        body = merged(start, {**placed(sampling, "options"), "stream": stream})
        asked, dropped = checked_logprobs(logprobs, backend, dropped)
        if asked:
            body |= {"logprobs": True, "top_logprobs": asked}
        return BuiltRequest("/api/chat", encode(additions(body, backend, request, stream=stream)), dropped)

    def read_request(self, body: bytes, path: str = "") -> RequestReading:  # noqa: ARG002 - the body says all
        """Read a request body; see ``Dialect.read_request``. Ollama streams unless told otherwise."""
        return read_ollama_request(body)

    def read(self, exchange: Exchange) -> Reading:
        """Read a response; see ``Dialect.read``."""
        return read_ollama(exchange, _read_message)


def _read_message(document: Mapping[str, Any], collected: Collected) -> None:
    problems, message = collected.problems, document.get("message")
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
