"""What providers answered when they did not answer: bodies as recorded or documented, with what each means."""

from typing import Any, NamedTuple


class Said(NamedTuple):
    """A response and what it is: a reason, or ``""`` for an answer. ``words`` must stand in what is quoted of it."""

    name: str
    reason: str
    status: int
    body: Any
    words: str = ""
    backend: str = "openrouter"


def error(message: str, **more: Any) -> dict[str, Any]:
    """Return the error object of the OpenAI family."""
    return {"error": {"message": message, **more}}


DOCUMENTED = (
    Said(
        "openai wrong key", "key_refused", 401, error("Incorrect API key provided: sk-ab***yz.", code="invalid_api_key")
    ),
    Said("openrouter wrong key", "key_refused", 401, error("No auth credentials found", code=401)),
    Said("google wrong key", "key_refused", 400, error("API key not valid. Please pass a valid API key.", code=400)),
    Said(
        "azure wrong key",
        "key_refused",
        401,
        error("Access denied due to invalid subscription key or wrong API endpoint.", code="401"),
    ),
    Said("aws wrong key", "key_refused", 403, {"message": "The security token included in the request is invalid."}),
    Said(
        "openai country",
        "region",
        403,
        error("Country, region, or territory not supported", code="unsupported_country_region_territory"),
        "territory",
    ),
    Said("google location", "region", 400, error("User location is not supported for the API use.", code=400)),
    Said(
        "openrouter region",
        "region",
        403,
        {"error": {"code": 403, "message": "Not for you.", "availability": {"code": "region_restricted"}}},
    ),
    Said(
        "openrouter data policy",
        "account",
        404,
        error("No endpoints found matching your data policy (Free model training). Configure: https://…", code=404),
        "data policy",
    ),
    Said(
        "groq organization",
        "account",
        400,
        error("Organization has been restricted. Please reach out to support.", code="organization_restricted"),
    ),
    Said("openai account", "account", 401, error("The account was deactivated.", code="account_deactivated")),
    Said("openrouter credit", "credit", 402, error("Insufficient credits. Add more using …", code=402), "Insufficient"),
    Said("openai quota", "credit", 429, error("You exceeded your current quota.", code="insufficient_quota")),
    Said("anthropic credit", "credit", 400, error("Your credit balance is too low to access the API.")),
    Said("ollama model", "unknown_model", 404, {"error": "model 'x' not found"}, "model 'x' not found", "ollama"),
    Said("openrouter model", "unknown_model", 400, error("toy/x is not a valid model ID", code=400)),
    Said("openrouter endpoints", "unknown_model", 404, error("No endpoints found for toy/x.", code=404)),
    Said("openai model", "unknown_model", 404, error("The model `x` does not exist", code="model_not_found")),
    Said("google model", "unknown_model", 404, error("models/x is not found for API version v1beta", code=404)),
    Said("groq model", "unknown_model", 400, error("Gone.", code="model_decommissioned")),
    Said(
        "context length",
        "bad_request",
        400,
        error("This model's maximum context length is 8192 tokens.", code="context_length_exceeded"),
    ),
    Said("openai parameter", "bad_request", 400, error("Nope.", type="invalid_request_error", param="top_k")),
    Said(
        "fastapi", "bad_request", 422, {"detail": [{"loc": ["body", "n"], "msg": "Field required", "type": "missing"}]}
    ),
    Said("wrong path", "bad_request", 404, b"<html><h1>not here</h1></html>", "not here"),
    Said("redirect", "bad_request", 307, b""),
    Said(
        "rate", "rate_limited", 429, error("Rate limit reached for requests", code="rate_limit_exceeded"), "Rate limit"
    ),
    Said("bare 429", "rate_limited", 429, b""),
    Said("unavailable", "overloaded", 503, b"<html>Service Unavailable</html>", "Service Unavailable"),
    Said("anthropic overloaded", "overloaded", 529, error("Overloaded", type="overloaded_error")),
    Said("request timeout", "overloaded", 408, b""),
    # Errors inside a 200, without any text.
    Said(
        "wrapped 429",
        "rate_limited",
        200,
        {
            "error": {
                "message": "Provider returned error",
                "code": 429,
                "metadata": {"raw": '{"error":{"message":"Slow down, please"}}', "provider_name": "X"},
            }
        },
        "Slow down, please",
    ),
    Said("wrapped 502", "overloaded", 200, error("Provider returned error", code=502)),
    Said("wrapped 402", "credit", 200, error("This request requires more credits", code=402)),
    Said("minimax rate", "rate_limited", 200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}),
    Said("minimax credit", "credit", 200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
    Said("a page", "malformed", 200, b"<html><body>Welcome to the hotel</body></html>", "Welcome to the hotel"),
)
"""What is no answer."""

ANSWERS = (
    Said(
        "openrouter moderation",
        "",
        403,
        error('x requires moderation on Y. Your input was flagged for "violence".', code=403),
    ),
    Said(
        "azure filter",
        "",
        400,
        {"error": {"message": "The response was filtered.", "code": "content_filter", "status": 400}},
    ),
    Said("deepseek risk", "", 400, error("Content Exists Risk", type="invalid_request_error")),
    Said("opaque gateway", "", 400, error("bad request")),
    Said("legal reasons", "", 451, b""),
    Said("unexplained", "", 403, b"<html>Access denied</html>"),
    Said("policy nobody has described", "", 422, error("Your prompt violates our guidelines for this field required.")),
)
"""Blocks and refusals that nobody can explain: answers."""
