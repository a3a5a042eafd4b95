"""A small study: one route, a few traces, a run with a trial for each."""

import time
from dataclasses import dataclass, field
from typing import Any

from probe.ids import new_id
from probe.store import Store
from probe.store.rows import PackRow, RouteRow, RunRow, TrialRow, WeightsRow
from probe.traces.values import Message, Trace
from probe.wire.values import Chunk, Exchange


def exchange_of(route_id: str, trial_id: str | None = None, **overrides: Any) -> Exchange:
    body = overrides.pop("response_body", b'{"choices":[{"message":{"content":"Hello."}}]}')
    values: dict[str, Any] = {
        "id": new_id(),
        "route_id": route_id,
        "trial_id": trial_id,
        "attempt": 1,
        "started_at": round(time.time(), 6),
        "method": "POST",
        "url": "http://127.0.0.1:8000/v1/chat/completions",
        "request_headers": (("Content-Type", "application/json"), ("X-A", "1"), ("x-a", "2")),
        "request_body": b'{"messages":[]}',
        "http_version": "HTTP/1.1",
        "status": 200,
        "reason": "OK",
        "response_headers": (("Content-Type", "application/json"),),
        "response_body": body,
        "chunks": (Chunk(len(body), 0.25),) if body else (),
        "sent_at": 0.001,
        "head_at": 0.25,
        "ended_at": 0.250001,
        "state": "complete",
    }
    return Exchange(**values | overrides)


@dataclass
class Study:
    """A planned study in ``store``; ``exchange(n)`` makes an exchange for the n-th trial."""

    store: Store
    traces: int = 4
    route: RouteRow = field(init=False)
    run: RunRow = field(init=False)
    trials: list[TrialRow] = field(init=False)

    def __post_init__(self) -> None:
        weights = WeightsRow("toy", "main", "f32")
        self.route = RouteRow(
            "local", "vllm", "openai-chat", "http://127.0.0.1:8000/v1", "toy", weights.id, "local", request={"a": [1]}
        )
        self.run = RunRow(1000.5, 7, {"repeats": 1})
        made = [Trace(f"trace {n}", (Message("user", f"Question {n}?"),), family="direct") for n in range(self.traces)]
        self.store.add_weights(weights)
        self.store.add_route(self.route)
        self.store.add_pack(PackRow("0" * 64, "pack", "pack.jsonl"), made)
        self.store.add_run(self.run)
        self.store.add_trials(TrialRow(self.run.id, trace.id, self.route.id, 0, n) for n, trace in enumerate(made))
        self.trials = self.store.trials(self.run.id)

    def exchange(self, number: int | None = None, **overrides: Any) -> Exchange:
        trial_id = None if number is None else self.trials[number].id
        return exchange_of(self.route.id, trial_id, **overrides)
