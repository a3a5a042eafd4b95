"""The shape of Higress (Alibaba's AI gateway) with its security guard before chat completions.

Source: alibaba/higress@4e0d691 ``plugins/wasm-go/extensions/ai-security-guard/config/config.go:38-44``, README. The
guard's own events have no space after ``data:``; what the model's host sends passes through as it is. A guard that
checks responses holds the whole stream back: that is ``buffered`` of a lab platform.
"""

from typing import Any

from probe.lab.fronts.base import counts_of, dump, event
from probe.lab.fronts.openai import OpenAiFront
from probe.lab.upstream import Piece

GUARD_MODEL = "from-security-guard"
"""The model that the guard's own answers name."""


class HigressFront(OpenAiFront):
    """Chat completions of a host behind the gateway; the guard's own texts have its model and its framing."""

    stream_type = "text/event-stream;charset=UTF-8"

    def _event(self, document: Any) -> bytes:
        return event(document) if self._lapse is None else b"data:" + dump(document) + b"\n\n"

    def _document(self, kind: str, choices: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:
        document = super()._document(kind, choices, **rest)
        return document if self._lapse is None else {**document, "model": GUARD_MODEL}

    def end(self, last: Piece) -> bytes:
        """Return the ordinary end; the guard's own has the usage in the final chunk."""
        if self._lapse is None:
            return super().end(last)
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
        counts = counts_of(last, self._lapse)
        usage = {} if counts is None else {"usage": counts}
        return self._event(self._document("chat.completion.chunk", [choice], **usage)) + b"data: [DONE]"
