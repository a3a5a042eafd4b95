"""Values that cross module borders: the raw exchange, and the reading of it. Frozen; the exchange is never changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from probe.traces.values import Message

HeaderPairs = tuple[tuple[str, str], ...]
"""Header fields in wire order, names as sent; bytes decoded as ISO 8859-1, so that nothing is lost (RFC 9110 §5.5)."""

ExchangeState = Literal["complete", "cut", "timeout", "unreachable", "client_gone"]
"""``complete``: the message framing ended properly; ``cut``: the connection broke after the request went out;
``timeout``: nothing (more) came in time; ``unreachable``: no connection; ``client_gone``: our client
hung up, or the proxy was stopped."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One arrival of body bytes: ``size`` bytes, ``at`` seconds after the exchange's ``started_at``."""

    size: int
    at: float


@dataclass(frozen=True, slots=True)
class Exchange:
    """One raw HTTP request/response pair as it crossed the proxy.

    Bodies are the message bodies after transfer-coding, before content-coding (a gzip body is stored as gzip).
    ``started_at`` is Unix time in seconds (UTC); ``sent_at``, ``head_at``, ``ended_at`` and the chunks' ``at`` are
    seconds after it on a monotonic clock. ``sizes`` of the chunks add up to ``len(response_body)``. ``redactions``
    counts places where a credential was blotted out before storing.
    """

    id: str
    route_id: str
    trial_id: str | None
    attempt: int
    started_at: float
    method: str
    url: str
    request_headers: HeaderPairs
    request_body: bytes
    http_version: str | None
    status: int | None
    reason: str | None
    response_headers: HeaderPairs
    response_body: bytes
    chunks: tuple[Chunk, ...]
    sent_at: float | None
    head_at: float | None
    ended_at: float | None
    state: ExchangeState
    error: str | None = None
    redactions: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the server reports them; ``None`` where it does not."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One generated token as the server reports it: text, natural-log probability, alternatives (text, logprob)."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


ReadingState = Literal["answer", "error", "empty", "truncated", "malformed", "missing"]
"""``answer``: a completion with text (or reasoning, or a refusal field); ``error``: the server reported an error, in a
status, a body or a stream; ``empty``: a completion without any text; ``truncated``: the stream ended without its
terminator or the bytes broke off; ``malformed``: not what the dialect allows; ``missing``: no response arrived."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The parsed view of a response. Derived: it can be rebuilt from the exchange at any time.

    ``timings`` are server-side durations in seconds under the names ``prompt``, ``generation``, ``queue``, ``total``,
    ``load``. ``documents`` are all JSON objects of the response in order (one for a JSON body, one per event of a
    stream), which signatures are matched against; ``events`` are the SSE event names in order.
    """

    state: ReadingState
    text: str = ""
    reasoning: str = ""
    refusal: str | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    logprobs: tuple[TokenLogprob, ...] | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    model: str | None = None
    response_id: str | None = None
    fingerprint: str | None = None
    provider: str | None = None
    error: str | None = None
    streamed: bool = False
    terminated: bool = True
    documents: tuple[Any, ...] = ()
    events: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BuiltRequest:
    """A request ready to be sent: path below the route's URL, body bytes, and what the backend cannot accept."""

    path: str
    body: bytes
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestReading:
    """The parsed view of a request body: conversation and sampling parameters under the names of ``Sampling``.

    ``sampling`` holds only what the request states. ``extra`` names body keys that may change what the model sees
    (tools, response_format, chat_template_kwargs, ...) so that a scorer can abstain.
    """

    model: str | None
    messages: tuple[Message, ...]
    sampling: Mapping[str, Any]
    stream: bool
    extra: tuple[str, ...] = ()
