"""What a trace becomes on a route."""

from collections.abc import Callable

from probe.config import Route
from probe.errors import ConfigError, WireError
from probe.traces.values import Trace
from probe.wire.dialect import ONE_TEXT
from probe.wire.dialects import dialect
from probe.wire.templates import load_template
from probe.wire.values import BuiltRequest

Requests = Callable[[Route, Trace], BuiltRequest]
"""Gives the bytes that carry a trace over a route."""

LOGPROBS = 0
"""Alternatives asked for per token; hosted routes reveal nothing more by default."""


def build_request(route: Route, trace: Trace) -> BuiltRequest:
    """Return what a trace becomes on a route; the same for every repeat.

    Raises ``WireError`` where the route's dialect cannot carry the conversation, or its chat template cannot write it,
    and ``ConfigError`` where the template cannot be read.
    """
    try:
        return dialect(route.backend.dialect).build(
            trace,
            model=route.model,
            stream=route.stream,
            backend=route.backend,
            request=route.request,
            logprobs=LOGPROBS,
            prompt=_prompt(route, trace),
        )
    except WireError as error:
        raise WireError(f"Route {route.name!r}: {error}") from None


def _prompt(route: Route, trace: Trace) -> str | None:
    """Return the conversation as the weights read it, where the dialect takes one text and the route has a template."""
    if route.template is None or route.backend.dialect not in ONE_TEXT:
        return None
    try:
        template = load_template(route.template)
    except ConfigError as error:
        raise ConfigError(f"Route {route.name!r}: {error}") from None
    return template.render(trace)
