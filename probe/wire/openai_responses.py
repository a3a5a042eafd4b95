"""The dialect ``openai-responses``: ``POST …/responses``, answered with JSON or a stream of named events.

Sources: OpenAI API reference (responses, streaming events); ``openai`` package, ``types/responses`` (generated from
OpenAI's OpenAPI file).

System text goes as an item of ``input`` with the role ``system``, where it stands in the conversation.
``instructions`` is one text that is inserted before all input, and several servers add words of their own to it: an
item is the conversation as the other routes get it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from probe.errors import WireError
from probe.traces.values import Message, Trace
from probe.wire.backend import Backend
from probe.wire.building import additions, checked_logprobs, encode, messages_of, placed
from probe.wire.collecting import Collected, body_of, decoded_text, error_message, missing, read_whole
from probe.wire.fields import count_field, kind_of, table, text_field
from probe.wire.openai_envelope import read_error
from probe.wire.requests import SPELLINGS, document_of, model_of, sampling_of, spare_keys, stream_of, text_of, turn
from probe.wire.streams import event_documents, is_event_stream
from probe.wire.values import BuiltRequest, Exchange, Reading, RequestReading, Usage

_FIXED = ("model", "input", "instructions", "messages", "prompt", "previous_response_id", "conversation", "stream")
_LIMITS = dict.fromkeys(("max_tokens", "max_completion_tokens"), "max_output_tokens")
"""What chats call the token limit, which has one name here: a backend that speaks both dialects names it for chats."""

_LOGPROBS = "message.output_text.logprobs"
_SPELLINGS = {**SPELLINGS, "max_output_tokens": "max_tokens"}
_KNOWN = _SPELLINGS.keys() | {"input", "instructions", "include", "background", "prompt_cache_retention"}
_WITHOUT_TOOLS = {"tool_choice", "parallel_tool_calls", "max_tool_calls"}
_WORDS = {"completed": "stop", "max_output_tokens": "length"}
_ENDS = {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}


class OpenAiResponses:
    """Builds and reads responses."""

    name = "openai-responses"

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
        """Build the request of a trace; see ``Dialect.build``. Nothing is kept by the server (``store``)."""
        sampling, dropped = backend.parameters.to_wire(trace.sampling)
        sampling = {_LIMITS.get(key, key): value for key, value in sampling.items()}
        body = {"model": model, "input": messages_of(trace), **placed(sampling), "store": False, "stream": stream}
        asked, dropped = checked_logprobs(logprobs, backend, dropped)
        if asked:
            body |= {"top_logprobs": asked, "include": [_LOGPROBS]}
        added = additions(body, backend, request, stream=stream, fixed=_FIXED)
        return BuiltRequest("/responses", encode(added), dropped)

    def read_request(self, body: bytes, path: str = "") -> RequestReading:  # noqa: ARG002 - the body says all
        """Read a request body; see ``Dialect.read_request``."""
        document = document_of(body)
        extra: list[str] = []
        messages = tuple(_messages(document, extra))
        if not messages:
            raise WireError("The request body has no input.")
        sampling = sampling_of(document, extra.append, _SPELLINGS)
        known = _KNOWN if document.get("tools") else _KNOWN | _WITHOUT_TOOLS
        extra += [key for key in spare_keys(document, known) if not _is_default(key, document[key])]
        return RequestReading(
            model=model_of(document),
            messages=messages,
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
            _Stream(collected).read(data)
        else:
            for document in read_whole(decoded_text(data, collected.problems), collected, exchange):
                _read_response(document, collected)
        return collected.reading(exchange)


def _messages(document: Mapping[str, Any], extra: list[str]) -> Iterator[Message]:
    instructions, given = document.get("instructions"), document.get("input")
    if instructions:
        yield Message("system", text_of("instructions", instructions, extra.append))
    if isinstance(given, str):
        yield Message("user", text_of("input", given, extra.append))
        return
    for number, item in enumerate(given if isinstance(given, list) else []):
        place = f"input[{number}]"
        if isinstance(item, dict) and item.get("type", "message") == "message":
            # What a client sends back of an earlier answer carries its id and status.
            plain = {key: value for key, value in item.items() if key not in {"type", "id", "status", "phase"}}
            yield turn(place, plain, extra.append)
        else:
            extra.append(f"{place}.type")


def _is_default(key: str, value: Any) -> bool:
    """Whether a key says what holds without it."""
    if key == "text":
        return table(table(value).get("format")).get("type") == "text" and not table(value).get("verbosity")
    return key == "truncation" and value == "disabled"


def _read_response(document: Mapping[str, Any], collected: Collected) -> None:
    read_error(document, collected, answer="output")
    _read_envelope(document, collected)
    output = document.get("output")
    if not isinstance(output, list):
        if output is not None:
            collected.problems.add("output is no list")
        return
    collected.completion = True
    for item in output:
        _read_item(table(item), collected)


def _read_envelope(response: Mapping[str, Any], collected: Collected) -> None:
    problems = collected.problems
    collected.name("model", text_field(response, "model", problems))
    collected.name("response_id", text_field(response, "id", problems))
    usage = response.get("usage")
    if isinstance(usage, dict):
        details = table(usage.get("output_tokens_details"))
        collected.merge_usage(
            Usage(
                prompt_tokens=count_field(usage, "input_tokens", problems),
                completion_tokens=count_field(usage, "output_tokens", problems),
                reasoning_tokens=count_field(details, "reasoning_tokens", problems),
            )
        )
    elif usage is not None:
        problems.add("usage is no object")
    status = text_field(response, "status", problems)
    reason = text_field(table(response.get("incomplete_details")), "reason", problems)
    if status in {"completed", "incomplete"}:
        collected.finish(reason or status, _WORDS)
    elif status in {"failed", "cancelled"}:
        collected.fail(error_message(response.get("error") or f"the response is {status}"))


def _read_item(item: Mapping[str, Any], collected: Collected) -> None:
    kind = kind_of(item)
    if kind == "message":
        content = item.get("content")
        for part in content if isinstance(content, list) else [{"type": "output_text", "text": content}]:
            _read_part(table(part), collected)
    elif kind == "reasoning":
        # The raw words where there are any, else their summary; an encrypted one stays unread.
        words = [*_texts(item.get("content"))] or [*_texts(item.get("summary"))]
        collected.reasoning += words
    else:
        collected.problems.add(f"an output item of type {kind[:40]!r} is not read")


def _read_part(part: Mapping[str, Any], collected: Collected) -> None:
    kind = kind_of(part)
    if kind == "refusal":
        collected.refusal.append(text_field(part, "refusal", collected.problems))
    elif kind == "reasoning_text":
        collected.reasoning.append(text_field(part, "text", collected.problems))
    elif kind in {"output_text", "text"}:
        collected.text.append(text_field(part, "text", collected.problems))
        collected.add_logprobs(part.get("logprobs") or None)
    else:
        collected.problems.add(f"a content part of type {kind[:40]!r} is not read")


def _texts(parts: Any) -> Iterator[str]:
    for part in parts if isinstance(parts, list) else []:
        text = table(part).get("text")
        if isinstance(text, str):
            yield text


class _Stream:
    """Reads a stream: pieces as they come, and whatever only the final response tells."""

    def __init__(self, collected: Collected) -> None:
        self._collected = collected
        self._summary: list[str] = []

    def read(self, data: bytes) -> None:
        """Read all events."""
        for document in event_documents(data, self._collected):
            if self._collected.terminated:
                self._collected.problems.add("the stream goes on after its last event")
            self._event(document)
        # A server that gives both repeats itself in the summary.
        if not self._collected.reasoning:
            self._collected.reasoning += self._summary

    def _event(self, event: Mapping[str, Any]) -> None:
        collected, problems = self._collected, self._collected.problems
        kind = kind_of(event)
        pieces = {
            "response.output_text.delta": collected.text,
            "response.refusal.delta": collected.refusal,
            "response.reasoning_text.delta": collected.reasoning,
            "response.reasoning_summary_text.delta": self._summary,
        }
        if kind in pieces:
            collected.completion = True
            pieces[kind].append(text_field(event, "delta", problems))
            collected.add_logprobs(event.get("logprobs") or None)
        elif kind in _ENDS:
            collected.terminated = True
            self._last(table(event.get("response")), kind)
        elif isinstance(event.get("response"), dict):
            _read_envelope(event["response"], collected)
        elif kind == "error" or (not kind and (event.get("error") or event.get("message"))):
            # ``{"type": "error", "code": …, "message": …}``, and the envelope of a plain error.
            collected.fail(error_message(event.get("error") or event))

    def _last(self, response: Mapping[str, Any], kind: str) -> None:
        collected = self._collected
        final = Collected(problems=collected.problems)
        _read_response({"output": [], **response}, final)
        collected.completion = True
        _read_envelope({"status": kind.removeprefix("response."), **response}, collected)
        said = "".join(collected.text)
        if not said and not collected.refusal:
            collected.text, collected.refusal = final.text, final.refusal
            collected.logprobs = collected.logprobs or final.logprobs
        elif final.text and "".join(final.text) != said:
            collected.problems.add("the final response holds another text than its pieces")
        collected.reasoning = collected.reasoning or ([] if self._summary else final.reasoning)
