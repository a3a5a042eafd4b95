"""Lets responses with trailers through: mitmproxy 12.2 raises ``NotImplementedError`` at one, and the client hangs."""

from typing import Any

import h11
from mitmproxy.proxy.layers.http import _http1

_Reader: Any = vars(_http1)["ChunkedReader"]


class _WithoutTrailers(_Reader):  # type: ignore[misc]
    """Reads chunked bodies and drops the fields after the last chunk, as a recipient may (RFC 9110 §6.5.1)."""

    def __call__(self, buffer: object) -> object:
        event = super().__call__(buffer)
        return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else event


def drop_trailers() -> None:
    """Make mitmproxy drop the trailers of HTTP/1 messages."""
    vars(_http1)["ChunkedReader"] = _WithoutTrailers
