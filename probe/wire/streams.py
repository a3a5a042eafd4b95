"""What the dialects share in reading event streams."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from probe.wire.collecting import Collected, content_type, error_message
from probe.wire.fields import Problems
from probe.wire.framing import SseParser
from probe.wire.values import Exchange

_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:data|event|id|retry)?:")
_BLANK = b"\xef\xbb\xbf \t\r\n"


def is_event_stream(exchange: Exchange, data: bytes, problems: Problems) -> bool:
    """Whether a body is an event stream, whatever its content type says; a contradiction is a problem."""
    declared = content_type(exchange)
    looks_json = data.lstrip(_BLANK)[:1] in {b"{", b"["}
    if declared == "text/event-stream":
        if looks_json:
            problems.add("a JSON body under the content type of an event stream")
        return not looks_json
    if looks_json or not _START.match(data):
        return False
    problems.add(f"an event stream under the content type {declared[:60]!r}")
    return True


def event_documents(data: bytes, collected: Collected, *, done: bool = False) -> Iterator[Mapping[str, Any]]:
    """Yield the JSON objects of an event stream, which are kept with the names of their events.

    ``done``: the stream ends with ``[DONE]``; in the other dialects that word says nothing, and the caller knows the
    end. An event named ``error`` is an error, whatever it holds.
    """
    collected.streamed, collected.terminated = True, False
    parser = SseParser()
    for event in [*parser.feed(data), *parser.close()]:
        collected.events.append(event.name)
        if event.data.strip() == "[DONE]":
            collected.terminated = collected.terminated or done
            continue
        if collected.terminated and done:
            collected.problems.add("the stream goes on after [DONE]")
        document = collected.document(event.data, complete=event.complete)
        if isinstance(document, dict):
            yield document
        elif document is not None:
            collected.problems.add("an event is JSON but no object")
        if event.name == "error" and collected.error is None:
            collected.fail(error_message(document if isinstance(document, dict) else event.data))
    check_encoding(data, collected)


def check_encoding(data: bytes, collected: Collected) -> None:
    """Note a stream that is not UTF-8: what was none became U+FFFD in the text."""
    if b"\xef\xbf\xbd" not in data and any("\ufffd" in piece for piece in collected.text):
        collected.problems.add("the body is not UTF-8 throughout")
