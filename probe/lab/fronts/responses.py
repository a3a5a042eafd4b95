"""The shape of OpenAI's Responses API.

Source: openai/openai-python@e43b422 ``types/responses`` (``response.py``, ``response_usage.py``,
``response_*_event.py``); https://github.com/simonw/llm/issues/839 (recorded events); ``obfuscation`` of the deltas,
unless ``stream_options.include_obfuscation`` is false: OpenAI API reference (``ResponseStreamOptions``). The stream has
no ``[DONE]``: its last event is the terminator.
"""

import json
import secrets
import time
import uuid
from typing import Any

from probe.lab.fronts.base import Accent, FrontSettings, counts_of, dump, without
from probe.lab.mistakes import mistake
from probe.lab.upstream import Piece

_OPENING = 4
"""Events before the text; what comes after them is numbered on, whichever is made first."""


class ResponsesFront(Accent):
    """The shape of ``/v1/responses``: named and numbered events, the whole response in the first two and the last."""

    json_type = "application/json"
    stream_type = "text/event-stream; charset=utf-8"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        self._model = model
        self._lapse = settings.lapse
        token = uuid.uuid4().hex
        self.created = int(time.time())
        self.id = (self._lapse.prefix if self._lapse else "resp_") + token
        self._item_id = f"msg_{token}"
        self._text: list[str] = []
        self._sequence = _OPENING
        options = settings.body.get("stream_options") or {}
        self._obfuscates = options.get("include_obfuscation") is not False

    def _response(self, status: str, output: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:
        document = {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": None,
            "model": self._model,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "truncation": "disabled",
            "usage": None,
            "user": None,
            "metadata": {},
            **rest,
        }
        return without(document, self._lapse.without) if self._lapse else document

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self._item_id, "type": "message", "status": status, "content": content, "role": "assistant"}

    def frame(self, data: bytes) -> bytes:
        """Return one event: its name, its data, and in them its number."""
        document: dict[str, Any] = json.loads(data)
        if document["type"] == "response.created":
            self._sequence = 0
        document = {"type": document.pop("type"), "sequence_number": self._sequence, **document}
        self._sequence += 1
        name: str = document["type"]
        return b"event: " + name.encode() + b"\ndata: " + dump(document) + b"\n\n"

    def _event(self, kind: str, **rest: Any) -> bytes:
        return self.frame(dump({"type": f"response.{kind}", **rest}))

    def _part_event(self, kind: str, **rest: Any) -> bytes:
        return self._event(kind, item_id=self._item_id, output_index=0, content_index=0, **rest)

    def begin(self) -> bytes:
        """Return the events before the text: an empty response, an empty message in it, an empty part in that."""
        begun, later = self._response("in_progress", []), self._sequence
        data = (
            self._event("created", response=begun)
            + self._event("in_progress", response=begun)
            + self._event("output_item.added", output_index=0, item=self._item("in_progress", []))
            + self._part_event("content_part.added", part=_part(""))
        )
        self._sequence = later
        return data

    def piece(self, text: str) -> bytes:
        """Return one delta."""
        self._text.append(text)
        padding = {"obfuscation": secrets.token_urlsafe(16)[: 16 - len(text) % 16]} if self._obfuscates else {}
        return self._part_event("output_text.delta", delta=text, logprobs=[], **padding)

    def end(self, last: Piece) -> bytes:
        """Return the ends of part, message and response, each with the whole text."""
        text = "".join(self._text)
        final = self._final(text, last)
        return (
            self._part_event("output_text.done", text=text, logprobs=[])
            + self._part_event("content_part.done", part=_part(text))
            + self._event("output_item.done", output_index=0, item=self._item(final["status"], [_part(text)]))
            + self._event(final["status"], response=final)
        )

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a response object."""
        return dump(self._final(text, last))

    def broken(self, code: int, message: str) -> bytes:  # noqa: ARG002 - the API has a word and no number for it
        """Return the event ``response.failed``."""
        error = {"code": "server_error", "message": message}
        text = "".join(self._text)
        output = [self._item("incomplete", [_part(text)])] if text else []
        return self._event("failed", response=self._response("failed", output, error=error))

    def failed(self, code: int, message: str, text: str) -> tuple[int, bytes]:  # noqa: ARG002 - it is dropped
        """Return the vendor's error in the place of an answer."""
        return code, mistake("openai-responses", "upstream", message, status=code).body

    def _final(self, text: str, last: Piece) -> dict[str, Any]:
        counts = counts_of(last, self._lapse)
        usage = None if counts is None else _usage(counts)
        if last.finish_reason == "length":
            status, details = "incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}
        else:
            status, details = "completed", {}
        return self._response(status, [self._item(status, [_part(text)])], usage=usage, **details)


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _usage(counts: dict[str, int]) -> dict[str, Any]:
    return {
        "input_tokens": counts["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": counts["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counts["total_tokens"],
    }
