"""The dialect ``openai-completions``: ``POST …/completions``, one text in and one text out.

The text is the conversation as the weights' chat template writes it. Spoken by llama.cpp, vLLM and the hosts built on
them. Sources: OpenAI API reference (completions, legacy); ``openai`` package, ``types/completion_choice.py``;
``tools/server/README.md`` of llama.cpp, whose log-probabilities have the form of chat completions;
``vllm/entrypoints/openai/completion/protocol.py``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from probe.errors import WireError
from probe.traces.values import Message, Trace
from probe.wire.backend import Backend
from probe.wire.building import additions, checked_logprobs, encode, one_text, placed
from probe.wire.collecting import Collected, body_of, decoded_text, missing, read_whole
from probe.wire.fields import clean, number, table, text_field
from probe.wire.openai_envelope import choices_of, read_envelope, read_error, read_finish
from probe.wire.requests import SPELLINGS, document_of, model_of, sampling_of, spare_keys, stream_of
from probe.wire.streams import event_documents, is_event_stream
from probe.wire.values import BuiltRequest, Exchange, Reading, RequestReading, TokenLogprob

_FIXED = ("model", "prompt", "messages", "suffix", "echo", "stream")


class OpenAiCompletions:
    """Builds and reads text completions."""

    name = "openai-completions"

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
        """Build the request of a trace; see ``Dialect.build``. Without a ``prompt`` no trace can be sent."""
        sampling, dropped = backend.parameters.to_wire(trace.sampling)
        text = one_text(trace, prompt, self.name)
        body: dict[str, Any] = {"model": model, "prompt": text, **placed(sampling), "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        asked, dropped = checked_logprobs(logprobs, backend, dropped)
        if asked:
            body["logprobs"] = asked
        added = additions(body, backend, request, stream=stream, fixed=_FIXED)
        return BuiltRequest("/completions", encode(added), dropped)

    def read_request(self, body: bytes, path: str = "") -> RequestReading:  # noqa: ARG002 - the body says all
        """Read a request body; see ``Dialect.read_request``.

        The text becomes one turn of a user, and ``extra`` names ``prompt``: which template wrote it is not known.
        """
        document = document_of(body)
        extra: list[str] = ["prompt"]
        prompt = document.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        if not isinstance(prompt, str):
            raise WireError("The request body has no prompt that is one text.")
        sampling = sampling_of(document, extra.append)
        extra += spare_keys(document, SPELLINGS.keys() | {"prompt"})
        return RequestReading(
            model=model_of(document),
            messages=(Message("user", clean(prompt)),),
            sampling=sampling,
            stream=stream_of(document, default=False),
            extra=tuple(dict.fromkeys(extra)),
        )

    def read(self, exchange: Exchange) -> Reading:
        """Read a response; see ``Dialect.read``."""
        if exchange.status is None:
            return missing(exchange)
        collected = Collected()
        data = body_of(exchange, collected.problems)
        if is_event_stream(exchange, data, collected.problems):
            for document in event_documents(data, collected, done=True):
                _read_document(document, collected)
        else:
            for document in read_whole(decoded_text(data, collected.problems), collected, exchange):
                _read_document(document, collected)
        return collected.reading(exchange)


def _read_document(document: Mapping[str, Any], collected: Collected) -> None:
    read_envelope(document, collected)
    read_error(document, collected)
    for choice in choices_of(document, collected):
        read_finish(choice, collected)
        collected.text.append(text_field(choice, "text", collected.problems))
        for key in ("reasoning", "reasoning_content"):  # OpenRouter's addition
            if isinstance(choice.get(key), str):
                collected.reasoning.append(choice[key])
                break
        logprobs = choice.get("logprobs")
        if not isinstance(logprobs, dict):
            if logprobs is not None:
                collected.problems.add("logprobs is no object")
        elif "content" in logprobs:
            collected.add_logprobs(logprobs["content"])
        else:
            _add_logprobs(logprobs, collected)


def _add_logprobs(logprobs: Mapping[str, Any], collected: Collected) -> None:
    """Read the legacy form: lists of equal length, and an object of alternatives per token."""
    tokens, values, top = (logprobs.get(key) for key in ("tokens", "token_logprobs", "top_logprobs"))
    if tokens is None and values is None:
        return
    read: list[TokenLogprob | None] = [None]
    if isinstance(tokens, list) and isinstance(values, list) and len(tokens) == len(values):
        others = top if isinstance(top, list) and len(top) == len(tokens) else [None] * len(tokens)
        read = [_token(*entry) for entry in zip(tokens, values, others, strict=True)]
    collected.add_tokens(read)


def _token(token: Any, value: Any, top: Any) -> TokenLogprob | None:
    logprob = number(value)
    if not isinstance(token, str) or logprob is None:
        return None
    return TokenLogprob(clean(token), logprob, tuple(_alternatives(table(top).items())))


def _alternatives(pairs: Any) -> Sequence[tuple[str, float]]:
    found = [(clean(name), number(value)) for name, value in pairs]
    return [(name, value) for name, value in found if value is not None]
