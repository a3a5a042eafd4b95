"""Which address a path of the proxy stands for: ``/<route>/v1/…`` → the route's URL, with its credential."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from probe.errors import ConfigError
from probe.proxy.redact import environment_values
from probe.proxy.signing import secret_variables, signing_problem


@dataclass(frozen=True, slots=True)
class Target:
    """Where a route's requests go.

    ``url``: base address (``https://host/api/v1``). ``auth_header`` and ``auth_scheme`` say how the value of the
    environment variable ``key_env`` is sent (``Authorization``, ``Bearer``). ``headers`` are added to each request.
    ``key_required``: without a key nothing is sent; a local server may do without.
    """

    route_id: str
    name: str
    url: str
    auth_header: str | None = None
    auth_scheme: str = ""
    key_env: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    key_required: bool = True
    sign_for: str | None = None
    """AWS service that requests are signed for, where that is how the route is authorized."""

    def key(self) -> str | None:
        """Return the route's key, or ``None`` where the route needs or has none."""
        # A key that was read from a file often ends in a line break.
        key = os.environ.get(self.key_env or "", "").strip()
        return key if key and self.auth_header else None

    def credential(self) -> tuple[str, str] | None:
        """Return the header that carries the key, or ``None`` where the route needs or has none."""
        key = self.key()
        if key is None or not self.auth_header:
            return None
        return self.auth_header, f"{self.auth_scheme} {key}".strip()

    def secrets(self) -> list[str]:
        """Return all values that authorize this route's requests now, whatever they are sent as."""
        return [*environment_values([self.key_env]), *environment_values(secret_variables(self.sign_for))]

    def key_problem(self) -> str | None:
        """Return a sentence on why the key cannot be sent, or ``None`` where all is well."""
        if self.sign_for is not None:
            return signing_problem(self.sign_for, self.name, self.url)
        if not self.key_env or not self.auth_header:
            return None
        key = self.key()
        if key is None and self.key_required:
            return f"Route {self.name!r} needs a key: set the environment variable {self.key_env}."
        if key is not None and not key.isprintable():
            return f"Route {self.name!r}: the value of {self.key_env} holds a line break or a control character."
        return None


@dataclass(frozen=True, slots=True)
class Destination:
    """A resolved request: the target and the absolute URL parts it goes to."""

    target: Target
    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        """The absolute URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


class RouteTable:
    """The configured routes by name; nothing else can be reached through the proxy.

    Raises ``ConfigError`` where a route's URL cannot be used.
    """

    def __init__(self, targets: Iterable[Target]) -> None:
        self._targets = {target.name: target for target in targets}
        self._addresses = {_address(target) for target in self._targets.values()}

    def names(self) -> list[str]:
        """Return the names of the routes, in the order of the configuration."""
        return list(self._targets)

    def targets(self) -> list[Target]:
        """Return the targets, in the order of the configuration."""
        return list(self._targets.values())

    def reaches(self, host: str, port: int) -> bool:
        """Whether a route points to this host and port."""
        return (host, port) in self._addresses

    def resolve(self, path: str) -> Destination | None:
        """Return where ``/<route>/rest?query`` goes; ``None`` where no such route is configured.

        A path segment that both the route's URL ends with and ``rest`` starts with is not doubled, so that clients
        which insist on ``/v1`` reach ``https://openrouter.ai/api/v1`` as well as ``http://127.0.0.1:8080/v1``. A path
        with ``..`` in it, however it is spelt, goes nowhere: it would leave the route's base path.
        """
        plain, mark, query = path.partition("?")
        segments = plain.split("/")
        if len(segments) < 2 or segments[0] or _climbs(plain):
            return None
        target = self._targets.get(segments[1])
        if target is None:
            return None
        base = urlsplit(target.url)
        head = base.path.rstrip("/").split("/") if base.path.strip("/") else [""]
        rest = segments[2:]
        if head[-1] and rest and rest[0] == head[-1]:
            rest = rest[1:]
        full = "/".join([*head, *rest]) or "/"
        if base.query:
            mark, query = "?", f"{base.query}&{query}" if query else base.query
        host, port = _address(target)
        return Destination(target, base.scheme, host, port, full + mark + query)

    def client_base(self, name: str) -> str:
        """Return the path prefix that a client puts before the dialect's path: ``/local/v1`` or ``/ollama``."""
        base = urlsplit(self._targets[name].url).path.rstrip("/")
        last = base.rsplit("/", 1)[-1]
        return f"/{name}/{last}" if last.startswith("v") and last[1:2].isdigit() else f"/{name}"


def _address(target: Target) -> tuple[str, int]:
    try:
        parts = urlsplit(target.url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"Route {target.name!r}: {target.url!r} is not a URL ({error}).") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"Route {target.name!r}: url must start with http:// or https://, not {target.url!r}.")
    if "@" in parts.netloc:
        raise ConfigError(f"Route {target.name!r}: url must not hold a user or a password; use key_env.")
    return parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _climbs(path: str) -> bool:
    """Whether a path has ``.`` or ``..`` segments, also percent-encoded once or twice, also with backslashes."""
    return any(part in {".", ".."} for part in re.split(r"[/\\]", unquote(unquote(path))))
