"""One answer of a lab platform under way to the client."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from probe.lab.fronts.base import Front, accent_of, headers_of
from probe.lab.upstream import Piece, Token


class Answer:
    """One answer in the shape of its ``front``: streamed piece by piece, or collected and sent whole.

    ``buffered`` sends a stream in one write at its end. ``jitter_s`` is the mean delay before the first byte; before
    each further piece of a stream it is a tenth of that. ``before_end`` is awaited with the whole text before an
    answer ends as an ordinary one does.
    """

    def __init__(
        self,
        request: web.Request,
        front: Front,
        *,
        stream: bool,
        request_id: str,
        buffered: bool = False,
        jitter_s: float = 0.0,
        chance: random.Random | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.front: Front = front
        self.stream = stream
        self._request = request
        self.request_id = request_id
        self._headers = {**(headers or {}), "x-request-id": request_id}
        self.before_end: Callable[[str], Awaitable[None]] | None = None
        self._buffered = buffered
        self._jitter_s = jitter_s
        self._chance = chance or random.Random()
        self._text: list[str] = []
        self._waiting: list[bytes] = []
        self._response: web.StreamResponse | None = None
        self._opening = asyncio.Lock()
        self._begun = False
        self.spell: Callable[[str], Awaitable[Sequence[Token]]] | None = None
        self.last: Piece | None = None

    @property
    def head(self) -> dict[str, str]:
        """The headers of the answer, those of its front among them, as they are by now."""
        return {**headers_of(self.front), **self._headers}

    @asynccontextmanager
    async def kept_alive(self, every_s: float) -> AsyncIterator[None]:
        """Send the front's keep-alive every so many seconds, until the stream begins; never where that is 0."""
        comment = accent_of(self.front).keep_alive
        if not (self.stream and comment and every_s > 0):
            yield
            return
        keeper = asyncio.create_task(self._keep_alive(comment, every_s))
        try:
            yield
        finally:
            keeper.cancel()

    async def _keep_alive(self, comment: bytes, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            async with self._opening:
                if self._begun:
                    return
                response = self._response or await self._open(delay=False)
                await response.write(comment)

    async def add(self, text: str) -> None:
        """Send or keep a piece of text; nothing where it is empty."""
        if not text:
            return
        self._text.append(text)
        if not self.stream:
            return
        if self.spell is not None:
            accent_of(self.front).spelled(await self.spell(text))
        await self._write(self.front.piece(text))

    async def finish(self, last: Piece) -> web.StreamResponse:
        """End the answer as an ordinary one ends."""
        if self.before_end is not None:
            await self.before_end("".join(self._text))
        self.last = last
        if self.stream:
            return await self.end_with(self.front.end(last), begun=True)
        text, accent = "".join(self._text), accent_of(self.front)
        if self.spell is not None:
            accent.spelled(await self.spell(text))
        return await self.whole(accent.status, self.front.whole(text, last))

    async def fail(self, code: int, message: str) -> web.StreamResponse:
        """End the answer with an error of the host's, as the front reports it; a stream may just end."""
        accent = accent_of(self.front)
        text = "".join(self._text)
        if not self.stream:
            return await self.whole(*accent.failed(code, message, text))
        error = accent.broken(code, message)
        return await (self.end_with(accent.rest() + error, begun=True) if error else self.break_off(b""))

    async def end_with(
        self, data: bytes, headers: Iterable[tuple[str, str]] = (), *, begun: bool = False
    ) -> web.StreamResponse:
        """End a stream with these bytes, whatever they are.

        Where nothing was sent before, ``headers`` go beside the usual ones, and with ``begun`` the stream begins as an
        ordinary one does.
        """
        self._headers |= dict(headers)
        held = b"" if begun else accent_of(self.front).rest()
        await self._write(held + data, begin=begun)
        response = await self._flush()
        await response.write_eof()
        return response

    async def whole(self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> web.StreamResponse:
        """Answer with one body, not streamed; after a stream has begun its connection ends instead."""
        if self._response is not None:
            async with self._opening:
                self._begun = True
            broken = accent_of(self.front).late(status, body)
            return await (self.end_with(broken, begun=True) if broken else self.break_off(b""))
        await self._delay(self._jitter_s)
        kind = self.front.json_type if status == accent_of(self.front).status else "application/json"
        return web.Response(status=status, body=body, headers={**self.head, **dict(headers), "content-type": kind})

    async def break_off(self, whole: bytes) -> web.StreamResponse:
        """End the connection before the answer is whole.

        ``whole`` is the body of an answer that is not streamed: its head and a part up to the text's end are sent.
        """
        if self.stream:
            response = await self._flush()
        else:
            await self._delay(self._jitter_s)
            headers = {**self.head, "content-type": self.front.json_type}
            response = web.StreamResponse(headers=headers)
            response.content_length = len(whole)
            await response.prepare(self._request)
            await response.write(whole[: len(whole) // 2])
        if self._request.transport is not None:
            self._request.transport.close()
        return response

    async def _write(self, data: bytes, *, begin: bool = True) -> None:
        if self._buffered:
            self._waiting += [data] if self._waiting else [self.front.begin() if begin else b"", data]
            return
        async with self._opening:
            start = self.front.begin() if begin and not self._begun else b""
            if self._response is None:
                await self._open()
            elif self._begun:
                await self._delay(self._jitter_s / 10)
            self._begun = True
            assert self._response is not None
            for part in (start, data):
                if part:
                    await self._response.write(part)

    async def _flush(self) -> web.StreamResponse:
        async with self._opening:
            self._begun = True
            response = self._response or await self._open()
            data, self._waiting = b"".join(self._waiting), []
            if data:
                await response.write(data)
        return response

    async def _open(self, *, delay: bool = True) -> web.StreamResponse:
        """Send the head of a stream; the lock is held."""
        if delay:
            await self._delay(self._jitter_s)
        response = web.StreamResponse(
            status=accent_of(self.front).status, headers={**self.head, "content-type": self.front.stream_type}
        )
        self._response = response
        await response.prepare(self._request)
        return response

    async def _delay(self, mean_s: float) -> None:
        if mean_s > 0:
            await asyncio.sleep(self._chance.expovariate(1 / mean_s))
