"""All fronts by name, and what a careless platform with each gets wrong."""

import random
from collections.abc import Mapping
from importlib import import_module
from typing import Literal

from probe.lab.fronts.base import Front, FrontSettings, Lapse

_FRONTS: Mapping[str, str] = {
    "openrouter": "openrouter:OpenRouterFront",
    "openai": "openai:OpenAiFront",
    "ollama": "ollama:OllamaFront",
    # one per dialect
    "openai-completions": "completions:CompletionsFront",
    "openai-responses": "responses:ResponsesFront",
    "ollama-generate": "generate:GenerateFront",
    "anthropic": "anthropic:AnthropicFront",
    "gemini": "gemini:GeminiFront",
    "bedrock": "bedrock:BedrockFront",
    # hosts and gateways that speak openai-chat, each with its own accent
    "azure": "azure:AzureFront",
    "dashscope": "dashscope:DashScopeFront",
    "groq": "groq:GroqFront",
    "fireworks": "fireworks:FireworksFront",
    "litellm": "litellm:LiteLlmFront",
    "portkey": "portkey:PortkeyFront",
    "nemo": "nemo:NemoFront",
    "higress": "higress:HigressFront",
}
"""Name → module of this package and class; imported when first used."""

FRONT_NAMES = tuple(_FRONTS)


def make_front(name: str, model: str, settings: FrontSettings) -> Front:
    """Make the front of one answer. Raises ``ValueError`` for a name that there is no front for."""
    if name not in _FRONTS:
        raise ValueError(f"There is no lab front {name!r}; there are: {', '.join(_FRONTS)}.")
    module, _, kind = _FRONTS[name].partition(":")
    made: Front = getattr(import_module(f"probe.lab.fronts.{module}"), kind)(model, settings)
    return made


_LEFT_OUT: Mapping[str, tuple[frozenset[str], ...]] = {
    "openrouter": (
        frozenset({"provider", "openrouter_metadata"}),
        frozenset({"native_finish_reason", "logprobs"}),
        frozenset({"refusal", "reasoning", "logprobs", "is_byok"}),
    ),
    "openai": (
        frozenset({"system_fingerprint"}),
        frozenset({"system_fingerprint", "logprobs"}),
        frozenset({"logprobs", "refusal", "annotations"}),
    ),
    "ollama": (
        frozenset({"total_duration", "load_duration"}),
        frozenset({"load_duration", "prompt_eval_duration", "eval_duration"}),
    ),
    "ollama-generate": (
        frozenset({"total_duration", "load_duration"}),
        frozenset({"context", "prompt_eval_duration", "eval_duration"}),
    ),
    "openai-completions": (frozenset({"system_fingerprint"}), frozenset({"logprobs"})),
    "openai-responses": (
        frozenset({"service_tier", "background"}),
        frozenset({"reasoning", "truncation", "store"}),
        frozenset({"instructions", "previous_response_id", "user"}),
    ),
    "anthropic": (
        frozenset({"service_tier"}),
        frozenset({"stop_details"}),
        frozenset({"stop_sequence", "cache_creation_input_tokens", "cache_read_input_tokens"}),
    ),
    "gemini": (frozenset({"safetyRatings"}), frozenset({"responseId"}), frozenset({"index", "promptTokensDetails"})),
    "bedrock": (frozenset({"latencyMs"}), frozenset({"totalTokens"})),
    "azure": (frozenset({"content_filter_results"}), frozenset({"system_fingerprint", "logprobs"})),
    "groq": (frozenset({"x_groq"}), frozenset({"x_groq", "service_tier", "usage_breakdown"})),
    "fireworks": (frozenset({"system_fingerprint"}), frozenset({"system_fingerprint", "perf_metrics"})),
    "higress": (frozenset({"created", "system_fingerprint", "refusal", "annotations"}),),
    "nemo": (frozenset({"logprobs"}),),
}

_USAGE: Mapping[str, Literal["zero", "absent"]] = {"higress": "zero", "nemo": "absent"}
"""Fronts whose own texts are known to state no tokens in one of the two ways."""

_PREFIXES = ("cmpl-", "resp_", "msg_", "")


def lapse_of(front: str, chance: random.Random) -> Lapse:
    """Draw what a careless platform with this front gets wrong; fronts without an entry lapse as ``openai`` does."""
    usage: Literal["zero", "absent"] = chance.choice(("zero", "absent"))
    usage = _USAGE.get(front, usage)
    return Lapse(chance.choice(_PREFIXES), chance.choice(_LEFT_OUT.get(front, _LEFT_OUT["openai"])), usage)
