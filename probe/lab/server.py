"""Serves lab platforms over HTTP on loopback, in a thread with its own event loop."""

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Mapping, Sequence

import aiohttp
from aiohttp import web

from probe.errors import ServeError
from probe.lab.acting import Actor, Call
from probe.lab.answer import Answer
from probe.lab.chances import Chances
from probe.lab.fronts.base import FrontSettings
from probe.lab.fronts.catalogue import lapse_of, make_front
from probe.lab.log import LabLog
from probe.lab.platform_spec import Platform
from probe.lab.upstream import Upstream, UpstreamError
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

_DEFAULTS: Mapping[str, float] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
"""What a request that does not say is served with, as hosted providers do; llama.cpp itself would filter."""


class LabServer(Startable):
    """One HTTP server for several platforms: ``/<platform>/v1/chat/completions`` or ``/<platform>/api/chat``.

    ``upstreams`` are the addresses of the llama.cpp servers by the names that the platforms use, or one that is called
    ``toy``. ``seed`` makes the platforms' draws repeatable. Raises ``ValueError`` for a name that is missing.
    """

    def __init__(
        self, platforms: Sequence[Platform], upstreams: str | Mapping[str, str], model: str, *, seed: int = 0
    ) -> None:
        self.log = LabLog()
        self.url = ""
        self._platforms = {platform.name: platform for platform in platforms}
        self._urls = {"toy": upstreams} if isinstance(upstreams, str) else dict(upstreams)
        for platform in platforms:
            for name in (platform.upstream, platform.paraphraser):
                if name is not None and name not in self._urls:
                    raise ValueError(f"lab platform {platform.name!r}: there is no upstream {name!r}")
        self._chances = {name: Chances(seed, name) for name in self._platforms}
        self._fingerprints = {
            name: f"fp_{chances.of_platform().of('fingerprint').getrandbits(40):010x}"
            for name, chances in self._chances.items()
        }
        self._actors: dict[str, Actor] = {}
        self._model = model
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()

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
            upstreams = {name: Upstream(url, session) for name, url in self._urls.items()}
            self._actors = {
                name: Actor(
                    spec, upstreams, self.log, lapse_of(spec.front, self._chances[name].of_platform().of("lapse"))
                )
                for name, spec in self._platforms.items()
            }
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
            raw = await request.read()
            started = time.monotonic()
            body = json.loads(raw)
            messages = [dict(message) for message in body["messages"]]
            model = str(body["model"])
        except (ValueError, TypeError, KeyError):
            return web.json_response({"error": {"message": "messages and model are required", "code": 400}}, status=400)
        if model != self._model:
            return web.json_response({"error": {"message": f"model {model!r} not found", "code": 404}}, status=404)
        stated = {**body, **(body.get("options") or {})}
        sampling = {**_DEFAULTS, **{_SAMPLING[k]: v for k, v in stated.items() if k in _SAMPLING}}
        draws = self._chances[platform.name].of(messages, sampling)
        settings = FrontSettings(
            include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
            fingerprint=self._fingerprints[platform.name],
        )
        answer = Answer(
            request,
            make_front(platform.front, model, settings),
            stream=bool(body.get("stream", platform.front == "ollama")),
            request_id=str(uuid.uuid4()),
            buffered=platform.buffered,
            jitter_s=platform.jitter_s,
            chance=draws.of("jitter"),
        )
        call = Call(answer.request_id, model, messages, sampling, settings, answer, draws, started)
        try:
            return await self._actors[platform.name].handle(call)
        except UpstreamError as error:
            return await answer.whole(error.status, error.body.encode())
        except aiohttp.ClientError:
            return await answer.whole(502, b'{"error":{"message":"upstream is not there","code":502}}')
