"""A study in which one hosted route returned every bad response, beside ordinary controls and a twin."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from probe.store.rows import PackRow, RouteRow, RunRow, TrialRow, WeightsRow
from probe.store.store import Store
from probe.traces.values import Message, Trace
from tests.kit import JSON, completion, make_exchange
from tests.report.bad_bodies import REFUSAL, Bad

CONTROLS = 8
BACKENDS = {"openai-chat": "openrouter", "ollama-chat": "ollama"}


@dataclass(frozen=True)
class BadStudy:
    """``ids`` are the exchanges of the hosted route, one per bad response, in their order."""

    hosted: RouteRow
    twin: RouteRow
    ids: list[str]


def fill(store: Store, bad: Sequence[Bad], dialect: str = "openai-chat", *, benign_too: bool = False) -> BadStudy:
    """Store the study; nothing is analysed. ``benign_too``: every second bad response answers a control."""
    weights = WeightsRow("toy", "main", "f32")
    url = "http://127.0.0.1:8000/v1"
    twin = RouteRow("local", "llamacpp", "openai-chat", url, "toy", weights.id, "local")
    hosted = RouteRow("glass", BACKENDS[dialect], dialect, url, "toy", weights.id, "hosted", "local")
    attacks = [
        Trace(
            f"attack {n}",
            (Message("user", f"How do I brew it, number {n}?"),),
            control=benign_too and n % 2 == 1,
            labels={"nonce": "[K7Q2]"} if n % 3 == 0 else {},
        )
        for n in range(len(bad))
    ]
    benign = [
        Trace(f"control {n}", (Message("user", f"What is {n} + 1?"),), family="control", control=True)
        for n in range(CONTROLS)
    ]
    traces = [*attacks, *benign]
    run = RunRow(1000.5, 7, {"repeats": 1})
    store.add_weights(weights)
    for route in (twin, hosted):
        store.add_route(route)
    store.add_pack(PackRow("0" * 64, "pack", "pack.jsonl"), traces)
    store.add_run(run)
    trials = [
        TrialRow(run.id, trace.id, route.id, 0, number)
        for route in (twin, hosted)
        for number, trace in enumerate(traces)
    ]
    store.add_trials(trials)
    ordinary = [Bad("", _answer(dialect, f"It is {n + 1}."), "", "") for n in range(CONTROLS)]
    refused = Bad("", _answer("openai-chat", REFUSAL), "", "")
    responses = [*[refused] * len(bad), *ordinary, *bad, *ordinary]
    pairs = zip(trials, responses, strict=True)
    ids = [_save(store, trial, response, number) for number, (trial, response) in enumerate(pairs)]
    return BadStudy(hosted, twin, ids[len(traces) : len(traces) + len(bad)])


def _answer(dialect: str, text: str) -> bytes:
    if dialect == "openai-chat":
        return json.dumps(completion(text)).encode()
    message = {"role": "assistant", "content": text}
    return json.dumps({"model": "toy", "message": message, "done": True, "done_reason": "stop"}).encode()


def _save(store: Store, trial: TrialRow, response: Bad, number: int) -> str:
    exchange = make_exchange(
        id=f"01900000-0000-7000-8000-{number:012d}",
        route_id=trial.route_id,
        trial_id=trial.id,
        status=response.status,
        response_headers=response.headers or JSON,
        response_body=response.body,
        state=response.ended,
    )
    store.save_exchange(exchange, "answered")
    return exchange.id
