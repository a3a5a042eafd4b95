"""One exchange while it is still crossing the proxy."""

import re
import time
from dataclasses import dataclass, field

from mitmproxy import http

from probe.ids import new_id
from probe.proxy.codings import clean_body
from probe.proxy.redact import Redactor
from probe.proxy.table import Destination
from probe.proxy.tickets import NOT_FOUND, TLS_FAILED, Ticket
from probe.wire.values import Chunk, Exchange, ExchangeState, HeaderPairs

_HUNG_UP = "client disconnected"

_NO_NAME = re.compile(r"\[Errno -\d+\]|nodename nor servname|getaddrinfo failed")
"""How errors of ``getaddrinfo`` read (RFC 3493 §6.1): on Linux its codes are the only negative ones."""


def header_pairs(headers: http.Headers) -> HeaderPairs:
    """Return header fields in wire order, bytes as ISO 8859-1, so that nothing is lost."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.fields)


@dataclass(slots=True)
class Recording:
    """Collects what a flow sends and receives; ``finish`` freezes it into an ``Exchange`` without secrets.

    ``broken`` is set where mitmproxy does not tell how an exchange ended: a state and a sentence.
    """

    flow: http.HTTPFlow
    destination: Destination
    ticket: Ticket | None
    redactor: Redactor
    broken: tuple[ExchangeState, str] | None = None
    tls_failed: bool = False
    started_at: float = field(default_factory=time.time)
    _zero: float = field(default_factory=time.monotonic)
    _body: bytearray = field(default_factory=bytearray)
    _chunks: list[Chunk] = field(default_factory=list)
    _head_at: float | None = None
    _head: HeaderPairs = ()

    def _now(self) -> float:
        return time.monotonic() - self._zero

    def head(self, response: http.Response) -> None:
        """Note the arrival of the response head, before anything is done to it."""
        self._head_at = self._now()
        self._head = header_pairs(response.headers)

    def chunk(self, data: bytes) -> bytes:
        """Keep a copy of body bytes on their way to the client; mitmproxy calls it with ``b""`` at the end."""
        if data:
            self._body += data
            self._chunks.append(Chunk(len(data), self._now()))
        return data

    def connected(self) -> float | None:
        """Return since when the request has had its connection, on the monotonic clock; ``None``: it has none.

        mitmproxy puts a connection into the flow only once it is set up, with TLS. Any thread may ask.
        """
        since = self._sent_at(float("inf"))
        return None if since is None else self._zero + since

    def ends_with_connection(self) -> bool:
        """Whether nothing but the end of the connection tells the end of the body (RFC 9112 §6.3, 8)."""
        return not {"content-length", "transfer-encoding"} & {name.lower() for name, _ in self._head}

    def _outcome(self) -> tuple[ExchangeState, str | None]:
        """Name how the exchange ended, and what was wrong."""
        if self.broken is not None:
            state, message = self.broken
        elif self.flow.error is None:
            return "complete", None
        else:
            # Texts that quote the upstream begin otherwise, so it cannot pretend that our client left.
            message = self.flow.error.msg
            if message.lower().startswith(_HUNG_UP):
                state = "client_gone"
            elif self.connected() is not None:
                state = "cut"
            else:
                state, message = "unreachable", self._why_unreachable(message)
        if self.ticket is not None and self.ticket.timed_out:
            # Without a connection nothing went out: that is no answer that is late, but nobody who could answer.
            state = "unreachable" if self.connected() is None else "timeout"
            message = self.ticket.waited or message
        return state, self.redactor.text(message)

    def _why_unreachable(self, message: str) -> str:
        if self.tls_failed:
            return TLS_FAILED + message
        return NOT_FOUND + message if _NO_NAME.search(message) else message

    def _sent_at(self, latest: float) -> float | None:
        """Return when the request went out: a connection opened for it delays it, on an open one it goes at once."""
        connection = self.flow.server_conn
        ready = connection.timestamp_tls_setup or connection.timestamp_tcp_setup
        return None if ready is None else min(max(0.0, ready - self.started_at), latest)

    def finish(self) -> Exchange:
        """Freeze what was recorded."""
        ended_at = self._now()
        state, error = self._outcome()
        request, response = self.flow.request, self.flow.response if self._head_at is not None else None
        sent = header_pairs(request.headers)
        request_headers, masked = self.redactor.headers(sent)
        request_body, in_request = clean_body(self.redactor, sent, request.raw_content or b"")
        response_headers, masked_back = self.redactor.headers(self._head)
        response_body, in_response = clean_body(self.redactor, self._head, bytes(self._body))
        if len(response_body) != len(self._body):
            # Compressed anew without a secret: the arrivals no longer fit, so the body counts as one.
            self._chunks = [Chunk(len(response_body), self._chunks[-1].at)]
        return Exchange(
            id=new_id(),
            route_id=self.destination.target.route_id,
            trial_id=self.ticket.trial_id if self.ticket else None,
            attempt=self.ticket.attempt if self.ticket else 1,
            started_at=self.started_at,
            method=request.method,
            url=self.redactor.text(self.destination.url),
            request_headers=request_headers,
            request_body=request_body,
            http_version=response.http_version if response else None,
            status=response.status_code if response else None,
            reason=self.redactor.latin(response.reason) if response else None,
            response_headers=response_headers,
            response_body=response_body,
            chunks=tuple(self._chunks),
            sent_at=self._sent_at(ended_at if self._head_at is None else self._head_at),
            head_at=self._head_at,
            ended_at=ended_at,
            state=state,
            error=error,
            redactions=masked + masked_back + in_request + in_response,
        )
