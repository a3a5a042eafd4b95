"""The shape of the NeMo Guardrails server.

Sources: NVIDIA-NeMo/Guardrails ``server/api.py``@0009823, ``server/schemas/openai.py``, ``server/schemas/utils.py``
(``generation_response_to_chat_completion``: empty fields are left out, there is no usage).
"""

import uuid
from typing import Any

from probe.lab.fronts.base import FrontSettings, dump, without
from probe.lab.fronts.openai import OpenAiFront
from probe.lab.upstream import Piece


class NemoFront(OpenAiFront):
    """Chat completions without usage and fingerprint, which say that no rail stopped them where that is asked for."""

    stream_type = "text/event-stream"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        super().__init__(model, settings)
        self._include_usage = False
        if self._lapse is None:
            self.id = f"chatcmpl-{uuid.uuid4()}"

    def _document(self, kind: str, choices: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:
        document: dict[str, Any] = without(super()._document(kind, choices, **rest), frozenset({"system_fingerprint"}))
        return document

    def _guardrails(self) -> dict[str, Any]:
        """Return what the rails say of themselves, where the request's options ask for it."""
        asked = self._settings.body.get("guardrails")
        if not isinstance(asked, dict):
            return {}
        found: dict[str, Any] = {"config_id": asked.get("config_id", "default")}
        options = asked.get("options")
        log = options.get("log") if isinstance(options, dict) else None
        if isinstance(log, dict) and log.get("activated_rails") and self._settings.guarded:
            rail = {
                "type": "input",
                "name": "self check input",
                "decisions": ["execute self_check_input"],
                "executed_actions": [],
                "stop": False,
            }
            found["log"] = {"activated_rails": [rail]}
        return {"guardrails": found}

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a chat.completion object; a model that stopped at a length has stopped, too."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        _ = last
        return dump(self._document("chat.completion", [choice], **self._guardrails()))

    def end(self, last: Piece) -> bytes:
        """Return the final chunk and the terminator; there is no usage."""
        _ = last
        return self._chunk({}, "stop") + b"data: [DONE]\n\n"

    def broken(self, code: int, message: str) -> bytes:
        """Return the error within a stream, and the terminator all the same."""
        error = {"message": message, "type": "generation_error", "param": None, "code": str(code)}
        return self._event({"error": error}) + b"data: [DONE]\n\n"

    def failed(self, code: int, message: str, text: str) -> tuple[int, bytes]:  # noqa: ARG002
        """Return a 200: NeMo writes an error as the assistant's text (``create_error_chat_completion``)."""
        return 200, self.whole(message, Piece("", "stop"))
