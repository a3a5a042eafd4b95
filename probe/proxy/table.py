"""Which address a path of the proxy stands for: ``/<route>/v1/…`` → the route's URL, with its credential."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from probe.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Target:
    """Where a route's requests go.

    ``url``: base address (``https://host/api/v1``). ``auth_header`` and ``auth_scheme`` say how the value of the
    environment variable ``key_env`` is sent (``Authorization``, ``Bearer``). ``headers`` are added to each request.
    """

    route_id: str
    name: str
    url: str
    auth_header: str | None = None
    auth_scheme: str = ""
    key_env: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def credential(self) -> tuple[str, str] | None:
        """Return the header that carries the key, or ``None`` where the route needs or has none."""
        key = os.environ.get(self.key_env or "")
        if not key or not self.auth_header:
            return None
        return self.auth_header, f"{self.auth_scheme} {key}".strip()


@dataclass(frozen=True, slots=True)
class Destination:
    """A resolved request: the target and the absolute URL parts it goes to."""

    target: Target
    scheme: str
    host: str
    port: int
    path: str


class RouteTable:
    """The configured routes by name; nothing else can be reached through the proxy."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self._targets = {target.name: target for target in targets}
        for target in self._targets.values():
            parts = urlsplit(target.url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ConfigError(
                    f"Route {target.name!r}: url must start with http:// or https://, not {target.url!r}."
                )

    def names(self) -> list[str]:
        """Return the names of the routes, in the order of the configuration."""
        return list(self._targets)

    def targets(self) -> list[Target]:
        """Return the targets, in the order of the configuration."""
        return list(self._targets.values())

    def resolve(self, path: str) -> Destination | None:
        """Return where ``/<route>/rest?query`` goes; ``None`` where no such route is configured.

        A path segment that both the route's URL ends with and ``rest`` starts with is not doubled, so that clients
        which insist on ``/v1`` reach ``https://openrouter.ai/api/v1`` as well as ``http://127.0.0.1:8080/v1``.
        """
        plain, _, query = path.partition("?")
        segments = plain.split("/")
        if len(segments) < 2 or segments[0] or any(part in {".", ".."} for part in segments):
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
        assert base.hostname is not None
        port = base.port or (443 if base.scheme == "https" else 80)
        return Destination(target, base.scheme, base.hostname, port, full + (f"?{query}" if query else ""))

    def client_base(self, name: str) -> str:
        """Return the path prefix that a client puts before the dialect's path: ``/local/v1`` or ``/ollama``."""
        base = urlsplit(self._targets[name].url).path.rstrip("/")
        last = base.rsplit("/", 1)[-1]
        return f"/{name}/{last}" if last.startswith("v") and last[1:2].isdigit() else f"/{name}"
