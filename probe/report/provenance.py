"""Where one answer came from: who served it, and what the router told of its generation afterwards."""

from typing import Any

from probe.errors import CatalogueError
from probe.routers.followup import told_of
from probe.store.store import Store
from probe.wire.catalogue import load_backend
from probe.wire.values import Exchange


def served_part(store: Store, exchange_id: str) -> dict[str, Any] | None:
    """Return who served an exchange; ``None`` where that was not derived, or there is nothing to say."""
    row = next(iter(store.served(exchange_id=exchange_id)), None)
    if row is None:
        return None
    return {
        "provider": row.provider,
        "model": row.model,
        "expected": row.expected,
        "surprise": row.surprise,
        "sentence": row.sentence,
    }


def generation_part(store: Store, exchange: Exchange) -> dict[str, Any] | None:
    """Return what the router told of an answer's generation, with the exchange that told it."""
    try:
        backend = load_backend(store.routes()[exchange.route_id].backend)
    except CatalogueError:
        return None
    found = told_of(store, backend, exchange)
    return None if found is None else {**found[1].to_json(), "exchange": found[0]}
