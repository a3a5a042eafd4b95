"""The shape of OpenRouter. Source: OpenRouter API reference (chat completions, errors, streaming)."""

import time
import uuid
from typing import Any

from probe.lab.fronts.base import FrontSettings, counts_of, dump, event, without
from probe.lab.upstream import Piece


class OpenRouterFront:
    """The shape of OpenRouter's ``/api/v1/chat/completions``. The usage comes without being asked for."""

    json_type = "application/json"
    stream_type = "text/event-stream"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        self._model = model
        self._lapse = settings.lapse
        self.created = int(time.time())
        prefix = self._lapse.prefix if self._lapse else f"gen-{self.created}-"
        self.id = prefix + uuid.uuid4().hex[:20]

    def _document(self, kind: str, choice: dict[str, Any], last: Piece | None) -> dict[str, Any]:
        document = {
            "id": self.id,
            "provider": "Lab",
            "model": self._model,
            "object": kind,
            "created": self.created,
            "choices": [choice],
        }
        counts = counts_of(last, self._lapse) if last is not None else None
        if counts is not None:
            document["usage"] = {**counts, "cost": 0, "is_byok": False}
        return without(document, self._lapse.without) if self._lapse else document

    def _chunk(self, text: str, finish: str | None, last: Piece | None = None) -> bytes:
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": text},
            "finish_reason": finish,
            "native_finish_reason": finish,
            "logprobs": None,
        }
        return event(self._document("chat.completion.chunk", choice, last))

    def begin(self) -> bytes:
        """Return the keep-alive comment that precedes the first event."""
        return b": OPENROUTER PROCESSING\n\n"

    def piece(self, text: str) -> bytes:
        """Return one delta."""
        return self._chunk(text, None)

    def end(self, last: Piece) -> bytes:
        """Return the final chunk, the same again with usage, and the terminator."""
        first, again = self._chunk("", last.finish_reason), self._chunk("", last.finish_reason, last)
        return (first if first == again else first + again) + b"data: [DONE]\n\n"

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a chat.completion object."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None, "reasoning": None},
            "finish_reason": last.finish_reason,
            "native_finish_reason": last.finish_reason,
            "logprobs": None,
        }
        return dump(self._document("chat.completion", choice, last))
