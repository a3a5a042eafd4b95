"""Is a route pinned to one endpoint, and does that endpoint serve what the study needs? Rules over a listing, pure.

What a rule finds is a sentence: an ``error`` where the route would not measure what it says, a ``warning`` where its
answers need a second look, a ``note`` for what is good to know before money is spent.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from probe.config import Route
from probe.routers.listing import Endpoint
from probe.routers.pins import Pin, expected_provider, matches
from probe.traces.values import Trace

Level = Literal["error", "warning", "note"]

CHARACTERS_PER_TOKEN = (8, 3)
"""Of a trace in any tokenizer: hardly ever more than the first, mostly more than the second."""

PARAMETERS = frozenset(
    {
        *("temperature", "top_p", "top_k", "min_p", "top_a", "frequency_penalty", "presence_penalty"),
        *("repetition_penalty", "max_tokens", "max_completion_tokens", "logit_bias", "logprobs", "top_logprobs"),
        *("seed", "response_format", "structured_outputs", "stop", "tools", "tool_choice", "parallel_tool_calls"),
        *("include_reasoning", "reasoning", "reasoning_effort", "web_search_options", "verbosity"),
    }
)
"""What ``supported_parameters`` may name (OpenRouter's openapi.yaml, ``Parameter``)."""

_STATED = (
    (re.compile(r"(?i)(?<![a-z0-9])(nvfp4|mxfp4|mxfp8|fp4|fp6|fp8|fp16|fp32|bf16|int4|int8)(?![0-9])"), None),
    (re.compile(r"(?i)(?<![a-z0-9])(w4a16|4bit|awq|q4_[0-9k])"), "int4"),
    (re.compile(r"(?i)(?<![a-z0-9])(w8a8|8bit|q8_0)"), "int8"),
    (re.compile(r"(?i)(?<![a-z0-9])(f16|float16)(?![0-9])"), "fp16"),
)
_FULL = frozenset({"bf16", "fp16", "fp32"})
"""What weights are published in; nobody writes it into their name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about a route, and how much it matters."""

    level: Level
    sentence: str

    def to_json(self) -> dict[str, str]:
        """Both fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """What the list of models says of one: its id, other names of it, and whether its top provider moderates."""

    id: str
    canonical: str | None = None
    moderated: bool | None = None


@dataclass(frozen=True, slots=True)
class Needs:
    """What a study sends: characters of its longest conversation, most tokens of an answer, names of parameters."""

    characters: int = 0
    max_tokens: int = 0
    parameters: frozenset[str] = frozenset()

    @classmethod
    def of(cls, route: Route, traces: Iterable[Trace]) -> "Needs":
        """Look through the traces that a route will carry."""
        characters = tokens = 0
        parameters = {name for name in route.request if name in PARAMETERS}
        for trace in traces:
            sent, _ = route.backend.parameters.to_wire(trace.sampling)
            parameters |= sent.keys() & PARAMETERS
            characters = max(characters, sum(len(message.content) for message in trace.messages))
            tokens = max(tokens, trace.sampling.max_tokens)
        stated = route.request.get("max_tokens")
        most = stated if isinstance(stated, int) and not isinstance(stated, bool) else tokens
        return cls(characters, most, frozenset(parameters))


def listed_model(document: Any, model: str) -> ListedModel | None:
    """Read OpenRouter's list of models; ``None`` where the model is not in it."""
    rows = document.get("data") if isinstance(document, Mapping) else None
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, Mapping) or model not in {row.get("id"), row.get("canonical_slug")}:
            continue
        top = row.get("top_provider")
        moderated = top.get("is_moderated") if isinstance(top, Mapping) else None
        canonical = row.get("canonical_slug")
        return ListedModel(
            str(row.get("id")),
            canonical if isinstance(canonical, str) else None,
            moderated if isinstance(moderated, bool) else None,
        )
    return None


def check_pin(
    route: Route, endpoints: Sequence[Endpoint], model: ListedModel | None = None, needs: Needs | None = None
) -> list[Finding]:
    """Return what is to be said of a route before it is used; several things may be.

    ``endpoints`` is the listing of its model, ``model`` its entry in the list of models, ``needs`` what a study
    sends.
    """
    pin = Pin.of_request(route.request)
    found = [*check_request(route), *_named(pin, endpoints)]
    chosen = [endpoint for endpoint in endpoints if pin.takes(endpoint)]
    found += _variants(pin, chosen)
    found += _moderated(chosen or endpoints, model)
    for endpoint in chosen if len(chosen) <= 3 else ():
        found += _served(route, pin, endpoint, needs or Needs())
    return list(dict.fromkeys(found))


def check_request(route: Route) -> list[Finding]:
    """Return what is to be said of a router's route whatever is listed."""
    pin = Pin.of_request(route.request)
    return [*_model_fallbacks(route), *_pinned(pin, route), *_rewriting(route), *_free(route)]


def check_suffix(route: Route) -> list[Finding]:
    """Return what is to be said of a route over Hugging Face's router, which is pinned by the model's suffix."""
    if route.backend.name != "huggingface" or expected_provider(route.backend.name, route.model, route.request):
        return []
    return [
        Finding(
            "warning",
            f"it is not pinned: the model names no provider ({route.model}:PROVIDER), so its answers may come from any "
            "provider of it",
        )
    ]


def _model_fallbacks(route: Route) -> Iterator[Finding]:
    models = route.request.get("models")
    if isinstance(models, list) and [name for name in models if name != route.model]:
        others = ", ".join(str(name) for name in models if name != route.model)
        yield Finding(
            "error",
            f"its request lists other models to fall back to ({others}), so another model may answer: "
            "leave `models` out",
        )


def _rewriting(route: Route) -> Iterator[Finding]:
    """Find what the route's own additions switch on again that the backend's file switches off."""
    plugins, transforms = route.request.get("plugins"), route.request.get("transforms")
    off = {"id": "context-compression", "enabled": False}
    compresses = isinstance(plugins, list) and not any(
        isinstance(plugin, Mapping) and off.items() <= plugin.items() for plugin in plugins
    )
    if compresses or transforms:
        yield Finding(
            "warning",
            "its request lets the router compress the conversation, so the model may see another prompt than was sent: "
            f"keep {{ id = {off['id']!r}, enabled = false }} among its plugins, and no transforms",
        )


def _pinned(pin: Pin, route: Route) -> Iterator[Finding]:
    if pin.tag is None:
        named = "names several providers" if pin.only or pin.order else "names no provider"
        yield Finding(
            "warning",
            f"it is not pinned (its request {named}): its answers may come from any provider of {route.model}, and "
            "providers of one model were seen to differ by up to 16.6 points (inspect_ai issue #4707); "
            "`probe routes expand` writes one route per provider",
        )
    elif pin.fallbacks:
        yield Finding(
            "warning",
            f"it names {pin.tag} and does not say allow_fallbacks = false: its answers may come from any provider when "
            "that one is busy",
        )


def _named(pin: Pin, endpoints: Sequence[Endpoint]) -> Iterator[Finding]:
    """Find the pinned provider in the listing, and an endpoint of it that the quantizations leave."""
    if pin.tag is None:
        return
    known = [endpoint for endpoint in endpoints if matches(pin.tag, endpoint.tag)]
    if not known:
        tags = ", ".join(endpoint.tag for endpoint in endpoints) or "nobody"
        yield Finding("error", f"the pinned provider {pin.tag!r} does not serve this model; listed are {tags}")
    elif pin.quantizations and not any(pin.takes(endpoint) for endpoint in known):
        theirs = ", ".join(sorted({endpoint.quantization for endpoint in known}))
        asked = ", ".join(pin.quantizations)
        yield Finding("error", f"{pin.tag} serves this model as {theirs}, and the request asks for {asked} only")


def _variants(pin: Pin, chosen: Sequence[Endpoint]) -> Iterator[Finding]:
    if len(chosen) > 1:
        each = ", ".join(f"{endpoint.tag} ({endpoint.quantization})" for endpoint in chosen)
        yield Finding("warning", f"{pin.tag!r} means {len(chosen)} endpoints, {each}: pin one of them by its full tag")


def _moderated(endpoints: Sequence[Endpoint], model: ListedModel | None) -> Iterator[Finding]:
    stated = [endpoint.tag for endpoint in endpoints if endpoint.moderated]
    if stated:
        yield Finding("warning", f"prompts to {', '.join(stated)} pass a moderation first: expect blocked requests")
    elif model is not None and model.moderated:
        yield Finding(
            "warning",
            "the list of models says that its top provider moderates prompts (which one that is, it does not say): "
            "expect blocked requests, which are a platform effect",
        )


def _served(route: Route, pin: Pin, endpoint: Endpoint, needs: Needs) -> Iterator[Finding]:
    """Say how one endpoint serves the model."""
    yield from _status(endpoint)
    yield from _length(endpoint, needs)
    yield from _parameters(pin, endpoint, needs)
    yield from _quantization(route, endpoint)
    yield from _price(endpoint)


def _status(endpoint: Endpoint) -> Iterator[Finding]:
    if endpoint.status is not None and endpoint.status < 0:
        yield Finding(
            "warning",
            f"{endpoint.tag} has the status {endpoint.status} in the listing, where 0 is in order: it may not answer "
            "now",
        )


def _length(endpoint: Endpoint, needs: Needs) -> Iterator[Finding]:
    context, most = endpoint.context_length, endpoint.max_completion_tokens
    least, likely = (needs.characters // per for per in CHARACTERS_PER_TOKEN)
    if context is not None and least + needs.max_tokens > context:
        yield Finding(
            "error",
            f"{endpoint.tag} has a context of {context} tokens, too short for the longest trace ({needs.characters} "
            f"characters) and an answer of {needs.max_tokens} tokens",
        )
    elif context is not None and likely + needs.max_tokens > context:
        yield Finding(
            "warning",
            f"{endpoint.tag} has a context of {context} tokens, which the longest trace ({needs.characters} "
            f"characters) and an answer of {needs.max_tokens} tokens may exceed",
        )
    if most is not None and most < needs.max_tokens:
        yield Finding(
            "warning",
            f"{endpoint.tag} writes {most} tokens at most, and the traces ask for {needs.max_tokens}: answers may "
            "be cut",
        )


def _parameters(pin: Pin, endpoint: Endpoint, needs: Needs) -> Iterator[Finding]:
    # An endpoint that lists nothing says nothing of what it lacks.
    lacking = sorted(needs.parameters - endpoint.supported_parameters) if endpoint.supported_parameters else []
    # Two spellings of one limit: who knows one takes the other.
    if {"max_tokens", "max_completion_tokens"} & endpoint.supported_parameters:
        lacking = [name for name in lacking if name not in {"max_tokens", "max_completion_tokens"}]
    if not lacking:
        return
    if pin.required:
        yield Finding(
            "error",
            f"{endpoint.tag} does not list {', '.join(lacking)}, and the request has require_parameters: nobody will "
            "answer",
        )
        return
    yield Finding(
        "warning",
        f"{endpoint.tag} does not list {', '.join(lacking)} as supported: they may be ignored without a word "
        "(require_parameters is not set, which would refuse such a request instead)",
    )


def _quantization(route: Route, endpoint: Endpoint) -> Iterator[Finding]:
    served, stated = endpoint.quantization, stated_quantization(route.weights)
    if served == "unknown":
        yield Finding("warning", f"the listing does not say in which quantization {endpoint.tag} serves the model")
    elif stated is None and served not in _FULL:
        yield Finding(
            "warning",
            f"{endpoint.tag} serves {served}, and the weights {route.weights!r} state no quantization: a "
            "difference from the twin may be the quantization's",
        )
    elif stated is not None and stated != served and not {stated, served} <= _FULL:
        yield Finding(
            "warning",
            f"{endpoint.tag} serves {served}, and the weights {route.weights!r} are {stated}: a difference from "
            "the twin may be the quantization's",
        )


def stated_quantization(weights: str) -> str | None:
    """Return the quantization that a name of weights states, in the words of listings; ``None`` where there is none."""
    for pattern, means in _STATED:
        found = pattern.search(weights)
        if found is not None:
            return means or found[1].lower()
    return None


def _price(endpoint: Endpoint) -> Iterator[Finding]:
    yield Finding("note", f"{endpoint.tag}: {price_text(endpoint)}")


def price_text(endpoint: Endpoint) -> str:
    """Return the price of an endpoint in words."""
    price = endpoint.price
    if price is None:
        return "no fixed price listed"
    if not (price.prompt or price.completion or price.request):
        return "free of charge"
    each = f", ${price.request:.6g} a request" if price.request else ""
    return f"${price.prompt:.6g} per million prompt tokens, ${price.completion:.6g} per million of the answer{each}"


def _free(route: Route) -> Iterator[Finding]:
    limits, pace = route.backend.limits, route.pace
    if limits.only is None or not limits.only.search(route.model):
        return
    minute = pace.requests_per_minute or limits.requests_per_minute
    day = pace.requests_per_day or limits.requests_per_day
    more = " (accounts that bought 10 credits have 1,000: say so with pace.requests_per_day)"
    own = "" if pace.requests_per_day else more
    yield Finding("note", f"a free variant: {minute:g} requests a minute and {day} a day{own}")
