import asyncio
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from router_kit import DEEPINFRA, MODEL, NOVITA, document, endpoints, listed, running

from probe.config import Price
from probe.errors import ModelError, RouteError, UnreachableError
from probe.routers.listing import Endpoint, endpoints_of, fetch_endpoints, price_of_pricing, root_of
from probe.wire.catalogue import load_backend


def fetch(url: str, model: str = MODEL, backend: str = "openrouter") -> list[Endpoint]:
    async def go() -> list[Endpoint]:
        async with aiohttp.ClientSession() as session:
            return await fetch_endpoints(load_backend(backend), model, session, url=url)

    return asyncio.run(go())


def test_a_listing_is_read_with_prices_per_million_tokens() -> None:
    with running() as router:
        router.tell(f"/models/{MODEL}/endpoints", document(DEEPINFRA, NOVITA))
        found = fetch(router.url)
        assert "authorization" not in router.headers[0], "the listing is asked without a key"
    first = found[0]
    assert (first.provider, first.tag, first.quantization, first.status) == ("DeepInfra", "deepinfra/bf16", "bf16", 0)
    assert (first.context_length, first.max_completion_tokens) == (40960, 8192)
    assert first.price == Price(prompt=0.05, completion=0.4, request=0.0)
    assert "top_k" in first.supported_parameters
    assert first.moderated is None, "the listing does not say"
    assert [endpoint.tag for endpoint in found] == ["deepinfra/bf16", "novita/fp8"]


def test_a_variant_is_asked_for_by_its_own_name() -> None:
    with running() as router:
        router.tell(f"/models/{MODEL}:free/endpoints", document(DEEPINFRA))
        assert len(fetch(router.url, f"{MODEL}:free")) == 1


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (404, {"error": {"code": 404}}, ModelError, "lists no model"),
        (500, b"<html>", RouteError, "answered HTTP 500"),
        (200, b"<html>", RouteError, "not what OpenRouter documents"),
        (200, {"data": []}, RouteError, "not what OpenRouter documents"),
        (200, document(), ModelError, "lists no endpoint"),
    ],
)
def test_what_is_no_listing_is_one_sentence(status: int, body: Any, error: type[RouteError], words: str) -> None:
    with running() as router:
        router.tell(f"/models/{MODEL}/endpoints", body, status)
        with pytest.raises(error, match=words) as found:
            fetch(router.url)
    assert str(found.value).endswith((".", "?"))
    assert "\n" not in str(found.value)


def test_nobody_at_the_address_and_no_listing_at_all() -> None:
    with pytest.raises(UnreachableError, match="Nobody answers at"):
        fetch("http://127.0.0.1:9/api/v1")
    with pytest.raises(RouteError, match="has no listing of endpoints"):
        fetch("http://127.0.0.1:9/v1", backend="vllm")


def test_entries_that_cannot_be_pinned_are_left_out() -> None:
    rows = [listed("a/bf16", "A"), {"provider_name": "B"}, {"tag": "c"}, 7, listed("d", "D", status="default")]
    found = endpoints_of({"data": {"endpoints": rows}})
    assert found is not None
    assert [(e.tag, e.quantization, e.status) for e in found] == [("a/bf16", "bf16", 0), ("d", "unknown", None)]


def test_names_cannot_drive_a_terminal() -> None:
    (found,) = endpoints(listed("a/bf16", "A\x1b[31m\nB\ud800"))
    assert found.provider == "A [31m B"


def test_a_moderation_that_the_listing_states_is_kept() -> None:
    assert endpoints(listed("a", "A", is_moderated=True))[0].moderated is True


@pytest.mark.parametrize(
    ("pricing", "price"),
    [
        ({"prompt": "0", "completion": "0"}, Price()),
        ({"prompt": "0.0000012", "completion": "0.000003", "request": "0.01"}, Price(1.2, 3.0, 0.01)),
        ({"prompt": 0.000001, "completion": 0.000002}, Price(1.0, 2.0)),
        ({"prompt": "-1", "completion": "-1"}, None),
        ({"prompt": "0.1"}, None),
        ({"prompt": "NaN", "completion": "0"}, None),
        ({"prompt": "cheap", "completion": "0"}, None),
        (None, None),
    ],
)
def test_prices(pricing: Any, price: Price | None) -> None:
    assert price_of_pricing(pricing) == price


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
ROWS = st.fixed_dictionaries({"provider_name": st.text(min_size=1), "tag": st.text(min_size=1)}) | st.dictionaries(
    st.sampled_from(list(DEEPINFRA)), JSON
)


@given(st.lists(ROWS | JSON))
def test_any_listing_is_read_or_refused_and_survives_the_store(rows: list[Any]) -> None:
    found = endpoints_of({"data": {"endpoints": rows}})
    assert found is not None
    for endpoint in found:
        assert endpoint.tag
        assert endpoint.provider
        assert Endpoint.from_json(endpoint.to_json()) == endpoint


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("https://generativelanguage.googleapis.com/v1beta", "https://generativelanguage.googleapis.com"),
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434"),
        ("https://host/vertex", "https://host/vertex"),
    ],
)
def test_the_root_of_a_url(url: str, root: str) -> None:
    assert root_of(url) == root
