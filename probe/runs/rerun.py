"""Sends the requests of a manifest again: the same bytes, in the same order, over routes of the same names.

Nothing is built anew, so neither another version of the probe nor a changed backend file alters a byte. What changes is
where the routes are (a local server elsewhere) and what answers there, which is the question.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from probe.config import Config, Route
from probe.errors import CatalogueError, ConfigError, ProbeError
from probe.runs.execute import Asked, Executed, carry_out
from probe.runs.manifest import check_bodies, route_ids
from probe.runs.plan import Pack, new_run, store_plan
from probe.runs.requests import build_request
from probe.runs.summary import Progress
from probe.store.rows import PackRow, RunRow, TrialRow
from probe.store.store import Store
from probe.traces.values import Message, Sampling, Trace
from probe.wire.catalogue import load_backend
from probe.wire.values import BuiltRequest

RERUN_OF = "rerun_of"
"""Key of a run's manifest that names the run whose bytes it sends."""


def rerun(
    manifest: Mapping[str, Any],
    here: Config | None,
    database: Path,
    *,
    routes: tuple[str, ...] = (),
    new: bool = False,
    progress: Progress | None = None,
    asked: Asked | None = None,
) -> Executed:
    """Send a manifest's requests; ``here`` says where its routes are now, ``routes`` chooses among them.

    An unfinished rerun of the same manifest is taken up, unless ``new``. Raises ``ProbeError``.
    """
    check_bodies(manifest)
    config = config_of(manifest, here).only(routes)
    traces = traces_of(manifest)
    stored = _requests(manifest)

    def choose(store: Store) -> tuple[RunRow, bool]:
        packs = _packs(manifest, traces)
        run = new_run(
            config,
            packs,
            seed=int(manifest.get("seed") or 0),
            repeats=int(manifest.get("repeats") or 1),
            aa=bool(manifest.get("aa")),
        )
        run = replace(run, manifest={**run.manifest, RERUN_OF: manifest["run"]})
        for earlier in reversed(store.runs()):
            same = earlier.manifest.get(RERUN_OF) == manifest["run"] and route_ids(earlier.manifest) == route_ids(
                run.manifest
            )
            if same and earlier.ended_at is None and not new:
                return earlier, True
        with store.transaction():
            store.add_traces(traces.values())
            store_plan(store, config, packs, run, _trials(manifest, config, traces, run))
        return run, False

    def bytes_of(route: Route, trace: Trace) -> BuiltRequest:
        return stored[route.name, trace.id]

    return carry_out(config, database, choose, progress=progress, asked=asked, requests=bytes_of)


def config_of(manifest: Mapping[str, Any], here: Config | None) -> Config:
    """Return the routes of a manifest, each at the place where ``here`` has a route of its name.

    Raises ``ConfigError`` where a route cannot be made, or where the one that is here speaks another dialect.
    """
    made: dict[str, Route] = {}
    for name, entry in (manifest.get("routes") or {}).items():
        if not isinstance(entry, Mapping):
            raise ConfigError("This manifest is of a version that kept no routes in it; it can be compared, not rerun.")
        local = here.routes.get(name) if here else None
        try:
            backend = local.backend if local else load_backend(entry["backend"])
        except CatalogueError as error:
            raise ConfigError(f"Route {name!r} of the manifest: {error}") from None
        if backend.dialect != entry["dialect"]:
            raise ConfigError(
                f"Route {name!r} speaks {backend.dialect} here and {entry['dialect']} in the manifest: the same bytes "
                "would not be understood."
            )
        stated = Route(
            name=name,
            backend=backend,
            url=entry["url"],
            model=entry["model"],
            weights=entry["weights"],
            role=entry["role"],
            twin=entry.get("twin"),
            request=entry.get("request") or {},
            stream=bool(entry.get("stream", True)),
            key_env=backend.key_env,
        )
        if local is None:
            _check_address(stated)
        made[name] = stated if local is None else _moved(stated, local)
    if not made:
        raise ConfigError("The manifest names no routes.")
    return Config(routes=made, seed=int(manifest.get("seed") or 0), repeats=int(manifest.get("repeats") or 1))


def _check_address(route: Route) -> None:
    """Raise ``ConfigError`` where a manifest, which others write, would take this machine's key elsewhere.

    The key may go to the provider's known address, and to this machine; anywhere else only probe.toml sends it.
    """
    there, known = urlsplit(route.url), urlsplit(route.backend.url or "")
    if there.scheme not in {"http", "https"} or not there.hostname:
        raise ConfigError(f"Route {route.name!r} of the manifest has no address that can be asked: {route.url!r}.")
    official = (there.scheme, there.netloc) == (known.scheme, known.netloc)
    if route.backend.auth and not official and there.hostname not in {"127.0.0.1", "localhost", "::1"}:
        raise ConfigError(
            f"Route {route.name!r} of the manifest goes to {route.url}, and your key would go there too: if it may, "
            f"write [routes.{route.name}] with this url and its key_env into probe.toml."
        )


def _moved(stated: Route, local: Route) -> Route:
    """Return a route of the manifest at the place of this study's route, with its key, pace and price."""
    return replace(
        stated,
        url=local.url,
        key_env=local.key_env,
        pace=local.pace,
        price=local.price,
        scorer=local.scorer,
        scorer_url=local.scorer_url,
    )


def traces_of(manifest: Mapping[str, Any]) -> dict[str, Trace]:
    """Return the traces by id. Raises ``ConfigError`` for one that does not hash to the id it has."""
    found = {}
    for row in manifest.get("traces") or ():
        try:
            trace = Trace(
                name=row["name"],
                messages=tuple(Message(message["role"], message["content"]) for message in row["messages"]),
                sampling=Sampling(**row["sampling"]),
                family=row["family"],
                control=row["control"],
                labels=row["labels"],
            )
        except (KeyError, TypeError) as error:
            raise ConfigError(f"A trace of the manifest cannot be read ({error!r}).") from None
        if trace.id != row["id"]:
            raise ConfigError(f"Trace {trace.name!r} was changed in the manifest: it does not hash to its id.")
        found[trace.id] = trace
    return found


def _requests(manifest: Mapping[str, Any]) -> dict[tuple[str, str], BuiltRequest]:
    bodies = manifest["bodies"]
    return {
        (row["route"], row["trace"]): BuiltRequest(row["path"], bodies[row["sha256"]].encode("utf-8", "surrogatepass"))
        for row in manifest["requests"]
    }


def _packs(manifest: Mapping[str, Any], traces: Mapping[str, Trace]) -> list[Pack]:
    members: Mapping[str, list[str]] = manifest.get("pack_traces") or {}
    return [
        Pack(
            PackRow(id=str(digest), name=name, source=f"manifest of run {manifest['run']}"),
            tuple(traces[trace_id] for trace_id in members.get(name, ()) if trace_id in traces),
        )
        for name, digest in (manifest.get("packs") or {}).items()
    ]


def _trials(
    manifest: Mapping[str, Any], config: Config, traces: Mapping[str, Trace], run: RunRow
) -> Iterator[TrialRow]:
    ids = {name: route.row.id for name, route in config.routes.items()}
    dropped = _dropped(config, traces)
    for position, row in enumerate(sorted(manifest["requests"], key=lambda row: row["position"])):
        name, trace_id = row["route"], row["trace"]
        if name in ids:
            yield TrialRow(run.id, trace_id, ids[name], row["repeat"], position, dropped=dropped(name, trace_id))


def _dropped(config: Config, traces: Mapping[str, Trace]) -> Callable[[str, str], tuple[str, ...]]:
    """Return what a backend cannot accept of a trace: said of the backend as it is described here."""

    def of(name: str, trace_id: str) -> tuple[str, ...]:
        try:
            return build_request(config.routes[name], traces[trace_id]).dropped
        except ProbeError:
            return ()

    return of
