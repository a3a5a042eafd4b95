"""A case with where it belongs and what was asked."""

from dataclasses import dataclass

from probe.evidence.case import Case
from probe.store.rows import OutcomeRow
from probe.store.served import ServedRow
from probe.traces.values import Message


@dataclass(frozen=True, slots=True)
class Sent:
    """A case with where it belongs and what was asked. ``run_id`` and ``repeat`` are ``None`` outside any plan.

    ``served``: which host answered, where the answer names one or the route pins one.
    """

    case: Case
    route_id: str
    run_id: str | None
    repeat: int | None
    messages: tuple[Message, ...]
    unscorable: str | None
    outcome: OutcomeRow
    served: ServedRow | None = None
