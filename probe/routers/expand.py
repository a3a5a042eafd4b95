"""One route per endpoint of a router's listing, as text for ``probe.toml``."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probe.routers.listing import Endpoint, one_line
from probe.routers.pinning import ListedModel, price_text
from probe.wire.backend import Backend


@dataclass(frozen=True)
class NewRoute:
    """A route that pins one endpoint. ``request`` is its addition to every body, ``toml`` its table with a comment."""

    name: str
    endpoint: Endpoint
    request: Mapping[str, Any]
    toml: str

    def to_json(self) -> dict[str, Any]:
        """All fields by name, with those of the endpoint beside them; its own name is ``listed_as``."""
        endpoint = self.endpoint.to_json()
        listed_as = endpoint.pop("name")
        about = {"request": dict(self.request), "listed_as": listed_as, "toml": self.toml}
        return {"name": self.name, **endpoint, **about}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the new routes have in common; ``url`` only where it is not the backend's own."""

    backend: Backend
    model: str
    weights: str | None = None
    twin: str | None = None
    url: str | None = None


def expand(wanted: Wanted, endpoints: Sequence[Endpoint], model: ListedModel | None = None) -> list[NewRoute]:
    """Return a route per endpoint, in the order of the listing.

    Endpoints that share tag and quantization cannot be pinned apart, so they are one route.
    """
    apart = list({(endpoint.tag, endpoint.quantization): endpoint for endpoint in reversed(endpoints)}.values())[::-1]
    alone = len(apart) == 1
    found = []
    for name, endpoint in zip(_names(wanted.backend.name, apart), apart, strict=True):
        request = {"provider": pin(endpoint)}
        same = [e for e in endpoints if (e.tag, e.quantization) == (endpoint.tag, endpoint.quantization)]
        comment = _comment(wanted.backend, endpoint, len(same), model, alone=alone)
        found.append(NewRoute(name, endpoint, request, _table(name, wanted, comment, request)))
    return found


def pin(endpoint: Endpoint) -> dict[str, Any]:
    """Return the routing preferences that let this endpoint alone serve."""
    stated = {} if endpoint.quantization == "unknown" else {"quantizations": [endpoint.quantization]}
    return {"only": [endpoint.tag], "allow_fallbacks": False, **stated}


def _names(backend: str, endpoints: Iterable[Endpoint]) -> Iterator[str]:
    """Yield names in the alphabet of routes, each once."""
    taken: set[str] = set()
    for endpoint in endpoints:
        parts = [backend, *endpoint.tag.split("/")]
        if endpoint.quantization not in {"unknown", *(part.lower() for part in parts)}:
            parts.append(endpoint.quantization)
        words = re.sub(r"[^a-z0-9_-]+", "-", "-".join(parts).lower()).strip("-_") or "route"
        name, number = words, 1
        while name in taken:
            number += 1
            name = f"{words}-{number}"
        taken.add(name)
        yield name


def _comment(backend: Backend, endpoint: Endpoint, same: int, model: ListedModel | None, *, alone: bool) -> str:
    moderated = endpoint.moderated if endpoint.moderated is not None or not alone or model is None else model.moderated
    judged = {True: "prompts are moderated", False: "prompts are not moderated", None: "moderation not stated"}[
        moderated
    ]
    size = "context not stated" if endpoint.context_length is None else f"context {endpoint.context_length} tokens"
    quantization = "quantization not stated" if endpoint.quantization == "unknown" else endpoint.quantization
    parts = [f"{endpoint.provider} ({endpoint.tag}): {quantization}", size, price_text(endpoint), judged]
    if endpoint.status is not None and endpoint.status < 0:
        parts.append(f"status {endpoint.status}")
    if same > 1:
        parts.append(f"{same} endpoints that cannot be pinned apart")
    sent = {parameter.wire for parameter in backend.parameters.by_name.values()}
    lacking = sorted(sent - endpoint.supported_parameters) if endpoint.supported_parameters else []
    if lacking:
        parts.append(f"may ignore {', '.join(lacking)}")
    return one_line("; ".join(parts))


def heading(model: ListedModel | None) -> str:
    """Return a comment about all endpoints together; empty where there is nothing to say."""
    if model is None or not model.moderated:
        return ""
    return "# The list of models says that the top provider of this model moderates prompts; not which one that is.\n\n"


def _table(name: str, wanted: Wanted, comment: str, request: Mapping[str, Any]) -> str:
    keys: dict[str, Any] = {"backend": wanted.backend.name, "model": wanted.model}
    optional = {"url": wanted.url, "weights": wanted.weights, "twin": wanted.twin}
    keys |= {key: value for key, value in optional.items() if value is not None}
    keys["role"] = "hosted"
    keys["request"] = dict(request)
    limits = wanted.backend.limits
    if limits.only is not None and limits.only.search(wanted.model):
        stated = {"requests_per_minute": limits.requests_per_minute, "requests_per_day": limits.requests_per_day}
        keys["pace"] = {key: value for key, value in stated.items() if value is not None}
    width = max(map(len, keys))
    lines = [f"# {comment}", f"[routes.{name}]", *(f"{key:<{width}} = {toml_value(v)}" for key, v in keys.items())]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """Return a value in TOML 1.0: texts, numbers, lists and inline tables."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {toml_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, str):
        return _quoted(value)
    return json.dumps(value, allow_nan=False)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _quoted(key)


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's; only DEL must be escaped too, and a lone surrogate has no form at all.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
