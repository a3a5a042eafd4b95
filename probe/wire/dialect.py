"""What a dialect does: the seam between wire formats and everything else."""

from collections.abc import Mapping
from typing import Any, Protocol

from probe.traces.values import Trace
from probe.wire.backend import Backend
from probe.wire.values import BuiltRequest, Exchange, Reading, RequestReading

DIALECT_NAMES = (
    "openai-chat",
    "openai-completions",
    "openai-responses",
    "ollama-chat",
    "ollama-generate",
    "anthropic-messages",
    "gemini",
    "bedrock-converse",
)
"""All wire formats that there is code for; backend files may name these only."""

ONE_TEXT = frozenset({"openai-completions", "ollama-generate"})
"""Dialects whose request holds one text, for which a chat template has to write the conversation."""


class Dialect(Protocol):
    """One wire format."""

    name: str

    def build(
        self,
        trace: Trace,
        *,
        model: str,
        stream: bool,
        backend: Backend,
        request: Mapping[str, Any],
        logprobs: int,
        prompt: str | None = None,
    ) -> BuiltRequest:
        """Build the request that carries a trace over a route; the same arguments give the same bytes.

        ``request`` is the route's own addition to the body and goes before the backend's. ``logprobs`` asks for so many
        alternatives per token, 0 for none. ``prompt`` is the conversation as the weights' chat template writes it, for
        the dialects that take one text; the others do not look at it. What the backend cannot take is named in
        ``dropped``. Raises ``WireError`` where the additions would change the conversation, the dialect cannot carry
        it, or a value is no JSON.
        """
        ...

    def read(self, exchange: Exchange) -> Reading:
        """Read a response. Never raises: what cannot be read is a state, with a sentence in ``problems``."""
        ...

    def read_request(self, body: bytes, path: str = "") -> RequestReading:
        """Read a request body of any client. Raises ``WireError`` where it is no request of this dialect.

        ``path`` is the path or the URL that it went to: some dialects name the model there, and whether to stream.
        """
        ...
