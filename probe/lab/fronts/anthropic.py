"""The shape of Anthropic's Messages API.

Source: anthropics/anthropic-sdk-python@009b035 ``types/message.py``, ``types/usage.py``, ``types/raw_*_event.py`` (keys
and events); platform.claude.com/docs/build-with-claude/streaming (order of events, ping), ``/docs/api/rate-limits``
(headers ``anthropic-ratelimit-*``) and ``/docs/api/errors`` (header ``request-id``).
"""

import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from probe.lab.fronts.base import Accent, FrontSettings, counts_of, dump, without
from probe.lab.mistakes import mistake
from probe.lab.upstream import Piece

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}
"""llama.cpp's finish reasons, and Anthropic's words for them."""

_ALLOWED = (("requests", 4000), ("tokens", 2_000_000), ("input-tokens", 1_600_000), ("output-tokens", 400_000))
"""Per minute; the lab's own numbers, as an account's limits are."""


class AnthropicFront(Accent):
    """The shape of ``/v1/messages``: named events, the prompt's tokens in the first of them, no terminator but theirs.

    A stream's first event states ``prompt_tokens``, which are set before.
    """

    json_type = "application/json"
    stream_type = "text/event-stream; charset=utf-8"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        self._model = model
        self._lapse = settings.lapse
        self.created = int(time.time())
        self.id = (self._lapse.prefix if self._lapse else "msg_01") + uuid.uuid4().hex[:22]
        self.prompt_tokens = 0
        self.headers = (("request-id", f"req_011{uuid.uuid4().hex[:21]}"), *_rate_limits())

    def _message(
        self, content: list[dict[str, Any]], stop: str | None, counts: dict[str, int] | None
    ) -> dict[str, Any]:
        message: dict[str, Any] = {
            "model": self._model,
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "stop_details": None,
        }
        if counts is not None:
            message["usage"] = _usage(counts) | {"service_tier": "standard"}
        return without(message, self._lapse.without) if self._lapse else message

    def frame(self, data: bytes) -> bytes:
        """Return one event: its name stands before its data, and in it as ``type``."""
        name = data.partition(b'"type":"')[2].partition(b'"')[0]
        return b"event: " + name + b"\ndata: " + data + b"\n\n"

    def _event(self, **document: Any) -> bytes:
        return self.frame(dump(document))

    def begin(self) -> bytes:
        """Return the events before the text: an empty message, an empty text block, a ping."""
        opening = Piece("", usage={"prompt_tokens": self.prompt_tokens, "completion_tokens": 1})
        message = self._message([], None, counts_of(opening, self._lapse))
        return (
            self._event(type="message_start", message=message)
            + self._event(type="content_block_start", index=0, content_block={"type": "text", "text": ""})
            + self._event(type="ping")
        )

    def piece(self, text: str) -> bytes:
        """Return one delta."""
        return self._event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    def end(self, last: Piece) -> bytes:
        """Return the end of the block, the stop reason with the usage, and the end of the message."""
        stop = STOP_REASONS.get(last.finish_reason or "stop", last.finish_reason)
        counts = counts_of(last, self._lapse)
        usage = {} if counts is None else {"usage": _usage(counts)}
        delta = {"stop_reason": stop, "stop_sequence": None, "stop_details": None}
        delta = without(delta, self._lapse.without) if self._lapse else delta
        return (
            self._event(type="content_block_stop", index=0)
            + self._event(type="message_delta", delta=delta, **usage)
            + self._event(type="message_stop")
        )

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a message object."""
        stop = STOP_REASONS.get(last.finish_reason or "stop", last.finish_reason)
        return dump(self._message([{"type": "text", "text": text}], stop, counts_of(last, self._lapse)))

    def broken(self, code: int, message: str) -> bytes:
        """Return the event ``error``."""
        error = json.loads(mistake("anthropic", "upstream", message, status=code).body)["error"]
        return self._event(type="error", error=error)

    def failed(self, code: int, message: str, text: str) -> tuple[int, bytes]:  # noqa: ARG002 - it is dropped
        """Return the vendor's error in the place of an answer."""
        return code, mistake("anthropic", "upstream", message, status=code).body


def _usage(counts: dict[str, int]) -> dict[str, Any]:
    return {
        "input_tokens": counts["prompt_tokens"],
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": counts["completion_tokens"],
    }


def _rate_limits() -> tuple[tuple[str, str], ...]:
    """Return the headers of an account of which nobody else makes use: only this request is counted."""
    reset = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found: list[tuple[str, str]] = []
    for what, limit in _ALLOWED:
        head = f"anthropic-ratelimit-{what}"
        left = limit - (what == "requests")
        found += [(f"{head}-limit", str(limit)), (f"{head}-remaining", str(left)), (f"{head}-reset", reset)]
    return tuple(found)
