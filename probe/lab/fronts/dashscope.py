"""The shape of Alibaba's DashScope (Model Studio) where it speaks chat completions.

Source: https://help.aliyun.com/zh/model-studio (OpenAI-compatible interface, error codes); that every answer has an
``x-request-id`` and errors a ``request_id`` is recorded.
"""

import json
import uuid
from typing import Any

from probe.lab.fronts.base import FrontSettings, dump
from probe.lab.fronts.openai import OpenAiFront


class DashScopeFront(OpenAiFront):
    """Chat completions with a null fingerprint and details of the usage; errors name the request."""

    stream_type = "text/event-stream;charset=UTF-8"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        super().__init__(model, settings)
        self._request_id = str(uuid.uuid4())
        if self._lapse is None:
            self.id = f"chatcmpl-{self._request_id}"

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The request's id under the name that DashScope's gateway gives it."""
        return (("x-dashscope-request-id", self._request_id),)

    def _document(self, kind: str, choices: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:
        document = super()._document(kind, choices, **rest)
        return {**document, "system_fingerprint": None} if "system_fingerprint" in document else document

    def blocked(self, body: bytes) -> bytes:
        """Return an error with the request's id beside it; other bodies as they are."""
        document = json.loads(body)
        return dump({**document, "request_id": self._request_id}) if "error" in document else body
