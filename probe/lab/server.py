"""Serves lab platforms over HTTP on loopback, in a thread with its own event loop."""

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import aiohttp
from aiohttp import web

from probe.errors import ServeError
from probe.lab.acting import Actor, Call
from probe.lab.answer import Answer
from probe.lab.chances import Chances
from probe.lab.fronts.catalogue import lapse_of, make_front
from probe.lab.fronts.generate import GenerateFront
from probe.lab.intake import Asked, BadRequestError, dialect_of, place_of, read_request
from probe.lab.limits import Limiter
from probe.lab.listings import listing
from probe.lab.log import LabLog
from probe.lab.mistakes import Mistake, mistake
from probe.lab.openrouter_api import add_routes
from probe.lab.platform_spec import Platform
from probe.lab.routing import settings_for
from probe.lab.signed import refused
from probe.lab.upstream import Upstream, UpstreamError
from probe.lifecycle import Startable

_DEFAULTS: Mapping[str, float] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
"""What a request that does not say is served with, as hosted providers do; llama.cpp itself would filter."""


class LabServer(Startable):
    """One HTTP server for several platforms: ``/<platform>/`` and then the path of the dialect that its front speaks.

    ``upstreams`` are the addresses of the llama.cpp servers by the names that the platforms use, or one that is called
    ``toy``. ``seed`` makes the platforms' draws repeatable. ``clock`` tells the limits what time it is (Unix seconds).
    With ``aws``, secrets by access key id, platforms with the front ``bedrock`` check signatures. Raises ``ValueError``
    for a name that is missing. ``port`` 0 is any free one.
    """

    def __init__(
        self,
        platforms: Sequence[Platform],
        upstreams: str | Mapping[str, str],
        model: str,
        *,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
        aws: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> None:
        self.log = LabLog()
        self.url = ""
        self.platforms = {platform.name: platform for platform in platforms}
        self.model = model
        self.limiter = Limiter(clock)
        self._urls = {"toy": upstreams} if isinstance(upstreams, str) else dict(upstreams)
        for platform in platforms:
            for name in (platform.upstream, platform.paraphraser):
                if name is not None and name not in self._urls:
                    raise ValueError(f"lab platform {platform.name!r}: there is no upstream {name!r}")
        self._aws = aws
        self._port = port
        self._chances = {name: Chances(seed, name) for name in self.platforms}
        self._fingerprints = {
            name: f"fp_{chances.of_platform().of('fingerprint').getrandbits(40):010x}"
            for name, chances in self._chances.items()
        }
        self._actors: dict[str, Actor] = {}
        self._upstreams: dict[str, Upstream] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()

    def start(self) -> str:
        """Start listening; return ``http://127.0.0.1:PORT``."""
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
        app = web.Application(client_max_size=64 * 2**20, middlewares=[self._vendor_listings])
        add_routes(app, self)
        app.router.add_post("/{platform}/{rest:.+}", self._asked)
        app.router.add_route("*", "/{platform}/{rest:.*}", self._lost)
        # A connection each: llama.cpp closes idle ones at the very moment at which they would be used again.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300), connector=connector) as session:
            self._upstreams = {name: Upstream(url, session) for name, url in self._urls.items()}
            self._actors = {
                name: Actor(
                    spec,
                    self._upstreams,
                    self.log,
                    lapse_of(spec.front, self._chances[name].of_platform().of("lapse")),
                    self.limiter,
                )
                for name, spec in self.platforms.items()
            }
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", self._port)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    def _platform(self, request: web.Request) -> Platform:
        platform = self.platforms.get(request.match_info["platform"])
        if platform is None:
            raise web.HTTPNotFound(text=json.dumps({"error": {"message": "no such platform", "code": 404}}))
        return platform

    @web.middleware
    async def _vendor_listings(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer the model lists that have a vendor's own form; everything else goes on."""
        name, _, rest = request.path.removeprefix("/").partition("/")
        if request.method == "GET" and name in self.platforms:
            found = listing(self.platforms[name].front, self.model, rest)
            if found is not None:
                return web.json_response(found)
        return await handler(request)

    async def _lost(self, request: web.Request) -> web.Response:
        return _said(mistake(self._platform(request).front, "path", f"{request.method} {request.path}"))

    async def _asked(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ConnectionResetError:
            return web.Response(status=499)  # the client hung up; nobody reads this

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        platform = self._platform(request)
        place = place_of(request.rel_url.raw_path.split("/", 2)[2])
        if place is None or place.dialect != dialect_of(platform.front):
            return await self._lost(request)
        raw = await request.read()
        started = time.monotonic()
        refusal = self._unsigned(platform, request, raw)
        if refusal is not None:
            return _said(refusal)
        try:
            asked = read_request(place, raw)
        except BadRequestError as error:
            return _said(mistake(platform.front, "body", str(error)))
        if asked.model != self.model:
            return _said(mistake(platform.front, "model", asked.model))
        limited = await self.limiter.refused(platform, request, asked.body)
        if limited is not None:
            return limited
        return await self._act(platform, request, asked, started)

    def _unsigned(self, platform: Platform, request: web.Request, body: bytes) -> Mistake | None:
        if self._aws is None or platform.front != "bedrock":
            return None
        headers = {name.lower(): value for name, value in request.headers.items()}
        return refused(request.method, f"http://{request.host}{request.raw_path}", headers, body, self._aws)

    async def _act(self, platform: Platform, request: web.Request, asked: Asked, started: float) -> web.StreamResponse:
        """Have the platform's actor answer; the limits hold a slot for it."""
        sampling = {**_DEFAULTS, **asked.sampling}
        draws = self._chances[platform.name].of(asked.messages, sampling)
        settings = settings_for(
            platform,
            request.headers,
            asked.body,
            draws,
            fingerprint=self._fingerprints[platform.name],
            include_usage=asked.include_usage,
        )
        answer = Answer(
            request,
            make_front(platform.front, asked.model, settings),
            stream=asked.stream,
            request_id=str(uuid.uuid4()),
            buffered=platform.buffered,
            jitter_s=platform.jitter_s,
            chance=draws.of("jitter"),
            headers=self.limiter.headers_for(platform),
        )
        if platform.front == "ollama-generate" and not asked.raw:
            answer.before_end = partial(self._tell_context, answer, self._upstreams[platform.upstream], asked)
        call = Call(answer.request_id, asked.model, asked.messages, sampling, settings, answer, draws, started)
        try:
            return await self._actors[platform.name].handle(call)
        except UpstreamError as error:
            if dialect_of(platform.front) == "openai-chat":
                return await answer.whole(error.status, error.body.encode())
            said = mistake(platform.front, "upstream", _message(error.body), status=error.status)
            return await answer.whole(said.status, said.body, said.headers)
        except aiohttp.ClientError:
            gone = mistake(platform.front, "upstream", "upstream is not there")
            return await answer.whole(gone.status, gone.body, gone.headers)

    async def _tell_context(self, answer: Answer, upstream: Upstream, asked: Asked, text: str) -> None:
        """Have the front know the tokens of what the client sent, and of the answer to it."""
        if isinstance(answer.front, GenerateFront):
            tokens = await upstream.prompt_tokens(asked.messages, text)
            answer.front.context = [token.id for token in tokens]


def _said(said: Mistake) -> web.Response:
    return web.Response(
        status=said.status, body=said.body, headers={**dict(said.headers), "content-type": "application/json"}
    )


def _message(body: str) -> str:
    """Return the sentence in an error of the local server."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, TypeError, KeyError):
        return body
