"""What lab platforms refuse before they act: wrong keys, spent credits, requests and tokens over their limits.

The answers are those of each front's vendor (``refusals.toml``). Windows are those of the clock: whole minutes and days
of UTC. The clock is handed in, so that tests need not wait.
"""

import json
import math
import re
import time
import tomllib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from probe.lab.answer import Answer
from probe.lab.fronts.base import FrontSettings
from probe.lab.fronts.openrouter import OpenRouterFront
from probe.lab.platform_spec import LabLimits, Platform
from probe.lab.providers import Provider
from probe.lab.routing import allowed, asked_for

_MINUTE, _DAY = 60, 86_400
_CHARACTERS = 4
"""Characters of a request that count as a token before the upstream has counted."""

_KEPT = 10_000
"""Generations that a platform remembers."""

_SLOT = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a front refuses for one reason; templates with slots, see ``refusals.toml``."""

    front: str
    on: str
    status: int
    body: str
    source: str
    confidence: str
    headers: tuple[tuple[str, str], ...] = ()


def _read_refusals() -> Mapping[tuple[str, str], Refusal]:
    entries = tomllib.loads(Path(__file__).with_name("refusals.toml").read_text(encoding="utf-8"))["refusals"]
    made = [Refusal(**{**entry, "headers": tuple(entry.get("headers", {}).items())}) for entry in entries]
    return {(refusal.front, refusal.on): refusal for refusal in made}


REFUSALS = _read_refusals()
"""Refusals by front and reason. A front without one refuses as ``openai`` does."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer as a router's statistics tell of it. Times are in milliseconds, ``at`` is Unix time in seconds."""

    id: str
    at: float
    provider: Provider
    streamed: bool
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float
    generation_ms: float

    @property
    def cost(self) -> float:
        """What it cost in US dollars."""
        return self.provider.cost(self.prompt_tokens, self.completion_tokens)


@dataclass(slots=True)
class _Account:
    """What a platform has counted."""

    minute: int = -1
    day: int = -1
    requests: int = 0
    requests_today: int = 0
    tokens: int = 0
    under_way: int = 0
    taken: int = 0
    spent_usd: float = 0.0
    generations: dict[str, Generation] = field(default_factory=dict)


class Limiter:
    """The limits of all platforms of a lab; ``clock`` tells Unix time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._accounts: dict[str, _Account] = {}

    def _account(self, platform: Platform) -> _Account:
        account = self._accounts.setdefault(platform.name, _Account())
        now = self.clock()
        if account.minute != int(now // _MINUTE):
            account.minute, account.requests, account.tokens = int(now // _MINUTE), 0, 0
        if account.day != int(now // _DAY):
            account.day, account.requests_today = int(now // _DAY), 0
        return account

    async def refused(self, platform: Platform, request: web.Request, body: Mapping[str, Any]) -> web.Response | None:
        """Return the answer to a request that is not let in, else ``None``: then ``settle`` has to follow."""
        account = self._account(platform)
        reason = (
            bad_key(platform.limits, request)
            or platform.limits.closed
            or _exhausted(platform, account, body)
            or ("no_provider" if platform.front == "openrouter" and not allowed(platform, body) else None)
        )
        if reason is not None:
            return self._answer(platform, account, reason, request, body)
        account.requests += 1
        account.requests_today += 1
        account.under_way += 1
        return None

    def settle(self, platform: Platform, answer: Answer, provider: Provider) -> None:
        """Count what an answer took, and give its slot back."""
        account = self._account(platform)
        account.under_way -= 1
        last = answer.last
        if last is None or last.usage is None:
            return
        prompt, completion = (int(last.usage.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion"))
        timings = last.timings or {}
        reading, writing = (float(timings.get(key) or 0.0) for key in ("prompt_ms", "predicted_ms"))
        account.tokens += prompt + completion
        account.spent_usd += provider.cost(prompt, completion)
        account.generations[answer.front.id] = Generation(
            answer.front.id,
            self.clock(),
            provider,
            answer.stream,
            last.finish_reason,
            prompt,
            completion,
            reading + writing,
            writing,
        )
        if len(account.generations) > _KEPT:
            account.generations.pop(next(iter(account.generations)))

    def generation(self, platform: Platform, generation_id: str) -> Generation | None:
        """Return the statistics of an answer, once the platform knows them; never for free models."""
        found = self._account(platform).generations.get(generation_id)
        if found is None or platform.free or self.clock() < found.at + platform.generation_after_s:
            return None
        return found

    def spent_usd(self, platform: Platform) -> float:
        """Return what all answers of a platform have cost."""
        return self._account(platform).spent_usd

    def requests_today(self, platform: Platform) -> int:
        """Return how many requests a platform has let in today."""
        return self._account(platform).requests_today

    def headers_for(self, platform: Platform) -> dict[str, str]:
        """Return the headers about limits that the front's vendor puts on good answers."""
        account = self._account(platform)
        return _STATED.get(platform.front, _nothing)(platform.limits, account, self.clock())

    def _answer(
        self, platform: Platform, account: _Account, reason: str, request: web.Request, body: Mapping[str, Any]
    ) -> web.Response:
        limits, now = platform.limits, self.clock()
        if reason == "no_key" and (platform.front, reason) not in REFUSALS:
            reason = "key"
        refusal = REFUSALS.get((platform.front, reason)) or REFUSALS["openai", reason]
        left = _DAY - now % _DAY if reason == "requests_per_day" else _MINUTE - now % _MINUTE
        if reason in {"concurrency", "overloaded"}:
            left = 1.0
        limit = {"credits": limits.credits_usd}.get(reason, getattr(limits, reason, None))
        used = {"requests_per_minute": account.requests, "requests_per_day": account.requests_today}
        values = {
            "model": str(body.get("model", request.path)),
            "request_id": str(uuid.uuid4()),
            "limit": limit,
            "used": used.get(reason, account.tokens),
            "requested": _requested(body),
            "afford": _affordable(platform, account),
            "seconds": math.ceil(left),
            "milliseconds": math.ceil(1000 * left),
            "duration": go_duration(left),
            "reset_ms": round(1000 * (now + left)),
            "available": [provider.slug for provider in platform.providers],
            "asked_for": asked_for(body),
        }
        headers = {name: _fill(value, values) for name, value in refusal.headers}
        stated = self.headers_for(platform)
        kind = {"content-type": "application/json", "x-request-id": str(values["request_id"])}
        text = _fill(json.dumps(json.loads(_marked(refusal.body)), ensure_ascii=False, separators=(",", ":")), values)
        data = text.encode()
        if reason == "no_provider":
            asked = {name.lower(): value for name, value in request.headers.items()}
            settings = FrontSettings(headers=asked, providers=platform.providers)
            data = OpenRouterFront(str(values["model"]), settings).unrouted(data)
        return web.Response(status=refusal.status, body=data, headers={**stated, **kind, **headers})


def go_duration(seconds: float) -> str:
    """Return seconds as Go's ``time.Duration`` writes them: ``2m59.56s``, ``7.66s``, ``120ms``."""
    milliseconds = round(1000 * seconds)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + tail


def _marked(template: str) -> str:
    """Return a template as JSON: slots outside of strings become strings that ``_fill`` takes for what they are."""
    return re.sub(r'(?<!["\w])\{(seconds|available|asked_for)\}(?=[,}\]])', r'"\\u0000{\1}"', template)


def _fill(template: str, values: Mapping[str, Any]) -> str:
    template = re.sub(r'"\\u0000(\{\w+\})"', r"\1", template)

    def slot(found: re.Match[str]) -> str:
        value = values[found[1]]
        return json.dumps(value)[1:-1] if isinstance(value, str) else json.dumps(value)

    return _SLOT.sub(slot, template)


def bad_key(limits: LabLimits, request: web.Request) -> str | None:
    """Tell what is wrong with a request's key: it is another one (``key``), or there is none (``no_key``)."""
    if limits.key is None:
        return None
    headers = request.headers
    scheme, _, given = headers.get("authorization", "").partition(" ")
    # AWS4-HMAC-SHA256 Credential=KEY/date/region/service/aws4_request, …
    signed = re.search(r"Credential=([^/,\s]+)", given) if scheme.startswith("AWS4") else None
    others = ("api-key", "x-api-key", "x-goog-api-key", "x-portkey-api-key")
    keys = {signed[1] if signed else given, request.query.get("key", ""), *(headers.get(name, "") for name in others)}
    if limits.key in keys:
        return None
    return "key" if keys - {""} else "no_key"


def _requested(body: Mapping[str, Any]) -> int:
    """Guess how many tokens a request takes at most."""
    stated = body.get("max_tokens") or body.get("max_completion_tokens") or 0
    return len(json.dumps(body.get("messages", body))) // _CHARACTERS + (stated if isinstance(stated, int) else 0)


def _affordable(platform: Platform, account: _Account) -> int:
    """Return how many tokens of an answer the credits are enough for."""
    left = max(0.0, (platform.limits.credits_usd or 0.0) - account.spent_usd)
    price = min((provider.completion_price for provider in platform.providers), default=0.0)
    return int(left / price) if price else 0


def _exhausted(platform: Platform, account: _Account, body: Mapping[str, Any]) -> str | None:
    """Name the limit that this request goes over."""
    limits = platform.limits
    account.taken += 1
    if limits.overloaded_every and account.taken % limits.overloaded_every == 0:
        return "overloaded"
    over = (
        ("concurrency", limits.concurrency, account.under_way + 1),
        ("requests_per_day", limits.requests_per_day, account.requests_today + 1),
        ("requests_per_minute", limits.requests_per_minute, account.requests + 1),
        ("tokens_per_minute", limits.tokens_per_minute, account.tokens + _requested(body)),
    )
    for name, limit, reached in over:
        if limit is not None and reached > limit:
            return name
    if limits.credits_usd is not None:
        most = min(provider.cost(0, _requested(body)) for provider in platform.providers)
        if account.spent_usd + most > limits.credits_usd or account.spent_usd >= limits.credits_usd:
            return "credits"
    return None


def _nothing(limits: LabLimits, account: _Account, now: float) -> dict[str, str]:  # noqa: ARG001
    return {}


def _plain(limits: LabLimits, account: _Account, now: float) -> dict[str, str]:
    """State what OpenAI does, and LiteLLM passes on; Azure has no resets.

    Source: https://platform.openai.com/docs/guides/rate-limits (rate limits in headers).
    """
    reset = go_duration(_MINUTE - now % _MINUTE)
    return {
        **_counted("requests", limits.requests_per_minute, account.requests, reset),
        **_counted("tokens", limits.tokens_per_minute, account.tokens, reset),
    }


def _azure(limits: LabLimits, account: _Account, now: float) -> dict[str, str]:
    return {name: value for name, value in _plain(limits, account, now).items() if "reset" not in name}


def _groq(limits: LabLimits, account: _Account, now: float) -> dict[str, str]:
    """State requests of a day and tokens of a minute. Source: console.groq.com/docs/rate-limits."""
    day, minute = go_duration(_DAY - now % _DAY), go_duration(_MINUTE - now % _MINUTE)
    return {
        **_counted("requests", limits.requests_per_day, account.requests_today, day),
        **_counted("tokens", limits.tokens_per_minute, account.tokens, minute),
    }


def _anthropic(limits: LabLimits, account: _Account, now: float) -> dict[str, str]:
    """State what is left; times are RFC 3339. Source: https://docs.anthropic.com/en/api/rate-limits."""
    reset = datetime.fromtimestamp(now + _MINUTE - now % _MINUTE, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stated: dict[str, str] = {}
    kinds = (
        ("requests", limits.requests_per_minute, account.requests),
        ("tokens", limits.tokens_per_minute, account.tokens),
    )
    for kind, limit, used in kinds:
        if limit is not None:
            values = {"limit": limit, "remaining": max(0, limit - used), "reset": reset}
            stated |= {f"anthropic-ratelimit-{kind}-{name}": str(value) for name, value in values.items()}
    return stated


def _counted(kind: str, limit: int | None, used: int, reset: str) -> dict[str, str]:
    if limit is None:
        return {}
    return {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": str(max(0, limit - used)),
        f"x-ratelimit-reset-{kind}": reset,
    }


_STATED: Mapping[str, Callable[[LabLimits, _Account, float], dict[str, str]]] = {
    "openai": _plain,
    "openai-completions": _plain,
    "openai-responses": _plain,
    "litellm": _plain,
    "azure": _azure,
    "groq": _groq,
    "anthropic": _anthropic,
}
