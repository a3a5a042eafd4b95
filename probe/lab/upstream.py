"""The local server behind a lab platform: llama.cpp's HTTP interface."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from probe.wire.framing import SseParser


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a generated answer; the last one carries the finish reason, the usage and the timings."""

    text: str
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    timings: Mapping[str, Any] | None = None


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

    async def generate(
        self, messages: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any]
    ) -> AsyncIterator[Piece]:
        """Yield the pieces of an answer as they are generated; the very last piece has ``usage``."""
        body = {**sampling, "messages": list(messages), "stream": True, "stream_options": {"include_usage": True}}
        finish: str | None = None
        async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as response:
            if response.status != 200:
                raise UpstreamError(response.status, await response.text())
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
                        yield Piece(text)
                    if document.get("usage"):
                        yield Piece("", finish, document["usage"], document.get("timings"))

    async def count(self, messages: Sequence[Mapping[str, Any]], text: str) -> tuple[int, int]:
        """Return how many tokens this conversation and this text have, as an honest server would bill them."""
        async with self._session.post(f"{self._url}/apply-template", json={"messages": list(messages)}) as response:
            prompt = (await response.json())["prompt"]
        counts = []
        for content, special in ((prompt, True), (text, False)):
            body = {"content": content, "add_special": special, "parse_special": special}
            async with self._session.post(f"{self._url}/tokenize", json=body) as response:
                counts.append(len((await response.json())["tokens"]))
        return counts[0], counts[1] + 1  # the end token is billed too
