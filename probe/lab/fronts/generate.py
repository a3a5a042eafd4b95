"""The shape of Ollama's text generation.

Source: ollama/ollama@fb30760 ``docs/api.md`` and ``api/types.go`` (GenerateResponse).
"""

import time
from datetime import UTC, datetime
from typing import Any

from probe.lab.fronts.base import Accent, FrontSettings, counts_of, dump, without
from probe.lab.mistakes import mistake
from probe.lab.upstream import Piece


class GenerateFront(Accent):
    """The shape of Ollama's ``/api/generate``: newline-delimited JSON, durations in nanoseconds.

    ``context`` are the token ids of the conversation with its answer; set before the end, and ``None`` where the prompt
    came in raw, for then Ollama returns none.
    """

    json_type = "application/json; charset=utf-8"
    stream_type = "application/x-ndjson"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        self._model = model
        self._lapse = settings.lapse
        self._started = time.monotonic_ns()
        self.created = int(time.time())
        self.id = ""
        self.context: list[int] | None = None

    def _object(self, text: str, **rest: Any) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        document = {"model": self._model, "created_at": now, "response": text, **rest}
        return without(document, self._lapse.without) if self._lapse else document

    def _final(self, text: str, last: Piece) -> dict[str, Any]:
        timings, counts = last.timings or {}, counts_of(last, self._lapse)
        stated = {
            "context": self.context,
            "total_duration": time.monotonic_ns() - self._started,
            "load_duration": 0,
            "prompt_eval_count": None if counts is None else counts["prompt_tokens"],
            "prompt_eval_duration": int(1e6 * timings.get("prompt_ms", 0)),
            "eval_count": None if counts is None else counts["completion_tokens"],
            "eval_duration": int(1e6 * timings.get("predicted_ms", 0)),
        }
        told = {key: value for key, value in stated.items() if value is not None}
        return self._object(text, done=True, done_reason=last.finish_reason or "stop", **told)

    def frame(self, data: bytes) -> bytes:
        """Return one line."""
        return data + b"\n"

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

    def broken(self, code: int, message: str) -> bytes:
        """Return a line with the error."""
        return mistake("ollama-generate", "upstream", message, status=code).body + b"\n"

    def failed(self, code: int, message: str, text: str) -> tuple[int, bytes]:  # noqa: ARG002 - it is dropped
        """Return the vendor's error in the place of an answer."""
        return code, mistake("ollama-generate", "upstream", message, status=code).body
