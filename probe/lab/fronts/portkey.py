"""The shape of Portkey's gateway.

Source: Portkey-AI/gateway@669825c ``src/handlers/handlerUtils.ts:1318-1342``, ``responseHandlers.ts:176-300``,
``streamHandler.ts:479-495``, ``src/globals.ts`` (header names).
"""

import uuid
from typing import Any

from probe.lab.fronts.base import FrontSettings
from probe.lab.fronts.openai import OpenAiFront

FAILED = 246
"""The status of an answer that is served although a check failed."""


class PortkeyFront(OpenAiFront):
    """Chat completions with ``hook_results`` where checks ran; a request that failed one is served with status 246."""

    stream_type = "text/event-stream; charset=utf-8"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        super().__init__(model, settings)
        self._trace_id = str(uuid.uuid4())
        self.status = FAILED if settings.flagged else 200

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The gateway's headers."""
        return (
            ("x-portkey-trace-id", self._trace_id),
            ("x-portkey-provider", "openai"),
            ("x-portkey-last-used-option-index", "config"),
            ("x-portkey-retry-attempt-count", "0"),
        )

    def _hooks(self) -> dict[str, Any]:
        if not self._settings.guarded or self._lapse is not None:
            return {}
        verdict = not self._settings.flagged
        check = {"id": "default.contains", "verdict": verdict, "error": None, "execution_time": 0}
        hook = {"verdict": verdict, "id": "input-guardrail", "deny": False, "async": False, "checks": [check]}
        return {"hook_results": {"before_request_hooks": [hook], "after_request_hooks": []}}

    def begin(self) -> bytes:
        """Return what the checks found, as an event of its own, and the chunk that names the role."""
        hooks = self._hooks()
        return (self._event(hooks) if hooks else b"") + super().begin()

    def _document(self, kind: str, choices: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:
        whole = kind == "chat.completion"
        return super()._document(kind, choices, **rest, **(self._hooks() if whole else {}))
