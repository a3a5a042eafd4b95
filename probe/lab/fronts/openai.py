"""The shape of plain chat completions.

Source: OpenAI API reference (the chat completion and chat completion chunk objects; ``stream_options``),
openai/openai-python@e43b422 ``types/chat``.
"""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from probe.lab.fronts.base import Accent, FrontSettings, counts_of, dump, event, without
from probe.lab.upstream import Piece


class OpenAiFront(Accent):
    """The shape of OpenAI's ``/v1/chat/completions``, as vLLM and most hosts of open weights send it too.

    Where a stream's usage is asked for, every chunk has ``usage: null``, and one more chunk without choices has it.
    Fronts of vendors build on it and put their own in where the methods that begin with ``_`` are.
    """

    json_type = "application/json"
    stream_type = "text/event-stream; charset=utf-8"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        self._model = model
        self._settings = settings
        self._lapse = settings.lapse
        self._include_usage = settings.include_usage
        self._fingerprint = settings.fingerprint
        self.created = int(time.time())
        self.id = (self._lapse.prefix if self._lapse else "chatcmpl-") + uuid.uuid4().hex

    def _event(self, document: Any) -> bytes:
        return event(document)

    def _usage(self, last: Piece) -> dict[str, Any] | None:
        return counts_of(last, self._lapse)

    def _document(self, kind: str, choices: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:
        document = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self._model,
            "choices": choices,
            **rest,
            "system_fingerprint": self._fingerprint,
        }
        return without(document, self._lapse.without) if self._lapse else document

    def _chunk(self, delta: Mapping[str, Any], finish: str | None, **rest: Any) -> bytes:
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish}
        no_usage = {"usage": None} if self._include_usage else {}
        return self._event(self._document("chat.completion.chunk", [choice], **no_usage, **rest))

    def begin(self) -> bytes:
        """Return the chunk that names the role."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def piece(self, text: str) -> bytes:
        """Return one delta."""
        return self._chunk({"content": text}, None)

    def end(self, last: Piece) -> bytes:
        """Return the final chunk, the usage where it was asked for, and the terminator."""
        data = self._chunk({}, last.finish_reason)
        counts = self._usage(last) if self._include_usage else None
        if counts is not None:
            data += self._event(self._document("chat.completion.chunk", [], usage=counts))
        return data + b"data: [DONE]\n\n"

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a chat.completion object."""
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish_reason}
        counts = self._usage(last)
        return dump(self._document("chat.completion", [choice], **({"usage": counts} if counts is not None else {})))
