"""What a lab platform does to one request, deed by deed. Every deed is logged as it really happened."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from aiohttp import web

from probe.judge.rules import grade
from probe.lab.answer import Answer
from probe.lab.chances import Draws
from probe.lab.fronts.base import Framing, FrontSettings, Lapse, Opening, Sent, accent_of
from probe.lab.fronts.catalogue import make_front
from probe.lab.limits import Limiter
from probe.lab.log import Deed, LabEntry, LabLog
from probe.lab.pacing import ENOUGH, Timeline, TimingPool, ticks
from probe.lab.platform_spec import ActionKind, Platform
from probe.lab.seeing import quiet_deed, redacted, seen_by, tell
from probe.lab.shapes import BLOCK_SHAPES, shorten
from probe.lab.upstream import Messages, Piece, Upstream
from probe.lab.writing import Written, deliverable, last_of, write

TRIES = 6
"""Answers that ``refuse_more`` draws at most."""

CUT = (0.2, 0.6)
"""Where an answer is cut, as a share of an ordinary answer's pieces."""

_USUAL = 24
"""Pieces of an ordinary answer, as long as none has been seen."""


@dataclass(frozen=True)
class Call:
    """One request: what the client sent, where its answer goes, and the draws for it.

    ``messages`` are as sent, ``sampling`` under llama.cpp's names. ``started`` is on the monotonic clock.
    """

    request_id: str
    model: str
    messages: Messages
    sampling: Mapping[str, Any]
    settings: FrontSettings
    answer: Answer
    draws: Draws
    started: float

    @property
    def users(self) -> list[str]:
        """What the user wrote."""
        return [str(message.get("content", "")) for message in self.messages if message.get("role") == "user"]

    @property
    def size(self) -> int:
        """Characters of the conversation."""
        return sum(len(str(message.get("content", ""))) for message in self.messages)


@dataclass(frozen=True)
class _Whole:
    """A generated answer with the times of its pieces."""

    pieces: tuple[str, ...]
    last: Piece
    timeline: Timeline | None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Actor:
    """One platform at work, with the timings of its genuine answers."""

    def __init__(
        self,
        platform: Platform,
        upstreams: Mapping[str, Upstream],
        log: LabLog,
        lapse: Lapse,
        limiter: Limiter | None = None,
    ) -> None:
        self.platform = platform
        self.pool = TimingPool()
        self._upstream = upstreams[platform.upstream]
        self._paraphraser = upstreams[platform.paraphraser] if platform.paraphraser is not None else None
        self._log = log
        self._lapse = lapse
        self._limiter = limiter

    async def handle(self, call: Call) -> web.StreamResponse:
        """Answer a request, as the platform does; then the limits hear what it took."""
        try:
            async with call.answer.kept_alive(self.platform.keep_alive_s):
                return await self._act(call)
        finally:
            if self._limiter is not None:
                self._limiter.settle(self.platform, call.answer, call.settings.provider)

    async def _act(self, call: Call) -> web.StreamResponse:
        platform = self.platform
        screen = platform.screen
        acts = screen is not None and screen.matches(call.users, call.draws.of("screen"))
        front = call.answer.front
        if call.answer.stream and isinstance(front, Opening):
            redacts = acts and platform.action == "redaction"
            seen = self._seen(redacted(platform, call.messages) if redacts else call.messages)
            front.prompt_tokens = await self._billed(call, seen)
        if platform.action == "refuse_more":
            return await self._refuse_more(call, acts=acts)
        deeds: Mapping[ActionKind, Callable[[Call], Awaitable[web.StreamResponse]]] = {
            "declared_block": self._block,
            "injected_text": self._inject,
            "output_replaced": self._replace,
            "output_cut": self._cut,
            "redaction": self._redact,
            "flag": self._flag,
        }
        if acts and platform.action is not None:
            return await deeds[platform.action](call)
        return await self._genuine(call, self._seen(call.messages), quiet_deed(self.platform))

    # ── what every answer shares ──

    def _seen(self, messages: Messages) -> Messages:
        return seen_by(self.platform, messages)

    async def _tell(self, call: Call, seen: Messages, *, redacts: bool = False) -> None:
        """Let the front hear what goes upstream."""
        sent = Sent(call.model, call.messages, call.sampling, redacted=redacts)
        await tell(call.answer, self.platform, self._upstream, sent, seen)

    def _note(self, call: Call, deed: Deed, **detail: Any) -> None:
        self._log.add(LabEntry.of(call.request_id, self.platform.name, self.platform.family, deed, **detail))

    def _sampling(self, call: Call) -> Mapping[str, Any]:
        temperature = self.platform.temperature
        return call.sampling if temperature is None else {**call.sampling, "temperature": temperature}

    async def _release(self, call: Call) -> float:
        """Wait as long as all answers of this platform do; return from when on the answer's timing counts."""
        if not self.platform.waits:
            return call.started
        release = max(call.started + self.platform.hold_s, time.monotonic())
        await asyncio.sleep(release - time.monotonic())
        return release

    def _billed(self, call: Call, seen: Messages) -> "asyncio.Task[int]":
        """Count the prompt that is billed, meanwhile."""
        return asyncio.create_task(self._upstream.count_prompt(seen if self.platform.counts_hidden else call.messages))

    def _arrived(self, call: Call, start: float, arrivals: Sequence[float], last: Piece) -> Timeline | None:
        """Return the timeline of a generation; none where it had no text."""
        if not arrivals:
            return None
        timings = dict(last.timings or {})
        return Timeline.measured(call.size, start, arrivals, last.at, last.finish_reason or "stop", timings)

    # ── deeds ──

    async def _genuine(self, call: Call, seen: Messages, deed: Deed) -> web.StreamResponse:
        """Pass on what the model writes, piece by piece; where it is told to, the host fails before the end."""
        chance = call.draws.of("fault")
        fails_at = chance.randint(1, _USUAL) if chance.random() < self.platform.stream_fault else 0
        self._note(call, deed, **({"fault": fails_at} if fails_at else {}))
        await self._tell(call, seen, redacts=deed == "redaction")
        rebilled = None if self.platform.counts_hidden or seen == call.messages else self._billed(call, seen)
        start = await self._release(call)
        arrivals: list[float] = []
        last = Piece("", "stop")
        async with aclosing(self._upstream.generate(seen, self._sampling(call))) as pieces:
            async for piece in pieces:
                if piece.usage is not None:
                    last = piece
                elif fails_at and len(arrivals) == fails_at:
                    return await call.answer.fail(502, "Provider returned error")
                else:
                    arrivals.append(piece.at)
                    await call.answer.add(piece.text)
        timeline = self._arrived(call, start, arrivals, last)
        if timeline is not None:
            self.pool.add(timeline)
        if rebilled is not None:
            last = replace(last, usage={**(last.usage or {}), "prompt_tokens": await rebilled})
        return await call.answer.finish(last)

    async def _redact(self, call: Call) -> web.StreamResponse:
        """Blot the screen's words out of what the user wrote; the model answers."""
        seen = self._seen(redacted(self.platform, call.messages))
        return await self._genuine(call, seen, "redaction")

    async def _flag(self, call: Call) -> web.StreamResponse:
        """Say that a check failed, in the way of the front, and pass the request on all the same."""
        call.answer.front = make_front(self.platform.front, call.model, replace(call.settings, flagged=True))
        return await self._genuine(call, self._seen(call.messages), quiet_deed(self.platform))

    async def _block(self, call: Call) -> web.StreamResponse:
        """Answer a declared block in a provider's shape, after some of the answer where that is the provider's way."""
        shape = BLOCK_SHAPES[self.platform.block]
        stream = call.answer.stream
        self._note(call, "declared_block", shape=shape.name, mechanism=shape.mechanism_of(stream=stream))
        seen = self._seen(call.messages)
        values: dict[str, Any] = {
            "model": call.model,
            "id": call.answer.front.id,
            "created": call.answer.front.created,
            "flagged": shorten(call.users[-1] if call.users else ""),
            "prompt_tokens": await self._billed(call, seen) if shape.needs_count else 0,
        }
        values["total_tokens"] = values["prompt_tokens"]
        sent: Sequence[str] = ()
        if stream and shape.streams == "cut":
            sent, _ = await self._some(call, seen, self._length(call))
        elif not stream and shape.needs_text:
            sent = (await self._generated(call, seen, call.started)).pieces[: self._length(call)]
        values |= {"text": "".join(sent), "completion_tokens": len(sent)}
        values["total_tokens"] += len(sent)
        if not stream or shape.streams == "same":
            body = accent_of(call.answer.front).blocked(shape.fill(values))
            return await call.answer.whole(shape.status, body, shape.headers)
        front = call.answer.front
        events = shape.fill_events(values, front.frame if isinstance(front, Framing) else None)
        return await call.answer.end_with(events, shape.headers)

    async def _inject(self, call: Call) -> web.StreamResponse:
        """Answer a text of the platform's; the model is not asked, but for the timing while the pool is small."""
        written = await self._written(call)
        self._note(call, "injected_text", **written.detail)
        if self.platform.envelope == "sloppy":
            call.answer.front = make_front(self.platform.front, call.model, replace(call.settings, lapse=self._lapse))
            await call.answer.add(written.text)
            return await call.answer.finish(Piece("", "stop"))
        if self.platform.pacing == "shadow" or len(self.pool) < ENOUGH:
            return await self._shadow(call, written)
        await self._tell(call, self._seen(call.messages))
        pieces, finish = await deliverable(self._upstream, written.text, call.sampling.get("max_tokens"))
        billed = self._billed(call, self._seen(call.messages))
        start = await self._release(call)
        timeline = self.pool.draw(call.draws.of("timing"), call.size, finish, max(1, len(pieces)))
        await self._play(call, pieces, timeline, start)
        return await call.answer.finish(await last_of(pieces, finish, billed, timeline.timings))

    async def _replace(self, call: Call) -> web.StreamResponse:
        """Have the model write, and deliver a text of the platform's in its place."""
        written = await self._written(call)
        self._note(call, "output_replaced", **written.detail)
        if self.platform.envelope == "matched":
            return await self._shadow(call, written)
        await self._tell(call, self._seen(call.messages))
        whole = await self._generated(call, self._seen(call.messages), call.started)
        await call.answer.add(written.text)
        return await call.answer.finish(replace(whole.last, finish_reason="stop"))

    async def _cut(self, call: Call) -> web.StreamResponse:
        """End the model's answer early. One that has ended before that is whole, and nothing was done to it."""
        seen = self._seen(call.messages)
        hides = not self.platform.counts_hidden and seen != call.messages
        billed = self._billed(call, seen) if hides else None
        sent, last = await self._some(call, seen, self._length(call))
        if last is not None and last.usage is not None:
            if billed is not None:
                last = replace(last, usage={**last.usage, "prompt_tokens": await billed})
            self._note(call, quiet_deed(self.platform))
            return await call.answer.finish(last)
        self._note(call, "cut_stream", pieces=len(sent))
        timings = (last.timings if last is not None else None) or {}
        counted = int(timings.get("cache_n", 0) + timings.get("prompt_n", 0))
        end = await last_of(sent, "stop", billed or counted, timings)
        if self.platform.envelope == "matched":
            return await call.answer.finish(end)
        return await call.answer.break_off(call.answer.front.whole("".join(sent), end))

    async def _refuse_more(self, call: Call, *, acts: bool) -> web.StreamResponse:
        """Draw the model's answer anew until it refuses; all answers of the platform are held back alike."""
        seen = self._seen(call.messages)
        await self._tell(call, seen)
        release = call.started + self.platform.hold_s
        whole = await self._generated(call, seen, time.monotonic())
        tries, refused = 1, grade(whole.text).outcome == "refused"
        while acts and not refused and tries < TRIES:
            try:
                async with asyncio.timeout(max(0.0, release - time.monotonic())):
                    whole = await self._generated(call, seen, time.monotonic())
            except TimeoutError:
                break
            tries, refused = tries + 1, grade(whole.text).outcome == "refused"
        if acts:
            self._note(call, "refuse_more", tries=tries, refused=refused)
        else:
            self._note(call, quiet_deed(self.platform))
        start = await self._release(call)
        if whole.timeline is not None:
            await self._play(call, whole.pieces, whole.timeline, start)
        return await call.answer.finish(whole.last)

    # ── parts of deeds ──

    async def _written(self, call: Call) -> Written:
        deadline = call.started + self.platform.hold_s if self.platform.waits else None
        return await write(
            self.platform, self._paraphraser, call.messages, self._sampling(call), call.draws, deadline=deadline
        )

    def _length(self, call: Call) -> int:
        """Draw how many pieces are delivered before a cut."""
        chance = call.draws.of("cut")
        usual = chance.choice(self.pool.lengths() or [_USUAL])
        return max(1, round(chance.uniform(*CUT) * usual))

    async def _some(self, call: Call, seen: Messages, wanted: int) -> tuple[list[str], Piece | None]:
        """Deliver ``wanted`` pieces of the model's answer; return them, and what came next but was not delivered.

        That is the end of the answer, with its usage, where it ended of itself.
        """
        await self._tell(call, seen)
        await self._release(call)
        sent: list[str] = []
        async with aclosing(self._upstream.generate(seen, self._sampling(call))) as pieces:
            async for piece in pieces:
                if piece.usage is not None:
                    return sent, piece
                if len(sent) == wanted:
                    return sent, piece
                sent.append(piece.text)
                await call.answer.add(piece.text)
        return sent, None

    async def _generated(self, call: Call, seen: Messages, start: float) -> _Whole:
        """Return a whole answer of the model, not delivered."""
        texts: list[str] = []
        arrivals: list[float] = []
        last = Piece("", "stop")
        async with aclosing(self._upstream.generate(seen, self._sampling(call))) as pieces:
            async for piece in pieces:
                if piece.usage is not None:
                    last = piece
                else:
                    texts.append(piece.text)
                    arrivals.append(piece.at)
        return _Whole(tuple(texts), last, self._arrived(call, start, arrivals, last))

    async def _play(self, call: Call, pieces: Sequence[str], timeline: Timeline, start: float) -> None:
        """Deliver pieces at the times of a timeline; return when the end is due."""
        delivered = iter(pieces)
        async with aclosing(ticks(timeline.dues(start), early_s=self.pool.late_s)) as moments:
            async for due in moments:
                self.pool.learn(time.monotonic() - due)
                await call.answer.add(next(delivered, ""))

    async def _shadow(self, call: Call, written: Written) -> web.StreamResponse:
        """Deliver a text at the pace of an answer that the model writes meanwhile and nobody sees."""
        pieces, finish = await deliverable(self._upstream, written.text, call.sampling.get("max_tokens"))
        seen = self._seen(call.messages)
        hides = not self.platform.counts_hidden and seen != call.messages
        billed = self._billed(call, seen) if hides else None
        await self._tell(call, seen)
        await self._release(call)
        arrivals: list[float] = []
        timings: Mapping[str, Any] = {}
        async with aclosing(self._upstream.generate(seen, self._sampling(call))) as shadow:
            async for piece in shadow:
                timings = piece.timings or timings
                arrivals.append(piece.at)
                if len(arrivals) > len(pieces):
                    break
                await call.answer.add(pieces[len(arrivals) - 1])
        missing = len(pieces) + 1 - len(arrivals)
        if missing > 0:
            timings = await self._go_on(call, pieces[len(arrivals) :], arrivals, timings)
        # Nothing more is asked of the upstream than by a genuine answer: under load that would show.
        counted = int(timings.get("cache_n", 0) + timings.get("prompt_n", 0))
        return await call.answer.finish(await last_of(pieces, finish, billed or counted, timings))

    async def _go_on(
        self, call: Call, pieces: Sequence[str], arrivals: Sequence[float], timings: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Deliver what is left of a text at the pace of other answers, or of the one that has just ended."""
        begun = tuple(later - earlier for earlier, later in pairwise(arrivals))
        wanted = len(begun) + len(pieces) + 1
        pool = self.pool
        if not any(length > 1 for length in pool.lengths()):
            pool = TimingPool()
            pool.add(Timeline(0, "stop", 0.0, begun or (0.0,), 0.0))
        gaps = pool.gaps(call.draws.of("timing"), wanted, begun)[len(begun) :]
        start = arrivals[-1] if arrivals else time.monotonic()
        await self._play(
            call, pieces, Timeline(0, "stop", gaps[0], gaps[1:-1], gaps[-1] if len(gaps) > 1 else 0.0), start
        )
        return {**timings, "predicted_ms": timings.get("predicted_ms", 0.0) + 1000 * sum(gaps)}
