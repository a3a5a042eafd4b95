"""Which endpoints serve a model behind a router, as its own listing says. Asked without a key, and not recorded."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from probe.config import Price
from probe.errors import ModelError, RouteError, UnreachableError
from probe.wire.backend import Backend

TIMEOUT_S = 10.0
_MOST_BYTES = 16 * 2**20
_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of a model: a host, with the tag that pins it.

    ``quantization`` is ``unknown`` where the listing says so or says nothing. Lengths in tokens, ``None`` where not
    stated. ``status`` 0 is in order, below 0 is not. ``price`` in US dollars per million tokens, ``None`` where it is
    not stated or has no fixed value. ``moderated``: whether prompts pass a moderation first, ``None`` where the listing
    does not say. ``name`` is the listing's own, for people.
    """

    provider: str
    tag: str
    quantization: str = "unknown"
    context_length: int | None = None
    max_completion_tokens: int | None = None
    supported_parameters: frozenset[str] = frozenset()
    status: int | None = None
    price: Price | None = None
    moderated: bool | None = None
    name: str = ""

    def to_json(self) -> dict[str, Any]:
        """All fields by name, as they are stored and printed."""
        return asdict(self) | {"supported_parameters": sorted(self.supported_parameters)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Endpoint":
        """Return the endpoint that ``to_json`` wrote."""
        price = value.get("price")
        return cls(
            **dict(value)
            | {
                "supported_parameters": frozenset(value.get("supported_parameters", ())),
                "price": Price(**price) if price else None,
            }
        )


async def fetch_endpoints(
    backend: Backend, model: str, session: aiohttp.ClientSession, *, url: str | None = None
) -> list[Endpoint]:
    """Return the endpoints that serve ``model``, in the order of the listing; ``url`` goes before the backend's.

    No credential is sent. Raises ``RouteError`` (a backend without a listing, an unreadable answer, no endpoint),
    ``UnreachableError`` and ``ModelError``.
    """
    base = (url or backend.url or "").rstrip("/")
    if backend.listing is None:
        raise RouteError(f"Backend {backend.name!r} has no listing of endpoints: name its route in probe.toml by hand.")
    if not base:
        raise RouteError(f"Backend {backend.name!r} has no fixed address: say where it is, with a route's url.")
    where = base + backend.listing.path.format(model=quote(model, safe="/:@"))
    status, document = await get_json(session, where)
    if status == 404:
        raise ModelError(f"{backend.title} lists no model {model!r} (HTTP 404 from {where}): is the name right?")
    if status != 200:
        raise RouteError(f"The listing {where} answered HTTP {status}: try again later, or name the route by hand.")
    found = endpoints_of(document)
    if found is None:
        raise RouteError(f"The listing {where} is not what OpenRouter documents (data.endpoints): nothing was read.")
    if not found:
        raise ModelError(f"{backend.title} lists no endpoint that serves {model!r} now: choose another model.")
    return found


def root_of(url: str) -> str:
    """Return a route's URL without a last segment that is a version (``/v1``, ``/v1beta``), as clients are given it."""
    base = url.rstrip("/")
    last = urlsplit(base).path.rsplit("/", 1)[-1]
    return base.removesuffix(f"/{last}") if last.startswith("v") and last[1:2].isdigit() else base


async def get_json(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """Return status and JSON document of a GET, ``None`` where the body is no JSON. Raises ``UnreachableError``."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with session.get(url, headers=headers, timeout=timeout) as response:
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > _MOST_BYTES:
                    return response.status, None
            status = response.status
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        # aiohttp's time-outs have no words of their own.
        reason = str(error) or f"no answer within {TIMEOUT_S:g} seconds"
        raise UnreachableError(f"Nobody answers at {url}: {reason}.") from None
    try:
        return status, json.loads(body)
    except ValueError:
        return status, None


def endpoints_of(document: Any) -> list[Endpoint] | None:
    """Read a listing in OpenRouter's form; ``None`` where it is none.

    An entry without provider or tag cannot be pinned and is left out. Source: OpenRouter's openapi.yaml,
    PublicEndpoint.
    """
    data = document.get("data") if isinstance(document, dict) else None
    rows = data.get("endpoints") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        return None
    return [
        _endpoint(row) for row in rows if isinstance(row, dict) and _text(row, "provider_name") and _text(row, "tag")
    ]


def _endpoint(row: Mapping[str, Any]) -> Endpoint:
    parameters = row.get("supported_parameters")
    moderated = row.get("is_moderated")
    return Endpoint(
        provider=_text(row, "provider_name"),
        tag=_text(row, "tag"),
        quantization=_text(row, "quantization").lower() or "unknown",
        context_length=_whole(row.get("context_length")),
        max_completion_tokens=_whole(row.get("max_completion_tokens")),
        supported_parameters=frozenset(str(p) for p in parameters) if isinstance(parameters, list) else frozenset(),
        status=_whole(row.get("status")),
        price=price_of_pricing(row.get("pricing")),
        moderated=moderated if isinstance(moderated, bool) else None,
        name=_text(row, "name"),
    )


def price_of_pricing(pricing: Any) -> Price | None:
    """Read ``pricing``: US dollars per token (and per request) as decimal texts. Our prices are per million tokens.

    ``None`` where prompt or completion has no fixed price (OpenRouter writes -1 for its automatic router).
    """
    if not isinstance(pricing, dict):
        return None
    prompt, completion = (_dollars(pricing.get(key)) for key in ("prompt", "completion"))
    request = _dollars(pricing.get("request", "0"))
    if prompt is None or completion is None or request is None:
        return None
    return Price(float(prompt * _MILLION), float(completion * _MILLION), float(request))


def one_line(text: str) -> str:
    """Return a name from the wire as one line that a terminal and UTF-8 can carry."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _dollars(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount >= 0 else None


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return one_line(value) if isinstance(value, str) else ""


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return int(value)
