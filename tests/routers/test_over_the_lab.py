"""The whole way over the lab's router: expand its listing, run, follow up, analyse, and compare with what it did."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from probe.attribution.pipeline import analyze
from probe.cli import cli
from probe.config import load_config
from probe.lab.platform_spec import Platform
from probe.lab.providers import Provider
from probe.lab.server import LabServer
from probe.report.card import card
from probe.report.remarks import remarks
from probe.serve.llamacpp import LlamaCppServer
from probe.store.store import Store
from tests.study_kit import write_pack

HOSTS = (
    Provider("Lab One", "labone/bf16", "bf16", prompt_price=1e-7, completion_price=4e-7),
    Provider("Second Host", "second/fp8", "fp8", moderated=True),
)
TRACES = 12


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture(scope="module")
def study(toy_server: LlamaCppServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Expand, run and analyse a route over a router that at times sends requests elsewhere and hides a system text."""
    assert toy_server.info is not None
    folder = tmp_path_factory.mktemp("router")
    platform = Platform("router", providers=HOSTS, surprise=0.5, hidden_system="Answer in a friendly way.")
    write_pack(folder / "pack.jsonl", TRACES)
    path = folder / "probe.toml"
    path.write_text(
        f'[run]\npacks = ["{folder / "pack.jsonl"}"]\n[routes.local]\nbackend = "llamacpp"\nmodel = "toy"\n'
        f'url = "{toy_server.info.url}/v1"\nweights = "toy"\n',
        encoding="utf-8",
    )
    with LabServer([platform], toy_server.info.url, "toy", seed=3) as lab:
        options = ("--config", str(path), "--twin", "local", "--url", f"{lab.url}/router/api/v1", "--write")
        expanded = run("routes", "expand", "openrouter", "toy", *options)
        assert expanded.exit_code == 0, expanded
        text = path.read_text(encoding="utf-8").replace('role    = "hosted"\n', 'role    = "hosted"\nkey_env = ""\n')
        path.write_text(text, encoding="utf-8")
        checked = run("routes", "--config", str(path), "--check", "--json")
        (folder / "check.json").write_text(checked.stdout, encoding="utf-8")
        done = run("run", "--config", str(path), "-r", "openrouter-labone-bf16", "--follow-up", "--json", "--no-aa")
        assert done.exit_code == 0, (done.output, done.exception)
        (folder / "run.json").write_text(done.stdout, encoding="utf-8")
    with Store.open(folder / "probe.db") as store:
        asyncio.run(analyze(store, {}))
    return folder


def test_the_routes_are_one_per_host_and_checked(study: Path) -> None:
    routes = load_config(study / "probe.toml").routes
    assert list(routes) == ["local", "openrouter-labone-bf16", "openrouter-second-fp8"]
    rows = {row["name"]: row for row in json.loads((study / "check.json").read_text())["routes"]}
    first, second = rows["openrouter-labone-bf16"], rows["openrouter-second-fp8"]
    assert first["usable"]
    assert second["usable"]
    notes = [finding["sentence"] for finding in first["findings"] if finding["level"] == "note"]
    assert notes == ["labone/bf16: $0.1 per million prompt tokens, $0.4 per million of the answer"]
    assert any("serves fp8" in finding["sentence"] for finding in second["findings"])


def test_surprises_and_the_hidden_prompt_are_found_in_the_answers(study: Path) -> None:
    with Store.open(study / "probe.db", readonly=True) as store:
        route = store.route_named("openrouter-labone-bf16")
        rows = store.served(route_id=route.id)
        odd = [row for row in rows if row.surprise]
        said = remarks(store, route)
        one = card(store, (odd or rows)[0].exchange_id)
    assert len(rows) == TRACES
    assert {row.provider for row in rows} == {"Lab One", "Second Host"}
    assert {row.provider for row in odd} == {"Second Host"}
    assert f"{len(odd)} of {TRACES} answers of route openrouter-labone-bf16 came from Second Host" in said[0]
    assert f"In {TRACES} of {TRACES} answers" in said[1]
    assert "changed the prompt" in said[1]
    assert one["served"]["surprise"] is True
    (echo,) = [row for row in one["evidence"] if row["detector"] == "echo"]
    assert "a system text was added" in echo["sentence"]
    assert "Answer in a friendly way." in echo["bytes"]


def test_the_follow_up_tells_the_same_host(study: Path) -> None:
    with Store.open(study / "probe.db", readonly=True) as store:
        told: list[tuple[Any, Any]] = []
        for row in store.served():
            found = card(store, row.exchange_id)
            told.append((found["generation"] and found["generation"]["provider"], row.provider))
    assert len(told) == TRACES
    assert all(after == at_once for after, at_once in told)
