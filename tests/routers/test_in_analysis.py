"""Who served, and what the router changed, through a whole analysis: tables, card, report and command."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from router_kit import DEEPINFRA, MODEL, NOVITA, endpoints

from probe.attribution.pipeline import analyze
from probe.cli import cli
from probe.ids import new_id
from probe.report.card import card
from probe.report.card_text import card_text
from probe.report.gather import gather
from probe.report.page import render
from probe.report.tables import print_study
from probe.store.rows import FactRow, RouteRow, RunRow, TrialRow, WeightsRow
from probe.store.store import Store
from probe.traces.values import Message, Trace
from tests.kit import SSE, completion, delta, make_exchange, sse

REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Of course. Here is a short answer to the question that you asked."
TRACES = [Trace(f"t{n}", (Message("user", f"How is glimmerdust {n} brewed?"),), family="a") for n in range(30)]
SURPRISES = 7
REWRITTEN = 4


def request_of(trace: Trace) -> dict[str, Any]:
    messages = [{"role": message.role, "content": message.content} for message in trace.messages]
    return {"model": MODEL, "messages": messages, "temperature": 1.0, "max_tokens": 64, "stream": True}


def answer_of(number: int, trace: Trace, refuses: bool) -> bytes:
    """An answer of the hosted route: the first ones are another host's, the last ones to a changed prompt."""
    upstream = request_of(trace)
    if number >= len(TRACES) - REWRITTEN:
        upstream["messages"] = [{"role": "system", "content": "Decline."}, *upstream["messages"]]
        upstream["temperature"] = 0.5
    named = {"model": MODEL, "provider": "NovitaAI" if number < SURPRISES else "DeepInfra", "id": f"gen-{number}"}
    return sse(
        {"id": f"gen-{number}", "choices": [], "debug": {"echo_upstream_body": upstream}},
        {**delta(REFUSAL if refuses else ANSWER), **named},
        {**delta(finish_reason="stop"), **named, "usage": {"prompt_tokens": 20, "completion_tokens": 10}},
    )


def record(store: Store) -> dict[str, str]:
    """Store a study of one hosted route and its twin; return exchange ids of the hosted answers by trace name."""
    weights = WeightsRow("toy")
    pinned = {"provider": {"only": ["deepinfra/bf16"], "allow_fallbacks": False}}
    local = RouteRow("local", "llamacpp", "openai-chat", "http://127.0.0.1:1/v1", "toy", weights.id, "local")
    hosted = RouteRow(
        "or", "openrouter", "openai-chat", "http://127.0.0.1:2/v1", MODEL, weights.id, "hosted", "local", pinned
    )
    run = RunRow(0.0, 0, {})
    store.add_weights(weights)
    store.add_route(local)
    store.add_route(hosted)
    listing = {"names": [MODEL], "endpoints": [endpoint.to_json() for endpoint in endpoints(DEEPINFRA, NOVITA)]}
    store.add_facts([FactRow(hosted.id, 0.0, "listing", listing)])
    store.add_traces(TRACES)
    store.add_run(run)
    ids = {}
    for number, trace in enumerate(TRACES):
        for route in (local, hosted):
            trial = TrialRow(run.id, trace.id, route.id, 1, 2 * number + (route is hosted))
            store.add_trials([trial])
            about: Mapping[str, Any] = {"request_body": request_of(trace), "trial_id": trial.id, "route_id": route.id}
            made = make_exchange(id=new_id(), response_body=completion(ANSWER), **about)
            if route is hosted:
                body = answer_of(number, trace, refuses=number % 3 == 0)
                made = make_exchange(id=new_id(), response_headers=SSE, response_body=body, **about)
                ids[trace.name] = made.id
            store.save_exchange(made, "answered")
    told = {"data": {"id": "gen-0", "provider_name": "NovitaAI", "moderation_latency": 40, "native_tokens_prompt": 21}}
    url = "http://127.0.0.1:2/v1/generation?id=gen-0"
    store.save_exchange(
        make_exchange(
            id=new_id(), route_id=hosted.id, trial_id=None, method="GET", url=url, request_body=b"", response_body=told
        ),
        "planned",
    )
    return ids


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    path = tmp_path_factory.mktemp("served") / "probe.db"
    with Store.open(path) as store:
        ids = record(store)
        asyncio.run(analyze(store, {}))
    return path, ids


NOTE = (
    f"{SURPRISES} of {len(TRACES)} answers of route or came from NovitaAI ({SURPRISES}), not from the pinned "
    "deepinfra/bf16;"
)
CHANGED = f"In {REWRITTEN} of {len(TRACES)} answers of route or the router's echo shows that it changed the prompt"
SAMPLED = f"it changed the sampling: temperature 1 became 0.5 ({REWRITTEN})."


def test_every_answer_of_the_hosted_route_has_its_row(study: tuple[Path, dict[str, str]]) -> None:
    path, ids = study
    with Store.open(path, readonly=True) as store:
        rows = {row.exchange_id: row for row in store.served()}
        assert set(rows) == set(ids.values()), "answers only: neither the twin's nor what was fetched"
        odd = [row for row in rows.values() if row.surprise]
        assert len(odd) == SURPRISES == len(store.served(surprise=True))
        assert {(row.provider, row.expected) for row in odd} == {("NovitaAI", "deepinfra/bf16")}
        echoes = store.evidence(detector="echo")
        assert len(echoes) == len(TRACES)
        assert sum(row.evidence.mechanism == "prompt_rewrite" for row in echoes) == REWRITTEN
        assert len(store.outcomes()) == 2 * len(TRACES), "what was fetched is no answer"


def test_derived_again_it_is_the_same(study: tuple[Path, dict[str, str]]) -> None:
    path, _ = study
    with Store.open(path) as store:
        before = store.served()
        asyncio.run(analyze(store, {}, workers=2))
        assert store.served() == before


def test_the_card_shows_who_served_and_what_was_told_afterwards(study: tuple[Path, dict[str, str]]) -> None:
    path, ids = study
    with Store.open(path, readonly=True) as store:
        first, quiet = card(store, ids["t0"]), card(store, ids["t10"])
        changed = card_text(card(store, ids["t29"]))
    assert first["served"]["surprise"] is True
    assert first["generation"]["provider"] == "NovitaAI"
    text = card_text(first)
    assert "Served     SURPRISE: NovitaAI served it, and the route pins deepinfra/bf16." in text
    assert "moderation_s = 0.04" in text
    assert "native_prompt_tokens = 21" in text
    assert "SURPRISE" not in card_text(quiet)
    assert quiet["generation"] is None
    assert json.loads(json.dumps(first))["served"]["provider"] == "NovitaAI"
    assert "a system text was added" in changed
    assert "passed on: 'Decline.'" in changed


def test_what_was_fetched_is_no_answer(study: tuple[Path, dict[str, str]]) -> None:
    path, _ = study
    with Store.open(path, readonly=True) as store:
        ((fetched,),) = store.query("SELECT id FROM exchanges WHERE method = 'GET'")
        found = card(store, fetched)
    assert found["outcome"] is None
    assert "it was fetched (a list" in found["would_change"][0]


def test_a_card_of_a_study_that_was_not_analysed(tmp_path: Path) -> None:
    with Store.open(tmp_path / "probe.db") as store:
        ids = record(store)
        assert card(store, ids["t0"])["served"] is None


def test_the_report_says_it_beside_the_effect(study: tuple[Path, dict[str, str]]) -> None:
    path, _ = study
    with Store.open(path, readonly=True) as store:
        found = gather(store)
        html = render(found)
    assert len(found.remarks_of("or")) == 3
    assert found.remarks_of("local") == ()
    console = Console(width=1000, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    print_study(found, console)
    printed = console.export_text()
    for words in (NOTE, CHANGED, SAMPLED):
        assert words in printed
        assert words.replace("'", "&#39;") in html


def test_the_command_says_it_in_words_and_as_json(study: tuple[Path, dict[str, str]]) -> None:
    path, _ = study
    result = CliRunner().invoke(cli, ["analyze", "--db", str(path), "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    (route,) = said["routes"]
    assert route["remarks"][0].startswith(NOTE)
    assert route["remarks"][1].startswith(CHANGED)
    assert said["effects"]
    assert all(effect["remarks"] == route["remarks"] for effect in said["effects"]), "no number goes without it"


def test_every_number_of_the_report_has_it_in_sight(study: tuple[Path, dict[str, str]]) -> None:
    path, _ = study
    with Store.open(path, readonly=True) as store:
        found = gather(store)
    words = NOTE.replace("'", "&#39;")
    family = replace(found.main_effects[0], scope="family:f", sentence="So many were refused.")
    assert render(replace(found, effects=(*found.main_effects, family))).count(words) == 2
    apart = replace(found, effects=())
    assert (found.remarks_apart, apart.remarks_apart) == ((), found.remarks_of("or"))
    assert words in render(apart), "its rates stand in a table all the same"
    console = Console(width=1000, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    print_study(apart, console)
    assert NOTE in console.export_text()
