"""Lists of models as vendors answer them that have a form of their own; the others have OpenAI's.

Sources: platform.claude.com/docs/api/models-list; ai.google.dev/api/models (``models.list``, ``models.get``);
ollama/ollama@fb30760 ``docs/api.md``. Bedrock's are listed by another service.
"""

from collections.abc import Callable, Mapping
from typing import Any

_SINCE = "2026-01-01T00:00:00Z"
_WINDOW, _LONGEST = 2048, 1024

_Lister = Callable[[str, str], Any]


def listing(front: str, model: str, path: str) -> Any:
    """Return what is listed at a path below the platform's; ``None`` where this front has nothing of its own there."""
    lister = _LISTERS.get(front)
    return None if lister is None else lister(model, path)


def _anthropic(model: str, path: str) -> Any:
    entry = {"type": "model", "id": model, "display_name": model, "created_at": _SINCE}
    if path == f"v1/models/{model}":
        return entry
    return {"data": [entry], "has_more": False, "first_id": model, "last_id": model} if path == "v1/models" else None


def _gemini(model: str, path: str) -> Any:
    entry = {
        "name": f"models/{model}",
        "version": "001",
        "displayName": model,
        "inputTokenLimit": _WINDOW,
        "outputTokenLimit": _LONGEST,
        "supportedGenerationMethods": ["generateContent"],
    }
    below = path.removeprefix("v1beta/").removeprefix("v1/")
    if below == f"models/{model}":
        return entry
    return {"models": [entry]} if below == "models" else None


def _ollama(model: str, path: str) -> Any:
    if path == "api/version":
        return {"version": "0.0.0-lab"}
    return {"models": [{"name": model, "model": model}]} if path == "api/tags" else None


_LISTERS: Mapping[str, _Lister] = {
    "anthropic": _anthropic,
    "gemini": _gemini,
    "ollama": _ollama,
    "ollama-generate": _ollama,
}
