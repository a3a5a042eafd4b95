"""The local server behind a lab platform: llama.cpp's HTTP interface."""

import asyncio
import codecs
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from probe.wire.framing import SseParser

Messages = Sequence[Mapping[str, Any]]


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
        body = {
            **sampling,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            "timings_per_token": True,
        }
        finish: str | None = None
        try:
            async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as response:
                await _check(response)
                parser = SseParser()
                async for data in response.content.iter_any():
                    for event in parser.feed(data):
                        if event.data == "[DONE]":
                            continue
                        document = json.loads(event.data)
                        choices = document.get("choices") or [{}]
                        finish = choices[0].get("finish_reason") or finish
                        text = (choices[0].get("delta") or {}).get("content") or ""
                        if text:
                            arrived.put_nowait(Piece(text, timings=document.get("timings")))
                        if document.get("usage"):
                            arrived.put_nowait(Piece("", finish, document["usage"], document.get("timings")))
            arrived.put_nowait(None)
        except (UpstreamError, aiohttp.ClientError, ValueError) as error:
            arrived.put_nowait(error)

    async def count_prompt(self, messages: Messages) -> int:
        """Return how many tokens this conversation has, as an honest server would bill it."""
        prompt = (await self._ask("apply-template", {"messages": list(messages)}))["prompt"]
        body = {"content": prompt, "add_special": True, "parse_special": True}
        return len((await self._ask("tokenize", body))["tokens"])

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


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise UpstreamError(response.status, await response.text())
