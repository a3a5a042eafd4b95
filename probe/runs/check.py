"""Can each route be used, and is it pinned to what the study means? Asked without spending anything.

Requests go directly to the server and are not recorded: the list of models, the version, and for a router the listing
of the endpoints that serve the model, which is asked without a key.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from probe.config import Config, Route
from probe.errors import ModelError, RouteError, UnreachableError
from probe.proxy.redact import Redactor, environment_values
from probe.routers.listing import Endpoint, fetch_endpoints, get_json, root_of
from probe.routers.pinning import Finding, Needs, check_pin, check_request, check_suffix, listed_model
from probe.routers.served import LISTING
from probe.runs.money.price import price_of
from probe.serve.facts import facts_of
from probe.store.rows import FactRow
from probe.traces.values import Trace

SERVER = "server"
"""Kind of fact: what a local server says of itself (``probe.serve.facts``)."""

_DEPLOYMENTS = frozenset({"azure"})
"""Backends whose routes name a deployment, while the list is of models."""


@dataclass(frozen=True)
class RouteCheck:
    """What a route said. ``key``: set, missing, or not needed; ``model_there``: ``None`` where no list was readable.

    ``findings`` are what is to be said of it before it is used; one of level ``error`` makes it unusable. ``facts`` are
    what its server said that is worth keeping, by kind.
    """

    usable: bool
    reachable: bool
    key: str
    model_there: bool | None
    version: str | None
    sentence: str
    findings: tuple[Finding, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """What is to be read before anything is sent."""
        return [finding.sentence for finding in self.findings if finding.level == "warning"]

    def to_json(self) -> dict[str, Any]:
        """All fields but the facts by name."""
        return {
            "usable": self.usable,
            "reachable": self.reachable,
            "key": self.key,
            "model_there": self.model_there,
            "version": self.version,
            "sentence": self.sentence,
            "findings": [finding.to_json() for finding in self.findings],
        }


def fact_rows(config: Config, found: Sequence[RouteCheck], at: float) -> list[FactRow]:
    """Return what routes said as the store keeps it; ``found`` as ``check_routes`` gave it for this study."""
    rows = []
    for route, check in zip(config.routes.values(), found, strict=True):
        rows.append(FactRow(route_id=route.row.id, at=at, kind="check", value=check.to_json()))
        rows += [FactRow(route_id=route.row.id, at=at, kind=kind, value=value) for kind, value in check.facts.items()]
    return rows


async def check_routes(config: Config, traces: Iterable[Trace] = ()) -> list[RouteCheck]:
    """Check all routes side by side, in the order of the configuration.

    ``traces`` are what the study sends: with them lengths and parameters are compared with what an endpoint takes.
    """
    redactor = Redactor.of(environment_values(route.key_env for route in config.routes.values()))
    traces = tuple(traces)
    async with aiohttp.ClientSession() as session:
        asked = (_Asking(session, route, redactor).check(traces) for route in config.routes.values())
        return list(await asyncio.gather(*asked))


@dataclass(frozen=True)
class _Asking:
    """One route being asked."""

    session: aiohttp.ClientSession
    route: Route
    redactor: Redactor

    async def check(self, traces: Sequence[Trace]) -> RouteCheck:
        route, key = self.route, key_state(self.route)
        models: Any = None
        try:
            status, models = await self._models()
            version = await self._version()
        except UnreachableError as error:
            reason = self.redactor.text(str(error).partition(": ")[2].rstrip("."))
            return RouteCheck(False, False, key, None, None, f"nobody answers at {route.url}: {reason}")
        names = model_names(models)
        there = None if is_partial(models) and not is_listed(route, names) else is_listed(route, names)
        findings, facts = await self._listing(models, there, Needs.of(route, traces))
        if route.role == "local":
            facts = {**facts, SERVER: await facts_of(self.session, route)}
        problem = self._problem(key, status, there, names) or _first_error(findings)
        if problem is not None:
            refused = status in {401, 403} and key != "missing"
            return RouteCheck(False, True, key, None if refused else there, version, problem, findings, facts)
        said = f"{_listed(route, status, there)}{f', version {version}' if version else ''}"
        return RouteCheck(True, True, key, there, version, said, findings, facts)

    def _problem(self, key: str, status: int | None, there: bool | None, names: set[str]) -> str | None:
        """Return why the route cannot be used, as far as key and list of models tell."""
        route = self.route
        if key == "missing" and route.backend.kind == "hosted" and not _signed(route):
            return f"set the environment variable {route.key_env}"
        if (key == "set" or _signed(route)) and (unfit := route.target.key_problem()):
            return unfit.rstrip(".")
        if status in {401, 403}:
            return f"the key in {route.key_env} was refused (HTTP {status})"
        if status not in {None, 200}:
            return f"the model list answered HTTP {status}"
        if there is False:
            shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            return f"it does not have {route.model!r}; it has {shown}"
        return None

    async def _models(self) -> tuple[int | None, Any]:
        """Return status and list of models; no status where there is none to ask for, or where it is not asked."""
        path = self.route.backend.describe.models
        if path is None or _signed(self.route):
            # Whatever it answers, somebody is there. No key goes along.
            await get_json(self.session, self.route.url)
            return None, None
        return await get_json(self.session, root_of(self.route.url) + path, self._headers())

    def _headers(self) -> dict[str, str]:
        target = self.route.target
        credential = None if target.key_problem() else target.credential()
        return dict([*target.headers, *([credential] if credential else [])])

    async def _version(self) -> str | None:
        path = self.route.backend.describe.version
        if path is None:
            return None
        _, document = await get_json(self.session, root_of(self.route.url) + path, self._headers())
        if not isinstance(document, dict):
            return None
        found = document.get("version") or document.get("build_info")
        return str(found) if found else None

    async def _listing(
        self, models: Any, there: bool | None, needs: Needs
    ) -> tuple[tuple[Finding, ...], Mapping[str, Any]]:
        """Compare the route with the router's listing of endpoints, where its backend has one."""
        route = self.route
        if route.backend.listing is None:
            return tuple(check_suffix(route)), {}
        model = listed_model(models, route.model)
        try:
            endpoints = await fetch_endpoints(route.backend, route.model, self.session, url=route.url)
        except RouteError as error:
            # A model that the other list has is no unknown one, whatever this listing says.
            unknown = isinstance(error, ModelError) and not there
            sentence = self.redactor.text(str(error)).rstrip(".")
            missed = Finding("error" if unknown else "warning", f"its endpoints are not known: {sentence}")
            return (missed, *check_request(route)), {}
        kept = {
            "model": route.model,
            "names": sorted({name for name in (route.model, model and model.id, model and model.canonical) if name}),
            "top_moderated": model.moderated if model else None,
            "endpoints": [endpoint.to_json() for endpoint in endpoints],
        }
        return (*check_pin(route, endpoints, model, needs), *check_price(route, endpoints)), {LISTING: kept}


def check_price(route: Route, endpoints: Sequence[Endpoint]) -> list[Finding]:
    """Return a warning where a route's own price is lower than that of the endpoints that may serve it."""
    own, listed = route.price, price_of(replace(route, price=None), endpoints)
    if own is None or listed is None:
        return []
    lower = [
        f"{name} {mine:g} instead of {theirs:g}"
        for name, mine, theirs in (
            ("prompt", own.prompt, listed.prompt),
            ("completion", own.completion, listed.completion),
            ("request", own.request, listed.request),
        )
        if mine < theirs
    ]
    if not lower:
        return []
    return [
        Finding(
            "warning",
            f"its price in probe.toml is lower than the listing's ({', '.join(lower)}), so that a limit in US dollars "
            "may be passed: correct it, or leave it out and the listing's is taken",
        )
    ]


def key_state(route: Route) -> str:
    """Return whether a route's key is set, missing, or not needed."""
    if _signed(route):
        return "missing" if route.target.key_problem() else "set"
    if not (route.backend.auth and route.key_env):
        return "not needed"
    return "set" if os.environ.get(route.key_env) else "missing"


def _signed(route: Route) -> bool:
    return route.backend.auth is not None and route.backend.auth.kind == "sigv4"


def _first_error(findings: Iterable[Finding]) -> str | None:
    return next((finding.sentence for finding in findings if finding.level == "error"), None)


def _listed(route: Route, status: int | None, there: bool | None) -> str:
    if there:
        return "model listed"
    if status is None and route.backend.describe.models is not None:
        return "reachable; its requests are signed, so that its model list is not asked for"
    if status is None:
        return "reachable; it has no model list to ask, so the first request tells whether the model is there"
    return "reachable; its model list is not readable"


def model_names(document: Any) -> set[str]:
    """Return model names from a list like OpenAI's and Anthropic's (``data[].id``) or Ollama's (``models[].name``).

    Google's names begin with ``models/``, which no request needs.
    """
    if not isinstance(document, dict):
        return set()
    rows = document.get("data") or document.get("models") or []
    keys = ("id", "name", "model")
    # Beside an id, a router's "name" is a title for people, which no request takes.
    named = {str(next((row[key] for key in keys if row.get(key)), "")) for row in rows if isinstance(row, dict)} - {""}
    return {name.removeprefix("models/") for name in named}


def is_listed(route: Route, names: set[str]) -> bool | None:
    """Return whether a route's model is among the names; ``None`` where these cannot tell."""
    model = route.model.removeprefix("models/")
    # A router's variant or provider behind a colon has no entry of its own; Ollama's tags have.
    routed = route.backend.listing is not None or route.backend.name == "huggingface"
    spellings = {model, f"{model}:latest", *([model.partition(":")[0]] if routed else [])}
    if not names or (route.backend.name in _DEPLOYMENTS and not spellings & names):
        return None
    return bool(spellings & names)


def is_partial(document: Any) -> bool:
    """Whether a list of models says that it goes on (Anthropic's ``has_more``, Google's ``nextPageToken``)."""
    return isinstance(document, dict) and bool(document.get("has_more") or document.get("nextPageToken"))
