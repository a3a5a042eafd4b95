import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from router_kit import MODEL, Router, running, study

from probe.config import Config
from probe.proxy.server import ProxyServer
from probe.proxy.table import RouteTable
from probe.proxy.tickets import Ticket
from probe.routers.followup import FollowedUp, Generation, follow_up, generation_id, read_generation, told_of, unasked
from probe.store.rows import RunRow, TrialRow
from probe.store.store import Store
from probe.traces.values import Message, Trace
from probe.wire.catalogue import load_backend
from probe.wire.values import Exchange
from tests.kit import completion, make_exchange

OPENROUTER = load_backend("openrouter")
KEY = "sk-or-0123456789abcdef"


def told(key: str = "gen-1", **more: Any) -> dict[str, Any]:
    """What OpenRouter documents of a generation."""
    return {
        "data": {
            "id": key,
            "upstream_id": "chatcmpl-9",
            "model": MODEL,
            "provider_name": "DeepInfra",
            "moderation_latency": 50,
            "latency": 1250,
            "generation_time": 1200,
            "native_tokens_prompt": 11,
            "native_tokens_completion": 25,
            "native_tokens_reasoning": 0,
            "total_cost": 0.0015,
            "native_finish_reason": "stop",
            **more,
        }
    }


def config_of(folder: Path, router: Router) -> Config:
    return study(folder, f'[routes.or]\nbackend = "openrouter"\nurl = "{router.url}"\nmodel = "{MODEL}"\n')


class Through:
    """Follows up through a real proxy and keeps what that recorded."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.recorded: list[Exchange] = []

    def __call__(self, exchange: Exchange, ticket: Ticket | None) -> None:
        assert ticket is None, "it belongs to no trial"
        self.recorded.append(exchange)

    def follow(self, answers: dict[str, str], **more: Any) -> FollowedUp:
        table = RouteTable(route.target for route in self.config.routes.values())
        with ProxyServer(table, self) as proxy:
            return asyncio.run(
                follow_up(self.config, lambda route: proxy.url + table.client_base(route.name), {"or": answers}, **more)
            )


def test_a_generation_is_read() -> None:
    assert read_generation(told()) == Generation(
        provider="DeepInfra",
        upstream_id="chatcmpl-9",
        model=MODEL,
        native_prompt_tokens=11,
        native_completion_tokens=25,
        native_reasoning_tokens=0,
        moderation_s=0.05,
        latency_s=1.25,
        generation_s=1.2,
        cost_usd=0.0015,
        native_finish_reason="stop",
    )
    bare = read_generation({"data": {"id": "gen-1", "moderation_latency": None, "latency": "soon"}})
    assert bare == Generation()
    assert Generation().to_json() == {}


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda i: st.lists(i) | st.dictionaries(st.sampled_from(["data", "id", "latency", "total_cost"]), i),
    )
)
def test_anything_may_be_told(document: Any) -> None:
    found = read_generation(document)
    assert found is None or isinstance(found, Generation)


def test_the_id_is_in_a_header_or_in_the_body() -> None:
    named = make_exchange(response_headers=(("Content-Type", "application/json"), ("X-Generation-Id", "gen-7")))
    assert generation_id(OPENROUTER, named) == "gen-7"
    body = {**completion("Slowly."), "id": "gen-8"}
    assert generation_id(OPENROUTER, make_exchange(response_body=body)) == "gen-8"
    assert generation_id(OPENROUTER, make_exchange(response_body=completion("Slowly."))) is None


def test_generations_are_asked_for_through_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    with running() as router:
        router.tell("/generation?id=gen-1", told())
        router.tell("/generation?id=gen-2", told("gen-2", provider_name="Novita"))
        through = Through(config_of(tmp_path, router))
        found = through.follow({"e1": "gen-1", "e2": "gen-2"})
        assert router.headers[0]["authorization"] == f"Bearer {KEY}"
    assert {key: generation.provider for key, generation in found.found.items()} == {"e1": "DeepInfra", "e2": "Novita"}
    assert (found.asked, found.stopped) == (2, {})
    assert [exchange.method for exchange in through.recorded] == ["GET", "GET"]
    assert all(exchange.trial_id is None for exchange in through.recorded)
    assert KEY not in str(through.recorded)


def test_what_is_not_known_yet_is_asked_for_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    with running() as router:
        router.tell("/generation?id=gen-2", told("gen-2"))
        found = Through(config_of(tmp_path, router)).follow({"e1": "gen-1", "e2": "gen-2"})
        assert [path.partition("=")[2] for path in router.asked] == ["gen-1", "gen-2", "gen-1"]
    assert set(found.found) == {"e2"}
    assert found.stopped == {}


def test_five_that_are_not_known_in_a_row_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    with running() as router:
        found = Through(config_of(tmp_path, router)).follow({f"e{n}": f"gen-{n}" for n in range(50)})
        assert len(router.asked) == 5
    assert found.stopped == {"or": "or: the router did not know 5 generations in a row"}


@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_router_that_refuses_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    with running() as router:
        router.tell("/generation", {"error": {"code": status}}, status)
        found = Through(config_of(tmp_path, router)).follow({"e1": "gen-1", "e2": "gen-2"})
        assert len(router.asked) == 1
    assert found.stopped == {"or": f"or: the router answered HTTP {status}"}


def test_nobody_at_the_proxy_is_a_sentence(tmp_path: Path) -> None:
    with running() as router:
        config = config_of(tmp_path, router)
    found = asyncio.run(follow_up(config, lambda _: "http://127.0.0.1:9/or/v1", {"or": {"e1": "gen-1"}}))
    assert found.stopped["or"].startswith("or: Nobody answers at http://127.0.0.1:9/or/v1/generation?id=gen-1")


def test_the_store_knows_what_was_told_and_what_is_to_be_asked(tmp_path: Path) -> None:
    with running() as router:
        config = config_of(tmp_path, router)
    route = config.routes["or"]
    with Store.memory() as store:
        store.add_weights(route.weights_row)
        store.add_route(route.row)
        traces = [Trace(f"t{n}", (Message("user", f"Question {n}?"),)) for n in range(2)]
        store.add_traces(traces)
        run = RunRow(0.0, 0, {})
        store.add_run(run)
        for number, trace in enumerate(traces):
            trial = TrialRow(run.id, trace.id, route.row.id, 1, number)
            store.add_trials([trial])
            body = {**completion("Slowly."), "id": f"gen-{number}"}
            made = make_exchange(id=f"e{number}", route_id=route.row.id, trial_id=trial.id, response_body=body)
            store.save_exchange(made, "answered")
        assert unasked(store, config, run.id) == {"or": {"e0": "gen-0", "e1": "gen-1"}}

        fetched = make_exchange(
            id="f0",
            route_id=route.row.id,
            trial_id=None,
            method="GET",
            url=f"{router.url}/generation?id=gen-0",
            request_body=b"",
            response_body=told("gen-0"),
        )
        store.save_exchange(fetched, "planned")
        assert unasked(store, config, run.id) == {"or": {"e1": "gen-1"}}
        found = told_of(store, OPENROUTER, store.exchange("e0"))
        assert found is not None
        assert (found[0], found[1].native_prompt_tokens, found[1].moderation_s) == ("f0", 11, 0.05)
        assert told_of(store, OPENROUTER, store.exchange("e1")) is None
        assert told_of(store, OPENROUTER, store.exchange("f0")) is None
