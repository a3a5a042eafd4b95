"""Bytes from strangers as text that a terminal and JSON can carry: bounded, encodable, without control characters."""

import contextlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from probe.wire.content import decode_body
from probe.wire.eventstream import looks_like_messages, readable
from probe.wire.fields import NotJson, clean, parse
from probe.wire.values import Exchange, HeaderPairs

BODY = 2000
"""Characters of a body that are shown."""

LINE = 500
"""Characters of a header, an address or an exhibit that are shown."""

_DECODED = 4 * 1024 * 1024
"""Bytes of a coded body that are decoded for showing: the card is no place for a bomb."""

_PRETTY = 256 * 1024
"""Bytes up to which JSON is laid out; of a longer one only the beginning is shown anyway."""

# C0 and C1 controls drive a terminal; the marks of direction reorder what stands beside them.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def exchange_part(exchange: Exchange) -> dict[str, Any]:
    """Return what crossed the wire: request, response and times, each shortened to what a person reads."""
    return {
        "request": {
            "method": exchange.method,
            "url": shortened(exchange.url, LINE),
            "headers": _headers(exchange.request_headers),
            "body": body_text(exchange.request_body),
        },
        "response": {
            "state": exchange.state,
            "error": None if exchange.error is None else shortened(exchange.error, LINE),
            "status": exchange.status,
            "reason": exchange.reason,
            "headers": _headers(exchange.response_headers),
            "body": response_text(exchange),
        },
        "times": {
            "started_at": exchange.started_at,
            "head_at": exchange.head_at,
            "ended_at": exchange.ended_at,
            "chunks": [[chunk.at, chunk.size] for chunk in exchange.chunks],
        },
    }


def shortened(text: str, limit: int) -> str:
    """Return the beginning of a text, with the number of characters that are left out."""
    text = clean(text)
    return text if len(text) <= limit else f"{text[:limit]} [… {len(text) - limit} more characters]"


def visible(text: str) -> str:
    """Replace what would drive a terminal or reorder a line by its escape; newlines and tabs stay."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def response_text(exchange: Exchange) -> str:
    """Return the beginning of a response body, without its content coding."""
    decoded = decode_body(exchange.response_headers, exchange.response_body, limit=_DECODED)
    data = readable(decoded.data).encode() if looks_like_messages(decoded.data) else decoded.data
    text = body_text(data)
    return f"{text}\n[{decoded.problem}]" if decoded.problem else text


def body_text(body: bytes) -> str:
    """Return the beginning of a body; JSON is laid out."""
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = body[: 2 * _PRETTY].decode("utf-16", "replace")
        return shortened(text, BODY)
    if len(body) > _PRETTY:
        # Four bytes at most per character, so the beginning that is shown is whole.
        text = clean(body[: 4 * BODY + 3].decode("utf-8", "replace"))[:BODY]
        return f"{text} [… {len(body) - len(text.encode())} more bytes]"
    text = body.decode("utf-8", "replace")
    with contextlib.suppress(NotJson, RecursionError):  # not one JSON document: shown as it is
        text = json.dumps(parse(text), ensure_ascii=False, indent=2)
    return shortened(text, BODY)


def plain_value(value: Any) -> Any:
    """Return a JSON value whose texts can all be encoded, and whose numbers are all finite."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): plain_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(entry) for entry in value]
    return value


def _headers(pairs: HeaderPairs) -> list[list[str]]:
    return [[shortened(name, LINE), shortened(value, LINE)] for name, value in pairs]
