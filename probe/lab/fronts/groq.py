"""The shape of Groq.

Sources: groq/groq-python@9620fde ``types/chat/chat_completion_chunk.py:119-180``, ``types/completion_usage.py``;
recorded answers and streams (``packages/groq`` of vercel/ai; ``x_groq`` with id, seed and usage).
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from probe.lab.fronts.base import FrontSettings, Sent, counts_of, dump
from probe.lab.fronts.openai import OpenAiFront
from probe.lab.upstream import Piece, Token

_QUEUE_S = 0.0005
"""What the lab says that a request waited: it has no queue."""


class GroqFront(OpenAiFront):
    """Chat completions with times in the usage, in seconds, and an ``x_groq`` of the request's id, seed and usage.

    ``debug: true`` in the request adds the tokens of the prompt and the answer.
    """

    stream_type = "text/event-stream"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        super().__init__(model, settings)
        self._request_id = f"req_{uuid.uuid4().hex[:26]}"
        self._prompt: Sequence[Token] = ()
        self._answer: list[Token] = []
        self.wants_tokens = settings.body.get("debug") is True
        if self._lapse is None:
            self.id = f"chatcmpl-{uuid.uuid4()}"

    def sent(self, sent: Sent) -> None:
        """Keep the prompt's tokens."""
        self._prompt = sent.prompt

    def spelled(self, tokens: Sequence[Token]) -> None:
        """Keep the answer's tokens."""
        self._answer += tokens

    def _usage(self, last: Piece) -> dict[str, Any] | None:
        counts = counts_of(last, self._lapse)
        if counts is None:
            return None
        timings: Mapping[str, Any] = (last.timings or {}) if self._lapse is None else {}
        prompt, completion = timings.get("prompt_ms", 0.0) / 1000, timings.get("predicted_ms", 0.0) / 1000
        return {
            "queue_time": _QUEUE_S,
            "prompt_tokens": counts["prompt_tokens"],
            "prompt_time": prompt,
            "completion_tokens": counts["completion_tokens"],
            "completion_time": completion,
            "total_tokens": counts["total_tokens"],
            "total_time": prompt + completion,
        }

    def _x_groq(self, **rest: Any) -> dict[str, Any]:
        seed = self._settings.body.get("seed")
        known = {"id": self._request_id, **({"seed": seed} if isinstance(seed, int) else {}), **rest}
        if self.wants_tokens and rest:
            known["debug"] = {
                "input_token_ids": [token.id for token in self._prompt],
                "input_tokens": [token.text for token in self._prompt],
                "output_token_ids": [token.id for token in self._answer],
                "output_tokens": [token.text for token in self._answer],
            }
        return known

    def begin(self) -> bytes:
        """Return the chunk that names the role and the request."""
        return self._chunk({"role": "assistant", "content": ""}, None, x_groq=self._x_groq())

    def end(self, last: Piece) -> bytes:
        """Return the final chunk, which has the usage in any case, and the terminator."""
        counts = self._usage(last)
        x_groq = self._x_groq(usage=counts) if counts is not None else self._x_groq()
        data = self._chunk({}, last.finish_reason, x_groq=x_groq)
        if self._include_usage and counts is not None:
            data += self._event(self._document("chat.completion.chunk", [], usage=counts))
        return data + b"data: [DONE]\n\n"

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a chat.completion object."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "logprobs": None,
            "finish_reason": last.finish_reason,
        }
        counts = self._usage(last)
        rest = {"usage": counts} if counts is not None else {}
        x_groq = self._x_groq(**({"usage": counts} if self.wants_tokens else {}))
        x_groq.pop("usage", None)
        known = {**rest, "usage_breakdown": None, "x_groq": x_groq, "service_tier": "on_demand"}
        return dump(self._document("chat.completion", [choice], **known))

    def broken(self, code: int, message: str) -> bytes:  # noqa: ARG002 - Groq's chunk has the words only
        """Return the chunk that says why a stream stopped early, and the terminator."""
        return self._chunk({}, "stop", x_groq={"id": self._request_id, "error": message}) + b"data: [DONE]\n\n"
