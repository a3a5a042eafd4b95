from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from router_kit import DEEPINFRA, MODEL, NOVITA, TOGETHER, TURBO, endpoints, listed, route_of

from probe.config import Price
from probe.routers.listing import Endpoint
from probe.routers.pinning import PARAMETERS, Finding, ListedModel, Needs, check_pin, listed_model, stated_quantization
from probe.traces.values import Message, Sampling, Trace

PINNED = '{ provider = { only = ["deepinfra/bf16"], allow_fallbacks = false } }'
ALL = (DEEPINFRA, TURBO, NOVITA, TOGETHER)
SENT = Needs(characters=300, max_tokens=256, parameters=frozenset({"temperature", "top_k", "max_tokens"}))


def said(findings: list[Finding], level: str) -> list[str]:
    return [finding.sentence for finding in findings if finding.level == level]


def test_a_well_pinned_route_has_a_price_and_nothing_else(tmp_path: Path) -> None:
    found = check_pin(route_of(tmp_path, PINNED), endpoints(*ALL), ListedModel(MODEL, moderated=False), SENT)
    assert [finding.level for finding in found] == ["note"]
    assert "$0.05 per million prompt tokens, $0.4 per million of the answer" in found[0].sentence


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("", "names no provider"),
        ('{ provider = { only = ["deepinfra", "novita"] } }', "names several providers"),
        ('{ provider = { order = ["deepinfra/bf16", "novita"], allow_fallbacks = false } }', "names several providers"),
        ('{ provider = { only = ["deepinfra/bf16"] } }', "does not say allow_fallbacks = false"),
        ('{ provider = { order = ["deepinfra/bf16"] } }', "does not say allow_fallbacks = false"),
    ],
)
def test_a_route_that_is_not_pinned_is_warned_of(tmp_path: Path, request_: str, words: str) -> None:
    (warning,) = said(check_pin(route_of(tmp_path, request_), endpoints(DEEPINFRA)), "warning")
    assert words in warning
    assert "may come from any provider" in warning


def test_an_order_of_one_without_fallbacks_is_a_pin(tmp_path: Path) -> None:
    route = route_of(tmp_path, '{ provider = { order = ["deepinfra/bf16"], allow_fallbacks = false } }')
    assert said(check_pin(route, endpoints(*ALL)), "warning") == []


def test_a_provider_that_is_not_listed_is_an_error_with_all_tags(tmp_path: Path) -> None:
    route = route_of(tmp_path, '{ provider = { only = ["fireworks"], allow_fallbacks = false } }')
    (error,) = said(check_pin(route, endpoints(*ALL)), "error")
    assert "'fireworks' does not serve" in error
    assert "deepinfra/bf16, deepinfra/turbo, novita/fp8, together" in error


def test_a_base_slug_that_means_several_endpoints_is_warned_of(tmp_path: Path) -> None:
    route = route_of(tmp_path, '{ provider = { only = ["deepinfra"], allow_fallbacks = false } }')
    warnings = said(check_pin(route, endpoints(*ALL)), "warning")
    assert any("means 2 endpoints, deepinfra/bf16 (bf16), deepinfra/turbo (fp8)" in w for w in warnings)
    asked = '{ provider = { only = ["deepinfra"], allow_fallbacks = false, quantizations = ["bf16"] } }'
    assert said(check_pin(route_of(tmp_path, asked), endpoints(*ALL)), "warning") == []


def test_quantizations_that_leave_nobody_are_an_error(tmp_path: Path) -> None:
    asked = '{ provider = { only = ["novita"], allow_fallbacks = false, quantizations = ["bf16"] } }'
    (error,) = said(check_pin(route_of(tmp_path, asked), endpoints(*ALL)), "error")
    assert error == "novita serves this model as fp8, and the request asks for bf16 only"


def test_a_status_below_0_is_warned_of(tmp_path: Path) -> None:
    found = check_pin(route_of(tmp_path, PINNED), endpoints(DEEPINFRA | {"status": -2}))
    assert any("status -2" in sentence for sentence in said(found, "warning"))


def test_moderation_of_the_top_provider_is_warned_of(tmp_path: Path) -> None:
    route = route_of(tmp_path, PINNED)
    (warning,) = said(check_pin(route, endpoints(*ALL), ListedModel(MODEL, moderated=True)), "warning")
    assert "top provider moderates prompts" in warning
    stated = endpoints(DEEPINFRA | {"is_moderated": True}, NOVITA)
    (warning,) = said(check_pin(route, stated, ListedModel(MODEL, moderated=False)), "warning")
    assert "prompts to deepinfra/bf16 pass a moderation" in warning


@pytest.mark.parametrize(
    ("context", "level", "words"),
    [(280, "error", "too short"), (340, "warning", "may exceed"), (4096, None, "")],
)
def test_a_context_that_is_too_short(tmp_path: Path, context: int, level: str | None, words: str) -> None:
    found = check_pin(route_of(tmp_path, PINNED), endpoints(DEEPINFRA | {"context_length": context}), None, SENT)
    telling = [finding for finding in found if finding.level != "note"]
    assert [finding.level for finding in telling] == ([level] if level else [])
    assert all(words in finding.sentence for finding in telling)


def test_answers_that_the_endpoint_would_cut_are_warned_of(tmp_path: Path) -> None:
    found = check_pin(route_of(tmp_path, PINNED), endpoints(DEEPINFRA | {"max_completion_tokens": 128}), None, SENT)
    assert any("writes 128 tokens at most" in sentence for sentence in said(found, "warning"))


def test_parameters_that_may_be_ignored_are_named(tmp_path: Path) -> None:
    row = DEEPINFRA | {"supported_parameters": ["temperature", "max_completion_tokens"]}
    (warning,) = said(check_pin(route_of(tmp_path, PINNED), endpoints(row), None, SENT), "warning")
    assert "does not list top_k as supported: they may be ignored" in warning
    assert "require_parameters is not set" in warning
    silent = DEEPINFRA | {"supported_parameters": None}
    assert said(check_pin(route_of(tmp_path, PINNED), endpoints(silent), None, SENT), "warning") == []


def test_parameters_that_are_required_and_lacking_are_an_error(tmp_path: Path) -> None:
    row = DEEPINFRA | {"supported_parameters": ["temperature", "max_tokens"]}
    asked = '{ provider = { only = ["deepinfra/bf16"], allow_fallbacks = false, require_parameters = true } }'
    (error,) = said(check_pin(route_of(tmp_path, asked), endpoints(row), None, SENT), "error")
    assert "nobody will answer" in error


def test_other_models_to_fall_back_to_are_an_error(tmp_path: Path) -> None:
    asked = PINNED.replace("{ provider", f'{{ models = ["{MODEL}", "qwen/qwen3-32b"], provider', 1)
    (error,) = said(check_pin(route_of(tmp_path, asked), endpoints(*ALL)), "error")
    assert "(qwen/qwen3-32b)" in error
    alone = PINNED.replace("{ provider", f'{{ models = ["{MODEL}"], provider', 1)
    assert said(check_pin(route_of(tmp_path, alone), endpoints(*ALL)), "error") == []


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ('plugins = [{ id = "web" }]', True),
        ('plugins = [{ id = "context-compression", enabled = true }]', True),
        ('plugins = [{ id = "context-compression", enabled = false }, { id = "web" }]', False),
        ('transforms = ["middle-out"]', True),
        ("transforms = []", False),
    ],
)
def test_compression_that_is_switched_on_again_is_warned_of(tmp_path: Path, more: str, warned: bool) -> None:
    route = route_of(tmp_path, PINNED.replace("{ provider", f"{{ {more}, provider", 1))
    warnings = said(check_pin(route, endpoints(DEEPINFRA)), "warning")
    assert [True for sentence in warnings if "compress the conversation" in sentence] == [True] * warned


@pytest.mark.parametrize(
    ("weights", "served", "warned"),
    [
        ("Qwen/Qwen3-8B", "bf16", False),
        ("Qwen/Qwen3-8B", "fp8", True),
        ("Qwen/Qwen3-8B", "unknown", True),
        ("Qwen/Qwen3-8B-FP8", "fp8", False),
        ("Qwen/Qwen3-8B-FP8", "bf16", True),
        ("Qwen/Qwen3-8B-AWQ@abc", "int4", False),
        ("Qwen/Qwen3-8B-BF16", "fp16", False),
    ],
)
def test_a_quantization_that_is_not_the_weights(tmp_path: Path, weights: str, served: str, warned: bool) -> None:
    row = DEEPINFRA | {"quantization": served}
    warnings = said(check_pin(route_of(tmp_path, PINNED, weights=weights), endpoints(row)), "warning")
    assert bool(warnings) == warned
    assert all("quantization" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "int4"),
        ("Qwen3-8B-Q8_0", "int8"),
        ("m-W4A16", "int4"),
        ("m-nvfp4", "nvfp4"),
        ("m", None),
        ("sfp8ish", None),
    ],
)
def test_the_quantization_in_a_name(name: str, stated: str | None) -> None:
    assert stated_quantization(name) == stated


def test_free_variants_have_their_limits_said(tmp_path: Path) -> None:
    notes = said(check_pin(route_of(tmp_path, PINNED, model=f"{MODEL}:free"), endpoints(DEEPINFRA)), "note")
    assert any("20 requests a minute and 50 a day" in note and "1,000" in note for note in notes)
    assert not any("free variant" in s for s in said(check_pin(route_of(tmp_path), endpoints(DEEPINFRA)), "note"))


def test_several_findings_come_together(tmp_path: Path) -> None:
    found = check_pin(
        route_of(tmp_path, '{ provider = { only = ["novita"] } }'),
        endpoints(NOVITA | {"status": -1, "context_length": 100}),
        ListedModel(MODEL, moderated=True),
        SENT,
    )
    assert [finding.level for finding in found] == ["warning", "warning", "warning", "error", "warning", "note"]


def test_what_a_study_needs_is_read_from_its_traces(tmp_path: Path) -> None:
    traces = [
        Trace("a", (Message("user", "x" * 10),), Sampling(max_tokens=64)),
        Trace("b", (Message("system", "y" * 5), Message("user", "z" * 20)), Sampling(max_tokens=32, seed=7)),
    ]
    needs = Needs.of(route_of(tmp_path, '{ max_tokens = 99, stop = ["."], user = "u" }'), traces)
    assert (needs.characters, needs.max_tokens) == (25, 99)
    assert {"temperature", "top_k", "repetition_penalty", "seed", "stop", "max_tokens"} <= needs.parameters
    assert "user" not in needs.parameters


def test_the_list_of_models_is_read() -> None:
    rows = {"data": [7, {"id": MODEL, "canonical_slug": f"{MODEL}-04-28", "top_provider": {"is_moderated": True}}]}
    assert listed_model(rows, MODEL) == ListedModel(MODEL, f"{MODEL}-04-28", moderated=True)
    assert listed_model(rows, "other") is None
    assert listed_model("page", MODEL) is None
    assert listed_model({"data": [{"id": MODEL}]}, MODEL) == ListedModel(MODEL)


ENDPOINTS = st.builds(
    Endpoint,
    st.text(min_size=1),
    st.sampled_from(["deepinfra/bf16", "deepinfra", "novita/fp8"]) | st.text(min_size=1),
    st.sampled_from(["bf16", "fp8", "unknown"]),
    st.none() | st.integers(0, 10**6),
    st.none() | st.integers(0, 10**6),
    st.frozensets(st.sampled_from(sorted(PARAMETERS))),
    st.none() | st.integers(-10, 0),
    st.none() | st.builds(Price, *[st.floats(0, 1e3)] * 3),
    st.none() | st.booleans(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(ENDPOINTS, max_size=6), st.sampled_from(["", PINNED, '{ provider = { order = ["novita"] } }']))
def test_any_listing_gives_findings_each_once(tmp_path: Path, found: list[Endpoint], request_: str) -> None:
    findings = check_pin(route_of(tmp_path, request_), found, ListedModel(MODEL, moderated=True), SENT)
    assert len(set(findings)) == len(findings)
    assert all(finding.level in {"error", "warning", "note"} and finding.sentence for finding in findings)
    if request_ == PINNED and not any(endpoint.tag.lower().startswith("deepinfra/bf16") for endpoint in found):
        assert any(finding.level == "error" for finding in findings), "nobody could answer"


def test_endpoints_of_many_variants_are_not_listed_one_by_one(tmp_path: Path) -> None:
    rows = [listed(f"deepinfra/v{n}", "DeepInfra", status=-1) for n in range(5)]
    found = check_pin(
        route_of(tmp_path, '{ provider = { only = ["deepinfra"], allow_fallbacks = false } }'), endpoints(*rows)
    )
    assert [finding.level for finding in found] == ["warning"]
