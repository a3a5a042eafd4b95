"""Serves lab platforms over HTTP on loopback, in a thread with its own event loop."""

import asyncio
import json
import random
import re
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
from aiohttp import web

from probe.errors import ServeError
from probe.lab.fronts import FRONTS, Front
from probe.lab.log import Deed, LabEntry, LabLog
from probe.lab.platform_spec import Platform
from probe.lab.upstream import Piece, Upstream, UpstreamError
from probe.lifecycle import Startable

_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "seed": "seed",
}
"""Names that clients of the fronts use, and llama.cpp's names for them."""

_CADENCE_S = 0.002
"""Pause between the pieces of an injected text, about that of the embedded weights on two cores."""


class LabServer(Startable):
    """One HTTP server for several platforms: ``/<platform>/v1/chat/completions`` or ``/<platform>/api/chat``.

    ``upstream_url`` is the llama.cpp server that holds the weights; ``seed`` makes the platforms' draws repeatable.
    """

    def __init__(self, platforms: Sequence[Platform], upstream_url: str, model: str, *, seed: int = 0) -> None:
        self.log = LabLog()
        self.url = ""
        self._platforms = {platform.name: platform for platform in platforms}
        self._chance = {name: random.Random(f"{seed}:{name}") for name in self._platforms}
        self._upstream_url = upstream_url
        self._model = model
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._upstream: Upstream | None = None

    def start(self) -> str:
        """Start listening on a free port; return ``http://127.0.0.1:PORT``."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="probe-lab", daemon=True)
        self._thread.start()
        if not self._ready.wait(30):
            raise ServeError("The lab did not start within 30 s.")
        return self.url

    def stop(self) -> None:
        """Stop listening."""
        if self._thread is not None and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=10)
            self._thread = None

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/{platform}/v1/chat/completions", self._chat)
        app.router.add_post("/{platform}/api/chat", self._chat)
        app.router.add_get("/{platform}/v1/models", self._models)
        app.router.add_get("/{platform}/api/tags", self._tags)
        app.router.add_get("/{platform}/api/version", self._version)
        # A connection each: llama.cpp closes idle ones at the very moment at which they would be used again.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300), connector=connector) as session:
            self._upstream = Upstream(self._upstream_url, session)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    def _platform(self, request: web.Request) -> Platform:
        platform = self._platforms.get(request.match_info["platform"])
        if platform is None:
            raise web.HTTPNotFound(text=json.dumps({"error": {"message": "no such platform", "code": 404}}))
        return platform

    async def _models(self, request: web.Request) -> web.Response:
        self._platform(request)
        return web.json_response({"object": "list", "data": [{"id": self._model, "object": "model"}]})

    async def _tags(self, request: web.Request) -> web.Response:
        self._platform(request)
        return web.json_response({"models": [{"name": self._model, "model": self._model}]})

    async def _version(self, request: web.Request) -> web.Response:
        self._platform(request)
        return web.json_response({"version": "0.0.0-lab"})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ConnectionResetError:
            return web.Response(status=499)  # the client hung up; nobody reads this

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        platform = self._platform(request)
        try:
            body = json.loads(await request.read())
            messages = [dict(message) for message in body["messages"]]
            model = str(body["model"])
        except (ValueError, TypeError, KeyError):
            return web.json_response({"error": {"message": "messages and model are required", "code": 400}}, status=400)
        if model != self._model:
            return web.json_response({"error": {"message": f"model {model!r} not found", "code": 404}}, status=404)
        sampling = {_SAMPLING[k]: v for k, v in {**body, **(body.get("options") or {})}.items() if k in _SAMPLING}
        stream = bool(body.get("stream", platform.front == "ollama"))
        request_id = str(uuid.uuid4())
        front = FRONTS[platform.front](model, "Lab")
        answer = _Answer(request, front, stream, request_id)
        users = [str(message.get("content", "")) for message in messages if message.get("role") == "user"]
        acts = platform.screen is not None and platform.screen.matches(users, self._chance[platform.name])
        if acts and platform.action == "declared_block":
            self._note(request_id, platform, "declared_block")
            return answer.blocked(users[-1])
        if acts:
            self._note(request_id, platform, "injected_text")
            return await self._inject(platform, messages, answer)
        if platform.hidden_system is not None:
            messages.insert(0, {"role": "system", "content": platform.hidden_system})
        self._note(request_id, platform, "prompt_rewrite" if platform.hidden_system else "none")
        return await self._generate(messages, sampling, answer)

    def _note(self, request_id: str, platform: Platform, deed: Deed) -> None:
        wrote = deed in {"declared_block", "injected_text"}
        self.log.add(LabEntry(request_id, platform.name, deed, "platform" if wrote else "model"))

    async def _inject(
        self, platform: Platform, messages: Sequence[Mapping[str, Any]], answer: "_Answer"
    ) -> web.StreamResponse:
        assert self._upstream is not None
        text = self._chance[platform.name].choice(platform.texts)
        prompt_tokens, completion_tokens = await self._upstream.count(messages, text)
        for piece in re.findall(r"\s*\S+", text):
            await answer.add(piece)
            await asyncio.sleep(_CADENCE_S)
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        return await answer.finish(Piece("", "stop", usage))

    async def _generate(
        self, messages: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any], answer: "_Answer"
    ) -> web.StreamResponse:
        assert self._upstream is not None
        last = Piece("", "stop")
        try:
            async for piece in self._upstream.generate(messages, sampling):
                if piece.usage is not None:
                    last = piece
                else:
                    await answer.add(piece.text)
        except UpstreamError as error:
            return web.Response(status=error.status, text=error.body, content_type="application/json")
        return await answer.finish(last)


class _Answer:
    """One answer under way: streamed piece by piece, or collected."""

    def __init__(self, request: web.Request, front: Front, stream: bool, request_id: str) -> None:
        self._request = request
        self._front = front
        self._stream = stream
        self._headers = {"x-request-id": request_id}
        self._text: list[str] = []
        self._response: web.StreamResponse | None = None

    async def add(self, text: str) -> None:
        """Send or keep a piece of text."""
        if self._stream:
            response = await self._open()
            await response.write(self._front.piece(text))
        else:
            self._text.append(text)

    async def finish(self, last: Piece) -> web.StreamResponse:
        """End the answer."""
        if self._stream:
            response = await self._open()
            await response.write(self._front.end(last))
            await response.write_eof()
            return response
        headers = {**self._headers, "content-type": self._front.json_type}
        return web.Response(body=self._front.whole("".join(self._text), last), headers=headers)

    def blocked(self, flagged: str) -> web.Response:
        """Answer a declared block."""
        status, body = self._front.block(flagged)
        return web.Response(status=status, body=body, headers={**self._headers, "content-type": "application/json"})

    async def _open(self) -> web.StreamResponse:
        if self._response is None:
            self._response = web.StreamResponse(headers={**self._headers, "content-type": self._front.stream_type})
            await self._response.prepare(self._request)
            start = self._front.begin()
            if start:
                await self._response.write(start)
        return self._response
