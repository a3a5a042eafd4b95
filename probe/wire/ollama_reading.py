"""What Ollama's two native interfaces share: newline-delimited JSON, counts, durations, and the end.

Source: Ollama ``docs/api.md``, ``api/types.go`` (ChatResponse, GenerateResponse, Metrics), ``server/routes.go``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from probe.wire.collecting import Collected, body_of, content_type, decoded_text, error_message, missing, read_whole
from probe.wire.fields import NotJson, count_field, number_field, parse, text_field
from probe.wire.framing import NdjsonParser
from probe.wire.values import Exchange, Reading, Usage

Words = Callable[[Mapping[str, Any], Collected], None]
"""Reads the text of one object, and notes whether it belongs to a completion."""

_DURATIONS = {
    "total_duration": "total",
    "load_duration": "load",
    "prompt_eval_duration": "prompt",
    "eval_duration": "generation",
}
"""Fields of the last object, in nanoseconds → names of ``Reading.timings``."""


def read_ollama(exchange: Exchange, words: Words) -> Reading:
    """Read a response of ``/api/chat`` or ``/api/generate``, which differ in where the text stands."""
    if exchange.status is None:
        return missing(exchange)
    collected = Collected()
    data = body_of(exchange, collected.problems)
    text = decoded_text(data, collected.problems)
    if content_type(exchange) in {"application/x-ndjson", "application/ndjson"} or _has_lines(text):
        _read_lines(data, collected, words)
    else:
        objects = read_whole(text, collected, exchange)
        for document in objects:
            _read_document(document, collected, words)
        # Only an answer has an end to wait for; an error has none.
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


def _read_lines(data: bytes, collected: Collected, words: Words) -> None:
    collected.streamed, collected.terminated = True, False
    parser = NdjsonParser()
    for line in [*parser.feed(data), *parser.close()]:
        if collected.terminated:
            collected.problems.add("the stream goes on after done")
        document = collected.document(line.data, complete=line.complete)
        if isinstance(document, dict):
            _read_document(document, collected, words)
            collected.terminated = collected.terminated or document.get("done") is True
        elif document is not None:
            collected.problems.add("a line is JSON but no object")


def _read_document(document: Mapping[str, Any], collected: Collected, words: Words) -> None:
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
    words(document, collected)
