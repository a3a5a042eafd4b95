"""The shape of a LiteLLM proxy.

Sources: https://docs.litellm.ai/docs/proxy/response_headers; BerriAI/litellm ``get_logging_caching_headers``
(``x-litellm-applied-guardrails``); third-party notes on v1.104.2 (how blocks look).
"""

import uuid
from typing import Any

from probe.lab.fronts.base import FrontSettings, counts_of, dump
from probe.lab.fronts.openai import OpenAiFront
from probe.lab.upstream import Piece

GUARDRAIL = "content-guard"
"""The name of the lab's guardrail."""


class LiteLlmFront(OpenAiFront):
    """Chat completions with headers of the proxy; the guardrails that ran are named on every answer."""

    stream_type = "text/event-stream; charset=utf-8"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        super().__init__(model, settings)
        self._call_id = str(uuid.uuid4())
        self._cost: float | None = None

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The proxy's headers; the cost is known for whole answers only."""
        known = [
            ("x-litellm-call-id", self._call_id),
            ("x-litellm-model-id", "lab"),
            ("x-litellm-model-group", self._model),
            ("x-litellm-version", "1.104.2"),
        ]
        if self._cost is not None:
            known.append(("x-litellm-response-cost", str(self._cost)))
        if self._settings.guarded:
            known.append(("x-litellm-applied-guardrails", GUARDRAIL))
        return tuple(known)

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a chat.completion object."""
        counts = counts_of(last, self._lapse) or {}
        self._cost = self._settings.provider.cost(counts.get("prompt_tokens", 0), counts.get("completion_tokens", 0))
        return super().whole(text, last)

    def _failure(self, code: int, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": "None", "param": "None", "code": str(code)}}

    def broken(self, code: int, message: str) -> bytes:
        """Return the error within a stream."""
        return self._event(self._failure(code, message))

    def failed(self, code: int, message: str, text: str) -> tuple[int, bytes]:  # noqa: ARG002
        """Return LiteLLM's error: strings that say ``None``, and the code as a string."""
        return code, dump(self._failure(code, message))
