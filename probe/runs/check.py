"""Can each route be used? Asked without spending anything: version and model list."""

import asyncio
import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp

from probe.config import Config, Route
from probe.proxy.redact import Redactor, environment_values

_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class RouteCheck:
    """What a route said. ``key``: set, missing, or not needed; ``model_there``: ``None`` where no list was readable."""

    usable: bool
    reachable: bool
    key: str
    model_there: bool | None
    version: str | None
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


async def check_routes(config: Config) -> list[RouteCheck]:
    """Check all routes side by side, in the order of the configuration."""
    redactor = Redactor.of(environment_values(route.key_env for route in config.routes.values()))
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        return list(await asyncio.gather(*(_check(session, route, redactor) for route in config.routes.values())))


async def _check(session: aiohttp.ClientSession, route: Route, redactor: Redactor) -> RouteCheck:
    needs = bool(route.backend.auth and route.key_env)
    key = "not needed" if not needs else "set" if os.environ.get(route.key_env or "") else "missing"
    credential = route.target.credential()
    headers = dict([credential]) if credential else {}
    describe = route.backend.describe
    try:
        status, models = await _get(session, _url(route, describe.models), headers)
        version = await _version(session, route, headers)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        reason = redactor.text(str(error) or type(error).__name__)
        return RouteCheck(False, False, key, None, None, f"nobody answers at {route.url}: {reason}")
    names = _names(models)
    there = None if not names else route.model in names or f"{route.model}:latest" in names
    if key == "missing" and route.backend.kind == "hosted":
        return RouteCheck(False, True, key, there, version, f"set the environment variable {route.key_env}")
    if status in {401, 403}:
        return RouteCheck(False, True, key, None, version, f"the key in {route.key_env} was refused (HTTP {status})")
    if status != 200:
        return RouteCheck(False, True, key, None, version, f"the model list answered HTTP {status}")
    if there is False:
        shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        return RouteCheck(False, True, key, there, version, f"it does not have {route.model!r}; it has {shown}")
    listed = "model listed" if there else "reachable; its model list is not readable"
    return RouteCheck(True, True, key, there, version, f"{listed}{f', version {version}' if version else ''}")


def _url(route: Route, path: str) -> str:
    return route.url.removesuffix("/v1") + path


async def _get(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> tuple[int, Any]:
    async with session.get(url, headers=headers) as response:
        text = await response.text(errors="replace")
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, None


async def _version(session: aiohttp.ClientSession, route: Route, headers: dict[str, str]) -> str | None:
    path = route.backend.describe.version
    if path is None:
        return None
    _, document = await _get(session, _url(route, path), headers)
    if not isinstance(document, dict):
        return None
    found = document.get("version") or document.get("build_info")
    return str(found) if found else None


def _names(document: Any) -> set[str]:
    """Return model names from an OpenAI-like (``data[].id``) or Ollama-like (``models[].name``) list."""
    if not isinstance(document, dict):
        return set()
    rows = document.get("data") or document.get("models") or []
    keys = ("id", "name", "model")
    return {str(row[key]) for row in rows if isinstance(row, dict) for key in keys if row.get(key)}
