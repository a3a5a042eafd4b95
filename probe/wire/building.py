"""What the dialects share in building requests."""

import json
from collections.abc import Mapping
from typing import Any

from probe.errors import WireError
from probe.traces.values import Message, Trace
from probe.wire.backend import Backend

_FIXED = ("model", "messages", "stream")
"""What no addition may change: the conversation is the same for every route (DESIGN §5, 2)."""


def messages_of(trace: Trace) -> list[dict[str, str]]:
    """Return the conversation in the form that all chat dialects share."""
    return [{"role": message.role, "content": message.content} for message in trace.messages]


def system_and_turns(trace: Trace, dialect: str, *, later: bool = False) -> tuple[str | None, tuple[Message, ...]]:
    """Return system text and turns for a dialect that has one place for system text, before all turns.

    ``later``: system text may also stand among the turns. Raises ``WireError`` for a conversation that does not fit:
    moving or joining system text would change it.
    """
    first, *rest = trace.messages
    system = first.content if first.role == "system" else None
    turns = trace.messages if system is None else tuple(rest)
    if not later and any(message.role == "system" for message in turns):
        raise WireError(
            f"Trace {trace.name!r} cannot be sent in the dialect {dialect}: it takes one system text before the first "
            "turn, and the trace has system text elsewhere."
        )
    if not turns:
        raise WireError(
            f"Trace {trace.name!r} cannot be sent in the dialect {dialect}: it has no turn after the system text."
        )
    return system, turns


def one_text(trace: Trace, prompt: str | None, dialect: str) -> str:
    """Return the rendered conversation for a dialect that takes one text.

    Raises ``WireError`` where there is none: a bare text is not the conversation that the other routes get.
    """
    if prompt is None:
        raise WireError(
            f"Trace {trace.name!r} cannot be sent in the dialect {dialect}: it takes one text, so set `template` on "
            "the route to the chat template of the weights (a Jinja file, or their tokenizer_config.json)."
        )
    return prompt


def placed(sampling: Mapping[str, Any], below: str = "") -> dict[str, Any]:
    """Return sampling parameters at their places in a body.

    A name with dots is a path from the top of the body (``additionalModelRequestFields.top_k``); one without stands in
    the table ``below``, or at the top where the dialect has none.
    """
    body: dict[str, Any] = {below: {}} if below else {}
    for name, value in sampling.items():
        *path, last = (name if "." in name or not below else f"{below}.{name}").split(".")
        inner = body
        for key in path:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise WireError(f"The parameter name {name!r} of a backend leads through {key!r}, which has a value.")
        inner[last] = value
    return body


def checked_logprobs(logprobs: int, backend: Backend, dropped: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Return how many alternatives to ask for, and ``dropped`` with ``logprobs`` where the backend gives none."""
    if logprobs <= 0:
        return 0, dropped
    return (logprobs, dropped) if backend.logprobs else (0, (*dropped, "logprobs"))


def without_logprobs(logprobs: int, dropped: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``dropped`` for a dialect that has no log-probabilities at all."""
    return (*dropped, "logprobs") if logprobs > 0 else dropped


def additions(
    body: dict[str, Any],
    backend: Backend,
    request: Mapping[str, Any],
    *,
    stream: bool,
    fixed: tuple[str, ...] = _FIXED,
) -> dict[str, Any]:
    """Merge the backend's additions and then the route's into a body; tables are merged, everything else replaced.

    ``fixed`` are the keys that carry the conversation. Raises ``WireError`` where a route would change it.
    """
    for key in fixed:
        if key in request:
            raise WireError(f"The request table of a route may not set {key!r}: it is the same for every route.")
    for extra in (backend.request, backend.stream_request if stream else {}, request):
        # TOML has no null, so an empty table takes a field out.
        body = {key: value for key, value in merged(body, extra).items() if extra.get(key) != {}}
    return body


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return two tables in one; what stands in both comes from ``above``, and tables in both are merged as well."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
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
