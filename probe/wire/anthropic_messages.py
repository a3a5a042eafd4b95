"""The dialect ``anthropic-messages``: ``POST …/messages``, answered with JSON or a stream of named events.

Sources: Anthropic API reference (messages, streaming messages, errors); ``anthropic`` package, ``types/message.py``,
``types/stop_reason.py``, ``types/raw_message_delta_event.py``, ``types/system_message_param.py`` (generated from
Anthropic's OpenAPI file). llama.cpp and vLLM speak it as well.
"""

from collections.abc import Mapping
from typing import Any

from probe.traces.values import Message, Trace
from probe.wire.backend import Backend
from probe.wire.building import additions, encode, placed, system_and_turns, without_logprobs
from probe.wire.collecting import Collected, body_of, decoded_text, error_message, missing, read_whole
from probe.wire.fields import count_field, kind_of, table, text_field
from probe.wire.openai_envelope import read_error
from probe.wire.requests import SPELLINGS, document_of, model_of, sampling_of, spare_keys, stream_of, text_of, turn
from probe.wire.streams import event_documents, is_event_stream
from probe.wire.values import BuiltRequest, Exchange, Reading, RequestReading, Usage

_FIXED = ("model", "messages", "system", "stream")
_KNOWN = SPELLINGS.keys() | {"system", "container", "inference_geo"}
_WORDS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
_PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""Their sum are the tokens of the prompt (``types/message.py``)."""

_UNREAD = {"signature_delta", "citations_delta"}


class AnthropicMessages:
    """Builds and reads messages."""

    name = "anthropic-messages"

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
        """Build the request of a trace; see ``Dialect.build``. Log-probabilities do not exist here.

        System text before the first turn is ``system``; later system text stays among the turns, which newer models
        take and others answer with an error.
        """
        sampling, dropped = backend.parameters.to_wire(trace.sampling)
        system, turns = system_and_turns(trace, self.name, later=True)
        body: dict[str, Any] = {"model": model}
        if system is not None:
            body["system"] = system
        body["messages"] = [{"role": message.role, "content": message.content} for message in turns]
        body |= {**placed(sampling), "stream": stream}
        added = additions(body, backend, request, stream=stream, fixed=_FIXED)
        return BuiltRequest("/messages", encode(added), without_logprobs(logprobs, dropped))

    def read_request(self, body: bytes, path: str = "") -> RequestReading:  # noqa: ARG002 - the body says all
        """Read a request body; see ``Dialect.read_request``. Blocks of system text are one text."""
        document = document_of(body, list_of="messages")
        extra: list[str] = []
        messages = [turn(f"messages[{n}]", entry, extra.append) for n, entry in enumerate(document["messages"])]
        if document.get("system") is not None:
            messages.insert(0, Message("system", text_of("system", document["system"], extra.append)))
        sampling = sampling_of(document, extra.append)
        known = _KNOWN | ({"thinking"} if table(document.get("thinking")).get("type") == "disabled" else set())
        extra += spare_keys(document, known if document.get("tools") else known | {"tool_choice"})
        return RequestReading(
            model=model_of(document),
            messages=tuple(messages),
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
            for document in event_documents(data, collected):
                if collected.terminated:
                    collected.problems.add("the stream goes on after message_stop")
                _read_event(document, collected)
        else:
            for document in read_whole(decoded_text(data, collected.problems), collected, exchange):
                read_error(document, collected, answer="content")
                _read_message(document, collected)
        return collected.reading(exchange)


def _read_event(event: Mapping[str, Any], collected: Collected) -> None:
    kind = kind_of(event)
    if kind == "message_start":
        _read_message(table(event.get("message")), collected)
    elif kind == "content_block_start":
        _read_block(table(event.get("content_block")), collected)
    elif kind == "content_block_delta":
        _read_delta(table(event.get("delta")), collected)
    elif kind == "message_delta":
        collected.completion = True
        _read_end(table(event.get("delta")), collected)
        _read_usage(event, collected)
    elif kind == "message_stop":
        collected.terminated = True
    elif kind == "error" or event.get("error"):
        collected.fail(error_message(event.get("error") or event))
    elif kind not in {"ping", "content_block_stop"}:
        collected.problems.add(f"an event of type {kind[:40]!r} is not read")


def _read_message(message: Mapping[str, Any], collected: Collected) -> None:
    problems = collected.problems
    collected.name("model", text_field(message, "model", problems))
    collected.name("response_id", text_field(message, "id", problems))
    _read_end(message, collected)
    _read_usage(message, collected)
    content = message.get("content")
    if isinstance(content, list):
        collected.completion = True
        for block in content:
            _read_block(table(block), collected)
    elif content is not None:
        problems.add("content is no list")


def _read_end(source: Mapping[str, Any], collected: Collected) -> None:
    collected.finish(text_field(source, "stop_reason", collected.problems), _WORDS)


def _read_usage(source: Mapping[str, Any], collected: Collected) -> None:
    usage, problems = source.get("usage"), collected.problems
    if not isinstance(usage, dict):
        if usage is not None:
            problems.add("usage is no object")
        return
    read = [count_field(usage, key, problems) for key in _PROMPT]
    details = table(usage.get("output_tokens_details"))
    collected.merge_usage(
        Usage(
            prompt_tokens=None if read[0] is None else sum(count or 0 for count in read),
            completion_tokens=count_field(usage, "output_tokens", problems),
            reasoning_tokens=count_field(details, "thinking_tokens", problems),
        )
    )


def _read_block(block: Mapping[str, Any], collected: Collected) -> None:
    collected.completion = True
    kind = kind_of(block)
    if kind == "text":
        collected.text.append(text_field(block, "text", collected.problems))
    elif kind == "thinking":
        collected.reasoning.append(text_field(block, "thinking", collected.problems))
    elif kind != "redacted_thinking":  # encrypted: nobody can read it
        collected.problems.add(f"a content block of type {kind[:40]!r} is not read")


def _read_delta(delta: Mapping[str, Any], collected: Collected) -> None:
    kind = kind_of(delta)
    if kind == "text_delta":
        collected.text.append(text_field(delta, "text", collected.problems))
    elif kind == "thinking_delta":
        collected.reasoning.append(text_field(delta, "thinking", collected.problems))
    elif kind not in _UNREAD and kind != "input_json_delta":  # its block was named already
        collected.problems.add(f"a delta of type {kind[:40]!r} is not read")
