import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from router_kit import DEEPINFRA, MODEL, NOVITA, TOGETHER, TURBO, endpoints, listed

from probe.config import Price, load_config
from probe.routers.expand import Wanted, expand, heading, toml_value
from probe.routers.listing import Endpoint
from probe.routers.pinning import ListedModel
from probe.routers.pins import Pin
from probe.wire.catalogue import load_backend

WANTED = Wanted(load_backend("openrouter"), MODEL, "Qwen/Qwen3-8B", None)


def test_one_route_per_endpoint_pinned_to_it_alone() -> None:
    found = expand(WANTED, endpoints(DEEPINFRA, TURBO, NOVITA, TOGETHER))
    assert [route.name for route in found] == [
        "openrouter-deepinfra-bf16",
        "openrouter-deepinfra-turbo-fp8",
        "openrouter-novita-fp8",
        "openrouter-together",
    ]
    assert found[0].request == {
        "provider": {"only": ["deepinfra/bf16"], "allow_fallbacks": False, "quantizations": ["bf16"]}
    }
    assert "quantizations" not in found[3].request["provider"], "it is not known"
    assert found[0].toml == (
        "# DeepInfra (deepinfra/bf16): bf16; context 40960 tokens; $0.05 per million prompt tokens, $0.4 per million "
        "of the answer; moderation not stated\n"
        "[routes.openrouter-deepinfra-bf16]\n"
        'backend = "openrouter"\n'
        'model   = "qwen/qwen3-8b"\n'
        'weights = "Qwen/Qwen3-8B"\n'
        'role    = "hosted"\n'
        'request = { provider = { only = ["deepinfra/bf16"], allow_fallbacks = false, quantizations = ["bf16"] } }\n'
    )


def test_free_variants_have_a_pace() -> None:
    (route,) = expand(Wanted(WANTED.backend, f"{MODEL}:free"), endpoints(DEEPINFRA))
    assert "pace    = { requests_per_minute = 20, requests_per_day = 50 }" in route.toml
    assert "weights" not in route.toml


def test_a_comment_says_what_to_know() -> None:
    row = TOGETHER | {"status": -5, "supported_parameters": ["temperature"], "context_length": None, "pricing": {}}
    (route,) = expand(WANTED, endpoints(row), ListedModel(MODEL, moderated=True))
    comment = route.toml.splitlines()[0]
    for words in (
        "quantization not stated",
        "context not stated",
        "no fixed price",
        "prompts are moderated",
        "status -5",
    ):
        assert words in comment
    assert "may ignore frequency_penalty, max_tokens, min_p" in comment
    several = expand(WANTED, endpoints(DEEPINFRA, NOVITA), ListedModel(MODEL, moderated=True))
    assert all("moderation not stated" in each.toml for each in several), "which of them is the top one is not said"
    assert "top provider" in heading(ListedModel(MODEL, moderated=True))
    assert heading(None) == ""


def test_endpoints_that_cannot_be_pinned_apart_are_one_route() -> None:
    (route,) = expand(WANTED, endpoints(DEEPINFRA, DEEPINFRA | {"context_length": 1}))
    assert "2 endpoints that cannot be pinned apart" in route.toml
    assert "40960" in route.toml


NAMES = st.text(min_size=1, max_size=20).filter(str.strip)
PRICES = st.none() | st.builds(Price, *[st.floats(0, 1e6)] * 3)
ENDPOINTS = st.builds(
    Endpoint,
    NAMES,
    NAMES | st.sampled_from(["a/b", "a-b", "a.b", "A/b", "---", "日本", 'a"b', "a\nb", "a\x7fb"]),
    st.sampled_from(["bf16", "fp8", "unknown"]) | NAMES,
    st.none() | st.integers(0, 10**6),
    price=PRICES,
    moderated=st.none() | st.booleans(),
    status=st.none() | st.integers(-10, 0),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ENDPOINTS, min_size=1, max_size=6), st.sampled_from([MODEL, f"{MODEL}:free", 'odd"/\\name']))
def test_whatever_is_listed_the_text_loads_as_it_is_meant(tmp_path: Path, found: list[Endpoint], model: str) -> None:
    path = tmp_path / "probe.toml"
    routes = expand(Wanted(WANTED.backend, model, "w@1"), found)
    path.write_text("\n".join(route.toml for route in routes), encoding="utf-8")
    loaded = load_config(path).routes
    assert list(loaded) == [route.name for route in routes]
    for route in routes:
        mine = loaded[route.name]
        assert (mine.model, mine.weights, mine.request) == (model, "w@1", route.request)
        pin = Pin.of_request(mine.request)
        assert pin.tag == route.endpoint.tag
        assert not pin.fallbacks


@given(
    st.recursive(
        st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_values_are_toml(value: Any) -> None:
    try:
        assert tomllib.loads(f"key = {toml_value(value)}") == {"key": value}
    except UnicodeEncodeError:
        pytest.fail("a lone surrogate got through")


def test_several_names_that_read_alike_are_told_apart() -> None:
    rows = [listed("a/b", "A", quantization="unknown"), listed("a-b", "B", quantization="unknown")]
    assert [route.name for route in expand(WANTED, endpoints(*rows))] == ["openrouter-a-b", "openrouter-a-b-2"]
