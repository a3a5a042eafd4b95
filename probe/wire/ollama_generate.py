"""The dialect ``ollama-generate``: ``POST …/api/generate``, answered with JSON or newline-delimited JSON.

It takes one prompt and a system text, which the server puts into the model's template; ``raw`` leaves the template
out. Source: Ollama ``docs/api.md`` (generate a completion), ``api/types.go`` (GenerateRequest, GenerateResponse),
``server/routes.go`` (GenerateHandler).
"""

from collections.abc import Mapping
from typing import Any

from probe.errors import WireError
from probe.traces.values import Message, Trace
from probe.wire.backend import Backend
from probe.wire.building import additions, checked_logprobs, encode, one_text, placed
from probe.wire.collecting import Collected
from probe.wire.fields import clean, table, text_field
from probe.wire.ollama_reading import read_ollama
from probe.wire.requests import (
    document_of,
    model_of,
    sampling_of,
    spare_keys,
    spare_options,
    stream_of,
    text_of,
)
from probe.wire.values import BuiltRequest, Exchange, Reading, RequestReading

_FIXED = ("model", "prompt", "messages", "system", "template", "raw", "context", "suffix", "stream")
_ONE_TURN = (("user",), ("system", "user"))


class OllamaGenerate:
    """Builds and reads Ollama's native completions."""

    name = "ollama-generate"

    def build(
        self,
        trace: Trace,
        *,
        model: str,
        stream: bool,
        backend: Backend,
        request: Mapping[str, Any],
        logprobs: int,
        prompt: str | None = None,
    ) -> BuiltRequest:
        """Build the request of a trace; see ``Dialect.build``.

        A rendered ``prompt`` goes ``raw``. Without one the server's template is used, which takes one turn of a user.
        """
        sampling, dropped = backend.parameters.to_wire(trace.sampling)
        body: dict[str, Any] = {"model": model}
        if prompt is None and tuple(message.role for message in trace.messages) in _ONE_TURN:
            *system, user = trace.messages
            body |= {"prompt": user.content, **({"system": system[0].content} if system else {})}
        else:
            body |= {"prompt": one_text(trace, prompt, self.name), "raw": True}
        body |= {**placed(sampling, "options"), "stream": stream}
        asked, dropped = checked_logprobs(logprobs, backend, dropped)
        if asked:
            body |= {"logprobs": True, "top_logprobs": asked}
        added = additions(body, backend, request, stream=stream, fixed=_FIXED)
        return BuiltRequest("/api/generate", encode(added), dropped)

    def read_request(self, body: bytes, path: str = "") -> RequestReading:  # noqa: ARG002 - the body says all
        """Read a request body; see ``Dialect.read_request``. Ollama streams unless told otherwise."""
        document = document_of(body)
        extra: list[str] = []
        if not isinstance(document.get("prompt"), str):
            raise WireError("The request body has no prompt.")
        messages = [Message("user", clean(document["prompt"]))]
        if document.get("system"):
            messages.insert(0, Message("system", text_of("system", document["system"], extra.append)))
        sampling = sampling_of(table(document.get("options")), extra.append)
        extra += [*spare_keys(document, {"prompt", "system"}), *spare_options(document)]
        return RequestReading(
            model=model_of(document),
            messages=tuple(messages),
            sampling=sampling,
            stream=stream_of(document, default=True),
            extra=tuple(dict.fromkeys(extra)),
        )

    def read(self, exchange: Exchange) -> Reading:
        """Read a response; see ``Dialect.read``."""
        return read_ollama(exchange, _read_words)


def _read_words(document: Mapping[str, Any], collected: Collected) -> None:
    collected.completion = collected.completion or "response" in document or "done" in document
    collected.text.append(text_field(document, "response", collected.problems))
    collected.reasoning.append(text_field(document, "thinking", collected.problems))
