"""How many hosted requests a run may make, over all routes, attempts and starts."""

from collections.abc import Mapping


class Budget:
    """Requests shared out evenly between the routes that still want some.

    What a route leaves over, because its question is answered or it has nothing more to send, goes to the others. So a
    quick route cannot spend what a slow one needs.
    """

    def __init__(self, total: int | None, spent: Mapping[str, int]) -> None:
        """``total`` requests, ``None`` for any number; ``spent`` so far by route id, which names all hosted routes."""
        self._total = total
        self._spent = dict(spent)
        self._open = set(self._spent)

    @property
    def gone(self) -> bool:
        """Whether nothing is left."""
        return self._total is not None and self.spent >= self._total

    @property
    def spent(self) -> int:
        """Requests made so far."""
        return sum(self._spent.values())

    def limits(self, route_id: str) -> bool:
        """Whether requests of this route count at all: those of local routes cost nothing."""
        return self._total is not None and route_id in self._spent

    def may(self, route_id: str) -> bool:
        """Whether the route may send a request now; where it may not and the budget is not gone, it may later."""
        if not self.limits(route_id):
            return True
        if self._total is None or self.gone:
            return False
        left = self._total - sum(count for key, count in self._spent.items() if key not in self._open)
        share = left // len(self._open)
        # The last few, which do not divide evenly, go to whoever comes first once all have had their share.
        return self._spent[route_id] < share or all(self._spent[key] >= share for key in self._open)

    def spend(self, route_id: str) -> None:
        """Count a request."""
        if route_id in self._spent:
            self._spent[route_id] += 1

    def leave(self, route_id: str) -> None:
        """Hand back what is left of a route's share."""
        self._open.discard(route_id)
