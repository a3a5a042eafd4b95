"""The shape of the legacy text completions, which hosts of open weights go on serving.

Source: openai/openai-python@e43b422 ``types/completion.py`` and ``completion_choice.py`` (a stream's objects have the
same shape as a whole one); OpenAI API reference, Completions (``stream_options``, ``data: [DONE]``).
"""

import time
import uuid
from typing import Any

from probe.lab.fronts.base import Accent, FrontSettings, counts_of, dump, event, without
from probe.lab.mistakes import mistake
from probe.lab.upstream import Piece


class CompletionsFront(Accent):
    """The shape of ``/v1/completions``. Where a stream's usage is asked for, one more object without choices has it."""

    json_type = "application/json"
    stream_type = "text/event-stream; charset=utf-8"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        self._model = model
        self._lapse = settings.lapse
        self._include_usage = settings.include_usage
        self._fingerprint = settings.fingerprint
        self.created = int(time.time())
        self.id = (self._lapse.prefix if self._lapse else "cmpl-") + uuid.uuid4().hex[:29]

    def _document(self, choices: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:
        document = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self._model,
            "choices": choices,
            "system_fingerprint": self._fingerprint,
            **rest,
        }
        return without(document, self._lapse.without) if self._lapse else document

    def _chunk(self, text: str, finish: str | None) -> bytes:
        no_usage = {"usage": None} if self._include_usage else {}
        return event(self._document([_choice(text, finish)], **no_usage))

    def begin(self) -> bytes:
        """Return nothing: the stream starts with the first piece of text."""
        return b""

    def piece(self, text: str) -> bytes:
        """Return one object with a piece of the text."""
        return self._chunk(text, None)

    def end(self, last: Piece) -> bytes:
        """Return the object with the finish reason, the usage where it was asked for, and the terminator."""
        data = self._chunk("", last.finish_reason)
        counts = counts_of(last, self._lapse) if self._include_usage else None
        if counts is not None:
            data += event(self._document([], usage=counts))
        return data + b"data: [DONE]\n\n"

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a text_completion object."""
        counts = counts_of(last, self._lapse)
        usage = {"usage": counts} if counts is not None else {}
        return dump(self._document([_choice(text, last.finish_reason)], **usage))

    def broken(self, code: int, message: str) -> bytes:
        """Return an event with the error, and the terminator."""
        return (
            b"data: " + mistake("openai-completions", "upstream", message, status=code).body + b"\n\ndata: [DONE]\n\n"
        )

    def failed(self, code: int, message: str, text: str) -> tuple[int, bytes]:  # noqa: ARG002 - it is dropped
        """Return the vendor's error in the place of an answer."""
        return code, mistake("openai-completions", "upstream", message, status=code).body


def _choice(text: str, finish: str | None) -> dict[str, Any]:
    return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
