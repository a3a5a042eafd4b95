"""What an answer is wrapped in, as named values: headers, key paths, ids, the order of events.

A value of ``None`` says nothing either way and is compared with nothing. That is how what depends on the text is kept
out: the end of an answer is only compared among answers that end by themselves (one that reached its token limit ends
in another way), and a key that holds a text is not compared with the same key without.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from probe.evidence.case import Case
from probe.evidence.shapes import choice_of, id_pattern, message_of, shape, spoken, text_lengths
from probe.wire.arrivals import said_length
from probe.wire.content import header
from probe.wire.fields import table
from probe.wire.values import Exchange, Reading

Features = dict[str, str | None]

LATE = ("last keys", "usage", "fingerprint", "order at the end", "finish", "native finish", "last event", "terminated")
"""Features of the end of an answer; one that broke off has none of them."""

_LATE = frozenset(LATE)

OPTIONAL = "key "
"""Prefix of keys that may be absent: then their value is ``absent``."""

_UNSTEADY = frozenset(
    {
        *("content-length", "content-encoding", "transfer-encoding", "vary", "etag", "age", "set-cookie", "date"),
        *("expires", "last-modified", "retry-after", "trailer", "x-cache", "cf-cache-status", "x-cache-hits"),
    }
)
"""Headers that depend on an answer's size, on a cache or on what the client sent before."""

_VALUES = (
    *("server", "content-type", "via", "x-powered-by", "cache-control", "connection", "x-served-by-model"),
    *("access-control-allow-origin", "x-accel-buffering", "x-content-type-options"),
)
"""Headers whose values are compared; never ids, dates, lengths or cookies."""

_WHOLE = frozenset({"stop", "eos", "eos_token", "end_turn", "completed", "stop_sequence", "finished"})
_ORDINARY = _WHOLE | {"length", "max_tokens", "max_output_tokens", "tool_calls", "tool_use", "function_call", "load"}
"""Finish reasons that a model brings about by what it says."""

_SPACING = re.compile(rb'"[\w.-]+"( ?):( ?)')
_FIELD = re.compile(rb"(?:^|\n)data:( ?)[^\r\n]*(\r?\n)")
_OPENING = 4000


def features(case: Case, lengths: Sequence[int] | None = None) -> Features:
    """Return the features of an answer that did not break off; ``lengths``: characters that each document adds."""
    found: Features = {}
    if case.exchange is not None:
        found |= _of_http(case.exchange)
    reading = case.reading
    if reading.documents:
        found |= _of_documents(reading, text_lengths(reading.documents) if lengths is None else lengths)
    if reading.documents or reading.streamed:
        found |= _of_end(reading)
    found["streamed"] = "yes" if reading.streamed else "no"
    found["id"] = None if reading.response_id is None else id_pattern(reading.response_id)
    found["model"], found["provider"] = reading.model or "absent", reading.provider or "absent"
    return found


def without_end(found: Features) -> Features:
    """Return the features of an answer that broke off: it has no end."""
    return {name: value for name, value in found.items() if name not in _LATE}


def _of_http(exchange: Exchange) -> Features:
    names = [name for name, _ in exchange.response_headers if name.lower() not in _UNSTEADY]
    found: Features = {
        "status": str(exchange.status),
        "HTTP version": exchange.http_version or "unknown",
        "header names": " ".join(sorted({name.lower() for name in names})),
        "header order": " ".join(names),
    }
    values: dict[str, str] = {}
    for name, value in exchange.response_headers:
        values[name.lower()] = f"{values[name.lower()]}, {value}" if name.lower() in values else value
    for name in _VALUES:
        found[f"header {name}"] = values.get(name, "absent")
    if not header(exchange.response_headers, "content-encoding"):
        opening = exchange.response_body[:_OPENING]
        spacing = _SPACING.search(opening)
        found["spaces in JSON"] = repr(spacing[1] + b":" + spacing[2])[1:] if spacing else None
        field = _FIELD.search(opening)
        found["lines of the stream"] = repr(b"data:" + field[1] + b"..." + field[2])[1:] if field else None
    return found


def _of_documents(reading: Reading, lengths: Sequence[int]) -> Features:
    documents = reading.documents
    first = table(documents[0])
    spoke = [place for place, length in enumerate(lengths) if length]
    found: Features = {
        "first keys": shape(first),
        "object": str(first.get("object", "absent"))[:60],
        "service tier": str(first.get("service_tier", "absent"))[:60],
        "logprobs": None if not spoke else "yes" if reading.logprobs else "no",
    }
    _optional(found, "", first)
    if not reading.streamed:
        return found
    found["first event"] = next((name for name in reading.events if name != "ping"), None) or "unnamed"
    if spoke:
        text = documents[spoke[0]]
        found["text keys"] = shape(text)
        _optional(found, "text.", text)
        found["order at the start"] = _order(documents[: spoke[0]])
    later = [place for place in spoke[1:] if place > 0]
    if later:
        found["role again"] = "yes" if "role" in message_of(documents[later[0]]) else "no"
    return found


def _optional(found: Features, where: str, document: Any) -> None:
    for name, part in (("", document), ("choice.", choice_of(document)), ("message.", message_of(document))):
        if part:
            found[f"{where}{name}?"] = None  # the object is there: its keys can be absent
            for key, value in spoken(table(part)):
                found[f"{OPTIONAL}{where}{name}{key}"] = value


def _order(documents: Sequence[Any]) -> str:
    """Return the kinds of documents without text, one of each in a row; keep-alives between texts never come here."""
    kinds: list[str] = []
    for document in documents:
        choice, fields = choice_of(document), table(document)
        parts = []
        if "role" in message_of(document):
            parts.append("role")
        if choice.get("finish_reason") or fields.get("done"):
            parts.append("finish")
        if table(fields.get("usage")):
            parts.append("usage")
        if "choices" in fields and not fields["choices"]:
            parts.append("no choices")
        kind = "+".join(parts) or "empty"
        if not kinds or kinds[-1] != kind:
            kinds.append(kind)
    return " > ".join(kinds) or "nothing"


def _of_end(reading: Reading) -> Features:
    finish, native = reading.finish_reason, reading.native_finish_reason
    documents = reading.documents
    usage = next((u for doc in reversed(documents[-4:]) if (u := _usage(doc))), None)
    found: Features = {
        "finish": _finish(finish),
        "native finish": _finish(native, spelling=True),
        "usage": shape(usage) if usage else "absent",
        "fingerprint": reading.fingerprint or "absent",
        "last event": next((name for name in reversed(reading.events) if name != "ping"), "") or "unnamed",
        "terminated": "yes" if reading.terminated else "no",
    }
    if usage:
        found["usage.?"] = None
        for key, value in spoken(usage):
            found[f"{OPTIONAL}usage.{key}"] = value
    # At the token limit the last text and the finish reason come together; a refusal rarely gets there.
    if (finish or "").lower() in _WHOLE and documents and reading.streamed:
        found["last keys"] = shape(documents[-1])
        last = max((i for i, document in enumerate(documents[-6:]) if _speaks(document)), default=-1)
        found["order at the end"] = _order(documents[-6:][last + 1 :])
    return found


def _speaks(document: Any) -> bool:
    said = any(message_of(document).get(key) for key in ("content", "refusal", "reasoning", "reasoning_content"))
    return said or said_length(document) > 0


def _usage(document: Any) -> Mapping[str, Any]:
    fields = table(document)
    if "eval_count" in fields or "prompt_eval_count" in fields:
        return {key: value for key, value in fields.items() if key.endswith(("_count", "_duration"))}
    nested = table(fields.get("response")) or fields
    return table(nested.get("usage")) or table(nested.get("usageMetadata"))


def _finish(reason: str | None, *, spelling: bool = False) -> str:
    if reason is None:
        return "absent"
    if reason.lower() not in _ORDINARY:
        return reason[:60]
    return "in capitals" if spelling and reason.isupper() else "ordinary"
