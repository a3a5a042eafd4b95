"""What the dialects share in building requests."""

import json
from collections.abc import Mapping
from typing import Any

from probe.errors import WireError
from probe.traces.values import Trace
from probe.wire.backend import Backend

_FIXED = ("model", "messages", "stream")
"""What no addition may change: the conversation is the same for every route (DESIGN §5, 2)."""


def messages_of(trace: Trace) -> list[dict[str, str]]:
    """Return the conversation in the form that all dialects here share."""
    return [{"role": message.role, "content": message.content} for message in trace.messages]


def checked_logprobs(logprobs: int, backend: Backend, dropped: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Return how many alternatives to ask for, and ``dropped`` with ``logprobs`` where the backend gives none."""
    if logprobs <= 0:
        return 0, dropped
    return (logprobs, dropped) if backend.logprobs else (0, (*dropped, "logprobs"))


def additions(body: dict[str, Any], backend: Backend, request: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
    """Merge the backend's additions and then the route's into a body; tables are merged, everything else replaced.

    Raises ``WireError`` where a route would change the conversation.
    """
    for key in _FIXED:
        if key in request:
            raise WireError(f"The request table of a route may not set {key!r}: it is the same for every route.")
    for extra in (backend.request, backend.stream_request if stream else {}, request):
        body = _merged(body, extra)
    return body


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result


def encode(body: Mapping[str, Any]) -> bytes:
    """Return the JSON bytes of a body: UTF-8, no spaces, keys in the order in which they were put in.

    Raises ``WireError`` for values that are no JSON (TOML has dates and NaN).
    """
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise WireError(f"A request cannot be written as JSON: {error}.") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair has no UTF-8; its escape is the only way over the wire.
        return json.dumps(body, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()
