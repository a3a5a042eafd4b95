"""The shape of Google's Gemini API.

Source: ai.google.dev/api/generate-content (``GenerateContentResponse``, ``UsageMetadata``);
googleapis/python-genai@6680718 ``types.py`` (keys); a recorded stream in
https://github.com/simonw/llm-gemini/issues/97 (the usage so far in every chunk, ``modelVersion``, ``responseId``; a
space after each colon). CRLF at the ends of lines: recorded by https://github.com/Routstr/routstr-core/pull/543 and, at
Vertex, https://github.com/nyroway/nyro/pull/265.
"""

import base64
import json
import time
import uuid
from typing import Any

from probe.lab.fronts.base import Accent, FrontSettings, without
from probe.lab.mistakes import mistake
from probe.lab.upstream import Piece

FINISH_REASONS = {"stop": "STOP", "length": "MAX_TOKENS"}
"""llama.cpp's finish reasons, and Gemini's words for them."""

_HARMS = ("SEXUALLY_EXPLICIT", "HATE_SPEECH", "HARASSMENT", "DANGEROUS_CONTENT")
_RATINGS = tuple({"category": f"HARM_CATEGORY_{harm}", "probability": "NEGLIGIBLE"} for harm in _HARMS)


class GeminiFront(Accent):
    """The shape of ``:generateContent`` and ``:streamGenerateContent?alt=sse``.

    A stream has no terminator: its last chunk states the finish reason. Every chunk states the tokens so far; those of
    the prompt, ``prompt_tokens``, are set before.
    """

    json_type = "application/json; charset=UTF-8"
    stream_type = "text/event-stream"
    headers = (
        ("vary", "Origin"),
        ("server", "scaffolding on HTTPServer2"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "SAMEORIGIN"),
        ("x-xss-protection", "0"),
    )

    def __init__(self, model: str, settings: FrontSettings) -> None:
        self._model = model
        self._lapse = settings.lapse
        self.created = int(time.time())
        token = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self.id = (self._lapse.prefix if self._lapse else "") + token
        self.prompt_tokens = 0
        self._pieces = 0

    def _document(self, text: str, finish: str | None, prompt: int, completion: int) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}}
        if finish is not None:
            candidate["finishReason"] = finish
        candidate |= {"index": 0, "safetyRatings": list(_RATINGS)}
        document: dict[str, Any] = {"candidates": [candidate]}
        if self._lapse is None:
            document["usageMetadata"] = _usage(prompt, completion)
        elif self._lapse.usage == "zero":
            document["usageMetadata"] = _usage(0, 0)
        document |= {"modelVersion": self._model, "responseId": self.id}
        return without(document, self._lapse.without) if self._lapse else document

    def frame(self, data: bytes) -> bytes:
        """Return one event, with CRLF at its ends of lines."""
        return b"data: " + _spaced(json.loads(data)) + b"\r\n\r\n"

    def begin(self) -> bytes:
        """Return nothing: the stream starts with the first piece of text."""
        return b""

    def piece(self, text: str) -> bytes:
        """Return one chunk."""
        self._pieces += 1
        return b"data: " + _spaced(self._document(text, None, self.prompt_tokens, self._pieces)) + b"\r\n\r\n"

    def end(self, last: Piece) -> bytes:
        """Return the chunk with the finish reason; its text is empty."""
        return b"data: " + _spaced(self._final("", last)) + b"\r\n\r\n"

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a response object."""
        return json.dumps(self._final(text, last), ensure_ascii=False, indent=2).encode() + b"\n"

    def broken(self, code: int, message: str) -> bytes:
        """Return a chunk with the error."""
        return self.frame(mistake("gemini", "upstream", message, status=code).body)

    def failed(self, code: int, message: str, text: str) -> tuple[int, bytes]:  # noqa: ARG002 - it is dropped
        """Return the vendor's error in the place of an answer."""
        return code, mistake("gemini", "upstream", message, status=code).body

    def _final(self, text: str, last: Piece) -> dict[str, Any]:
        stated = last.usage or {}
        finish = FINISH_REASONS.get(last.finish_reason or "stop", "OTHER")
        return self._document(text, finish, stated.get("prompt_tokens", 0), stated.get("completion_tokens", 0))


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": completion,
        "totalTokenCount": prompt + completion,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
    }


def _spaced(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ": ")).encode()
