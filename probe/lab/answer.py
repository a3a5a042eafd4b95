"""One answer of a lab platform under way to the client."""

import asyncio
import random
from collections.abc import Iterable

from aiohttp import web

from probe.lab.fronts.base import Front
from probe.lab.upstream import Piece


class Answer:
    """One answer in the shape of its ``front``: streamed piece by piece, or collected and sent whole.

    ``buffered`` sends a stream in one write at its end. ``jitter_s`` is the mean delay before the first byte; before
    each further piece of a stream it is a tenth of that.
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
    ) -> None:
        self.front: Front = front
        self.stream = stream
        self._request = request
        self.request_id = request_id
        self._headers = {"x-request-id": request_id}
        self._buffered = buffered
        self._jitter_s = jitter_s
        self._chance = chance or random.Random()
        self._text: list[str] = []
        self._waiting: list[bytes] = []
        self._response: web.StreamResponse | None = None

    async def add(self, text: str) -> None:
        """Send or keep a piece of text; nothing where it is empty."""
        if not text:
            return
        self._text.append(text)
        if self.stream:
            await self._write(self.front.piece(text))

    async def finish(self, last: Piece) -> web.StreamResponse:
        """End the answer as an ordinary one ends."""
        if self.stream:
            return await self.end_with(self.front.end(last), begun=True)
        return await self.whole(200, self.front.whole("".join(self._text), last))

    async def end_with(
        self, data: bytes, headers: Iterable[tuple[str, str]] = (), *, begun: bool = False
    ) -> web.StreamResponse:
        """End a stream with these bytes, whatever they are.

        Where nothing was sent before, ``headers`` go beside the usual ones, and with ``begun`` the stream begins as an
        ordinary one does.
        """
        self._headers |= dict(headers)
        await self._write(data, begin=begun)
        response = await self._flush()
        await response.write_eof()
        return response

    async def whole(self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> web.StreamResponse:
        """Answer with one body, not streamed; after a stream has begun its connection ends instead."""
        if self._response is not None:
            return await self.break_off(b"")
        await self._delay(self._jitter_s)
        kind = self.front.json_type if status == 200 else "application/json"
        return web.Response(status=status, body=body, headers={**self._headers, **dict(headers), "content-type": kind})

    async def break_off(self, whole: bytes) -> web.StreamResponse:
        """End the connection before the answer is whole.

        ``whole`` is the body of an answer that is not streamed: its head and a part up to the text's end are sent.
        """
        if self.stream:
            response = await self._flush()
        else:
            await self._delay(self._jitter_s)
            headers = {**self._headers, "content-type": self.front.json_type}
            response = web.StreamResponse(headers=headers)
            response.content_length = len(whole)
            await response.prepare(self._request)
            await response.write(whole[: len(whole) // 2])
        if self._request.transport is not None:
            self._request.transport.close()
        return response

    async def _write(self, data: bytes, *, begin: bool = True) -> None:
        start = self.front.begin() if begin else b""
        if self._buffered:
            self._waiting += [data] if self._waiting else [start, data]
            return
        if self._response is None:
            response = await self._open()
            if start:
                await response.write(start)
        else:
            await self._delay(self._jitter_s / 10)
        assert self._response is not None
        await self._response.write(data)

    async def _flush(self) -> web.StreamResponse:
        response = self._response or await self._open()
        data, self._waiting = b"".join(self._waiting), []
        if data:
            await response.write(data)
        return response

    async def _open(self) -> web.StreamResponse:
        await self._delay(self._jitter_s)
        response = web.StreamResponse(headers={**self._headers, "content-type": self.front.stream_type})
        self._response = response
        await response.prepare(self._request)
        return response

    async def _delay(self, mean_s: float) -> None:
        if mean_s > 0:
            await asyncio.sleep(self._chance.expovariate(1 / mean_s))
