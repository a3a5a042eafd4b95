"""What an answer says about limits: in its head, and where it is an error in its body.

Spellings, with where they were read:

- ``Retry-After``, seconds or a date: RFC 9110 §10.2.3. ``retry-after-ms`` in milliseconds: openai-python and
  anthropic-sdk-python, ``_base_client.py``. ``x-ms-retry-after-ms``: Microsoft,
  rest/api/cosmos-db/common-cosmosdb-rest-response-headers.
- ``x-ratelimit-remaining-requests``/``-tokens``, ``x-ratelimit-reset-requests``/``-tokens`` as durations (``6m0s``,
  ``20ms``): OpenAI, guides/rate-limits; the same at Groq, console.groq.com/docs/rate-limits, where requests are those
  of the day. Azure writes whole seconds, and -1 where it does not count (Microsoft Q&A 5625878). Cerebras has one set
  each with ``-minute``, ``-hour`` and ``-day`` at the end and seconds such as 11726.28: recorded in several clients'
  tests.
- ``X-RateLimit-Remaining``, ``X-RateLimit-Reset`` (Unix milliseconds), also inside ``error.metadata.headers``, with
  messages such as ``Rate limit exceeded: free-models-per-day``, ``metadata.retry_after_seconds`` and
  ``limit_source: openrouter_free_tier_daily``: OpenRouter, recorded (Gitlawb/openclaude#936, Avarok-Cybersecurity/
  atlas#543).
- ``anthropic-ratelimit-requests-remaining``/``-reset`` and ``-tokens-…`` (RFC 3339): docs.anthropic.com,
  api/rate-limits.
- ``google.rpc.RetryInfo.retryDelay`` and ``QuotaFailure`` with a ``quotaId`` such as ``GenerateRequestsPerDay…``, whose
  delay of some seconds is then wrong: recorded (diegosouzapw/OmniRoute#9504, UKGovernmentBEIS/inspect_ai#5526).
- ``RateLimit: "default";r=50;t=30``: draft-ietf-httpapi-ratelimit-headers-10, and the three fields of draft 06.

Where several say something, the longest wait and the smallest remainder count. Nonsense is ignored, never an error.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from probe.runs.pacing.durations import bounded, http_date, number, span, until
from probe.wire.content import decoded_body
from probe.wire.values import Exchange, HeaderPairs

_LARGEST_BODY = 1 << 20
_NODES = 2000
"""Values of an error's body that are looked at."""

_LEFT_MOST = 2**53

_DAY = re.compile(r"(?i)per[-_ ]?day|daily|\b[RT]PD\b")
_MINUTE = re.compile(r"(?i)per[-_ ]?min|\b[RT]PM\b")
_LIMITED = frozenset({402, 403, 429})
"""Statuses that can mean a limit of the day; a server that is down once a day is something else."""

_AGAIN = re.compile(
    r"(?i)\b(?:try again|retry(?: again)?|wait)[\w ,']{0,20}? (?:in|after|for)?\s*"
    r"((?:\d[\d.]*\s*(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)\b\s*){1,4}"
    r"|(?:\d[\d.]*(?:ms|[smhd])){1,4})"
)
_ITEM = re.compile(r'(?:"([^"]*)"|([\w*.-]+))((?:\s*;\s*\w+\s*=\s*(?:"[^"]*"|[^;,]*))*)')
_PARAMETER = re.compile(r';\s*(\w+)\s*=\s*(?:"([^"]*)"|([^;,]*))')


@dataclass(frozen=True, slots=True)
class Told:
    """What a server says. Waits are in seconds from when the answer came; ``None``: it does not say.

    ``retry_after_s`` is when to ask again. What is left of a limit holds until its reset. ``until_tomorrow``: a limit
    of the day is used up, and how long that lasts is told by a reset at most.
    """

    retry_after_s: float | None = None
    requests_left: int | None = None
    requests_reset_s: float | None = None
    tokens_left: int | None = None
    tokens_reset_s: float | None = None
    until_tomorrow: bool = False


def told_of(exchange: Exchange, now: float) -> Told:
    """Read what an exchange says about limits; ``now`` is the Unix time at which its answer came. Never raises."""
    told = _of_headers(exchange.response_headers, now)
    may_be_of_the_day = exchange.status is None or exchange.status < 400 or exchange.status in _LIMITED
    for error in _errors(exchange):
        told = _with_error(told, error, now)
    return told if may_be_of_the_day else replace(told, until_tomorrow=False)


def _of_headers(headers: HeaderPairs, now: float) -> Told:
    values: dict[str, str] = {}
    for field, value in headers:
        name = field.lower()
        values[name] = f"{values[name]}, {value}" if name in values else value
    requests = _kind(values, now, "requests")
    tokens = _kind(values, now, "tokens")
    told = Told(_retry_after(values, now), *requests, *tokens)
    left, reset = _generic(values, now)
    return replace(
        told,
        requests_left=_least(told.requests_left, left),
        requests_reset_s=_longest(told.requests_reset_s, reset),
    )


def _retry_after(values: Mapping[str, str], now: float) -> float | None:
    waits = [
        bounded((number(values.get(name)) or 0) / 1000 or None) for name in ("retry-after-ms", "x-ms-retry-after-ms")
    ]
    plain = values.get("retry-after")
    if plain is not None:
        seconds = span(plain)
        if seconds is None and (at := http_date(plain)) is not None:
            # By the server's own clock, where it tells that.
            here = http_date(values.get("date", ""))
            seconds = bounded(max(0.0, at - (now if here is None else here)))
        waits.append(seconds)
    return _longest(*waits)


def _kind(values: Mapping[str, str], now: float, kind: str) -> tuple[int | None, float | None]:
    """Return what is left of requests or tokens, and when that is reset."""
    left: int | None = None
    reset: float | None = None
    anthropic = f"anthropic-ratelimit-{kind}"
    spellings = [(f"x-ratelimit-remaining-{kind}{end}", f"x-ratelimit-reset-{kind}{end}") for end in _ENDS]
    spellings.append((f"{anthropic}-remaining", f"{anthropic}-reset"))
    if kind == "tokens":
        spellings += [
            (f"anthropic-ratelimit-{side}-tokens-remaining", f"anthropic-ratelimit-{side}-tokens-reset")
            for side in ("input", "output")
        ]
    for remaining, when in spellings:
        here, at = _left(values.get(remaining)), until(values.get(when), now)
        if here is not None and (left is None or here < left):
            left, reset = here, at
        elif here == left and here is not None:
            reset = _longest(reset, at)
    return left, reset


_ENDS = ("", "-minute", "-hour", "-day")


def _generic(values: Mapping[str, str], now: float) -> tuple[int | None, float | None]:
    """Return what is left by fields that do not say of what: requests, then."""
    found: list[tuple[int, float | None]] = []
    for prefix in ("x-ratelimit", "ratelimit", "x-rate-limit"):
        left = _left(values.get(f"{prefix}-remaining"))
        if left is not None:
            found.append((left, until(values.get(f"{prefix}-reset"), now)))
    policies = dict(_items(values.get("ratelimit-policy", "")))
    for name, parameters in _items(values.get("ratelimit", "")):
        unit = policies.get(name, {}).get("qu", "requests")
        left = _left(parameters.get("r", parameters.get("remaining")))
        if left is not None and unit == "requests":
            found.append((left, span(parameters.get("t", parameters.get("reset")))))
    if not found:
        return None, None
    least = min(left for left, _ in found)
    return least, _longest(*(reset for left, reset in found if left == least))


def _items(field: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the items of a structured field (RFC 9651) with their parameters; older drafts have parameters alone."""
    if len(field) > 2000:
        return
    if re.match(r"\s*limit\s*=", field):
        yield "", {key.strip(): value.strip() for key, _, value in (part.partition("=") for part in field.split(","))}
        return
    for found in _ITEM.finditer(field):
        name = found[1] if found[1] is not None else found[2]
        yield name, {key: quoted or plain.strip() for key, quoted, plain in _PARAMETER.findall(found[3])}


def _left(text: object) -> int | None:
    value = number(text)
    return None if value is None or value < 0 else int(min(value, _LEFT_MOST))


def _errors(exchange: Exchange) -> Iterator[Any]:
    """Yield the errors in a body. Nothing that a model wrote is looked at: it may say anything of waiting."""
    body = exchange.response_body
    failed = exchange.status is not None and exchange.status >= 400
    if not body or (not failed and b'"error"' not in body) or len(body) > _LARGEST_BODY:
        return
    text = decoded_body(exchange, limit=_LARGEST_BODY).data.decode("utf-8", "replace")
    whole = _json(text)
    pieces = [whole] if whole is not None else [_json(line) for line in _lines(text)]
    known = False
    for piece in pieces:
        for document in piece if isinstance(piece, list) else [piece]:
            if not isinstance(document, Mapping):
                continue
            known = True
            if failed:
                yield document
            elif document.get("error"):
                yield document["error"]
    if failed and not known:
        yield text[:2000]


def _lines(text: str) -> Iterator[str]:
    for raw in text.splitlines():
        line = raw.removeprefix("data:").strip()
        if line.startswith("{") and '"error"' in line:
            yield line


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _with_error(told: Told, error: Any, now: float) -> Told:
    waits: list[float | None] = [told.retry_after_s]
    google_day, named_day = False, False
    for key, value in _walk(error):
        match key.lower():
            case "retry_after_seconds" | "retry_after" | "retry-after" | "retrydelay" | "retryafter":
                waits.append(span(value))
            case "retry_after_ms" | "retry-after-ms":
                waits.append(span(f"{value}ms"))
            case "quotaid" | "quota_limit":
                google_day = google_day or bool(_DAY.search(str(value)))
            case "headers" if isinstance(value, Mapping):
                inner = _of_headers(tuple((str(k), str(v)) for k, v in value.items()), now)
                waits.append(inner.retry_after_s)
                told = _joined(told, inner)
            case _ if isinstance(value, str):
                # One that names both kinds does not say which it was.
                named_day = named_day or bool(_DAY.search(value[:2000]) and not _MINUTE.search(value[:2000]))
                waits += [span(found) for found in _AGAIN.findall(value[:2000])]
    wait = _longest(*waits)
    # "On requests per day: … try again in 7m12s" is a bucket that fills slowly, and the wait is true.
    return replace(
        told,
        retry_after_s=None if google_day else wait,
        until_tomorrow=told.until_tomorrow or google_day or (named_day and wait is None),
    )


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield keys and values of an error in all depths, also of JSON inside a text, as routers pass on what they got."""
    waiting: list[tuple[str, Any]] = [("", value)]
    for _ in range(_NODES):
        if not waiting:
            return
        key, current = waiting.pop()
        yield key, current
        if isinstance(current, str) and current.lstrip()[:1] in {"{", "["}:
            current = _json(current)
        if isinstance(current, Mapping):
            waiting.extend((str(name), inner) for name, inner in current.items())
        elif isinstance(current, list):
            waiting.extend((key, inner) for inner in current)


def _joined(one: Told, other: Told) -> Told:
    """Return what two say together of what is left."""
    return replace(
        one,
        requests_left=_least(one.requests_left, other.requests_left),
        requests_reset_s=_longest(one.requests_reset_s, other.requests_reset_s),
        tokens_left=_least(one.tokens_left, other.tokens_left),
        tokens_reset_s=_longest(one.tokens_reset_s, other.tokens_reset_s),
    )


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _longest(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)
