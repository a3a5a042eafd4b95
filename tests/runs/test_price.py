import json
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.config import Pace, Price, Route
from probe.routers.listing import Endpoint
from probe.runs.money.price import NO_MAXIMUM, NOTHING, Cost, Tokens, charge, cost_of, nanousd_of, price_of, worst_case
from probe.wire.catalogue import load_backend
from probe.wire.values import Reading, Usage

WORST = Tokens(1000, 256)
PRICE = Price(prompt=0.05, completion=0.4, request=0.001)


def route(**overrides: Any) -> Route:
    backend = load_backend("openrouter")
    return replace(
        Route("r", backend, "https://example.invalid/v1", "m", "w", "hosted", twin="t", pace=Pace()), **overrides
    )


def reading(*documents: Any, **usage: int | None) -> Reading:
    return Reading("answer", usage=Usage(**usage), documents=documents)


def cost(answer: Reading, price: Price | None = PRICE) -> Cost:
    return cost_of(price, answer.usage, answer, WORST)


def test_the_routes_own_price_goes_before_the_listing() -> None:
    listed = [Endpoint("A", "a", price=Price(9, 9))]
    assert price_of(route(price=PRICE), listed) == PRICE
    assert price_of(route(), listed) == Price(9, 9)
    assert price_of(route()) is None
    assert price_of(route(role="local", price=PRICE)) == Price()


def test_of_several_endpoints_the_dearest_counts() -> None:
    listed = [Endpoint("A", "a/fp8", "fp8", price=Price(1, 5)), Endpoint("B", "b", "bf16", price=Price(2, 3, 0.5))]
    assert price_of(route(), listed) == Price(2, 5, 0.5)
    assert price_of(route(request={"provider": {"only": ["a"]}}), listed) == Price(1, 5)
    assert price_of(route(request={"provider": {"quantizations": ["bf16"]}}), listed) == Price(2, 3, 0.5)
    assert price_of(route(request={"provider": {"order": ["b"]}}), listed) == Price(2, 5, 0.5), "it may fall back"
    assert price_of(route(request={"provider": {"order": ["b"], "allow_fallbacks": False}}), listed) == Price(2, 3, 0.5)
    assert price_of(route(), [*listed, Endpoint("C", "c")]) is None, "one that states no price can cost anything"
    assert price_of(route(request={"provider": {"only": ["none"]}}), listed) is None


def test_money_is_exact_and_never_too_little() -> None:
    assert charge(Price(prompt=0.1, completion=0.2), Tokens(3, 3)) == 900
    assert charge(Price(prompt=0.0001), Tokens(1, 0)) == 1, "a tenth of a nano-dollar is rounded up"
    assert charge(Price(request=0.3), Tokens(), requests=3) == 900_000_000
    assert nanousd_of(0.3) == 300_000_000
    assert nanousd_of(1e-10) == 0


@given(
    st.floats(0, 1e4, allow_nan=False),
    st.floats(0, 1e4),
    st.floats(0, 10),
    st.integers(0, 10**7),
    st.integers(0, 10**7),
)
def test_a_charge_is_the_next_whole_nano_dollar(
    prompt: float, completion: float, request: float, sent: int, received: int
) -> None:
    exact = (
        Fraction(str(prompt)) * sent * 1000
        + Fraction(str(completion)) * received * 1000
        + Fraction(str(request)) * 10**9
    )
    assert charge(Price(prompt, completion, request), Tokens(sent, received)) == math.ceil(exact)


def test_reported_money_goes_first() -> None:
    told = {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.00014}}
    found = cost(reading({"choices": []}, told, {"other": 1}, prompt_tokens=10, completion_tokens=5))
    assert found == Cost(10, 5, 140_000, "reported")
    assert found.usd == 0.00014
    assert cost(reading(told), None) == Cost(1000, 256, 140_000, "reported")
    assert cost(reading({"usage": {"cost": 0}}, prompt_tokens=1, completion_tokens=1)).nanousd == 0


def test_with_ones_own_key_the_providers_share_is_added() -> None:
    usage = {"cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.19}}
    assert cost(reading({"usage": usage})).nanousd == 200_000_000
    assert cost(reading({"usage": usage | {"is_byok": False}})).nanousd == 10_000_000


@pytest.mark.parametrize("told", ["0.1", True, -1, math.nan, math.inf, 1e300, None, [1], {"total": 1}])
def test_money_that_is_nonsense_is_not_believed(told: Any) -> None:
    found = cost(reading({"usage": {"cost": told}}, "no object", None, prompt_tokens=10, completion_tokens=5))
    assert found == Cost(10, 5, 10 * 50 + 5 * 400 + 1_000_000, "counted")


@pytest.mark.parametrize(
    ("usage", "tokens", "source"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, Tokens(10, 5), "counted"),
        ({"prompt_tokens": 10, "completion_tokens": 5, "reasoning_tokens": 9}, Tokens(10, 9), "counted"),
        ({"prompt_tokens": 10}, Tokens(10, 256), "reserved"),
        ({"completion_tokens": 5}, Tokens(1000, 5), "reserved"),
        ({}, WORST, "reserved"),
        ({"prompt_tokens": -4, "completion_tokens": 2**60}, WORST, "reserved"),
        ({"prompt_tokens": True, "completion_tokens": 1.5}, WORST, "reserved"),
    ],
)
def test_what_is_not_reported_counts_as_reserved(usage: Any, tokens: Tokens, source: str) -> None:
    found = cost(reading(**usage))
    assert (found.tokens, found.source) == (tokens, source)
    assert found.nanousd == charge(PRICE, tokens)
    assert cost(reading(**usage), None).nanousd is None


def test_the_worst_case_is_what_the_body_allows() -> None:
    def worst(document: Any) -> Tokens:
        body = json.dumps(document).encode()
        found = worst_case(body, 99)
        assert found.prompt == len(body)
        return found

    assert worst({"max_tokens": 7}).completion == 7
    assert worst({"max_tokens": 7, "max_completion_tokens": 8, "n": 3}).completion == 24
    assert worst({"generationConfig": {"maxOutputTokens": 5, "candidateCount": 2}}).completion == 10
    assert worst({"options": {"num_predict": 6}}).completion == 6
    assert worst({"inferenceConfig": {"maxTokens": 4}}).completion == 4
    assert worst({"max_tokens": -1}).completion == 99
    assert worst([]).completion == 99
    assert worst_case(b"no json").completion == NO_MAXIMUM
    assert worst_case(b"[" * 100_000, 1).prompt == 100_000


def test_what_costs_nothing_still_ends_an_attempt() -> None:
    end = NOTHING.end("a")
    assert (end.attempt_id, end.prompt_tokens, end.completion_tokens, end.nanousd, end.source) == (
        "a",
        0,
        0,
        0,
        "counted",
    )
