"""Scores a given text on a llama.cpp server, and so for any GGUF file that Ollama holds as well.

``/completion`` with a grammar made of token literals (``root ::= <[43]> <[260]> …``) lets the sampler choose exactly
the given ids, while the reported log-probabilities are those of the unconstrained model (llama.cpp,
``grammars/README.md`` and ``tools/server/README.md``, ``n_probs``).
"""

import asyncio
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp

from probe.errors import ScoringError
from probe.scoring.answers import cut_answer
from probe.scoring.base import TextScore, TokenScore
from probe.traces.values import Message

_FLOOR = -1e4
"""Stands for the log of a probability that the server rounds to zero (it reports the lowest float then)."""

_KEEP_ALIVE_S = 2.0
"""Shorter than the 5 s after which llama.cpp's HTTP server hangs up on an idle connection."""

_NO_PROMPT = "llama.cpp gives no probability for the first token of all: the prompt must not be empty."

_HUNG_UP = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
"""The server closed a kept connection while the request was on its way; it does so after 100 requests, too. What is
asked here changes nothing in the server, so that it can be asked again."""


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
        self._fragments: set[int] = set()
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
        prompt = await self._rendered({"messages": [{"role": m.role, "content": m.content} for m in messages]})
        return await self._tokenize(prompt, special=True, begins=True)

    async def text_ids(self, text: str) -> tuple[int, ...]:
        """Return the token ids of plain text."""
        if text not in self._texts:
            self._texts[text] = await self._tokenize(text, special=False, begins=False)
        return self._texts[text]

    async def answer_ids(self, messages: Sequence[Message], text: str, reasoning: str) -> tuple[int, ...]:
        """Return the token ids of reasoning and text through the server's own chat template.

        llama.cpp renders an assistant's message at the end as one that goes on (``tools/server/README.md``,
        ``continue_final_message``); servers before May 2026 leave its reasoning out, which raises.
        """
        if not reasoning:
            return await self.text_ids(text)
        asked = [{"role": m.role, "content": m.content} for m in messages]
        answer = {"role": "assistant", "content": text, "reasoning_content": reasoning}
        prompt = await self._rendered({"messages": asked})
        whole = await self._rendered(
            {"messages": [*asked, answer], "continue_final_message": True, "add_generation_prompt": False}
        )
        pieces = cut_answer(prompt, whole, text, reasoning)
        for plain in (pieces[1], text):
            if await self._tokenize(plain, special=True, begins=False) != await self.text_ids(plain):
                # It spells a special token, which the model wrote as plain text: piece by piece.
                parts = [await self._tokenize(p, special=not i % 2, begins=False) for i, p in enumerate(pieces)]
                return tuple(token for ids in parts for token in ids)
        return await self._tokenize("".join(pieces), special=True, begins=False)

    async def _rendered(self, body: dict[str, Any]) -> str:
        prompt = (await self._post("/apply-template", body)).get("prompt")
        if not isinstance(prompt, str):
            raise ScoringError(f"{self._url} does not apply its chat template: scoring needs a newer llama.cpp server.")
        return prompt

    async def _tokenize(self, text: str, *, special: bool, begins: bool) -> tuple[int, ...]:
        """Return ids. ``special``: what spells a special token is one; ``begins``: the text begins a sequence."""
        body = {"content": text, "add_special": begins, "parse_special": special, "with_pieces": True}
        answer = await self._post("/tokenize", body)
        try:
            found = {int(token["id"]): token["piece"] for token in answer["tokens"]}
            ids = tuple(int(token["id"]) for token in answer["tokens"])
        except (KeyError, TypeError, ValueError) as error:
            raise ScoringError(f"{self._url} does not tokenize: is it a llama.cpp server?") from error
        # A piece that is no text of its own comes as its bytes.
        self._fragments.update(token for token, piece in found.items() if not isinstance(piece, str))
        return ids

    async def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        """Score ``continuation`` given ``prompt``, token by token, in one request unless it has parts of characters."""
        if not self.vocabulary:
            await self.open()
        if continuation and not prompt:
            raise ScoringError(_NO_PROMPT)
        before, scores = list(prompt), list[TokenScore]()
        async with self._limit:
            for run in self._runs(continuation):
                if run[0] in self._fragments:
                    scores.append(await self._look_up(before, run[0]))
                else:
                    scores += self._read(await self._force(before, run, self._top), run)
                before += run
        return TextScore(tuple(scores), self.vocabulary)

    async def ends(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        """Score the end of the generation after ``continuation``, in one request.

        The empty grammar allows nothing but a token that ends the generation, whichever these are for the weights, and
        the most probable of them is drawn; its probability is reported as if there were no grammar.
        """
        if not self.vocabulary:
            await self.open()
        before = [*prompt, *continuation]
        if not before:
            raise ScoringError(_NO_PROMPT)
        async with self._limit:
            answer = await self._ask_for(before, 'root ::= ""', 1, self._top)
        try:
            (entry,) = answer["completion_probabilities"]
            end = _token(entry)
        except (KeyError, TypeError, ValueError):
            end = None
        if end is None or answer.get("content") or answer.get("stop_type") != "eos":
            raise ScoringError(f"{self._url} does not report how probable it is that a text ends where it ends.")
        return TextScore((end,), self.vocabulary)

    def _runs(self, tokens: Sequence[int]) -> Iterator[list[int]]:
        """Cut into what can be forced at once, and single parts of characters."""
        for fragment, group in itertools.groupby(tokens, self._fragments.__contains__):
            run = list(group)
            yield from ([token] for token in run) if fragment else [run]

    async def _look_up(self, prompt: list[int], token: int) -> TokenScore:
        stand_in = (await self.text_ids("a"))[:1]
        answer = await self._force(prompt, stand_in, self.vocabulary)
        try:
            listed = answer["completion_probabilities"][0]["top_logprobs"]
            own = next(item for item in listed if item["id"] == token)
            return _token({**own, "top_logprobs": listed[: self._top]})
        except (KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
            raise ScoringError(f"{self._url} does not report the probability of token {token}.") from error

    async def _force(self, prompt: list[int], tokens: Sequence[int], top: int) -> dict[str, Any]:
        literals = " ".join(f"<[{token}]>" for token in tokens)
        return await self._ask_for(prompt, f"root ::= {literals}", len(tokens), top)

    async def _ask_for(self, prompt: list[int], grammar: str, count: int, top: int) -> dict[str, Any]:
        body = {
            "prompt": prompt,
            "grammar": grammar,
            "n_predict": count,
            "temperature": 0,
            "n_probs": top,
            "post_sampling_probs": False,
            # A reused prefix is computed in other batch sizes, which moves the last digits.
            "cache_prompt": False,
            "stream": False,
        }
        return await self._post("/completion", body)

    def _read(self, answer: dict[str, Any], continuation: list[int]) -> tuple[TokenScore, ...]:
        try:
            scores = tuple(_token(entry) for entry in answer.get("completion_probabilities") or ())
        except (KeyError, TypeError, ValueError) as error:
            raise ScoringError(f"{self._url} gave a token without a probability: {error}.") from error
        ids = [score.token_id for score in scores]
        if ids == continuation:
            return scores
        if ids and ids == continuation[: len(ids)]:
            raise ScoringError(
                f"{self._url} scored {len(ids)} of {len(continuation)} tokens: "
                "the text and its prompt need a longer context."
            )
        raise ScoringError(
            f"{self._url} did not follow the grammar of token literals: "
            "scoring needs llama.cpp of October 2025 or later."
        )

    async def _get(self, path: str) -> dict[str, Any]:
        return await self._call("GET", path, None)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        try:
            status, text = await self._once_more(method, path, body)
            answer = json.loads(text) if status == 200 else None
        except (TimeoutError, OSError, aiohttp.ClientError, ValueError) as error:
            raise ScoringError(f"{self._url}{path} cannot score: {type(error).__name__}: {error}") from error
        if status != 200:
            raise ScoringError(f"{self._url}{path} answered {status}: {text[:200]}")
        if not isinstance(answer, dict):
            raise ScoringError(f"{self._url}{path} answered something other than a JSON object.")
        return answer

    async def _once_more(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, str]:
        """Ask, and ask again on a new connection where the server hung up; nobody there is not asked twice."""
        if self._session is None:
            connector = aiohttp.TCPConnector(keepalive_timeout=_KEEP_ALIVE_S)
            self._session = aiohttp.ClientSession(timeout=self._timeout, connector=connector)
        try:
            return await self._ask(self._session, method, path, body)
        except aiohttp.ClientConnectorError:
            raise
        except _HUNG_UP:
            return await self._ask(self._session, method, path, body)

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[int, str]:
        async with session.request(method, self._url + path, json=body, allow_redirects=False) as response:
            return response.status, await response.text()


def _token(entry: dict[str, Any]) -> TokenScore:
    logprob, listed = _log(entry), entry["top_logprobs"]
    top = tuple(sorted((_log(item) for item in listed), reverse=True))
    seen = any(item["id"] == entry["id"] for item in listed)
    rank = 1 + sum(value > logprob for value in top) if seen else None
    return TokenScore(int(entry["id"]), logprob, top, rank, _spelling(entry))


def _spelling(entry: dict[str, Any]) -> str:
    """Return what a token spells; a part of a character comes as bytes and is no text of its own."""
    said = entry.get("bytes")
    if isinstance(said, list) and said:
        return bytes(int(byte) % 256 for byte in said).decode("utf-8", "replace")
    return str(entry.get("token") or "")


def _log(item: dict[str, Any]) -> float:
    value = float(item["logprob"])
    if math.isnan(value) or value > 1e-3:
        raise ValueError(f"{value} is no log-probability")
    return min(max(value, _FLOOR), 0.0)
