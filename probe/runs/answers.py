"""Which exchanges answer a trial; and of those that do not, the named reason and the provider's own words.

What the catalogue declares as a block **is** an answer, whatever its status; so is half an answer, because it was paid
for and because a platform that cuts streams looks exactly like this; and so is a refusal of the request that nobody can
explain, because it may be a block of a kind that nobody has described yet. It is counted as an error, and never sent
again. No answer is what has a reason of its own: a limit, a fault, a key, a model, credit, an account, a region.
"""

from dataclasses import dataclass, field
from typing import Literal

from probe.proxy.tickets import NOT_FOUND, TLS_FAILED
from probe.runs import words as said
from probe.runs.words import Words, words_of
from probe.store.rows import TrialState
from probe.wire.backend import Backend
from probe.wire.dialects import dialect
from probe.wire.signatures import CANNED, match_signatures
from probe.wire.values import Exchange, Reading

Reason = Literal[
    "",
    "rate_limited",
    "daily_limit",
    "overloaded",
    "unreachable",
    "dns",
    "tls",
    "budget",
    "interrupted",
    "stopped",
    "credit",
    "timeout",
    "reset",
    "key_refused",
    "unknown_model",
    "region",
    "account",
    "bad_request",
    "malformed",
]
"""Why a trial has no answer, in one word; empty where it has one."""

OPEN = frozenset[Reason](
    (
        *("rate_limited", "daily_limit", "overloaded", "unreachable", "dns", "tls"),
        *("budget", "interrupted", "stopped", "credit"),
    )
)
"""Reasons whose trials stay ``planned``: nothing was answered and nothing billed, and the next start sends them."""

UNANSWERED: frozenset[Reason] = frozenset({"timeout", "reset"})
"""The request went out and nothing came back: it may have been billed."""

RETRIED: frozenset[Reason] = frozenset({"rate_limited", "overloaded", "unreachable", "dns", "tls"})
"""What is tried again by itself."""

ROUTE_WIDE: frozenset[Reason] = frozenset({"key_refused", "unknown_model", "region", "account", "credit"})
"""What no trial of the route can get past."""

Kind = Literal["answered", "limited", "overloaded", "fault", "cancelled"]

_KINDS: dict[Reason, Kind] = {
    "rate_limited": "limited",
    "daily_limit": "limited",
    "overloaded": "overloaded",
    "unreachable": "fault",
    "dns": "fault",
    "tls": "fault",
    "timeout": "fault",
    "reset": "fault",
    "malformed": "fault",
    "interrupted": "cancelled",
}
_BUSY = frozenset({408, 409, 423, 425})
_NOWHERE = frozenset({404, 405, 410})
_VAGUE = frozenset({400, 403, 404, 422})
"""Statuses that providers use for all kinds of things; others (424, 446, 451) are gateways' own for blocks."""

_EMPTY = Reading(state="missing")


@dataclass(frozen=True, slots=True)
class Classified:
    """What an exchange means for its trial. ``words`` are the provider's (or the connection's) own, short.

    ``blocked``: the answer is a declared block. ``url_wrong``: there is nothing where the route points to.
    """

    reason: Reason = ""
    words: str = ""
    status: int | None = None
    blocked: bool = False
    url_wrong: bool = False
    reading: Reading = field(default=_EMPTY, repr=False)

    @property
    def answered(self) -> bool:
        """Whether the exchange is the trial's answer."""
        return not self.reason

    @property
    def unexplained(self) -> bool:
        """Whether the answer is an HTTP error that the catalogue does not know."""
        return self.answered and not self.blocked and (self.status or 0) >= 400

    @property
    def state(self) -> TrialState:
        """What the trial is after this exchange, if no other attempt follows."""
        return "answered" if self.answered else "planned" if self.reason in OPEN else "failed"

    @property
    def kind(self) -> Kind:
        """What the pace of the route makes of it."""
        return _KINDS.get(self.reason, "answered")

    @property
    def stops_route(self) -> bool:
        """Whether no other trial of the route could fare better."""
        return self.reason in ROUTE_WIDE or self.url_wrong


def classify(exchange: Exchange, backend: Backend) -> Classified:
    """Say what an exchange means for its trial. Never raises."""
    status = exchange.status
    if exchange.state == "client_gone":
        # It was us who left (Ctrl-C, the proxy was stopped): half an answer is not the route's then.
        return Classified("interrupted", exchange.error or "", status)
    if status is None or status < 200:
        return Classified(_without_head(exchange), exchange.error or "", None)
    reading = dialect(backend.dialect).read(exchange)
    declared = any(
        not match.signature.startswith(CANNED) and (match.author == "platform" or match.mechanism == "declared_block")
        for match in match_signatures(backend, exchange, reading)
    )
    if declared and status != 401:
        return Classified(status=status, blocked=True, reading=reading)
    if status < 300:
        return _of_success(exchange, reading)
    words = words_of(exchange, reading)
    if status < 400:
        return Classified("bad_request", words.short, status, url_wrong=True, reading=reading)
    reason = _reason(status, words)
    return Classified(
        reason,
        words.short or (exchange.reason or "").strip(),
        status,
        url_wrong=reason == "bad_request" and status in _NOWHERE,
        reading=reading,
    )


def _without_head(exchange: Exchange) -> Reason:
    if exchange.state == "timeout":
        return "timeout"
    if exchange.state != "unreachable":
        return "reset"
    error = exchange.error or ""
    return "dns" if error.startswith(NOT_FOUND) else "tls" if error.startswith(TLS_FAILED) else "unreachable"


def _of_success(exchange: Exchange, reading: Reading) -> Classified:
    """Read a 2xx: text is an answer, however it ended; an error without any is not."""
    status, words = exchange.status, exchange.error or ""
    reason: Reason = ""
    if reading.text or reading.reasoning or reading.refusal:
        pass
    elif reading.state == "error" or _is_no_answer(exchange, reading):
        said_ = words_of(exchange, reading)
        words = said_.short
        malformed = said_.page or reading.state == "malformed"
        reason = "malformed" if malformed else _reason(said_.status or 0, said_)
    elif exchange.state != "complete" and not _began(exchange.response_body):
        reason = "timeout" if exchange.state == "timeout" else "reset"
    return Classified(reason, words if reason else "", status, reading=reading)


def _is_no_answer(exchange: Exchange, reading: Reading) -> bool:
    """Whether a whole body is not of the dialect. An empty one is: a platform may block without a word."""
    return reading.state == "malformed" and exchange.state == "complete" and bool(exchange.response_body)


def _began(body: bytes) -> bool:
    """Whether more came than white space and the comments that keep an event stream open (": PROCESSING")."""
    return any(line.strip() and not line.startswith(b":") for line in body.splitlines())


def _reason(status: int, words: Words) -> Reason:
    """Return why an error is no answer, or nothing where it is one; ``status`` 0 where only words say it."""
    for reason, holds in (
        ("region", words.say(said.REGION)),
        ("account", words.say(said.ACCOUNT)),
        ("credit", status == 402 or words.say(said.CREDIT)),
        ("key_refused", status == 401),
        ("rate_limited", status == 429),
        ("overloaded", status >= 500 or status in _BUSY),
        # From here on words decide. Those of a filter go first: "invalid_request_error: Content Exists Risk".
        ("", words.say(said.POLICY)),
        ("unknown_model", status in {0, 400, 403, *_NOWHERE} and not words.page and words.say(said.MODEL)),
        ("key_refused", status in {0, 400, 403, 404} and not words.page and words.say(said.KEY)),
        ("rate_limited", status in {0, 400, 403} and words.say(said.RATE)),
        ("bad_request", status in _NOWHERE or status in {413, 414, 415, 431}),
        ("bad_request", bool(words.param) or words.say(said.REQUEST)),
        # A failure that a 200 reports without any text: somebody's server, whatever the words.
        ("overloaded", status == 0 or (status in _VAGUE and words.say(said.BUSY))),
    ):
        if holds:
            return reason  # type: ignore[return-value]
    return ""
