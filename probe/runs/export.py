"""Writes a run out as a manifest that stands alone: what was planned, what was said, what was sent."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from probe.errors import ConfigError, StoreError
from probe.ids import content_hash
from probe.routers.served import LISTING
from probe.runs.check import SERVER
from probe.runs.manifest import FORMAT
from probe.store.rows import RunRow, TrialRow
from probe.store.store import Store
from probe.traces.values import Trace


def find_run(store: Store, name: str | None) -> RunRow:
    """Return a run by the beginning of its id; the newest one without a name. Raises ``StoreError``."""
    runs = store.runs()
    if not runs:
        raise StoreError(f"There is no run in {store.path}: `probe run` makes one.")
    if name is None:
        return runs[-1]
    found = [run for run in runs if run.id.startswith(name)]
    if len(found) != 1:
        known = ", ".join(run.id for run in runs[-5:])
        what = "is no run" if not found else "is the beginning of several runs"
        raise StoreError(f"{name!r} {what} in {store.path}; there are: {known}.")
    return found[0]


def manifest_of(store: Store, run: RunRow) -> dict[str, Any]:
    """Return the manifest of a run, with its traces and the bytes of its requests.

    ``requests`` are the trials in the order of the plan; one that was never sent has no bytes and is counted in
    ``not_sent``. Raises ``ConfigError`` for a body that is no text, which JSON cannot carry.
    """
    routes = store.routes()
    sent = _sent(store, run)
    rows, bodies, unsent = [], {}, 0
    for trial in store.trials(run.id):
        route = routes[trial.route_id]
        found = sent.get((trial.route_id, trial.trace_id))
        if found is None:
            unsent += 1
            continue
        url, body = found
        digest = content_hash(body)
        bodies[digest] = _text(body, trial)
        rows.append(
            {
                "position": trial.position,
                "trace": trial.trace_id,
                "route": route.name,
                "repeat": trial.repeat,
                "path": path_below(route.url, url),
                "sha256": digest,
            }
        )
    manifest = {**run.manifest, "routes": _routes(store, run)}
    traces = [_trace(trace) for trace in store.traces(run_id=run.id).values()]
    return {
        "format": FORMAT,
        "run": run.id,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        **manifest,
        "traces": traces,
        "pack_traces": {
            name: list(store.traces(pack_id=str(digest))) for name, digest in (run.manifest.get("packs") or {}).items()
        },
        "not_sent": unsent,
        "requests": rows,
        "bodies": bodies,
    }


def _routes(store: Store, run: RunRow) -> dict[str, Any]:
    """Return the routes with what their servers said of themselves when the run began."""
    found: dict[str, Any] = {}
    for name, entry in (run.manifest.get("routes") or {}).items():
        if not isinstance(entry, Mapping):  # of a version that kept ids only
            found[name] = entry
            continue
        facts: dict[str, Any] = {}
        for fact in store.facts(entry["id"]):
            # The first that were said after the run was planned; a later start asks again.
            if fact.at >= run.started_at and isinstance(fact.value, Mapping):
                facts.setdefault(fact.kind, fact.value)
        server = {"version": (facts.get("check") or {}).get("version"), **(facts.get(SERVER) or {})}
        listing = {"listing": facts[LISTING]} if LISTING in facts else {}
        found[name] = {**entry, "facts": {key: value for key, value in server.items() if value is not None} | listing}
    return found


def _sent(store: Store, run: RunRow) -> Mapping[tuple[str, str], tuple[str, bytes]]:
    """Return URL and body of what was sent, by route and trace: every repeat and attempt has the same bytes."""
    first: dict[tuple[str, str], str] = {}
    for ref in store.refs(run_id=run.id):
        if ref.trace_id is not None:
            first.setdefault((ref.route_id, ref.trace_id), ref.id)
    places = {exchange_id: place for place, exchange_id in first.items()}
    return {places[e.id]: (e.url, e.request_body) for e in store.exchanges_of(places)}


def _text(body: bytes, trial: TrialRow) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"The request of trial {trial.id} is no UTF-8 text; a manifest cannot hold it.") from None


def path_below(base: str, url: str) -> str:
    """Return what stands behind a route's URL in the URL of a request, with its query."""
    parts, root = urlsplit(url), urlsplit(base).path.rstrip("/")
    rest = parts.path.removeprefix(root)
    return rest + (f"?{parts.query}" if parts.query else "")


def _trace(trace: Trace) -> dict[str, Any]:
    return {
        "id": trace.id,
        "name": trace.name,
        "family": trace.family,
        "control": trace.control,
        "messages": [asdict(message) for message in trace.messages],
        "sampling": asdict(trace.sampling),
        "labels": dict(trace.labels),
    }
