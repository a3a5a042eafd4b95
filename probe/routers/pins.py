"""What a route pins: the provider that alone should serve it, as its request says."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probe.routers.listing import Endpoint

SLUGGED = frozenset({"huggingface", "vercel"})
"""Backends whose answers name a host by the very word that requests name it by, so that no listing is needed."""

_POLICIES = frozenset({"fastest", "cheapest", "preferred"})
"""Suffixes of a model at Hugging Face's router that choose by a rule and pin nobody."""


@dataclass(frozen=True, slots=True)
class Pin:
    """The routing preferences of a request (OpenRouter, ``provider``).

    ``only`` and ``order`` are tags or base slugs; ``fallbacks`` is the documented default ``True`` where nothing is
    stated. ``quantizations`` are empty where any will do. ``required``: ``require_parameters``.
    """

    only: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    fallbacks: bool = True
    quantizations: tuple[str, ...] = ()
    required: bool = False

    @classmethod
    def of_request(cls, request: Mapping[str, Any]) -> "Pin":
        """Read the pin of a request body, or of a route's additions to it."""
        provider = request.get("provider")
        if not isinstance(provider, Mapping):
            return cls()
        return cls(
            only=_texts(provider.get("only")),
            order=_texts(provider.get("order")),
            fallbacks=provider.get("allow_fallbacks") is not False,
            quantizations=tuple(value.lower() for value in _texts(provider.get("quantizations"))),
            required=provider.get("require_parameters") is True,
        )

    @property
    def tag(self) -> str | None:
        """The one provider that should serve, ``None`` where the request names none or several."""
        for named in (self.only, self.order):
            if len(named) == 1:
                return named[0]
            if named:
                return None
        return None

    def takes(self, endpoint: Endpoint) -> bool:
        """Whether the pinned provider's endpoint may serve this request."""
        fits = not self.quantizations or endpoint.quantization in self.quantizations
        return self.tag is not None and matches(self.tag, endpoint.tag) and fits


def matches(slug: str, tag: str) -> bool:
    """Whether a slug of ``provider.only`` means the endpoint with this tag: a base slug means all of its variants.

    Source: OpenRouter's guide to provider selection (``deepinfra`` matches ``deepinfra/turbo``).
    """
    slug, tag = slug.lower(), tag.lower()
    return tag == slug or tag.startswith(f"{slug}/")


def allowed_providers(backend: str, model: str, request: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the providers that may serve a route of this backend, as its request names them; empty where all may."""
    if backend == "huggingface":
        suffix = model.rpartition(":")[2] if ":" in model else ""
        return (suffix,) if suffix and suffix not in _POLICIES else ()
    if backend == "vercel":
        # The same words in another place.
        options = request.get("providerOptions")
        request = {"provider": options.get("gateway") if isinstance(options, Mapping) else None}
    pin = Pin.of_request(request)
    return pin.only if pin.tag is None else (pin.tag,)


def expected_provider(backend: str, model: str, request: Mapping[str, Any]) -> str | None:
    """Return the provider that a route of this backend pins, as the request names it; ``None`` where it pins none."""
    allowed = allowed_providers(backend, model, request)
    return allowed[0] if len(allowed) == 1 else None


def plain_name(name: str) -> str:
    """Return a provider's name or slug without case, blanks and punctuation."""
    return re.sub(r"[\W_]+", "", name).lower()


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(entry for entry in value if isinstance(entry, str) and entry)
