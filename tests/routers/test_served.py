from typing import Any

import pytest
from router_kit import DEEPINFRA, MODEL, NOVITA, TOGETHER, TURBO, endpoints, listed

from probe.routers.served import Expectation, who_served
from probe.store.rows import RouteRow
from probe.store.served import ServedRow
from probe.wire.catalogue import load_backend
from probe.wire.reports import read_answer
from probe.wire.values import Exchange
from tests.kit import SSE, completion, delta, make_exchange, sse

OPENROUTER = load_backend("openrouter")


def listing(*rows: Any, names: tuple[str, ...] = (MODEL, f"{MODEL}-04-28")) -> dict[str, Any]:
    return {"names": list(names), "endpoints": [endpoint.to_json() for endpoint in endpoints(*rows)]}


def route(tag: str | None = "deepinfra/bf16", backend: str = "openrouter", model: str = MODEL) -> RouteRow:
    request = {"provider": {"only": [tag], "allow_fallbacks": False}} if tag else {}
    return RouteRow("or", backend, "openai-chat", "http://h/v1", model, "w", "hosted", "local", request)


def served(exchange: Exchange, expected: Expectation) -> ServedRow | None:
    return who_served(expected, OPENROUTER, exchange, read_answer(OPENROUTER, exchange))


def answer(provider: str | None, model: str = MODEL, **more: Any) -> Exchange:
    body = {**completion("Slowly."), "model": model} | ({"provider": provider} if provider else {}) | more
    return make_exchange(response_body=body)


ALL = listing(DEEPINFRA, TURBO, NOVITA, TOGETHER)


@pytest.mark.parametrize(
    ("tag", "provider", "surprise", "words"),
    [
        ("deepinfra/bf16", "DeepInfra", False, "as the route pins"),
        ("deepinfra", "DeepInfra", False, "as the route pins"),
        ("deepinfra/bf16", "NovitaAI", True, "NovitaAI served it, and the route pins deepinfra/bf16."),
        ("novita", "Together", True, "Together served it, and the route pins novita."),
        ("deepinfra/bf16", "Somebody New", True, "Somebody New served it"),
        ("together", "Together AI", False, "cannot be told"),
        ("fireworks", "DeepInfra", False, "cannot be told"),
        ("deepinfra/bf16", None, False, "does not say who served it"),
        (None, "DeepInfra", False, "the route pins nobody"),
    ],
)
def test_who_served_against_the_pin(tag: str | None, provider: str | None, surprise: bool, words: str) -> None:
    found = served(answer(provider), Expectation.of(route(tag), [ALL]))
    assert found is not None
    assert (found.provider, found.expected, found.surprise) == (provider, tag, surprise)
    assert words in found.sentence


VERTEX = listed("google-vertex/us", "Google")
STUDIO = listed("google-ai-studio", "Google AI Studio")
NEBIUS = listed("nebius/fp8", "Nebius Token Factory")
ZAI = listed("z-ai/fp8", "Z.AI")
MANY = listing(DEEPINFRA, TURBO, NOVITA, TOGETHER, VERTEX, STUDIO, NEBIUS, ZAI)


@pytest.mark.parametrize(
    ("tag", "provider", "words"),
    [
        ("deepinfra/bf16", "deepinfra", "as the route pins"),
        ("deepinfra/bf16", "deepinfra/bf16", "as the route pins"),
        ("DeepInfra", "DeepInfra", "as the route pins"),
        ("novita", "Novita AI", "as the route pins"),
        ("novita", "novita/fp8", "as the route pins"),
        ("together", "together", "as the route pins"),
        ("google-vertex", "Google", "as the route pins"),
        ("google-vertex/us", "google-vertex", "as the route pins"),
        ("google-vertex/us", "Google Vertex", "as the route pins"),
        ("z-ai", "z.ai", "as the route pins"),
        # The host had another name when the listing was taken.
        ("nebius", "Nebius AI Studio", "cannot be told"),
    ],
)
def test_another_spelling_is_never_a_surprise(tag: str, provider: str, words: str) -> None:
    found = served(answer(provider), Expectation.of(route(tag), [MANY]))
    assert found is not None
    assert not found.surprise
    assert words in found.sentence


@pytest.mark.parametrize(
    ("tag", "provider"),
    [
        ("google-vertex/us", "Google AI Studio"),
        ("google-ai-studio", "Google"),
        ("deepinfra/bf16", "deepinfra/turbo"),
        ("deepinfra/bf16", "novita/fp8"),
        ("z-ai", "Together"),
    ],
)
def test_a_listed_host_that_is_not_the_pinned_one_is_a_surprise_under_any_name(tag: str, provider: str) -> None:
    found = served(answer(provider), Expectation.of(route(tag), [MANY]))
    assert found is not None
    assert found.surprise


@pytest.mark.parametrize(
    ("provider", "surprise", "words"),
    [
        ("DeepInfra", False, "as the route pins (deepinfra/bf16 or novita)"),
        ("NovitaAI", False, "as the route pins"),
        ("Together", True, "Together served it, and the route pins deepinfra/bf16 or novita."),
        (None, False, "does not say who served it"),
    ],
)
def test_of_several_hosts_that_a_route_allows_each_may_serve(provider: str | None, surprise: bool, words: str) -> None:
    request = {"provider": {"only": ["deepinfra/bf16", "novita"], "allow_fallbacks": False}}
    row = RouteRow("or", "openrouter", "openai-chat", "http://h/v1", MODEL, "w", "hosted", "local", request)
    found = served(answer(provider), Expectation.of(row, [ALL]))
    assert found is not None
    assert (found.expected, found.surprise) == ("deepinfra/bf16, novita", surprise)
    assert words in found.sentence


@pytest.mark.parametrize(
    ("asked", "model", "surprise"),
    [
        ("openai/gpt-4o", "openai/gpt-4o-2024-08-06", False),
        ("openai/gpt-4o", "openai/gpt-4o-mini", True),
        ("openai/gpt-4o-mini", "openai/gpt-4o", True),
        ("deepseek/deepseek-r1", "deepseek/deepseek-r1-0528", False),
        ("deepseek/deepseek-r1", "deepseek/deepseek-r1-distill-qwen-7b", True),
        ("anthropic/claude-3.7-sonnet", "us.anthropic.claude-3-7-sonnet-20250219-v1:0", False),
        ("anthropic/claude-3.7-sonnet", "claude-3-7-sonnet@20250219", False),
        ("meta-llama/llama-3.1-8b-instruct", "accounts/fireworks/models/Llama-3.1-8B-Instruct-FP8", False),
        ("meta-llama/llama-3.1-8b-instruct", "meta-llama/llama-3.1-8b", False),
        ("openai/gpt-4", "openai/gpt-4.1", True),
        ("qwen/qwen3-8b", "qwen/qwen3-8", True),
    ],
)
def test_a_smaller_model_is_another_one_and_a_dated_name_is_not(asked: str, model: str, surprise: bool) -> None:
    row = route(model=asked)
    found = served(answer("DeepInfra", model), Expectation.of(row, [listing(DEEPINFRA, names=(asked,))]))
    assert found is not None
    assert found.surprise == surprise


def test_without_a_listing_only_the_same_word_tells() -> None:
    expected = Expectation.of(route("deepinfra/bf16"))
    for provider, words in (("DeepInfra", "as the route pins"), ("Together", "cannot be told")):
        found = served(answer(provider), expected)
        assert found is not None
        assert not found.surprise
        assert words in found.sentence


def test_nobody_pinned_and_nobody_named_is_no_row() -> None:
    assert served(answer(None), Expectation.of(route(None))) is None
    assert served(make_exchange(status=None, response_body=b""), Expectation.of(route())) is None


def test_the_routers_metadata_goes_before_the_name_in_the_body() -> None:
    chosen = {"provider": "NovitaAI", "model": MODEL, "selected": True}
    other = {"provider": "DeepInfra", "model": MODEL, "selected": False}
    metadata = {"openrouter_metadata": {"endpoints": {"available": [other, chosen], "total": 2}}}
    stream = sse(delta("Slowly.") | {"model": MODEL}, {**delta(finish_reason="stop"), "model": MODEL, **metadata})
    found = served(make_exchange(response_headers=SSE, response_body=stream), Expectation.of(route(), [ALL]))
    assert found is not None
    assert (found.provider, found.surprise) == ("NovitaAI", True)


def test_a_header_names_the_host_too() -> None:
    exchange = make_exchange(
        response_headers=(("Content-Type", "application/json"), ("X-Provider-Name", "Together")),
        response_body={**completion("Slowly."), "model": MODEL},
    )
    found = served(exchange, Expectation.of(route(), [ALL]))
    assert found is not None
    assert (found.provider, found.surprise) == ("Together", True)


@pytest.mark.parametrize(
    ("model", "surprise"),
    [
        (MODEL, False),
        (f"{MODEL}:free", False),
        (f"{MODEL}-04-28", False),
        ("Qwen/Qwen3-8B", False),
        ("qwen3-8b", False),
        ("qwen/qwen3-32b", True),
        ("mistralai/mistral-small", True),
    ],
)
def test_the_model_that_answers(model: str, surprise: bool) -> None:
    found = served(answer("DeepInfra", model), Expectation.of(route(), [ALL]))
    assert found is not None
    assert found.surprise == surprise
    assert (f"the answer names the model {model}" in found.sentence) == surprise


def test_another_model_is_no_surprise_where_its_names_are_not_known() -> None:
    found = served(answer("DeepInfra", "other/model"), Expectation.of(route()))
    assert found is not None
    assert not found.surprise


@pytest.mark.parametrize(
    ("provider", "surprise", "words"),
    [
        ("novita", False, "novita served it, as the route pins (novita)."),
        ("Novita", False, "as the route pins"),
        ("together", True, "together served it, and the route pins novita."),
        ("novita-ai", False, "cannot be told"),
    ],
)
def test_a_router_that_names_hosts_as_requests_do_needs_no_listing(provider: str, surprise: bool, words: str) -> None:
    hugging_face, vercel = load_backend("huggingface"), load_backend("vercel")
    exchange = make_exchange(
        response_headers=(("Content-Type", "application/json"), ("x-inference-provider", provider)),
        response_body=completion("Slowly."),
    )
    expected = Expectation.of(route(None, "huggingface", "Qwen/Qwen3-8B:novita"))
    found = who_served(expected, hugging_face, exchange, read_answer(hugging_face, exchange))
    assert found is not None
    assert (found.surprise, words in found.sentence) == (surprise, True)
    told = {"provider_metadata": {"gateway": {"routing": {"finalProvider": provider}}}}
    body = completion("Slowly.")
    body["choices"][0]["message"] |= told
    exchange = make_exchange(response_body=body)
    request = {"providerOptions": {"gateway": {"only": ["novita"]}}}
    row = RouteRow("v", "vercel", "openai-chat", "http://h/v1", MODEL, "w", "hosted", "local", request)
    found = who_served(Expectation.of(row), vercel, exchange, read_answer(vercel, exchange))
    assert found is not None
    assert (found.surprise, words in found.sentence) == (surprise, True)


def test_a_suffix_pins_a_host_of_hugging_face() -> None:
    assert Expectation.of(route(None, "huggingface", "Qwen/Qwen3-8B:novita")).provider == "novita"
    assert Expectation.of(route(None, "huggingface", "Qwen/Qwen3-8B:fastest")).provider is None
    assert Expectation.of(route(None, "huggingface", "Qwen/Qwen3-8B")).provider is None


def test_listings_of_several_runs_are_taken_together_and_broken_ones_left_out() -> None:
    expected = Expectation.of(route(), [listing(DEEPINFRA), 7, {}, listing(NOVITA, listed("x", "X"))])
    assert expected.pinned_names == {"deepinfra", "deepinfrabf16"}
    assert len(expected.endpoints) == 3
