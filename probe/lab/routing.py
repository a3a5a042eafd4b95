"""Which host serves a request, as OpenRouter lets a request say, and what a front has to know of it.

Source: OpenRouter ``guides/routing/provider-selection.mdx:27-41, 992-1008``: a base slug matches all variants
(``deepinfra`` matches ``deepinfra/fp8``), ``only`` and ``quantizations`` filter, ``order`` is tried in its order, and
``allow_fallbacks = false`` leaves no other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from probe.lab.chances import Draws
from probe.lab.fronts.base import FrontSettings
from probe.lab.platform_spec import Platform
from probe.lab.providers import Provider


def _wanted(body: Mapping[str, Any]) -> Mapping[str, Any]:
    wanted = body.get("provider")
    return wanted if isinstance(wanted, Mapping) else {}


def _names(value: Any) -> list[str]:
    return [str(entry).lower() for entry in value] if isinstance(value, list) else []


def _is(provider: Provider, names: Sequence[str]) -> bool:
    return bool({provider.tag.lower(), provider.slug.lower(), provider.name.lower()} & set(names))


def asked_for(body: Mapping[str, Any]) -> list[str]:
    """Return the providers that a request names."""
    wanted = _wanted(body)
    return _names(wanted.get("only")) or _names(wanted.get("order"))


def allowed(platform: Platform, body: Mapping[str, Any]) -> tuple[Provider, ...]:
    """Return the hosts that a request may be served by, those that it prefers first; none where it excludes all."""
    wanted = _wanted(body)
    only, ignored, order = (_names(wanted.get(key)) for key in ("only", "ignore", "order"))
    quantizations = _names(wanted.get("quantizations"))
    fitting = [
        provider
        for provider in platform.providers
        if (not only or _is(provider, only))
        and not _is(provider, ignored)
        and (not quantizations or provider.quantization in quantizations)
        and provider.status == 0
    ]
    preferred = [provider for name in order for provider in fitting if _is(provider, [name])]
    if order and wanted.get("allow_fallbacks") is False:
        return tuple(preferred)
    return tuple(dict.fromkeys([*preferred, *fitting]))


def chosen(platform: Platform, body: Mapping[str, Any], draws: Draws) -> Provider:
    """Draw the host that serves a request: the preferred one, else by share; sometimes one that was not allowed."""
    may = allowed(platform, body) or platform.providers
    chance = draws.of("provider")
    others = [provider for provider in platform.providers if provider not in may]
    if others and chance.random() < platform.surprise:
        return chance.choice(others)
    if _names(_wanted(body).get("order")):
        return may[0]
    return chance.choices(may, [provider.share for provider in may])[0]


def settings_for(
    platform: Platform,
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    draws: Draws,
    *,
    include_usage: bool,
    fingerprint: str,
) -> FrontSettings:
    """Return what the front of one answer depends on."""
    return FrontSettings(
        include_usage=include_usage,
        fingerprint=fingerprint,
        body=body,
        headers={name.lower(): value for name, value in headers.items()},
        provider=chosen(platform, body, draws),
        providers=platform.providers,
        asynchronous=platform.asynchronous,
        guarded=platform.screen is not None,
        free=platform.free,
    )
