"""One exchange while it is still crossing the proxy."""

import gzip
import time
import zlib
from dataclasses import dataclass, field

from mitmproxy import http

from probe.ids import new_id
from probe.proxy.redact import Redactor
from probe.proxy.table import Destination
from probe.proxy.tickets import Ticket
from probe.wire.values import Chunk, Exchange, ExchangeState, HeaderPairs

_HUNG_UP = "client disconnected"


def header_pairs(headers: http.Headers) -> HeaderPairs:
    """Return header fields in wire order, bytes as ISO 8859-1, so that nothing is lost."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.fields)


@dataclass(slots=True)
class Recording:
    """Collects what a flow sends and receives; ``finish`` freezes it into an ``Exchange`` without secrets."""

    flow: http.HTTPFlow
    destination: Destination
    ticket: Ticket | None
    redactor: Redactor
    started_at: float = field(default_factory=time.time)
    _zero: float = field(default_factory=time.monotonic)
    _body: bytearray = field(default_factory=bytearray)
    _chunks: list[Chunk] = field(default_factory=list)
    _head_at: float | None = None
    _sent_at: float | None = None

    def _now(self) -> float:
        return time.monotonic() - self._zero

    def head(self) -> None:
        """Note the arrival of the response head."""
        self._head_at = self._now()
        connection = self.flow.server_conn
        ready = connection.timestamp_tls_setup or connection.timestamp_tcp_setup
        # A connection opened for this request delays it; on a reused one the request goes out at once.
        self._sent_at = max(0.0, (ready or 0.0) - self.started_at)

    def chunk(self, data: bytes) -> bytes:
        """Keep a copy of body bytes on their way to the client; mitmproxy calls it with ``b""`` at the end."""
        if data:
            self._body += data
            self._chunks.append(Chunk(len(data), self._now()))
        return data

    def state(self) -> ExchangeState:
        """Name how the exchange ended."""
        error = self.flow.error
        if error is None:
            return "complete"
        if self.ticket is not None and self.ticket.timed_out:
            return "timeout"
        if _HUNG_UP in error.msg.lower():
            return "client_gone"
        return "unreachable" if self.flow.server_conn.timestamp_tcp_setup is None else "cut"

    def finish(self) -> Exchange:
        """Freeze what was recorded."""
        request, response = self.flow.request, self.flow.response if self._head_at is not None else None
        if response is not None and not self._body and response.raw_content:
            self.chunk(response.raw_content)
        request_headers, masked = self.redactor.headers(header_pairs(request.headers))
        request_body, in_request = self.redactor.body(request.raw_content or b"")
        response_headers, masked_back = self.redactor.headers(header_pairs(response.headers) if response else ())
        response_body, in_response = self._clean_body(response)
        place = self.destination
        error = self.flow.error
        return Exchange(
            id=new_id(),
            route_id=place.target.route_id,
            trial_id=self.ticket.trial_id if self.ticket else None,
            attempt=self.ticket.attempt if self.ticket else 1,
            started_at=self.started_at,
            method=request.method,
            url=self.redactor.text(f"{place.scheme}://{place.host}:{place.port}{place.path}"),
            request_headers=request_headers,
            request_body=request_body,
            http_version=response.http_version if response else None,
            status=response.status_code if response else None,
            reason=response.reason if response else None,
            response_headers=response_headers,
            response_body=response_body,
            chunks=tuple(self._chunks),
            sent_at=self._sent_at,
            head_at=self._head_at,
            ended_at=self._now(),
            state=self.state(),
            error=self.redactor.text(error.msg) if error else None,
            redactions=masked + masked_back + in_request + in_response,
        )

    def _clean_body(self, response: http.Response | None) -> tuple[bytes, int]:
        """Blot out secrets, also where the body is compressed: then the clean body is compressed anew.

        That is the one case in which stored bytes differ in more than the blots from those that crossed; sizes of the
        chunks no longer fit then, so the body counts as one chunk.
        """
        raw = bytes(self._body)
        clean, count = self.redactor.body(raw)
        coding = response.headers.get("content-encoding", "").lower() if response else ""
        if coding not in {"gzip", "deflate"} or not raw:
            return clean, count
        try:
            plain = zlib.decompressobj(wbits=47).decompress(raw)
        except zlib.error:
            return clean, count
        plain, hidden = self.redactor.body(plain)
        if not hidden:
            return clean, count
        packed = gzip.compress(plain) if coding == "gzip" else zlib.compress(plain)
        self._chunks = [Chunk(len(packed), self._chunks[-1].at)]
        return packed, count + hidden
