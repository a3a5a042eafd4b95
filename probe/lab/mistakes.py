"""What lab platforms say of requests that they cannot serve, each in its vendor's envelope and with its status.

Envelopes: platform.claude.com/docs/api/errors; google.rpc.Status; the error object of openai/openai-python@e43b422;
ollama/ollama@fb30760 ``server/routes.go``; botocore's ``bedrock-runtime`` model (exceptions); or-docs
``api_reference/errors-and-debugging.mdx``. Words for an unknown model, recorded: OpenAI's
https://github.com/openai/openai-agents-python/issues/458; Bedrock's https://github.com/iOfficeAI/AionCore/pull/377;
Gemini's in many public error reports. Unconfirmed, from memory: Anthropic's words for it, all words for unknown paths,
and the names and words of AWS's signature errors.
"""

import uuid
from dataclasses import dataclass
from typing import Any, Literal

from probe.lab.fronts.base import dump
from probe.lab.intake import dialect_of

Kind = Literal["body", "model", "path", "upstream"]
"""A body that is not what the dialect asks for; an unknown model; an unknown path; the local server failed."""

_STATUS = {"body": 400, "model": 404, "path": 404, "upstream": 502}


@dataclass(frozen=True, slots=True)
class Mistake:
    """An answer to a request that is not served."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def mistake(front: str, kind: Kind, detail: str, *, status: int | None = None) -> Mistake:
    """Return what a platform with this front says. ``detail`` is the model's name or a sentence."""
    said = _STATUS[kind] if status is None else status
    makers = {
        "anthropic-messages": _anthropic,
        "gemini": _gemini,
        "bedrock-converse": _bedrock,
        "ollama-chat": _ollama,
        "ollama-generate": _ollama,
    }
    maker = _openrouter if front == "openrouter" else makers.get(dialect_of(front), _openai)
    return maker(kind, detail, said)


def _anthropic(kind: Kind, detail: str, status: int) -> Mistake:
    types = {"body": "invalid_request_error", "model": "not_found_error", "path": "not_found_error"}
    message = {"model": f"model: {detail}", "path": "Not Found"}.get(kind, detail)
    request_id = f"req_011{uuid.uuid4().hex[:21]}"
    by_status = {429: "rate_limit_error", 529: "overloaded_error"}
    error = {"type": types.get(kind) or by_status.get(status, "api_error"), "message": message}
    return _of(status, {"type": "error", "error": error, "request_id": request_id}, ("request-id", request_id))


def _gemini(kind: Kind, detail: str, status: int) -> Mistake:
    names = {"body": "INVALID_ARGUMENT", "model": "NOT_FOUND", "path": "NOT_FOUND"}
    message = detail
    if kind == "model":
        message = (
            f"models/{detail} is not found for API version v1beta, or is not supported for generateContent. "
            "Call ListModels to see the list of available models and their supported methods."
        )
    by_status = {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}
    name = names.get(kind) or by_status.get(status, "UNAVAILABLE")
    return _of(status, {"error": {"code": status, "message": message, "status": name}})


def _bedrock(kind: Kind, detail: str, status: int) -> Mistake:
    if kind == "model":
        return aws_mistake(400, "ValidationException", "The provided model identifier is invalid.")
    if kind == "path":
        return aws_mistake(404, "UnknownOperationException", "")
    by_status = {429: "ThrottlingException", 503: "ServiceUnavailableException"}
    return aws_mistake(
        status, "ValidationException" if kind == "body" else by_status.get(status, "ModelErrorException"), detail
    )


def aws_mistake(status: int, name: str, message: str) -> Mistake:
    """Return an error of AWS: its name stands in a header."""
    request_id = str(uuid.uuid4())
    return _of(status, {"message": message}, ("x-amzn-requestid", request_id), ("x-amzn-errortype", name))


def _ollama(kind: Kind, detail: str, status: int) -> Mistake:
    message = {"model": f"model '{detail}' not found", "path": "404 page not found"}.get(kind, detail)
    return _of(status, {"error": message})


def _openai(kind: Kind, detail: str, status: int) -> Mistake:
    error: dict[str, Any] = {"message": detail, "type": "invalid_request_error", "param": None, "code": None}
    if kind == "model":
        error["message"] = f"The model `{detail}` does not exist or you do not have access to it."
        error["code"] = "model_not_found"
    elif kind == "path":
        error["message"] = f"Invalid URL ({detail})"
    elif kind == "upstream":
        error["type"] = "server_error"
    return _of(status, {"error": error})


def _openrouter(kind: Kind, detail: str, status: int) -> Mistake:
    message = f"model {detail!r} not found" if kind == "model" else detail
    return _of(status, {"error": {"message": message, "code": status}})


def _of(status: int, document: Any, *headers: tuple[str, str]) -> Mistake:
    return Mistake(status, dump(document), headers)
