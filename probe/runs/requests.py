"""What a trace becomes on a route."""

from probe.config import Route
from probe.traces.values import Trace
from probe.wire.dialects import dialect
from probe.wire.values import BuiltRequest

LOGPROBS = 0
"""Alternatives asked for per token; hosted routes reveal nothing more by default."""


def build_request(route: Route, trace: Trace) -> BuiltRequest:
    """Return what a trace becomes on a route; the same for every repeat."""
    return dialect(route.backend.dialect).build(
        trace,
        model=route.model,
        stream=route.stream,
        backend=route.backend,
        request=route.request,
        logprobs=LOGPROBS,
    )
