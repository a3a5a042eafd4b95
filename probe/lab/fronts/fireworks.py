"""The shape of Fireworks.

Sources: fw-ai-external/python-sdk@271c181 ``types/chat/completion_create_response.py``,
``types/chat/chat_completion_chunk.py``; ``resources/chat/completions.py`` at 8399c12 (``perf_metrics_in_response``).
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from probe.lab.fronts.base import FrontSettings, Sent, counts_of, dump
from probe.lab.fronts.openai import OpenAiFront
from probe.lab.upstream import Piece, Token


class FireworksFront(OpenAiFront):
    """Chat completions with figures of the server in headers and, where asked for, in ``perf_metrics``.

    ``return_token_ids`` adds the tokens of the prompt (once, in a stream's first chunk) and of each chunk;
    ``raw_output`` shows the prompt and the completion as the model saw them. A stream's headers are sent before
    anything is known, so that they hold none of the figures.
    """

    stream_type = "text/event-stream; charset=utf-8"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        super().__init__(model, settings)
        body = settings.body
        self._ids, self._raw = body.get("return_token_ids") is True, body.get("raw_output") is True
        self._metrics = body.get("perf_metrics_in_response") is True
        self.wants_tokens = self._ids or self._raw
        self._prompt: Sequence[Token] = ()
        self._fresh: list[Token] = []
        self._answer: list[Token] = []
        self._texts: list[str] = []
        self._figures: dict[str, Any] = {}
        self._began = time.monotonic()
        self._first_s: float | None = None
        if self._lapse is None:
            self.id = str(uuid.uuid4())

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The figures, once they are known."""
        return tuple((f"fireworks-{name}", str(value)) for name, value in self._figures.items())

    def sent(self, sent: Sent) -> None:
        """Keep the prompt's tokens."""
        self._prompt = sent.prompt

    def spelled(self, tokens: Sequence[Token]) -> None:
        """Keep the tokens of the next chunk."""
        self._fresh += tokens
        self._answer += tokens

    def _measure(self, last: Piece) -> dict[str, Any]:
        counts = counts_of(last, self._lapse) or {}
        timings: Mapping[str, Any] = (last.timings or {}) if self._lapse is None else {}
        prompt_s = timings.get("prompt_ms", 0.0) / 1000
        took = time.monotonic() - self._began
        self._figures = {
            "prompt-tokens": counts.get("prompt_tokens", 0),
            "cached-prompt-tokens": 0,
            "server-time-to-first-token": round(self._first_s if self._first_s is not None else prompt_s, 6),
            "server-processing-time": round(took, 6),
        }
        return {"perf_metrics": dict(self._figures)} if self._metrics else {}

    def _choice(self, tokens: Sequence[Token], text: str | None) -> dict[str, Any]:
        """Return what a choice has beside text and finish reason; ``text`` is the whole answer, at its end."""
        found: dict[str, Any] = {}
        if self._ids:
            found["token_ids"] = [token.id for token in tokens]
        if self._raw and text is not None:
            found["raw_output"] = {
                "prompt_fragments": ["".join(token.text for token in self._prompt)],
                "prompt_token_ids": [token.id for token in self._prompt],
                "completion": text,
                "completion_token_ids": [token.id for token in self._answer],
            }
        return found

    def _piece(self, delta: Mapping[str, Any], finish: str | None, text: str | None = None, **rest: Any) -> bytes:
        fresh, self._fresh = self._fresh, []
        choice = {"index": 0, "delta": dict(delta), "finish_reason": finish, **self._choice(fresh, text)}
        return self._event(self._document("chat.completion.chunk", [choice], **rest))

    def _prompt_ids(self) -> dict[str, Any]:
        return {"prompt_token_ids": [token.id for token in self._prompt]} if self._ids else {}

    def begin(self) -> bytes:
        """Return the chunk that names the role, with the prompt's tokens."""
        fresh, self._fresh = self._fresh, []
        data = self._piece({"role": "assistant"}, None, **self._prompt_ids())
        self._fresh = fresh
        return data

    def piece(self, text: str) -> bytes:
        """Return one delta."""
        if self._first_s is None:
            self._first_s = time.monotonic() - self._began
        self._texts.append(text)
        return self._piece({"content": text}, None)

    def end(self, last: Piece) -> bytes:
        """Return the final chunk with the usage, the figures where asked for, and the terminator."""
        counts = counts_of(last, self._lapse)
        usage = {} if counts is None else {"usage": counts}
        rest = {**usage, **self._measure(last)}
        return self._piece({}, last.finish_reason, "".join(self._texts), **rest) + b"data: [DONE]\n\n"

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a chat.completion object."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": last.finish_reason,
            **self._choice(self._answer, text),
        }
        counts = counts_of(last, self._lapse)
        usage = {} if counts is None else {"usage": counts}
        return dump(self._document("chat.completion", [choice], **usage, **self._measure(last), **self._prompt_ids()))
