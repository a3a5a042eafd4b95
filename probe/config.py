"""``probe.toml`` → routes. Every mistake is one sentence with file, line, and what is expected."""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from probe.errors import CatalogueError, ConfigError
from probe.proxy.table import Target
from probe.store.rows import RouteRole, RouteRow, WeightsRow
from probe.wire.catalogue import Backend, load_backend

DEFAULT_FILE = "probe.toml"

_ROUTE_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "backend": str,
    "url": str,
    "model": str,
    "weights": str,
    "role": str,
    "twin": str,
    "request": dict,
    "pace": dict,
    "key_env": str,
    "stream": bool,
    "scorer": str,
    "scorer_url": str,
    "template": str,
    "price": dict,
}
_PACE_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "concurrency": int,
    "requests_per_minute": (int, float),
    "requests_per_day": int,
    "tokens_per_minute": (int, float),
    "tokens_per_day": int,
    "connect_timeout_s": (int, float),
    "first_byte_timeout_s": (int, float),
    "chunk_timeout_s": (int, float),
    "timeout_s": (int, float),
    "max_requests": int,
    "max_tokens": int,
    "max_usd": (int, float),
    "retry_unanswered": bool,
}
_PRICE_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "prompt": (int, float),
    "completion": (int, float),
    "request": (int, float),
}
_RUN_KEYS: Mapping[str, type | tuple[type, ...]] = {"packs": list, "repeats": int, "seed": int, "database": str}
_MOST_ABREAST = 1000
"""Each request at once takes a connection to the proxy and one to the route."""

_MOST = 10**15
"""Beyond this a limit or a time-out is a slip of the keyboard, and floating-point numbers lose count."""

_KINDS = {str: "a text", dict: "a table", bool: "true or false", int: "a whole number", list: "a list"}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a route may be asked, how long it may take, and what it may cost in all starts of a run.

    ``concurrency`` is the most that is under way at once; the runner goes lower where the route cannot keep up. Limits
    that are ``None`` are the backend's documented ones. Time-outs in seconds: for the connection, for the first byte of
    the answer after that, between two arrivals, and for the whole. ``retry_unanswered`` sends again what went out and
    was never answered, though it may have been billed.
    """

    concurrency: int = 4
    requests_per_minute: float | None = None
    requests_per_day: int | None = None
    tokens_per_minute: float | None = None
    tokens_per_day: int | None = None
    connect_timeout_s: float = 15.0
    first_byte_timeout_s: float = 120.0
    chunk_timeout_s: float = 60.0
    timeout_s: float = 600.0
    max_requests: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    retry_unanswered: bool = False


@dataclass(frozen=True, slots=True)
class Price:
    """What a route costs, in US dollars: per million tokens of prompt and completion, and per request."""

    prompt: float = 0.0
    completion: float = 0.0
    request: float = 0.0


@dataclass(frozen=True)
class Route:
    """A named way to reach weights (DESIGN §6).

    ``scorer`` says how a local route scores a given text: ``llamacpp``, ``vllm`` or ``none``; ``scorer_url`` where, if
    that is another server with the same weights (a llama.cpp server with the GGUF file that Ollama holds). ``template``
    is a chat template (a Jinja file, or a ``tokenizer_config.json`` that holds one) for dialects that take one text.
    ``price`` goes before what a listing says.
    """

    name: str
    backend: Backend
    url: str
    model: str
    weights: str
    role: RouteRole
    twin: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    key_env: str | None = None
    stream: bool = True
    scorer: str = "none"
    scorer_url: str | None = None
    template: str | None = None
    price: Price | None = None

    @property
    def weights_row(self) -> WeightsRow:
        """The weights as the store names them: ``hub-id@revision``."""
        name, _, revision = self.weights.partition("@")
        return WeightsRow(name=name, revision=revision)

    @property
    def row(self) -> RouteRow:
        """The route as the store keeps it."""
        return RouteRow(
            name=self.name,
            backend=self.backend.name,
            dialect=self.backend.dialect,
            url=self.url,
            model=self.model,
            weights_id=self.weights_row.id,
            role=self.role,
            twin=self.twin,
            request=dict(self.request),
        )

    @property
    def target(self) -> Target:
        """The route as the proxy needs it."""
        auth = self.backend.auth
        return Target(
            route_id=self.row.id,
            name=self.name,
            url=self.url,
            auth_header=auth.header if auth and auth.kind == "header" else None,
            auth_scheme=auth.scheme if auth else "",
            key_env=self.key_env,
            key_required=self.backend.kind == "hosted",
            headers=tuple(self.backend.headers.items()),
            sign_for=auth.service if auth and auth.kind == "sigv4" else None,
        )


@dataclass(frozen=True)
class Config:
    """A study: its routes by name, in the order of the file, and the defaults of ``probe run``."""

    routes: Mapping[str, Route]
    packs: tuple[str, ...] = ("fictional",)
    repeats: int = 1
    seed: int = 0
    database: str = "probe.db"
    path: Path | None = None

    def hosted(self) -> list[Route]:
        """Return the hosted routes that have a twin."""
        return [route for route in self.routes.values() if route.role == "hosted" and route.twin]

    def only(self, names: tuple[str, ...]) -> "Config":
        """Return the same study with these routes (and their twins) only."""
        if not names:
            return self
        unknown = [name for name in names if name not in self.routes]
        if unknown:
            known = ", ".join(self.routes)
            raise ConfigError(f"There is no route {unknown[0]!r} in {self.path or DEFAULT_FILE}; it has: {known}.")
        wanted = {*names, *(self.routes[name].twin or name for name in names)}
        return replace(self, routes={name: route for name, route in self.routes.items() if name in wanted})


class _File:
    """The text of a configuration file, to say on which line something stands."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def wrong(self, table: str, key: str | None, message: str) -> ConfigError:
        """Make the error for a key of a table (``routes.local``)."""
        return ConfigError(f"{self._path}, line {self._line(table, key)}: {message}")

    def beside(self, name: str) -> str:
        """Return where a file is that this one names: beside it, unless the name is absolute."""
        return str(self._path.parent / name)

    def _line(self, table: str, key: str | None) -> int:
        start = next((n for n, line in enumerate(self._lines, 1) if line.split("#")[0].strip() == f"[{table}]"), None)
        if start is None:
            parent, _, word = table.rpartition(".")
            if parent:
                return self._line(parent, word)  # an inline table, or dotted keys
            start = next((n for n, line in enumerate(self._lines, 1) if word in line), 1)
        if key is None:
            return start
        pattern = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*[.=]""")
        for number in range(start, len(self._lines) + 1):
            line = self._lines[number - 1]
            if number > start and line.lstrip().startswith("["):
                break
            if pattern.match(line):
                return number
        return start


def load_config(path: Path) -> Config:
    """Read ``probe.toml``. Raises ``ConfigError``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"There is no {path}: write one with `probe init`, or name another with --config.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    return _config(document, _File(path, text), path)


def _config(document: Mapping[str, Any], file: _File, path: Path) -> Config:
    for key in document:
        if key not in {"routes", "run"}:
            raise file.wrong(key, None, f"unknown table [{key}]; expected are [run] and [routes.NAME].")
    run = document.get("run", {})
    if not isinstance(run, dict):
        raise file.wrong("run", None, "[run] must be a table.")
    _check(run, _RUN_KEYS, "run", file)
    tables = document.get("routes")
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"{path} names no routes: at least one [routes.NAME] table is expected.")
    routes = {name: _route(name, table, file) for name, table in tables.items()}
    for route in routes.values():
        _check_twin(route, routes, file)
    packs = run.get("packs", ["fictional"])
    if not all(isinstance(pack, str) for pack in packs):
        raise file.wrong("run", "packs", 'packs must be a list of names or file names, such as ["fictional"].')
    if run.get("repeats", 1) < 1:
        raise file.wrong("run", "repeats", "repeats must be 1 or more.")
    return Config(
        routes=routes,
        packs=tuple(packs),
        repeats=run.get("repeats", 1),
        seed=run.get("seed", 0),
        database=run.get("database", "probe.db"),
        path=path,
    )


def _check(table: Mapping[str, Any], keys: Mapping[str, type | tuple[type, ...]], name: str, file: _File) -> None:
    for key, value in table.items():
        kind = keys.get(key)
        if kind is None:
            raise file.wrong(name, key, f"unknown key {key!r} in [{name}]; expected are {', '.join(keys)}.")
        # A bool is an int to Python, but not to a reader.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            expected = _KINDS[kind] if isinstance(kind, type) else "a number"
            raise file.wrong(name, key, f"{key} must be {expected}, not {value!r}.")


def _route(name: str, table: Any, file: _File) -> Route:
    where = f"routes.{name}"
    if not isinstance(table, dict):
        raise file.wrong(where, None, f"[{where}] must be a table.")
    if not _NAME.match(name):
        raise file.wrong(
            where, None, f"route name {name!r} may hold lower-case letters, digits, '.', '_' and '-' only."
        )
    _check(table, _ROUTE_KEYS, where, file)
    _check(table.get("pace", {}), _PACE_KEYS, f"{where}.pace", file)
    for key in ("backend", "model"):
        if not table.get(key):
            raise file.wrong(where, key if key in table else None, f"route {name!r} has no {key}.")
    try:
        backend = load_backend(table["backend"])
    except CatalogueError as error:
        raise file.wrong(where, "backend", str(error)) from None
    url = table.get("url") or backend.url
    if not url:
        raise file.wrong(where, None, f"route {name!r} needs a url: backend {backend.name!r} has no fixed one.")
    if not re.match(r"https?://[^/\s]+", url):
        raise file.wrong(where, "url", f"url must start with http:// or https://, not {url!r}.")
    role = table.get("role") or backend.kind
    if role not in {"local", "hosted"}:
        raise file.wrong(where, "role", f'role must be "local" or "hosted", not {role!r}.')
    scorer = table.get("scorer") or {"llamacpp": "llamacpp", "vllm": "vllm"}.get(backend.name, "none")
    if scorer not in {"llamacpp", "vllm", "none"}:
        raise file.wrong(where, "scorer", f'scorer must be "llamacpp", "vllm" or "none", not {scorer!r}.')
    return Route(
        name=name,
        backend=backend,
        url=url.rstrip("/"),
        model=table["model"],
        weights=table.get("weights") or table["model"],
        role=role,
        twin=table.get("twin"),
        request=table.get("request", {}),
        pace=_pace(table.get("pace", {}), where, file),
        key_env=table.get("key_env", backend.key_env) or None,
        stream=table.get("stream", True),
        scorer=scorer,
        scorer_url=table.get("scorer_url"),
        template=file.beside(table["template"]) if "template" in table else None,
        price=_price(table["price"], where, file) if "price" in table else None,
    )


def _price(table: Mapping[str, Any], where: str, file: _File) -> Price:
    _check(table, _PRICE_KEYS, f"{where}.price", file)
    for key, value in table.items():
        if not 0 <= value < math.inf:
            raise file.wrong(where, "price", f"price.{key} must be 0 or more US dollars, not {value!r}.")
    return Price(**table)


def _pace(table: Mapping[str, Any], where: str, file: _File) -> Pace:
    for key, value in table.items():
        if isinstance(value, bool):
            continue
        if not 0 < value < math.inf:
            raise file.wrong(f"{where}.pace", key, f"{key} must be more than 0, not {value!r}.")
        most = _MOST_ABREAST if key == "concurrency" else _MOST
        if value > most:
            raise file.wrong(
                f"{where}.pace", key, f"{key} must be {most:,} or less; leave it out for no limit of yours."
            )
    return Pace(**table)


def _check_twin(route: Route, routes: Mapping[str, Route], file: _File) -> None:
    where = f"routes.{route.name}"
    if route.twin is None:
        return
    twin = routes.get(route.twin)
    if route.role == "local":
        raise file.wrong(where, "twin", f"route {route.name!r} is local; only hosted routes have a twin.")
    if twin is None:
        raise file.wrong(where, "twin", f"twin {route.twin!r} is not a route of this file.")
    if twin.role != "local":
        raise file.wrong(where, "twin", f'twin {route.twin!r} must be a route with role = "local".')
