"""The shape of Ollama's native chat. Source: Ollama ``docs/api.md`` and ``api/types.go``."""

import time
from datetime import UTC, datetime
from typing import Any

from probe.lab.fronts.base import FrontSettings, counts_of, dump, without
from probe.lab.upstream import Piece


class OllamaFront:
    """The shape of Ollama's ``/api/chat``: newline-delimited JSON, durations in nanoseconds."""

    json_type = "application/json; charset=utf-8"
    stream_type = "application/x-ndjson"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        self._model = model
        self._lapse = settings.lapse
        self._started = time.monotonic_ns()
        self.created = int(time.time())
        self.id = ""

    def _object(self, text: str, **rest: Any) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        document = {"model": self._model, "created_at": now, "message": {"role": "assistant", "content": text}, **rest}
        return without(document, self._lapse.without) if self._lapse else document

    def _final(self, text: str, last: Piece) -> dict[str, Any]:
        timings, counts = last.timings or {}, counts_of(last, self._lapse)
        stated = {
            "total_duration": time.monotonic_ns() - self._started,
            "load_duration": 0,
            "prompt_eval_count": None if counts is None else counts["prompt_tokens"],
            "prompt_eval_duration": int(1e6 * timings.get("prompt_ms", 0)),
            "eval_count": None if counts is None else counts["completion_tokens"],
            "eval_duration": int(1e6 * timings.get("predicted_ms", 0)),
        }
        told = {key: value for key, value in stated.items() if value is not None}
        return self._object(text, done=True, done_reason=last.finish_reason or "stop", **told)

    def begin(self) -> bytes:
        """Return nothing: the stream starts with the first object."""
        return b""

    def piece(self, text: str) -> bytes:
        """Return one object with a piece of the text."""
        return dump(self._object(text, done=False)) + b"\n"

    def end(self, last: Piece) -> bytes:
        """Return the final object."""
        return dump(self._final("", last)) + b"\n"

    def whole(self, text: str, last: Piece) -> bytes:
        """Return the one object of an answer that is not streamed."""
        return dump(self._final(text, last))
