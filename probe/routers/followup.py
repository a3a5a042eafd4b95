"""What a router tells of a generation afterwards: the host, its token counts, how long moderation and generation took.

Asked through the recording proxy after a run, one at a time, as exchanges that belong to no trial. Nothing depends on
it: OpenRouter was seen to answer 404 minutes later for free models, so it is given up soon. Source of the fields:
OpenRouter's openapi.yaml, GenerationResponse.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp

from probe.config import Config, Route
from probe.errors import UnreachableError
from probe.routers.listing import get_json, one_line
from probe.store.store import Store
from probe.wire.backend import Backend
from probe.wire.content import decoded_body, header
from probe.wire.fields import NotJson, number, parse, table
from probe.wire.reports import read_answer
from probe.wire.values import Exchange

TRIES = 2
"""Times that one generation is asked for."""

MISSES = 5
"""Generations in a row that the router does not know, after which it is not asked any more."""

_MARK = "gen-"
"""How OpenRouter's ids of generations begin."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What a router tells of one generation; ``None`` where it does not. Durations in seconds, cost in US dollars."""

    provider: str | None = None
    upstream_id: str | None = None
    model: str | None = None
    native_prompt_tokens: int | None = None
    native_completion_tokens: int | None = None
    native_reasoning_tokens: int | None = None
    moderation_s: float | None = None
    latency_s: float | None = None
    generation_s: float | None = None
    cost_usd: float | None = None
    native_finish_reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what is known, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class FollowedUp:
    """What came of it: generations by the id of the exchange that was followed up, and why routes were given up."""

    asked: int = 0
    found: dict[str, Generation] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)


def read_generation(document: Any) -> Generation | None:
    """Read the answer of ``/generation``; ``None`` where it is none."""
    data = document.get("data") if isinstance(document, Mapping) else None
    if not isinstance(data, Mapping) or not _text(data, "id"):
        return None
    return Generation(
        provider=_text(data, "provider_name"),
        upstream_id=_text(data, "upstream_id"),
        model=_text(data, "model"),
        native_prompt_tokens=_count(data, "native_tokens_prompt"),
        native_completion_tokens=_count(data, "native_tokens_completion"),
        native_reasoning_tokens=_count(data, "native_tokens_reasoning"),
        moderation_s=_seconds(data, "moderation_latency"),
        latency_s=_seconds(data, "latency"),
        generation_s=_seconds(data, "generation_time"),
        cost_usd=number(data.get("total_cost")),
        native_finish_reason=_text(data, "native_finish_reason"),
    )


def generation_id(backend: Backend, exchange: Exchange) -> str | None:
    """Return the id under which a router knows an answer: of ``X-Generation-Id``, or of the body."""
    stated = header(exchange.response_headers, "x-generation-id").strip()
    if stated:
        return stated
    found = read_answer(backend, exchange).response_id
    return found if found is not None and found.startswith(_MARK) else None


def unasked(store: Store, config: Config, run_id: str) -> dict[str, dict[str, str]]:
    """Return the answers of a run that can be followed up and were not: route name → exchange id → generation id."""
    waiting: dict[str, dict[str, str]] = {}
    for route in config.routes.values():
        if path_of(route.backend, "") is None:
            continue
        known = "SELECT url FROM exchanges WHERE route_id = ? AND method = 'GET' AND status = 200"
        told = {_last(url) for (url,) in store.query(known, (route.row.id,))}
        refs = [ref.id for ref in store.refs(run_id=run_id, route_id=route.row.id, answered=True)]
        for exchange in store.exchanges_of(refs):
            found = generation_id(route.backend, exchange)
            if found is not None and _last(path_of(route.backend, found) or "") not in told:
                waiting.setdefault(route.name, {})[exchange.id] = found
    return waiting


def _last(url: str) -> str:
    return url.rpartition("/")[2]


def path_of(backend: Backend, generation: str) -> str | None:
    """Return where a router tells of a generation, below the route's URL; ``None`` where it does not."""
    if backend.listing is None or backend.listing.follow_up is None:
        return None
    return backend.listing.follow_up.format(id=quote(generation, safe=""))


async def follow_up(
    config: Config,
    proxy_url_of: Callable[[Route], str],
    answers: Mapping[str, Mapping[str, str]],
    *,
    tries: int = TRIES,
    misses: int = MISSES,
) -> FollowedUp:
    """Ask what became of these generations, routes side by side and each one's answers one after another.

    ``proxy_url_of`` gives the address of a route at the recording proxy (``http://127.0.0.1:PORT/NAME/v1``);
    ``answers``: route name → exchange id → generation id, as ``unasked`` gives them. Never raises for what a router
    does: a route that cannot be asked is given up with a sentence.
    """
    done = FollowedUp()
    async with aiohttp.ClientSession(headers={"accept-encoding": "identity"}) as session:
        waiting = (
            _follow(session, config.routes[name], proxy_url_of(config.routes[name]), mine, (tries, misses), done)
            for name, mine in answers.items()
            if path_of(config.routes[name].backend, "") is not None
        )
        await asyncio.gather(*waiting)
    return done


async def _follow(
    session: aiohttp.ClientSession,
    route: Route,
    base: str,
    answers: Mapping[str, str],
    limits: tuple[int, int],
    done: FollowedUp,
) -> None:
    """Ask for one route's generations: those that are not known yet once more after all others."""
    tries, misses = limits
    left: Iterable[tuple[str, str]] = answers.items()
    for _ in range(tries):
        unknown, row = [], 0
        for exchange_id, generation in left:
            if row >= misses:
                done.stopped[route.name] = f"{route.name}: the router did not know {misses} generations in a row"
                return
            done.asked += 1
            try:
                status, document = await get_json(session, f"{base}{path_of(route.backend, generation)}")
            except UnreachableError as error:
                done.stopped[route.name] = f"{route.name}: {str(error).rstrip('.')}"
                return
            found = read_generation(document) if status == 200 else None
            if found is not None:
                done.found[exchange_id], row = found, 0
            elif status in {200, 404}:
                unknown.append((exchange_id, generation))
                row += 1
            else:
                done.stopped[route.name] = f"{route.name}: the router answered HTTP {status}"
                return
        left = unknown


def _text(data: Mapping[str, Any], key: str) -> str | None:
    value = data.get(key)
    return one_line(value) or None if isinstance(value, str) else None


def _count(data: Mapping[str, Any], key: str) -> int | None:
    value = number(data.get(key))
    return int(value) if value is not None and value >= 0 else None


def _seconds(data: Mapping[str, Any], key: str) -> float | None:
    value = number(data.get(key))
    return value / 1000 if value is not None and value >= 0 else None


def told_of(store: Store, backend: Backend, exchange: Exchange) -> tuple[str, Generation] | None:
    """Return what the store holds about an answer's generation, and the id of the exchange that told it."""
    asked = path_of(backend, "")
    generation = None if asked is None or exchange.method == "GET" else generation_id(backend, exchange)
    if generation is None:
        return None
    sql = (
        "SELECT id, url FROM exchanges WHERE route_id = ? AND method = 'GET' AND status = 200 ORDER BY started_at DESC"
    )
    ending = path_of(backend, generation) or ""
    for key, url in store.query(sql, (exchange.route_id,)):
        if url.endswith(ending):
            found = read_generation(table(_document(store.exchange(key))))
            if found is not None:
                return key, found
    return None


def _document(exchange: Exchange) -> Any:
    try:
        return parse(decoded_body(exchange).data.decode("utf-8", "replace"))
    except NotJson:
        return None
