"""Scores a given text on a llama.cpp server, and so for any GGUF file that Ollama holds as well.

``/completion`` with a grammar made of token literals (``root ::= <[43]> <[260]> …``) lets the sampler choose exactly
the given ids, while the reported log-probabilities are those of the unconstrained model (llama.cpp,
``grammars/README.md`` and ``tools/server/README.md``, ``n_probs``).
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import aiohttp

from probe.errors import ScoringError
from probe.scoring.base import TextScore, TokenScore
from probe.traces.values import Message

_FLOOR = -1e4
"""Stands for the log of a probability that the server rounds to zero (it reports the lowest float then)."""


class LlamaCppScorer:
    """Scores through the llama.cpp server at ``url`` (no path).

    ``top`` is how many alternatives are asked for per token: the larger, the tighter the bound on the tail and the
    dearer the answer. ``weights`` names them in the store. At most ``concurrency`` texts are scored at once: as many
    as the server has slots.
    """

    name = "llamacpp-grammar"

    def __init__(
        self, url: str, *, weights: str, top: int = 64, concurrency: int = 4, timeout_s: float = 120.0
    ) -> None:
        self._url = url.rstrip("/")
        self._top = top
        self._limit = asyncio.Semaphore(concurrency)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._texts: dict[str, tuple[int, ...]] = {}
        self.version = f"1/{weights}/top{top}"
        self.vocabulary = 0

    async def open(self) -> None:
        """Ask the server for the size of the vocabulary."""
        models = await self._get("/v1/models")
        try:
            self.vocabulary = int(models["data"][0]["meta"]["n_vocab"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ScoringError(f"{self._url} does not state its vocabulary: is it a llama.cpp server?") from error

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the token ids of a conversation through the server's own chat template."""
        body = {"messages": [{"role": m.role, "content": m.content} for m in messages]}
        prompt = await self._post("/apply-template", body)
        return await self._tokenize(str(prompt.get("prompt", "")), special=True)

    async def text_ids(self, text: str) -> tuple[int, ...]:
        """Return the token ids of plain text."""
        if text not in self._texts:
            self._texts[text] = await self._tokenize(text, special=False)
        return self._texts[text]

    async def _tokenize(self, text: str, *, special: bool) -> tuple[int, ...]:
        body = {"content": text, "add_special": special, "parse_special": special}
        answer = await self._post("/tokenize", body)
        return tuple(int(token) for token in answer.get("tokens", ()))

    async def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        """Score ``continuation`` given ``prompt``, token by token, in one request."""
        if not continuation:
            return TextScore((), self.vocabulary)
        body = {
            "prompt": list(prompt),
            "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in continuation),
            "n_predict": len(continuation),
            "temperature": 0,
            "n_probs": self._top,
            "post_sampling_probs": False,
            # A reused prefix is computed in other batch sizes, which moves the last digits.
            "cache_prompt": False,
            "stream": False,
        }
        async with self._limit:
            answer = await self._post("/completion", body)
        entries = answer.get("completion_probabilities") or []
        if [entry.get("id") for entry in entries] != list(continuation):
            raise ScoringError(
                f"{self._url} did not follow the grammar of token literals: scoring needs llama.cpp of October 2025 or later."
            )
        return TextScore(tuple(_token(entry) for entry in entries), self.vocabulary)

    async def _get(self, path: str) -> dict[str, Any]:
        return await self._call("GET", path, None)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.request(method, self._url + path, json=body) as response:
                text = await response.text()
                if response.status != 200:
                    raise ScoringError(f"{self._url}{path} answered {response.status}: {text[:200]}")
                answer = json.loads(text)
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise ScoringError(f"{self._url}{path} cannot score: {type(error).__name__}: {error}") from error
        if not isinstance(answer, dict):
            raise ScoringError(f"{self._url}{path} answered something other than a JSON object.")
        return answer


def _token(entry: dict[str, Any]) -> TokenScore:
    top = sorted((max(float(item["logprob"]), _FLOOR) for item in entry.get("top_logprobs", ())), reverse=True)
    ids = [item["id"] for item in entry.get("top_logprobs", ())]
    rank = ids.index(entry["id"]) + 1 if entry["id"] in ids else None
    return TokenScore(int(entry["id"]), max(float(entry["logprob"]), _FLOOR), tuple(top), rank)
