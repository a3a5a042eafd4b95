"""What is to be read beside a route's rates: who else served its answers, and what a router changed on the way."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from probe.store.columns import from_json
from probe.store.rows import RouteRow
from probe.store.store import Store

_ECHOES = """
SELECT facts FROM evidence JOIN exchanges ON exchanges.id = evidence.exchange_id
WHERE evidence.detector = 'echo' AND exchanges.route_id = ?
"""

_SERVED = "SELECT count(*) FROM served JOIN exchanges ON exchanges.id = served.exchange_id WHERE route_id = ?"

_SHOWN = 3
"""Names and changes that are listed; the rest is counted."""


def remarks(store: Store, route: RouteRow) -> tuple[str, ...]:
    """Return sentences about a hosted route; none where there is nothing to say."""
    if route.role != "hosted":
        return ()
    return (*_surprises(store, route), *_echoed(store, route))


def _surprises(store: Store, route: RouteRow) -> Iterator[str]:
    odd = store.served(route_id=route.id, surprise=True)
    if not odd:
        return
    ((total,),) = store.query(_SERVED, (route.id,))
    known = {row.expected for row in odd if row.expected}
    pinned = f"not from the pinned {', '.join(sorted(known))}" if known else f"not from {route.model}"
    came = _listed(Counter(_name(row.provider, row.model, known) for row in odd))
    yield (
        f"{len(odd)} of {total} answers of route {route.name} came from {came}, {pinned}; they are counted in its "
        "rates and effects as they came, and `probe show` marks them."
    )


def _name(provider: str | None, model: str | None, known: set[str]) -> str:
    return (provider or model or "somebody else") if known else (model or "another model")


def _echoed(store: Store, route: RouteRow) -> Iterator[str]:
    facts: list[dict[str, Any]] = [from_json(text) for (text,) in store.query(_ECHOES, (route.id,))]
    compared = [found for found in facts if found.get("compared")]
    changed = sum(bool(found.get("prompt_changed")) for found in compared)
    if changed:
        yield (
            f"In {changed} of {len(compared)} answers of route {route.name} the router's echo shows that it changed "
            "the prompt: its answers there are answers to another prompt than the twin's."
        )
    sampling = Counter(change for found in facts for change in found.get("sampling_changed", ()))
    if sampling:
        times = sum(bool(found.get("sampling_changed")) for found in facts)
        yield (
            f"In {times} of {len(facts)} answers of route {route.name} the router's echo shows that it changed the "
            f"sampling: {_listed(sampling)}."
        )


def _listed(counted: Counter[str]) -> str:
    shown = [f"{name} ({count})" for name, count in counted.most_common(_SHOWN)]
    more = len(counted) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
