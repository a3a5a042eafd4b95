"""Keeps the two sides of a pair close in time, without letting a slow route hold the others.

The rule, in the order of the plan:

- hosted routes never wait for each other;
- a twin begins no trial that lies more than a window beyond the next one of its **fastest** hosted route that is still
  at work; so it keeps pace with the one that needs it next, and a slow route finds its pairs answered already;
- a hosted route begins no trial that lies more than the same window beyond the next one of its twin;
- whoever has finished, stopped or paused for the day is not waited for.

Of two that wait for each other one would have to be ahead of the other by more than a window, and the other likewise:
so nobody waits for ever.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import NamedTuple

from probe.store.store import Store

WINDOW = 8
"""Traces that one side of a pair may be ahead of the other, besides what it has under way at once."""

_GAPS = """
SELECT abs(hosted.started_at - twin.started_at)
FROM trials AS there
JOIN trials AS here ON here.run_id = there.run_id AND here.trace_id = there.trace_id AND here.repeat = there.repeat
  AND here.route_id = :twin
JOIN exchanges AS hosted ON hosted.trial_id = there.id AND hosted.answered = 1
JOIN exchanges AS twin ON twin.trial_id = here.id AND twin.answered = 1
WHERE there.run_id = :run AND there.route_id = :hosted AND there.state = 'answered' AND here.state = 'answered'
"""


class Pairing:
    """Where each route is in the plan, and who must wait. Positions are those of the trials.

    ``twins`` gives the twin's id by the hosted route's; ``window`` is in positions.
    """

    def __init__(self, twins: Mapping[str, str] | None = None, window: int = 0) -> None:
        self._twins = dict(twins or {})
        self._hosted: dict[str, list[str]] = defaultdict(list)
        for hosted_id, twin_id in self._twins.items():
            self._hosted[twin_id].append(hosted_id)
        self._window = window
        self._held: dict[str, set[int]] = defaultdict(set)
        self._next: dict[str, int] = defaultdict(int)
        self._away: set[str] = set()

    def expect(self, route_ids: Iterable[str]) -> None:
        """Say which routes have anything to send; the others are not waited for."""
        self._away = ({*self._twins, *self._hosted}) - {*route_ids}

    def hold(self, route_id: str, position: int) -> None:
        """Note that a trial is the next, or one of the next, that a route will begin."""
        self._held[route_id].add(position)

    def begin(self, route_id: str, position: int) -> None:
        """Note that a trial is being sent, or will not be sent at all."""
        self._held[route_id].discard(position)
        self._next[route_id] = max(self._next[route_id], position + 1)

    def away(self, route_id: str, *, away: bool = True) -> None:
        """Note that a route is not to be waited for, or is again."""
        if away:
            self._away.add(route_id)
        else:
            self._away.discard(route_id)

    def waits(self, route_id: str, position: int) -> bool:
        """Whether a route must wait with a trial until others have caught up."""
        if route_id in self._twins:
            twin_id = self._twins[route_id]
            return twin_id not in self._away and position > self._place(twin_id) + self._window
        working = [
            self._place(hosted_id) for hosted_id in self._hosted.get(route_id, ()) if hosted_id not in self._away
        ]
        return bool(working) and position > max(working) + self._window

    def _place(self, route_id: str) -> int:
        """Return the position of the next trial that a route has not begun."""
        held = self._held[route_id]
        return min(held) if held else self._next[route_id]


class Gap(NamedTuple):
    """Median time between the two sides of ``pairs`` pairs, in seconds; ``None`` where there is no pair."""

    pairs: int
    median_s: float | None


def gap_of(store: Store, run_id: str, hosted_id: str, twin_id: str) -> Gap:
    """Return how far apart in time the two sides of a hosted route's pairs were sent, over all starts of a run."""
    rows = store.query(_GAPS, {"run": run_id, "hosted": hosted_id, "twin": twin_id})
    return Gap(len(rows), median(row[0] for row in rows) if rows else None)
