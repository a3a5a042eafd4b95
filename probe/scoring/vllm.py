"""Scores a given text on a vLLM server: it is sent as the end of the prompt, with ``prompt_logprobs`` asked for.

They are those of the model before temperature, filters and logit bias, whatever the request says (vLLM 0.32.0:
``GPUModelRunner._get_prompt_logprobs_dict``; tried with temperatures 0 and 2, ``top_p`` and ``logit_bias``). Each
position carries the token that stands there and the ``k`` most probable ones, which makes ``k`` entries or ``k + 1``.
"""

import asyncio
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import aiohttp

from probe.errors import ScoringError
from probe.scoring.answers import cut_answer
from probe.scoring.base import TextScore, TokenScore
from probe.traces.values import Message

_KEEP_ALIVE_S = 2.0
"""Shorter than the 5 s after which vLLM's HTTP server hangs up, so that no request meets a closing connection."""

_SPECIAL = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")
"""How special tokens are spelt (``<|end|>``, ``<eos>``, ``[INST]``)."""

_TOO_MANY = re.compile(r"prompt logprobs of (\d+)")


class VllmScorer:
    """Scores through the vLLM server at ``url`` (no path); ``model`` is the name that it serves the weights under.

    ``top`` is how many alternatives are asked for per token; 20 is what vLLM allows unless it was started with
    ``--max-logprobs``. ``weights`` names them in the store. ``vocabulary`` need only be given where the server does not
    let it be found out. At most ``concurrency`` texts are scored at once; more would only wait in the server.
    """

    name = "vllm-prompt-logprobs"

    def __init__(
        self,
        url: str,
        *,
        model: str,
        weights: str,
        top: int = 20,
        vocabulary: int = 0,
        concurrency: int = 8,
        timeout_s: float = 120.0,
    ) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._model = model
        self._top = top
        self._limit = asyncio.Semaphore(concurrency)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._texts: dict[str, tuple[int, ...]] = {}
        self._max_tokens: int | None = None
        self._end: int | None = None
        self.version = f"1/{weights}/top{top}"
        self.vocabulary = vocabulary

    async def open(self) -> None:
        """Ask the server for the length that it takes and the size of the vocabulary."""
        models = await self._call("GET", "/v1/models")
        entries = {entry.get("id"): entry for entry in models.get("data") or () if isinstance(entry, dict)}
        if self._model not in entries:
            known = ", ".join(sorted(str(name) for name in entries)) or "nothing"
            raise ScoringError(f"{self._url} serves {known} and not {self._model!r}: correct the route's model.")
        length = entries[self._model].get("max_model_len")
        # One token is always generated (max_tokens 0 is refused), and needs its place.
        self._max_tokens = length - 1 if isinstance(length, int) else None
        if not self.vocabulary:
            self.vocabulary = await self._ask_vocabulary()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the token ids of a conversation through the server's own chat template."""
        body = {
            "model": self._model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "add_generation_prompt": True,
        }
        return _ids(await self._call("POST", "/tokenize", body))[0]

    async def text_ids(self, text: str) -> tuple[int, ...]:
        """Return the token ids of plain text."""
        if text not in self._texts:
            self._texts[text] = await self._plain_ids(text)
        return self._texts[text]

    async def answer_ids(self, messages: Sequence[Message], text: str, reasoning: str) -> tuple[int, ...]:
        """Return the token ids of reasoning and text through the server's own chat template.

        vLLM takes an assistant's ``reasoning`` and hands it to the template under both of its names (0.19 on:
        ``chat_utils._parse_chat_message_content``); ``continue_final_message`` ends the rendering with the text.
        """
        if not reasoning:
            return await self.text_ids(text)
        for plain in (reasoning, text):
            if (await self._tokenize(plain))[1]:
                raise ScoringError("The answer spells special tokens that vLLM does not let be read as plain text.")
        prompt = await self.prompt_ids(messages)
        asked = [{"role": m.role, "content": m.content} for m in messages]
        answer = {"role": "assistant", "content": text, "reasoning": reasoning, "reasoning_content": reasoning}
        body = {"messages": [*asked, answer], "add_generation_prompt": False, "continue_final_message": True}
        whole = _ids(await self._call("POST", "/tokenize", {"model": self._model, **body}))[0]
        cut_answer(await self._text(prompt), await self._text(whole), text, reasoning)
        if whole[: len(prompt)] != prompt:
            raise ScoringError("The first words of the reasoning merge with the prompt's last token.")
        return whole[len(prompt) :]

    async def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        """Score ``continuation`` given ``prompt``, token by token, in one request."""
        if not continuation:
            return TextScore((), self.vocabulary)
        if not prompt:
            raise ScoringError("vLLM gives no probability for the first token of all: the prompt must not be empty.")
        ids = [*prompt, *continuation]
        if self._max_tokens is not None and len(ids) > self._max_tokens:
            raise ScoringError(
                f"The text has {len(ids)} tokens with its prompt, and {self._url} takes {self._max_tokens}: "
                "start vLLM with a larger --max-model-len."
            )
        async with self._limit:
            entries = await self._prompt_logprobs(ids, self._top)
        pairs = zip(continuation, entries[len(prompt) :], strict=True)
        return TextScore(tuple(self._token(token, entry) for token, entry in pairs), self.vocabulary)

    async def ends(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        """Score the token that ends an answer, as one more token of the text, in one request.

        It is the first special token that the chat template writes after an answer (found out once).
        """
        if self._end is None:
            self._end = await self._find_end()
        return await self.score([*prompt, *continuation], [self._end])

    async def _find_end(self) -> int:
        """Return the end token; templates that write none after the last answer begin the next turn with it (GLM)."""
        last = [{"role": "user", "content": "Yes?"}, {"role": "assistant", "content": "Yes"}]
        ongoing = {"add_generation_prompt": False, "continue_final_message": True}
        open_ids, _ = await self._chat_ids(last, ongoing)
        for messages in (last, [*last, last[0]]):
            ids, names = await self._chat_ids(messages, {"add_generation_prompt": False})
            after = zip(ids[len(open_ids) :], names[len(open_ids) :], strict=False)
            found = [token for token, name in after if _SPECIAL.fullmatch(name)]
            if found and ids[: len(open_ids)] == open_ids:
                return found[0]
        raise ScoringError(f"{self._url} does not tell which token ends an answer: its chat template writes none.")

    async def _chat_ids(
        self, messages: list[dict[str, str]], options: dict[str, bool]
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        body = {"model": self._model, "messages": messages, "return_token_strs": True, **options}
        return _ids(await self._call("POST", "/tokenize", body))

    async def _prompt_logprobs(self, ids: list[int], top: int) -> list[Any]:
        body = {"model": self._model, "prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": top}
        answer = await self._call("POST", "/v1/completions", body)
        try:
            entries = answer["choices"][0]["prompt_logprobs"]
        except (KeyError, IndexError, TypeError) as error:
            raise ScoringError(f"{self._url} gave no prompt_logprobs: is it a vLLM server?") from error
        if not isinstance(entries, list) or len(entries) != len(ids):
            raise ScoringError(f"{self._url} did not score every token of the prompt: is it a vLLM server?")
        return entries

    def _token(self, token: int, entry: Any) -> TokenScore:
        try:
            logprob = float(entry[str(token)]["logprob"])
            logprobs = sorted((float(item["logprob"]) for item in entry.values()), reverse=True)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ScoringError(f"{self._url} scored another token than the one that was sent.") from error
        top = tuple(logprobs[: self._top])
        if sum(map(math.exp, top)) > 1.001:
            raise ScoringError(f"{self._url} gives logits, not log-probabilities: start vLLM without --logprobs-mode.")
        # vLLM's own rank counts tokens of equal probability as better ones; ours goes with ``top``.
        rank = 1 + sum(value > logprob for value in top) if len(entry) <= self._top else None
        return TokenScore(token, logprob, top, rank, str(entry[str(token)].get("decoded_token") or ""))

    async def _ask_vocabulary(self) -> int:
        """Return the size: -1 asks for the whole vocabulary, and a server that refuses says how many that would be."""
        try:
            return len((await self._prompt_logprobs([0, 0], -1))[1] or ())
        except ScoringError as error:
            if said := _TOO_MANY.search(str(error)):
                return int(said.group(1))
            raise ScoringError(f"{self._url} does not let its vocabulary be found out: {error}") from error

    async def _plain_ids(self, text: str) -> tuple[int, ...]:
        ids, special = await self._tokenize(text)
        if not special:
            return ids
        # The endpoint takes what is spelt like a special token for one. Cut between its bracket and its name no piece
        # spells it, and nearly every tokenizer parts words from punctuation there anyway.
        pieces = [await self._tokenize(piece) for piece in _cuts(special).split(text)]
        if any(found for _, found in pieces):
            raise ScoringError("The text spells special tokens that vLLM does not let be read as plain text.")
        return tuple(token for ids, _ in pieces for token in ids)

    async def _text(self, ids: Sequence[int]) -> str:
        answer = await self._call("POST", "/detokenize", {"model": self._model, "tokens": list(ids)})
        if not isinstance(answer.get("prompt"), str):
            raise ScoringError(f"{self._url} does not turn tokens into text: is it a vLLM server?")
        return str(answer["prompt"])

    async def _tokenize(self, text: str) -> tuple[tuple[int, ...], set[str]]:
        """Return token ids, and the spelling of the special tokens among them."""
        body = {"model": self._model, "prompt": text, "add_special_tokens": False, "return_token_strs": True}
        ids, names = _ids(await self._call("POST", "/tokenize", body))
        return ids, {name for name in names if _SPECIAL.fullmatch(name) and name in text}

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if self._session is None:
            connector = aiohttp.TCPConnector(keepalive_timeout=_KEEP_ALIVE_S)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        try:
            async with self._session.request(method, self._url + path, json=body, allow_redirects=False) as response:
                text = await response.text()
                if response.status != 200:
                    raise ScoringError(f"{self._url}{path} answered {response.status}: {_message(text)}")
                answer = json.loads(text)
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise ScoringError(f"{self._url}{path} cannot score: {type(error).__name__}: {error}") from error
        if not isinstance(answer, dict):
            raise ScoringError(f"{self._url}{path} answered something other than a JSON object.")
        return answer


def _ids(answer: dict[str, Any]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    try:
        ids = tuple(int(token) for token in answer["tokens"])
    except (KeyError, TypeError, ValueError) as error:
        raise ScoringError("The server's /tokenize gave no token ids: is it a vLLM server?") from error
    return ids, tuple(str(name) for name in answer.get("token_strs") or ())


def _cuts(special: set[str]) -> re.Pattern[str]:
    """Return a pattern of empty matches, one in each of the special tokens, before the first letter of its name."""
    places = [(name, next((at for at, char in enumerate(name) if char.isalnum()), 1)) for name in sorted(special)]
    return re.compile("|".join(rf"(?<={re.escape(name[:at])})(?={re.escape(name[at:])})" for name, at in places))


def _message(text: str) -> str:
    """Return the sentence of vLLM's error body (``{"error": {"message": …}}``), else the start of the body."""
    try:
        return str(json.loads(text)["error"]["message"])[:400]
    except (ValueError, KeyError, TypeError):
        return text[:200]
