"""The shape of OpenRouter.

Sources (OpenRouterTeam/docs): ``api_reference/overview.mdx``, ``api_reference/errors-and-debugging.mdx``,
``api_reference/streaming.mdx``, ``guides/features/router-metadata.mdx``; recorded streams (finish chunks come twice).
"""

import json
import time
import uuid
from typing import Any

from probe.lab.fronts.base import Accent, FrontSettings, Sent, counts_of, dump, event, without
from probe.lab.providers import Provider
from probe.lab.upstream import Piece

_NAMES = {"repeat_penalty": "repetition_penalty"}
"""What llama.cpp and OpenRouter's hosts call the same thing."""


class OpenRouterFront(Accent):
    """The shape of OpenRouter's ``/api/v1/chat/completions``. The usage comes without being asked for.

    The header ``X-OpenRouter-Metadata: enabled`` adds ``openrouter_metadata`` to the last chunk, the body, and errors;
    ``debug.echo_upstream_body`` in the request has a stream start with what was sent to the host.
    """

    json_type = "application/json"
    stream_type = "text/event-stream"
    keep_alive = b": OPENROUTER PROCESSING\n\n"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        self._model = model
        self._settings = settings
        self._lapse = settings.lapse
        self._provider: Provider = settings.provider
        self._sent: Sent | None = None
        self.created = int(time.time())
        prefix = self._lapse.prefix if self._lapse else f"gen-{self.created}-"
        self.id = prefix + uuid.uuid4().hex[:20]

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The id of the answer, by which its statistics are found."""
        return (("X-Generation-Id", self.id),)

    def sent(self, sent: Sent) -> None:
        """Keep what goes to the host, for the echo."""
        self._sent = sent

    def _document(self, kind: str, choices: list[dict[str, Any]], **rest: Any) -> dict[str, Any]:
        document = {
            "id": self.id,
            "provider": self._provider.name,
            "model": self._model,
            "object": kind,
            "created": self.created,
            "choices": choices,
            **rest,
        }
        return without(document, self._lapse.without) if self._lapse else document

    def _last(self, last: Piece) -> dict[str, Any]:
        """Return what the last chunk and a whole answer have beside the choices."""
        counts = counts_of(last, self._lapse)
        if counts is None:
            return self._metadata()
        prompt, completion = counts["prompt_tokens"], counts["completion_tokens"]
        cost = 0.0 if self._settings.free else self._provider.cost(prompt, completion)
        details = {
            "upstream_inference_cost": cost,
            "upstream_inference_prompt_cost": 0.0 if self._settings.free else self._provider.cost(prompt, 0),
            "upstream_inference_completions_cost": 0.0 if self._settings.free else self._provider.cost(0, completion),
        }
        usage = {
            **counts,
            "cost": cost,
            "is_byok": False,
            "prompt_tokens_details": {"cached_tokens": 0},
            "cost_details": details,
            "completion_tokens_details": {"reasoning_tokens": 0},
        }
        return {"usage": usage, **self._metadata()}

    def _metadata(self, *, failed: str = "") -> dict[str, Any]:
        """Return ``openrouter_metadata`` where the client asked for it; ``failed`` is the action of a guardrail."""
        headers = self._settings.headers
        names = ("x-openrouter-metadata", "x-openrouter-experimental-metadata")
        if not any(headers.get(name, "").lower() == "enabled" for name in names):
            return {}
        candidates = self._settings.providers
        available = [
            {"provider": host.name, "model": self._model, "selected": host == self._provider and not failed}
            for host in candidates
        ]
        summary = f"available={len(candidates)}" + ("" if failed else f", selected={self._provider.name}")
        metadata: dict[str, Any] = {
            "requested": self._model,
            "strategy": "direct",
            "region": "lab",
            "summary": summary,
            "attempt": 1,
            "is_byok": False,
            "endpoints": {"total": len(candidates), "available": available},
        }
        if not failed:
            metadata["attempts"] = [{"provider": self._provider.name, "model": self._model, "status": 200}]
        action = failed or ("redacted" if self._sent and self._sent.redacted else "")
        action = action or ("flagged" if self._settings.flagged else "")
        if action:
            data = {"action": action, "flagged": True, "engines": ["regex"], "patterns": ["lab"]}
            stage = {
                "type": "guardrail",
                "name": "content-filter",
                "guardrail_id": "grd_lab",
                "guardrail_scope": "api-key",
            }
            metadata["pipeline"] = [{**stage, "summary": f"{action.capitalize()}: 1 pattern matched", "data": data}]
        return {"openrouter_metadata": metadata}

    def _chunk(self, text: str, finish: str | None, **rest: Any) -> bytes:
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": text},
            "finish_reason": finish,
            "native_finish_reason": finish,
            "logprobs": None,
        }
        return event(self._document("chat.completion.chunk", [choice], **rest))

    def begin(self) -> bytes:
        """Return the comment that precedes the first event, and what was sent to the host where that is asked for."""
        debug = self._settings.body.get("debug")
        if self._sent is None or not (isinstance(debug, dict) and debug.get("echo_upstream_body") is True):
            return self.keep_alive
        sampling = {_NAMES.get(name, name): value for name, value in self._sent.sampling.items()}
        body = {"model": self._sent.model, "messages": list(self._sent.messages), **sampling, "stream": True}
        echo = self._document("chat.completion.chunk", [], debug={"echo_upstream_body": body})
        return self.keep_alive + event(echo)

    def piece(self, text: str) -> bytes:
        """Return one delta."""
        return self._chunk(text, None)

    def end(self, last: Piece) -> bytes:
        """Return the final chunk, the same again with usage, and the terminator."""
        first = self._chunk("", last.finish_reason)
        again = self._chunk("", last.finish_reason, **self._last(last))
        return (first if first == again else first + again) + b"data: [DONE]\n\n"

    def whole(self, text: str, last: Piece) -> bytes:
        """Return a chat.completion object."""
        choice = self._choice(text, last.finish_reason)
        return dump(self._document("chat.completion", [choice], **self._last(last)))

    def _choice(self, text: str, finish: str | None) -> dict[str, Any]:
        return {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None, "reasoning": None},
            "finish_reason": finish,
            "native_finish_reason": finish,
            "logprobs": None,
        }

    def blocked(self, body: bytes) -> bytes:
        """Return an error with the router's metadata beside it; other bodies as they are."""
        document = json.loads(body)
        return dump({**document, **self._metadata(failed="blocked")}) if "error" in document else body

    def unrouted(self, body: bytes) -> bytes:
        """Return the error of a request that no host may serve, with metadata that say that none was tried."""
        known = self._metadata(failed="unrouted")
        for metadata in known.values():
            metadata["attempt"] = 0
            metadata.pop("pipeline")
        return dump({**json.loads(body), **known})

    def _error(self, code: int, message: str) -> dict[str, Any]:
        kind = {429: "rate_limit_exceeded", 502: "provider_unavailable", 503: "provider_overloaded"}.get(code, "server")
        return {"code": code, "message": message, "metadata": {"error_type": kind}}

    def broken(self, code: int, message: str) -> bytes:
        """Return the error within a stream: at the top, with a choice that has ended; nothing comes after it."""
        return self._broken(self._error(code, message))

    def late(self, code: int, body: bytes) -> bytes:
        """Return an error that would have been a body of its own, had no comment been sent before."""
        error = json.loads(body).get("error")
        return self._broken(error if isinstance(error, dict) else self._error(code, "Provider returned error"))

    def _broken(self, error: dict[str, Any]) -> bytes:
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}
        return event(self._document("chat.completion.chunk", [choice], error=error))

    def failed(self, code: int, message: str, text: str) -> tuple[int, bytes]:
        """Return a 200 whose choice has the error, next to what there was of the text."""
        choice = {**self._choice(text, "error"), "native_finish_reason": None, "error": self._error(code, message)}
        return 200, dump(self._document("chat.completion", [choice]))
