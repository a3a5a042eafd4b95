"""Who served an answer, and is it who the route pins? Read from the answer; names are compared through the listing.

A router names hosts by a display name in its answers (``DeepInfra``) and by a tag in requests (``deepinfra/bf16``).
Only its listing says which belongs to which: without one, and for a name that is like the pinned host's, it is "cannot
tell" and never a surprise.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from probe.routers.listing import Endpoint, one_line
from probe.routers.pins import SLUGGED, allowed_providers, matches, plain_name
from probe.store.rows import RouteRow
from probe.store.served import ServedRow
from probe.wire.backend import Backend
from probe.wire.reports import reported
from probe.wire.values import Exchange, Reading

LISTING = "listing"
"""Kind of the route fact that keeps which endpoints a router listed for the model."""

_REPORTED = frozenset({"provider", "served_model"})


_LIKE = 5
"""Characters at the beginning of two names of hosts that make them alike."""

_SAME_WEIGHTS = re.compile(
    r"(?:[-@](?:\d{3,8}|\d{1,2}-\d{1,2}|\d{4}-\d{2}-\d{2}|v\d[\w-]*|latest|instruct|it|chat|hf"
    r"|fp\d+|bf16|int\d|w\d+a\d+|awq|gptq|nvfp4|mxfp\d))*"
)
"""What may follow a model's name without another model being meant: dates, versions, number formats, "instruct"."""

_VENDOR = re.compile(
    r"(?:(?:us|eu|ap|apac|global)\.)?(?:anthropic|meta|mistral|amazon|cohere|deepseek|openai|qwen)\.(?=\D)"
)
"""How Amazon Bedrock begins its ids."""


@dataclass(frozen=True)
class Expectation:
    """What a route means to reach: the provider it pins, its model with all known names, and the listed endpoints.

    ``allowed`` are the providers that may serve, where it names several (``provider.only``). ``slugged``: answers name
    a host by the same word as requests.
    """

    provider: str | None
    model: str
    names: frozenset[str] = frozenset()
    endpoints: tuple[Endpoint, ...] = ()
    allowed: tuple[str, ...] = ()
    slugged: bool = False

    @classmethod
    def of(cls, route: RouteRow, listings: Iterable[Any] = ()) -> "Expectation":
        """Take what the route says, and what its stored facts of kind ``listing`` say; a broken one is left out."""
        names: set[str] = set()
        endpoints: dict[Endpoint, None] = {}
        for listing in listings:
            if not isinstance(listing, Mapping):
                continue
            names.update(name for name in listing.get("names", ()) if isinstance(name, str))
            endpoints |= dict.fromkeys(Endpoint.from_json(entry) for entry in listing.get("endpoints", ()))
        allowed = allowed_providers(route.backend, route.model, route.request)
        pinned = allowed[0] if len(allowed) == 1 else None
        slugged = route.backend in SLUGGED
        return cls(pinned, route.model, frozenset(names), tuple(endpoints), allowed, slugged)

    @property
    def pinned_names(self) -> frozenset[str]:
        """Names of the providers that may serve, as ``plain_name`` writes them; empty where the listing has none."""
        return frozenset(name for e in self.endpoints if self._may_serve(e) for name in _names(e))

    @property
    def other_names(self) -> frozenset[str]:
        """Names of the listed providers that may not serve and share none with those that may."""
        return (
            frozenset(name for e in self.endpoints if not self._may_serve(e) for name in _names(e)) - self.pinned_names
        )

    def _may_serve(self, endpoint: Endpoint) -> bool:
        return any(matches(slug, endpoint.tag) for slug in self.allowed)


def who_served(expected: Expectation, backend: Backend, exchange: Exchange, reading: Reading) -> ServedRow | None:
    """Return who served an answer; ``None`` where neither the route pins anybody nor the answer names anybody."""
    if exchange.status is None:
        return None
    told = any(report.means in _REPORTED for report in backend.reports)
    said = reported(backend, exchange, reading, only=_REPORTED).others if told else {}
    provider = _text(said.get("provider")) or _text(reading.provider)
    model = _text(reading.model) or _text(said.get("served_model"))
    if provider is None and not expected.allowed:
        return None
    by, odd_host = _host(expected, provider)
    also, odd_model = _model(expected, model)
    return ServedRow(
        exchange_id=exchange.id,
        provider=provider,
        model=model,
        expected=", ".join(expected.allowed) or None,
        surprise=odd_host or odd_model,
        sentence=f"{by}{also}.",
    )


def _names(endpoint: Endpoint) -> set[str]:
    """Return what a host may be called: its display name, its tag, and its slug."""
    return {plain_name(name) for name in (endpoint.provider, endpoint.tag, endpoint.tag.partition("/")[0])}


def _host(expected: Expectation, provider: str | None) -> tuple[str, bool]:
    """Return who served in words, and whether that is another one than the pinned provider."""
    pinned = " or ".join(expected.allowed)
    if provider is None:
        return f"The answer does not say who served it; the route pins {pinned}", False
    if not pinned:
        return f"{provider} served it; the route pins nobody", False
    match _is_pinned(expected, plain_name(provider)):
        case True:
            return f"{provider} served it, as the route pins ({pinned})", False
        case False:
            return f"{provider} served it, and the route pins {pinned}", True
        case None:
            return f"{provider} served it; whether that is the pinned {pinned} cannot be told from a listing", False


def _is_pinned(expected: Expectation, mine: str) -> bool | None:
    """Return whether a name is that of a provider that may serve; ``None`` where that cannot be told."""
    slugs = {plain_name(name) for slug in expected.allowed for name in (slug, slug.partition("/")[0])}
    names = expected.pinned_names | (slugs if expected.slugged else frozenset())
    if mine in names | slugs - expected.other_names:
        return True
    # Without a listing only the same word tells anything; one that has not all of the pinned hosts may be too old.
    listed = (any(matches(slug, endpoint.tag) for endpoint in expected.endpoints) for slug in expected.allowed)
    if not expected.slugged and not all(listed):
        return None
    # A form of the same name ("Google", "Google Vertex"; "Nebius AI Studio", "Nebius Token Factory") may be the host.
    alike = any(mine in name or name in mine or mine[:_LIKE] == name[:_LIKE] for name in names)
    return None if alike and mine not in expected.other_names else False


def _model(expected: Expectation, model: str | None) -> tuple[str, bool]:
    """Return what is to be said of the model that answered, and whether it is another one for certain."""
    if model is None or not expected.names:
        return "", False
    mine = _short(model)
    if any(_same_model(mine, _short(name)) for name in (*expected.names, expected.model)):
        return "", False
    return f"; the answer names the model {model}, and {expected.model} was asked for", True


def _same_model(mine: str, known: str) -> bool:
    """Whether two names are one, or one of them with a date, a version or a number format behind it."""
    short, long = sorted((mine, known), key=len)
    return long.startswith(short) and _SAME_WEIGHTS.fullmatch(long[len(short) :]) is not None


def _short(model: str) -> str:
    """Return a model's name without its author and variant, in one spelling: ``qwen3-8b``, ``claude-3-7-sonnet``."""
    name = _VENDOR.sub("", base_name(model).rpartition("/")[2], count=1)
    return re.sub(r"[._\s]+", "-", name)


def base_name(model: str) -> str:
    """Return a model's id in lower case without the variant behind a colon (``:free``)."""
    return model.strip().lower().partition(":")[0]


def _text(value: Any) -> str | None:
    return one_line(value) or None if isinstance(value, str) else None
