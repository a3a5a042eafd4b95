"""What goes to hosts that refuse more than others, and where they say what nobody else says.

The rules are those of the facts in their files, the shapes those of the recordings that the reports name.
"""

import json
from typing import Any

import pytest

from probe.traces.values import Message, Sampling, Trace
from probe.wire.catalogue import load_backend
from probe.wire.dialects import dialect
from probe.wire.reports import read_answer, reported
from tests.kit import JSON, SSE, completion, delta, make_exchange, sse

HOSTS = [
    "novita",
    "nebius",
    "hyperbolic",
    "siliconflow",
    "huggingface",
    "dashscope",
    "deepseek",
    "zhipu",
    "moonshot",
    "minimax",
    "stepfun",
    "volcengine",
    "xai",
    "mistral",
    "cloudflare",
    "vercel",
    "databricks",
    "nvidia-nim",
    "replicate",
]

NO_URL = {"cloudflare", "databricks", "replicate"}
"""Each account has an address of its own, or no document of the vendor names one."""


def body_of(name: str, *, stream: bool = True, **request: Any) -> dict[str, Any]:
    backend = load_backend(name)
    trace = Trace("lake", (Message("user", "Name a lake."),), Sampling(seed=7))
    built = dialect(backend.dialect).build(
        trace, model="m", stream=stream, backend=backend, request=request, logprobs=0
    )
    body: dict[str, Any] = json.loads(built.body)
    return body


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_states_its_address_and_its_key(name: str) -> None:
    backend = load_backend(name)
    assert (backend.url is None) == (name in NO_URL)
    assert backend.url is None or (backend.url.startswith("https://") and not backend.url.endswith("/"))
    assert backend.key_env
    assert backend.kind == "hosted"
    assert {"url", "key_env", "auth", "parameters"} <= {key for fact in backend.facts for key in fact.about}


def test_mistral_gets_no_field_that_it_refuses() -> None:
    """Anything it does not know is a 422, stream_options.include_usage as well."""
    known = {"model", "messages", "stream", "temperature", "top_p", "max_tokens", "safe_prompt"}
    known |= {"presence_penalty", "frequency_penalty", "random_seed"}
    assert set(body_of("mistral")) == set(body_of("mistral", stream=False)) == known
    assert body_of("mistral")["safe_prompt"] is False


def test_databricks_gets_no_field_that_it_refuses() -> None:
    """Unknown fields are a 400, stream_options as well."""
    known = {"model", "messages", "stream", "temperature", "top_p", "max_tokens"}
    assert set(body_of("databricks")) == set(body_of("databricks", stream=False)) == known


def test_a_route_may_put_back_what_a_backend_takes_out() -> None:
    assert body_of("mistral", stream_options={"stream_tool_calls": True})["stream_options"] == {
        "stream_tool_calls": True
    }


def test_kimi_gets_no_sampling_parameter() -> None:
    assert set(body_of("moonshot", stream=False)) == {"model", "messages", "stream", "max_completion_tokens"}


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("xai", {"presence_penalty", "frequency_penalty", "max_tokens"}),
        ("minimax", {"seed", "top_k"}),
        ("siliconflow", {"min_p", "top_k"}),
        ("dashscope", {"frequency_penalty", "min_p"}),
        ("zhipu", {"presence_penalty", "frequency_penalty"}),
        ("volcengine", {"seed", "top_k"}),
    ],
)
def test_what_a_host_does_not_take_is_not_sent(name: str, refused: set[str]) -> None:
    assert not refused & set(body_of(name))


def test_off_has_a_value_of_its_own_on_dashscope() -> None:
    assert body_of("dashscope")["top_k"] == 101


def test_deepseek_is_asked_not_to_think_unless_the_route_says_otherwise() -> None:
    assert body_of("deepseek")["thinking"] == {"type": "disabled"}
    assert body_of("deepseek", thinking={"type": "enabled"})["thinking"] == {"type": "enabled"}


def test_dashscope_inspection_is_left_as_it_is() -> None:
    assert not load_backend("dashscope").headers


def test_cloudflare_goes_past_the_cache() -> None:
    assert load_backend("cloudflare").headers["cf-aig-skip-cache"] == "true"


def test_kimi_streams_carry_the_usage_in_the_choice() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 1}}
    body = sse(delta("A lake."), delta(finish_reason="stop", usage=usage))
    reading = read_answer(load_backend("moonshot"), make_exchange(response_body=body, response_headers=SSE))
    found = (reading.usage.prompt_tokens, reading.usage.completion_tokens, reading.usage.reasoning_tokens)
    assert found == (12, 5, 1)


def test_the_hugging_face_router_names_the_host() -> None:
    exchange = make_exchange(response_headers=(*JSON, ("X-Inference-Provider", "novita")))
    assert read_answer(load_backend("huggingface"), exchange).provider == "novita"


def test_the_vercel_gateway_names_the_host() -> None:
    backend = load_backend("vercel")
    said = {"gateway": {"routing": {"finalProvider": "baseten"}, "generationId": "gen_1", "cost": "0.0042"}}
    whole = completion("A lake.")
    whole["choices"][0]["message"]["provider_metadata"] = said
    last = delta(finish_reason="stop")
    last["choices"][0]["delta"]["provider_metadata"] = said
    for exchange in (
        make_exchange(response_body=whole),
        make_exchange(response_body=sse(delta("A lake."), last), response_headers=SSE),
    ):
        reading = read_answer(backend, exchange)
        assert reading.provider == "baseten"
        assert reported(backend, exchange, reading).others["request_id"] == "gen_1"


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("databricks", {"reasoning_tokens": 17}),
        ("deepseek", {"completion_tokens_details": {"reasoning_tokens": 17}}),
        ("volcengine", {"completion_tokens_details": {"reasoning_tokens": 17}}),
        ("xai", {"completion_tokens_details": {"reasoning_tokens": 17}}),
    ],
)
def test_reasoning_is_counted(name: str, usage: dict[str, Any]) -> None:
    body = completion("A lake.") | {"usage": {"prompt_tokens": 9, "completion_tokens": 20, **usage}}
    assert read_answer(load_backend(name), make_exchange(response_body=body)).usage.reasoning_tokens == 17


def test_minimax_says_what_it_flagged() -> None:
    backend = load_backend("minimax")
    body = completion("A lake.") | {"input_sensitive": True, "input_sensitive_type": 3, "output_sensitive": False}
    exchange = make_exchange(response_body=body)
    assert reported(backend, exchange, read_answer(backend, exchange)).others["filter"] == 3
