"""The manifest: all that somebody needs to know, and to have, to send the same bytes again elsewhere.

It is kept with the run, and written out as one JSON file that needs no database: the code and what it runs on, the
routes with what their servers said of themselves, the traces, and the bytes of every request. No credentials, no paths
of this machine. Two manifests are compared key by key; what describes the occasion (clock, host, ids) is told apart
from what may change an answer.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from probe import __version__
from probe.config import Route
from probe.errors import ConfigError
from probe.ids import content_hash, json_hash

FORMAT = "probe-manifest/1"

_PACKAGES = ("mitmproxy", "aiohttp", "xllamacpp", "tokenizers", "numpy", "scipy", "sqlite-utils")
"""What takes part in sending, recording and measuring."""

OCCASION = ("run", "started_at", "ended_at", "clock", "host", "python", "system", "packages", "probe", "rerun_of")
"""Keys that say when, where and by which versions; they differ between any two runs and change no request."""


def software() -> dict[str, Any]:
    """Return the code and what it runs on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "probe": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "byteorder": sys.byteorder,
        "packages": found,
    }


def occasion() -> dict[str, Any]:
    """Return clock and host. The host's name is hashed: two runs show whether it was the same one, and not which."""
    now = time.time()
    return {
        "clock": {"unix": now, "timezone": time.strftime("%z"), "resolution_s": time.get_clock_info("time").resolution},
        "host": {
            "name_sha256": content_hash(platform.node().encode())[:16],
            "cpus": os.cpu_count(),
            "memory_bytes": _memory(),
        },
    }


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def route_entry(route: Route) -> dict[str, Any]:
    """Return a route as a manifest has it: what reaches its server, and the hash of the backend file behind that."""
    backend = route.backend
    return {
        "id": route.row.id,
        "backend": backend.name,
        "dialect": backend.dialect,
        "url": route.url,
        "model": route.model,
        "weights": route.weights,
        "role": route.role,
        "twin": route.twin,
        "request": dict(route.request),
        "stream": route.stream,
        "template": _file_hash(route.template),
        "headers": dict(backend.headers),
        "additions": {**backend.request, **({"(streams)": backend.stream_request} if backend.stream_request else {})},
        "parameters": {name: asdict(parameter) for name, parameter in backend.parameters.by_name.items()},
    }


def route_ids(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the ids of a manifest's routes by name; earlier versions kept nothing else of a route."""
    entries = manifest.get("routes") or {}
    return {name: entry["id"] if isinstance(entry, Mapping) else entry for name, entry in entries.items()}


def _file_hash(name: str | None) -> str | None:
    if name is None:
        return None
    try:
        return content_hash(Path(name).read_bytes())
    except OSError:
        return "cannot be read"


@dataclass(frozen=True, slots=True)
class Difference:
    """One place in which two manifests differ; ``None`` where a side has nothing there.

    ``matters``: it may change what is sent or who answers; otherwise it describes the occasion.
    """

    key: str
    left: Any
    right: Any
    matters: bool

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def difference(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Difference]:
    """Return what differs, what matters first, in the order of the keys.

    Requests are compared as a whole: their number and their bytes.
    """
    found = [
        Difference(key, a, b, matters=_matters(key, a, b))
        for key, a, b in _differences("", _comparable(left), _comparable(right))
    ]
    return sorted(found, key=lambda entry: (not entry.matters, entry.key))


def _matters(key: str, left: Any, right: Any) -> bool:
    if key.split(".", maxsplit=1)[0] in OCCASION or key.endswith(".id"):
        return False
    # A server on this machine listens on another port each time.
    return not (key.endswith(".url") and all(_is_here(url) for url in (left, right)))


def _is_here(url: Any) -> bool:
    return isinstance(url, str) and urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}


def _comparable(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest without its bulk: traces and bodies by hash."""
    kept = {key: value for key, value in manifest.items() if key not in {"traces", "bodies", "requests"}}
    if "traces" in manifest:
        kept["traces"] = {
            "count": len(manifest["traces"]),
            "sha256": json_hash(sorted(map(json_hash, manifest["traces"]))),
        }
    if "requests" in manifest:
        rows = manifest["requests"]
        by_route: dict[str, list[str]] = {}
        for row in rows:
            by_route.setdefault(row["route"], []).append(f"{row['trace']} {row['sha256']}")
        kept["requests"] = {
            name: {"count": len(found), "bodies_sha256": json_hash(sorted(found))} for name, found in by_route.items()
        }
    return kept


def _differences(key: str, left: Any, right: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for name in dict.fromkeys([*left, *right]):
            yield from _differences(f"{key}.{name}" if key else str(name), left.get(name), right.get(name))
    elif left != right:
        yield key, left, right


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest's file. Raises ``ConfigError`` for anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{path} is no manifest: it is not JSON ({error}).") from None
    except RecursionError:
        raise ConfigError(f"{path} is no manifest: it is nested too deeply.") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        stated = document.get("format") if isinstance(document, dict) else None
        raise ConfigError(
            f"{path} is no manifest that this version reads ({FORMAT}): it says {stated!r}. "
            "`probe manifest show RUN` writes one."
        )
    _check_shape(path, document)
    return document


_SHAPE: Mapping[str, type] = {
    "run": str,
    "routes": dict,
    "traces": list,
    "requests": list,
    "bodies": dict,
}
_OPTIONAL: Mapping[str, type] = {"seed": int, "repeats": int, "aa": bool, "packs": dict, "pack_traces": dict}
_REQUEST: Mapping[str, type] = {
    "route": str,
    "trace": str,
    "path": str,
    "sha256": str,
    "position": int,
    "repeat": int,
}
_ROUTE: Mapping[str, type] = dict.fromkeys(("id", "backend", "dialect", "url", "model", "weights", "role"), str)


def _check_shape(path: Path, document: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` where a part that is read is missing or something else: files are edited, and cut."""
    parts: list[tuple[str, Any, Mapping[str, type]]] = [("the file", document, _SHAPE)]
    parts.append(("the file", document, {key: kind for key, kind in _OPTIONAL.items() if key in document}))
    if isinstance(routes := document.get("routes"), dict):
        # Earlier versions kept an id of a route, and nothing else.
        parts += [(f"route {name!r}", entry, _ROUTE) for name, entry in routes.items() if not isinstance(entry, str)]
    for key, shape in (("requests", _REQUEST), ("traces", {"id": str, "name": str, "messages": list})):
        if isinstance(rows := document.get(key), list):
            parts += [(f"entry {number} of {key}", row, shape) for number, row in enumerate(rows, 1)]
    for where, value, shape in parts:
        if not isinstance(value, dict):
            raise ConfigError(f"{path} was damaged: {where} is {type(value).__name__}, not an object.")
        for key, kind in shape.items():
            if not isinstance(value.get(key), kind):
                raise ConfigError(f"{path} was damaged: {where} has no {key!r} as `probe manifest show` writes it.")
    traces = {row["id"] for row in document["traces"]}
    for row in document["requests"]:
        if row["trace"] not in traces or row["route"] not in document["routes"]:
            raise ConfigError(f"{path} was damaged: request {row['position']} is of a trace or a route that it lacks.")


def check_bodies(manifest: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` where the bytes of a request are missing or are not those that were sent."""
    bodies = manifest.get("bodies") or {}
    for row in manifest.get("requests") or ():
        body = bodies.get(row["sha256"])
        if not isinstance(body, str) or content_hash(body.encode("utf-8", "surrogatepass")) != row["sha256"]:
            what = "was changed in" if isinstance(body, str) else "is missing from"
            raise ConfigError(
                f"The body of the request of trace {row['trace']} over {row['route']!r} {what} the manifest."
            )


def summary(manifest: Mapping[str, Any]) -> Sequence[str]:
    """Return a manifest in a few sentences, for people."""
    routes = manifest.get("routes") or {}
    software = (
        f"probe {manifest.get('probe', '?')} on Python {manifest.get('python', '?')}, {manifest.get('system', '?')}"
    )
    lines = [
        f"Run {manifest.get('run', '?')}: {software}; seed {manifest.get('seed')}, {manifest.get('repeats')} repeat(s)."
    ]
    for name, entry in routes.items():
        if not isinstance(entry, Mapping):  # of a version that kept ids only
            lines.append(f"  {name}: {entry}")
            continue
        facts = entry.get("facts") or {}
        told = ", ".join(
            f"{key} {str(value)[:24]}" for key, value in facts.items() if not isinstance(value, dict | list)
        )
        lines.append(
            f"  {name} ({entry.get('role')}): {entry.get('model')} at {entry.get('url')}{f'; {told}' if told else ''}"
        )
    packs = ", ".join(f"{name} ({str(digest)[:12]})" for name, digest in (manifest.get("packs") or {}).items())
    lines.append(f"  packs: {packs}; {len(manifest.get('requests') or ())} requests")
    return lines
