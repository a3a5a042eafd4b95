"""What OpenRouter tells beside answers: its models, who serves one, the statistics of an answer, and the key.

Sources: OpenRouter ``openapi/openapi.yaml`` (Model, PublicEndpoint, GenerationResponse, getCurrentKey),
``guides/overview/models.mdx``. Platforms with other fronts have the plain list of models only.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from aiohttp import web

from probe.lab.limits import Limiter, bad_key
from probe.lab.platform_spec import Platform
from probe.lab.providers import Provider

_PARAMETERS = [
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
]
_ROOT = "/{platform}/{root:(?:api/)?v1}"
_CREATED = 1_750_000_000


class Lab(Protocol):
    """The parts of a lab server that these pages tell of."""

    model: str
    limiter: Limiter

    @property
    def platforms(self) -> Mapping[str, Platform]:
        """All platforms by name."""
        ...


def add_routes(app: web.Application, lab: Lab) -> None:
    """Add ``GET`` of models, of a model's endpoints, of generations and of the key, for every platform."""
    pages = _Pages(lab)
    app.router.add_get(f"{_ROOT}/models", pages.models)
    app.router.add_get(f"{_ROOT}/models/{{model:.+}}/endpoints", pages.endpoints)
    app.router.add_get(f"{_ROOT}/generation", pages.generation)
    app.router.add_get(f"{_ROOT}/key", pages.key)


def _wrong(code: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": code}}, status=code)


def _price(usd: float) -> str:
    """Return a price per token as OpenRouter writes it: a decimal string."""
    return f"{usd:.12f}".rstrip("0").rstrip(".") or "0"


class _Pages:
    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def _platform(self, request: web.Request, *, router: bool = True) -> Platform:
        platform = self._lab.platforms.get(request.match_info["platform"])
        if platform is None or (router and platform.front != "openrouter"):
            raise web.HTTPNotFound(text='{"error":{"message":"Not Found","code":404}}', content_type="application/json")
        return platform

    async def models(self, request: web.Request) -> web.Response:
        platform = self._platform(request, router=False)
        if platform.front != "openrouter":
            return web.json_response({"object": "list", "data": [{"id": self._lab.model, "object": "model"}]})
        top = platform.providers[0]
        about = {
            **self._about(),
            "context_length": top.context_length,
            "pricing": self._pricing(platform, top),
            "top_provider": {
                "context_length": top.context_length,
                "max_completion_tokens": None,
                "is_moderated": top.moderated,
            },
            "per_request_limits": None,
            "supported_parameters": _PARAMETERS,
        }
        return web.json_response({"data": [about]})

    async def endpoints(self, request: web.Request) -> web.Response:
        platform = self._platform(request)
        if request.match_info["model"] != self._lab.model:
            return _wrong(404, "Model not found")
        endpoints = [self._endpoint(platform, provider) for provider in platform.providers]
        return web.json_response({"data": {**self._about(), "endpoints": endpoints}})

    def _about(self) -> dict[str, Any]:
        return {
            "id": self._lab.model,
            "canonical_slug": self._lab.model,
            "name": f"Lab: {self._lab.model}",
            "created": _CREATED,
            "description": "The weights that this lab serves.",
            "architecture": {
                "modality": "text->text",
                "input_modalities": ["text"],
                "output_modalities": ["text"],
                "tokenizer": "Other",
                "instruct_type": None,
            },
        }

    def _endpoint(self, platform: Platform, provider: Provider) -> dict[str, Any]:
        return {
            "name": f"{provider.name} | {self._lab.model}",
            "model_id": self._lab.model,
            "model_name": f"Lab: {self._lab.model}",
            "context_length": provider.context_length,
            "pricing": {**self._pricing(platform, provider), "discount": 0},
            "provider_name": provider.name,
            "tag": provider.tag,
            "quantization": provider.quantization,
            "max_completion_tokens": None,
            "max_prompt_tokens": None,
            "supported_parameters": _PARAMETERS,
            "status": provider.status,
            "uptime_last_5m": None,
            "uptime_last_30m": None,
            "uptime_last_1d": None,
            "supports_implicit_caching": False,
            "latency_last_30m": None,
            "throughput_last_30m": None,
        }

    def _pricing(self, platform: Platform, provider: Provider) -> dict[str, str]:
        share = 0.0 if platform.free else 1.0
        return {
            "prompt": _price(share * provider.prompt_price),
            "completion": _price(share * provider.completion_price),
            "request": "0",
            "image": "0",
        }

    async def generation(self, request: web.Request) -> web.Response:
        platform = self._platform(request)
        wrong = bad_key(platform.limits, request)
        if wrong is not None:
            return _wrong(401, "User not found." if wrong == "key" else "No auth credentials found")
        wanted = request.query.get("id", "")
        found = self._lab.limiter.generation(platform, wanted)
        if found is None:
            return _wrong(404, f"Generation {wanted} not found")
        data = {
            "id": found.id,
            "upstream_id": None,
            "model": self._lab.model,
            "provider_name": found.provider.name,
            "provider_responses": [{"provider_name": found.provider.name, "status": 200}],
            "router": None,
            "created_at": datetime.fromtimestamp(found.at, UTC).isoformat(),
            "streamed": found.streamed,
            "cancelled": False,
            "api_type": "completions",
            "finish_reason": found.finish_reason,
            "native_finish_reason": found.finish_reason,
            "moderation_latency": None,
            "latency": round(found.latency_ms),
            "generation_time": round(found.generation_ms),
            "tokens_prompt": found.prompt_tokens,
            "tokens_completion": found.completion_tokens,
            "native_tokens_prompt": found.prompt_tokens,
            "native_tokens_completion": found.completion_tokens,
            "native_tokens_reasoning": 0,
            "native_tokens_cached": 0,
            "total_cost": found.cost,
            "upstream_inference_cost": found.cost,
            "cache_discount": None,
            "usage": found.cost,
            "is_byok": False,
        }
        return web.json_response({"data": data})

    async def key(self, request: web.Request) -> web.Response:
        platform = self._platform(request)
        wrong = bad_key(platform.limits, request)
        if wrong is not None:
            return _wrong(401, "User not found." if wrong == "key" else "No auth credentials found")
        limiter, limits = self._lab.limiter, platform.limits
        spent = limiter.spent_usd(platform)
        left = None if limits.credits_usd is None else max(0.0, limits.credits_usd - spent)
        data = {
            "label": "sk-or-v1-lab",
            "limit": limits.credits_usd,
            "limit_reset": None,
            "limit_remaining": left,
            "include_byok_in_limit": False,
            "usage": spent,
            "usage_daily": spent,
            "usage_weekly": spent,
            "usage_monthly": spent,
            "is_free_tier": platform.free,
            "is_management_key": False,
            "is_provisioning_key": False,
            "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated and safe to ignore."},
        }
        if platform.free:
            used = limiter.requests_today(platform)
            data["free_model_daily_requests"] = {"limit": limits.requests_per_day, "used": used}
        return web.json_response({"data": data})
