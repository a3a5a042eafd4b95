"""The local server behind a lab platform: llama.cpp's HTTP interface."""

import asyncio
import codecs
import json
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from probe.wire.framing import SseParser

Messages = Sequence[Mapping[str, Any]]

RAW = "raw"
"""Key of a message whose content is a whole prompt, as a client has rendered it: no template is put around it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a generated answer; the last one carries the finish reason, the usage and the timings.

    ``at`` is when it arrived, on the monotonic clock in seconds.
    """

    text: str
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    timings: Mapping[str, Any] | None = None
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the upstream's vocabulary; ``text`` may be a part of a character, with U+FFFD in its place."""

    id: int
    text: str


class UpstreamError(Exception):
    """The local server answered an error; ``status`` and ``body`` are what it said."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"upstream answered {status}")
        self.status = status
        self.body = body


class Upstream:
    """A llama.cpp server at ``url`` (no path)."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self._split: dict[str, tuple[str, ...]] = {}

    async def generate(self, messages: Messages, sampling: Mapping[str, Any]) -> AsyncGenerator[Piece]:
        """Yield the pieces of an answer as they are generated; the very last piece has ``usage``.

        Arrivals are noted whether or not the consumer is ready for them. Close the iterator to end the generation.
        """
        arrived: asyncio.Queue[Piece | Exception | None] = asyncio.Queue()
        reader = asyncio.create_task(self._read(messages, sampling, arrived))
        try:
            while (piece := await arrived.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    async def _read(
        self, messages: Messages, sampling: Mapping[str, Any], arrived: "asyncio.Queue[Piece | Exception | None]"
    ) -> None:
        prompt = raw_prompt(messages)
        body: dict[str, Any] = {**sampling, "stream": True, "timings_per_token": True}
        if prompt is None:
            path, read = "v1/chat/completions", _chat_pieces
            body |= {"messages": list(messages), "stream_options": {"include_usage": True}}
        else:
            path, read = "completion", _completion_pieces
            body["prompt"] = prompt
        state = _Finish()
        try:
            async with self._session.post(f"{self._url}/{path}", json=body) as response:
                await _check(response)
                parser = SseParser()
                async for data in response.content.iter_any():
                    for event in parser.feed(data):
                        if event.data != "[DONE]":
                            for piece in read(json.loads(event.data), state):
                                arrived.put_nowait(piece)
            arrived.put_nowait(None)
        except (UpstreamError, aiohttp.ClientError, ValueError) as error:
            arrived.put_nowait(error)

    async def count_prompt(self, messages: Messages) -> int:
        """Return how many tokens this conversation has, as an honest server would bill it."""
        return len(await self.prompt_tokens(messages))

    async def prompt_tokens(self, messages: Messages, answer: str = "") -> tuple[Token, ...]:
        """Return the tokens of a conversation as the model sees it, with the beginning of an answer to it."""
        prompt = raw_prompt(messages)
        if prompt is None:
            prompt = (await self._ask("apply-template", {"messages": list(messages)}))["prompt"]
        return await self._tokenized(f"{prompt}{answer}", special=True)

    async def tokens(self, text: str) -> tuple[Token, ...]:
        """Return the tokens of a text."""
        return await self._tokenized(text, special=False)

    async def _tokenized(self, text: str, *, special: bool) -> tuple[Token, ...]:
        body = {"content": text, "add_special": special, "parse_special": special, "with_pieces": True}
        tokens = (await self._ask("tokenize", body))["tokens"]
        pieces = [(token["id"], token["piece"]) for token in tokens]
        return tuple(
            Token(number, piece if isinstance(piece, str) else bytes(piece).decode("utf-8", "replace"))
            for number, piece in pieces
        )

    async def split(self, text: str) -> tuple[str, ...]:
        """Return the pieces in which this server would stream a text: one per token.

        A token that ends within a character gives ``""``, and the piece after it the whole character: it is held back.
        """
        if text not in self._split:
            body = {"content": text, "add_special": False, "parse_special": False, "with_pieces": True}
            tokens = (await self._ask("tokenize", body))["tokens"]
            # A piece that is not UTF-8 by itself comes as a list of bytes.
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            pieces = [token["piece"] for token in tokens]
            self._split[text] = tuple(
                decoder.decode(piece.encode() if isinstance(piece, str) else bytes(piece)) for piece in pieces
            )
        return self._split[text]

    async def _ask(self, path: str, body: Mapping[str, Any]) -> Any:
        async with self._session.post(f"{self._url}/{path}", json=body) as response:
            await _check(response)
            return await response.json()


def raw_prompt(messages: Messages) -> str | None:
    """Return the prompt of a conversation that a client has rendered itself; ``None`` of one that it has not.

    What a platform puts before it stands there as a text of its own.
    """
    if not any(RAW in message for message in messages):
        return None
    return "".join(f"{m['content']}" if RAW in m else f"{m['content']}\n\n" for m in messages)


@dataclass
class _Finish:
    """The finish reason, which may come before the usage does."""

    reason: str | None = None


def _chat_pieces(document: Mapping[str, Any], finish: _Finish) -> Iterator[Piece]:
    choice = (document.get("choices") or [{}])[0]
    finish.reason = choice.get("finish_reason") or finish.reason
    text = (choice.get("delta") or {}).get("content") or ""
    if text:
        yield Piece(text, timings=document.get("timings"))
    if document.get("usage"):
        yield Piece("", finish.reason, document["usage"], document.get("timings"))


def _completion_pieces(document: Mapping[str, Any], finish: _Finish) -> Iterator[Piece]:
    if document.get("content"):
        yield Piece(document["content"], timings=document.get("timings"))
    if document.get("stop"):
        finish.reason = "length" if document.get("stop_type") == "limit" else "stop"
        usage = {"prompt_tokens": document["tokens_evaluated"], "completion_tokens": document["tokens_predicted"]}
        yield Piece("", finish.reason, usage, document.get("timings"))


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise UpstreamError(response.status, await response.text())
