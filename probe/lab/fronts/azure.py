"""The shape of Azure OpenAI and Microsoft Foundry.

Sources: MicrosoftDocs/azure-ai-docs ``content-filter-annotations.md`` and ``content-filter-streaming.md``; headers as
recorded with answers and filter errors (browser-use, microsoft/copilot-camp issue 551).
"""

import re
import uuid
from typing import Any

from probe.lab.fronts.base import FrontSettings, dump
from probe.lab.fronts.openai import OpenAiFront
from probe.lab.upstream import Piece

_CHUNK = 60
"""Characters that the default filter looks at together, at least; no document says how many it really are."""

_WINDOW = 80
"""Characters after which the asynchronous filter says what it found; Azure promises it within about 1,000."""

_SENTENCE = re.compile(r"[.!?\n]\s*$")


def _results(*, detected: bool = False, prompt: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")
    }
    if prompt:
        found["jailbreak"] = {"filtered": False, "detected": detected}
    return found


class AzureFront(OpenAiFront):
    """Azure's chat completions: an annotated prompt first, annotated pieces, and a filter that holds text back.

    The default filter sends text in chunks once it has looked at them. The asynchronous one passes tokens on at once
    and annotates what went by, with offsets.
    """

    stream_type = "text/event-stream; charset=utf-8"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        super().__init__(model, settings)
        self._request_id = str(uuid.uuid4())
        self._held = ""
        self._length = 0
        self._checked = 0

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Who served it, and that the filter ran."""
        return (
            ("apim-request-id", self._request_id),
            ("x-ms-region", "Lab"),
            ("x-ms-deployment-name", self._model),
            ("x-ms-rai-invoked", "true"),
        )

    def _prompt_results(self) -> list[dict[str, Any]]:
        return [{"prompt_index": 0, "content_filter_results": _results(detected=self._settings.flagged, prompt=True)}]

    def _text(self, text: str, *, annotated: bool = True) -> bytes:
        choice: dict[str, Any] = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
        if annotated:
            choice["content_filter_results"] = _results()
        no_usage = {"usage": None} if self._include_usage else {}
        return self._event(self._document("chat.completion.chunk", [choice], **no_usage))

    def _annotation(self, upto: int) -> bytes:
        offsets = {"check_offset": self._checked, "start_offset": self._checked, "end_offset": upto}
        self._checked = upto
        choice = {
            "index": 0,
            "finish_reason": None,
            "content_filter_results": _results(),
            "content_filter_offsets": offsets,
        }
        return self._event({"id": "", "object": "", "created": 0, "model": "", "choices": [choice]})

    def begin(self) -> bytes:
        """Return the annotation of the prompt, in a chunk that names nothing, and the chunk that names the role."""
        annotation = {
            "id": "",
            "object": "",
            "created": 0,
            "model": "",
            "prompt_filter_results": self._prompt_results(),
            "choices": [],
        }
        return self._event(annotation) + super().begin()

    def piece(self, text: str) -> bytes:
        """Return what the filter lets through by now: a chunk of some sentences or nothing, or the piece at once."""
        self._length += len(text)
        if self._settings.asynchronous:
            data = self._text(text, annotated=False)
            return data + self._annotation(self._length) if self._length - self._checked >= _WINDOW else data
        self._held += text
        if len(self._held) < _CHUNK and not (self._lapse or _SENTENCE.search(self._held)):
            return b""
        return self.rest()

    def rest(self) -> bytes:
        """Return what the default filter holds."""
        held, self._held = self._held, ""
        return self._text(held) if held else b""

    def end(self, last: Piece) -> bytes:
        """Return what is held, the last annotation, and the ordinary end."""
        tail = self._annotation(self._length) if self._settings.asynchronous and self._length > self._checked else b""
        return self.rest() + tail + super().end(last)

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a chat.completion object with both annotations."""
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": last.finish_reason,
            "content_filter_results": _results(),
        }
        counts = self._usage(last)
        rest = {"usage": counts} if counts is not None else {}
        return dump(self._document("chat.completion", [choice], prompt_filter_results=self._prompt_results(), **rest))
