import asyncio
from pathlib import Path
from typing import Any

import pytest
from router_kit import DEEPINFRA, MODEL, NOVITA, Router, document, running, study

from probe.config import Config
from probe.runs.check import RouteCheck, check_routes, fact_rows
from probe.store.store import Store
from probe.traces.values import Message, Sampling, Trace

PIN = 'request = { provider = { only = ["deepinfra/bf16"], allow_fallbacks = false } }\n'
MODELS = {"data": [{"id": MODEL, "canonical_slug": f"{MODEL}-04-28", "top_provider": {"is_moderated": True}}]}


def openrouter(folder: Path, router: Router, more: str = PIN, model: str = MODEL) -> Config:
    head = f'[routes.or]\nbackend = "openrouter"\nurl = "{router.url}"\nmodel = "{model}"\nkey_env = ""\n'
    return study(folder, head + more)


def check(config: Config, *traces: Trace) -> RouteCheck:
    (found,) = asyncio.run(check_routes(config, traces))
    return found


def listed(router: Router, *rows: Any, models: Any = MODELS) -> None:
    router.tell("/models", models)
    router.tell(f"/models/{MODEL}/endpoints", document(*rows))


def test_a_pinned_route_carries_findings_and_a_fact(tmp_path: Path) -> None:
    with running() as router:
        listed(router, DEEPINFRA, NOVITA)
        config = openrouter(tmp_path, router)
        found = check(config)
    assert (found.usable, found.model_there, found.sentence) == (True, True, "model listed")
    assert [finding.level for finding in found.findings] == ["warning", "note"]
    assert len(found.warnings) == 1
    assert "moderates prompts" in found.warnings[0]
    listing = found.facts["listing"]
    assert listing["names"] == [MODEL, f"{MODEL}-04-28"]
    assert [entry["tag"] for entry in listing["endpoints"]] == ["deepinfra/bf16", "novita/fp8"]
    assert "facts" not in found.to_json()
    with Store.memory() as store:
        store.add_weights(config.routes["or"].weights_row)
        store.add_route(config.routes["or"].row)
        store.add_facts(fact_rows(config, [found], 1.0))
        kept = {fact.kind: fact.value for fact in store.facts(config.routes["or"].row.id)}
    assert kept["listing"] == listing
    assert kept["check"]["findings"][0]["level"] == "warning"


def test_an_error_makes_the_route_unusable(tmp_path: Path) -> None:
    with running() as router:
        listed(router, NOVITA)
        found = check(openrouter(tmp_path, router))
    assert not found.usable
    assert "'deepinfra/bf16' does not serve this model; listed are novita/fp8" in found.sentence


def test_the_traces_are_compared_with_the_context(tmp_path: Path) -> None:
    trace = Trace("long", (Message("user", "x" * 4000),), Sampling(max_tokens=64))
    with running() as router:
        listed(router, DEEPINFRA | {"context_length": 128})
        config = openrouter(tmp_path, router)
        assert check(config).usable
        found = check(config, trace)
    assert not found.usable
    assert "too short for the longest trace (4000 characters)" in found.sentence


def test_a_listing_that_fails_is_a_warning_where_the_model_is_known(tmp_path: Path) -> None:
    with running() as router:
        router.tell("/models", MODELS)
        found = check(openrouter(tmp_path, router, more=""))
    assert found.usable
    assert "its endpoints are not known" in found.warnings[0]
    assert "names no provider" in found.warnings[1]
    assert found.facts == {}


def test_a_model_that_no_list_knows_is_unusable(tmp_path: Path) -> None:
    with running() as router:
        router.tell("/models", {"data": []})
        found = check(openrouter(tmp_path, router))
    assert not found.usable
    assert "lists no model" in found.sentence


def test_a_variant_has_no_entry_of_its_own(tmp_path: Path) -> None:
    with running() as router:
        router.tell("/models", MODELS)
        router.tell(f"/models/{MODEL}:nitro/endpoints", document(DEEPINFRA))
        assert check(openrouter(tmp_path, router, model=f"{MODEL}:nitro")).model_there is True


def test_nobody_there_is_said_without_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-secret-0123456789")
    config = study(
        tmp_path, f'[routes.or]\nbackend = "openrouter"\nurl = "http://127.0.0.1:9/api/v1"\nmodel = "{MODEL}"\n'
    )
    found = check(config)
    assert (found.usable, found.reachable) == (False, False)
    assert found.sentence.startswith("nobody answers at http://127.0.0.1:9/api/v1: ")
    assert "secret" not in str(found)


def test_a_key_that_cannot_be_a_header_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-0123\n456789")
    with running() as router:
        listed(router, DEEPINFRA)
        found = check(study(tmp_path, openrouter_text(router)))
    assert not found.usable
    assert "holds a line break" in found.sentence


def openrouter_text(router: Router) -> str:
    return f'[routes.or]\nbackend = "openrouter"\nurl = "{router.url}"\nmodel = "{MODEL}"\n{PIN}'


@pytest.mark.parametrize(
    ("backend", "base", "path", "models", "model", "there"),
    [
        ("anthropic", "/v1", "/v1/models", {"data": [{"id": "c-1"}], "has_more": False}, "c-1", True),
        ("anthropic", "/v1", "/v1/models", {"data": [{"id": "c-1"}], "has_more": False}, "c-2", False),
        ("anthropic", "/v1", "/v1/models", {"data": [{"id": "c-1"}], "has_more": True}, "c-2", None),
        ("gemini", "/v1beta", "/v1beta/models", {"models": [{"name": "models/gem-1"}]}, "gem-1", True),
        ("gemini", "/v1beta", "/v1beta/models", {"models": [{"name": "models/gem-1"}]}, "models/gem-1", True),
        (
            "gemini",
            "/v1beta",
            "/v1beta/models",
            {"models": [{"name": "models/gem-1"}], "nextPageToken": "x"},
            "gem-2",
            None,
        ),
        ("azure", "/openai/v1", "/openai/v1/models", {"data": [{"id": "base-model"}]}, "my-deployment", None),
        ("huggingface", "/v1", "/v1/models", {"data": [{"id": "Qwen/Qwen3-8B"}]}, "Qwen/Qwen3-8B:novita", True),
        ("openai", "/v1", "/v1/models", {"data": [{"id": "m"}]}, "m:x", False),
        ("ollama", "", "/api/tags", {"models": [{"name": "m:latest"}]}, "m", True),
    ],
)
def test_lists_of_models_of_all_kinds(
    tmp_path: Path, backend: str, base: str, path: str, models: Any, model: str, there: bool | None
) -> None:
    with running() as router:
        router.answers[path] = (200, models)
        root = router.url.removesuffix("/api/v1")
        text = f'[routes.a]\nbackend = "{backend}"\nurl = "{root}{base}"\nmodel = "{model}"\nkey_env = ""\n'
        found = check(study(tmp_path, text))
        assert path in router.asked
    assert found.model_there is there
    assert found.usable is (there is not False)


def test_anthropic_is_asked_with_its_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-0123456789")
    with running() as router:
        router.answers["/v1/models"] = (200, {"data": [{"id": "c-1"}]})
        root = router.url.removesuffix("/api/v1")
        found = check(study(tmp_path, f'[routes.a]\nbackend = "anthropic"\nurl = "{root}/v1"\nmodel = "c-1"\n'))
        sent = router.headers[0]
    assert found.usable
    assert sent["x-api-key"] == "sk-ant-0123456789"
    assert "anthropic-version" in sent


def test_a_signed_route_is_not_asked_but_its_credentials_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with running() as router:
        text = f'[routes.a]\nbackend = "bedrock"\nurl = "{router.url}"\nmodel = "m"\n'
        missing = check(study(tmp_path, text))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE000000000")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example-secret-example-secret")
        there = check(study(tmp_path, text))
        assert all("authorization" not in sent for sent in router.headers)
    assert (missing.usable, missing.key) == (False, "missing")
    assert "needs credentials: set AWS_ACCESS_KEY_ID" in missing.sentence
    assert (there.usable, there.key, there.model_there) == (True, "set", None)
    assert "it has no model list to ask" in there.sentence


def test_a_model_of_hugging_face_without_a_provider_is_warned_of(tmp_path: Path) -> None:
    with running() as router:
        router.tell("/models", {"data": [{"id": "Qwen/Qwen3-8B"}]})
        text = f'[routes.a]\nbackend = "huggingface"\nurl = "{router.url}"\nmodel = "Qwen/Qwen3-8B"\nkey_env = ""\n'
        found = check(study(tmp_path, text))
    assert found.usable
    assert "names no provider (Qwen/Qwen3-8B:PROVIDER)" in found.warnings[0]


@pytest.mark.parametrize(
    ("price", "said"),
    [
        ("{ prompt = 0.05, completion = 0.1 }", "(completion 0.1 instead of 0.4)"),
        ("{ prompt = 0.05, completion = 0.4 }", ""),
        ("{ prompt = 1, completion = 1 }", ""),
    ],
)
def test_a_price_below_the_listing_is_warned_about(tmp_path: Path, price: str, said: str) -> None:
    with running() as router:
        listed(router, DEEPINFRA)
        found = check(openrouter(tmp_path, router, f"{PIN}price = {price}\n"))
    about = [warning for warning in found.warnings if "its price in probe.toml is lower than the listing's" in warning]
    assert [said in warning for warning in about] == ([True] if said else [])
