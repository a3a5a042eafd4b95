"""The dialect ``bedrock-converse``: ``POST …/model/{modelId}/converse`` and ``…/converse-stream``.

Answered with JSON, or with an AWS event stream whose messages hold JSON and name their kind in a header.

Sources: Amazon Bedrock API reference (Converse, ConverseStream); ``botocore``,
``data/bedrock-runtime/2023-09-30/service-2.json``.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from probe.traces.values import Message, Trace
from probe.wire.backend import Backend
from probe.wire.building import additions, encode, merged, placed, system_and_turns, without_logprobs
from probe.wire.collecting import Collected, body_of, content_type, decoded_text, missing, read_whole
from probe.wire.content import header
from probe.wire.eventstream import MEDIA_TYPE, EventStreamParser, StreamMessage, looks_like_messages
from probe.wire.fields import clean, count_field, number_field, table, text_field
from probe.wire.openai_envelope import read_error
from probe.wire.requests import SPELLINGS, document_of, sampling_of, spare_keys, text_of, turn
from probe.wire.values import BuiltRequest, Exchange, Reading, RequestReading, Usage

_FIXED = ("modelId", "model", "messages", "system", "prompt", "promptVariables", "stream")
_WORDS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
_INFERENCE = {"maxTokens": "max_tokens", "temperature": "temperature", "topP": "top_p"}
_ADDITIONAL = {**SPELLINGS, "topK": "top_k", "topP": "top_p", "maxTokens": "max_tokens"}
_KNOWN = {
    *("messages", "system", "inferenceConfig", "additionalModelRequestFields", "guardrailConfig", "requestMetadata"),
    *("additionalModelResponseFieldPaths", "performanceConfig", "serviceTier"),
}
_PATH = re.compile(r"/model/([^/?]+)/converse(-stream)?(?:$|\?)")


class BedrockConverse:
    """Builds and reads conversations of Amazon Bedrock."""

    name = "bedrock-converse"

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
        """Build the request of a trace; see ``Dialect.build``. The path names the model, and whether to stream."""
        sampling, dropped = backend.parameters.to_wire(trace.sampling)
        system, turns = system_and_turns(trace, self.name)
        body: dict[str, Any] = {
            "messages": [{"role": message.role, "content": [{"text": message.content}]} for message in turns]
        }
        if system is not None:
            body["system"] = [{"text": system}]
        body = merged(body, placed(sampling, "inferenceConfig"))
        added = additions(body, backend, request, stream=stream, fixed=_FIXED)
        path = f"/model/{quote(model, safe='')}/converse{'-stream' if stream else ''}"
        return BuiltRequest(path, encode(added), without_logprobs(logprobs, dropped))

    def read_request(self, body: bytes, path: str = "") -> RequestReading:
        """Read a request body; see ``Dialect.read_request``. Blocks of system text are one text."""
        document = document_of(body, list_of="messages")
        extra: list[str] = []
        messages = [turn(f"messages[{n}]", entry, extra.append) for n, entry in enumerate(document["messages"])]
        if document.get("system") is not None:
            messages.insert(0, Message("system", text_of("system", document["system"], extra.append)))
        inference, more = (
            dict(table(document.get(key))) for key in ("inferenceConfig", "additionalModelRequestFields")
        )
        sampling = sampling_of(more, extra.append, _ADDITIONAL) | sampling_of(inference, extra.append, _INFERENCE)
        extra += spare_keys(document, _KNOWN)
        for name, values, known in (
            ("inferenceConfig", inference, _INFERENCE),
            ("additionalModelRequestFields", more, _ADDITIONAL),
        ):
            spare = [key for key, value in values.items() if key not in known and value not in (None, [], {})]
            extra += [f"{name}.{clean(key)}" for key in spare]
        found = _PATH.search(path)
        return RequestReading(
            model=clean(unquote(found[1])) if found else None,
            messages=tuple(messages),
            sampling=sampling,
            stream=bool(found and found[2]),
            extra=tuple(dict.fromkeys(extra)),
        )

    def read(self, exchange: Exchange) -> Reading:
        """Read a response; see ``Dialect.read``."""
        if exchange.status is None:
            return missing(exchange)
        collected = Collected()
        data = body_of(exchange, collected.problems)
        if _is_event_stream(exchange, data, collected):
            _read_stream(data, collected)
        else:
            for document in read_whole(decoded_text(data, collected.problems), collected, exchange):
                _read_document(document, collected, exchange)
        collected.response_id = header(exchange.response_headers, "x-amzn-requestid") or None
        return collected.reading(exchange)


def _is_event_stream(exchange: Exchange, data: bytes, collected: Collected) -> bool:
    declared = content_type(exchange)
    looks_json = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"
    if declared == MEDIA_TYPE:
        if looks_json:
            collected.problems.add("a JSON body under the content type of an event stream")
        return not looks_json
    if not looks_like_messages(data):
        return False
    collected.problems.add(f"an event stream under the content type {declared[:60]!r}")
    return True


def _read_stream(data: bytes, collected: Collected) -> None:
    collected.streamed, collected.terminated = True, False
    parser = EventStreamParser()
    for message in parser.feed(data):
        if message.broken:
            collected.unread += 1
            collected.problems.add(message.broken)
        else:
            _read_message(message, collected)
    if parser.lost:
        collected.unread += 1
        collected.problems.add(parser.lost)


def _read_message(message: StreamMessage, collected: Collected) -> None:
    kind = message.header(":message-type")
    name = clean(message.header(":exception-type" if kind == "exception" else ":event-type"))
    if kind == "error":
        # An error outside of the service's model: two headers, and no payload.
        code, words = message.header(":error-code"), message.header(":error-message")
        collected.events.append("error")
        collected.fail(": ".join(word for word in (code, words) if word))
        return
    collected.events.append(name)
    document = collected.document(message.payload.decode("utf-8", "replace")) if message.payload else {}
    if not isinstance(document, dict):
        if document is not None:
            collected.problems.add("a message of the event stream is JSON but no object")
        document = {}
    if kind == "exception":
        collected.fail(_words(name, document))
    else:
        _read_event(name, document, collected)


def _words(name: str, document: Mapping[str, Any]) -> str:
    said = next(
        (document[key] for key in ("message", "Message", "originalMessage") if isinstance(document.get(key), str)), ""
    )
    return ": ".join(word for word in (name, said) if word)


def _read_event(name: str, event: Mapping[str, Any], collected: Collected) -> None:
    problems = collected.problems
    if name == "messageStart":
        collected.completion = True
    elif name == "contentBlockStart":
        kind = next(iter(table(event.get("start"))), None)
        if kind is not None:
            problems.add(f"a content block of kind {clean(kind)[:40]!r} is not read")
    elif name == "contentBlockDelta":
        collected.completion = True
        delta = table(event.get("delta"))
        if "text" in delta:
            collected.text.append(text_field(delta, "text", problems))
        elif "reasoningContent" in delta:
            # A signature or an encrypted part says nothing.
            collected.reasoning.append(text_field(table(delta["reasoningContent"]), "text", problems))
    elif name == "messageStop":
        # What follows is usage only: the answer is whole.
        collected.completion = collected.terminated = True
        collected.finish(text_field(event, "stopReason", problems), _WORDS)
    elif name == "metadata":
        _read_counts(event, collected)
    elif name != "contentBlockStop":
        problems.add(f"an event of type {name[:40]!r} is not read")


def _read_counts(source: Mapping[str, Any], collected: Collected) -> None:
    problems = collected.problems
    usage = table(source.get("usage"))
    collected.merge_usage(
        Usage(count_field(usage, "inputTokens", problems), count_field(usage, "outputTokens", problems))
    )
    milliseconds = number_field(table(source.get("metrics")), "latencyMs", problems)
    if milliseconds is not None:
        collected.timings["total"] = milliseconds / 1000


def _read_document(document: Mapping[str, Any], collected: Collected, exchange: Exchange) -> None:
    problems = collected.problems
    kind = (
        header(exchange.response_headers, "x-amzn-errortype").partition(":")[0]
        or text_field(document, "__type", problems).rpartition("#")[2]
    )
    if "output" not in document:
        if kind or document.get("Message"):
            collected.fail(_words(kind, document))
        else:
            read_error(document, collected, answer="output")
    _read_counts(document, collected)
    collected.finish(text_field(document, "stopReason", problems), _WORDS)
    output = document.get("output")
    if output is None:
        return
    collected.completion = True
    content = table(table(output).get("message")).get("content")
    for block in content if isinstance(content, list) else []:
        _read_block(table(block), collected)


def _read_block(block: Mapping[str, Any], collected: Collected) -> None:
    if "text" in block:
        collected.text.append(text_field(block, "text", collected.problems))
    elif "reasoningContent" in block:
        words = table(table(block["reasoningContent"]).get("reasoningText"))
        collected.reasoning.append(text_field(words, "text", collected.problems))
    elif "citationsContent" in block:
        parts = table(block["citationsContent"]).get("content")
        for part in parts if isinstance(parts, list) else []:
            collected.text.append(text_field(table(part), "text", collected.problems))
    else:
        kind = next(iter(block), None)
        collected.problems.add(f"a content block of kind {clean(str(kind))[:40]!r} is not read")
