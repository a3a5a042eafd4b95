"""The texts that a lab platform writes in the model's place."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from probe.judge.rules import grade
from probe.lab.chances import Draws
from probe.lab.platform_spec import SUBJECT, Platform
from probe.lab.upstream import Messages, Piece, Upstream

PARAPHRASES = 8
"""Answers that are asked of the paraphraser at most until one refuses."""

_SPLIT_S = 0.02
"""Seconds before its delivery at which a paraphrase must stand: it is still to be cut into tokens."""


@dataclass(frozen=True)
class Written:
    """A text, and how it came about (for the log)."""

    text: str
    detail: dict[str, Any] = field(default_factory=dict)


async def write(
    platform: Platform,
    paraphraser: Upstream | None,
    messages: Messages,
    sampling: Mapping[str, Any],
    draws: Draws,
    *,
    deadline: float | None,
) -> Written:
    """Return the platform's text for a conversation, as its ``writer`` makes it.

    A paraphrase that is not there at ``deadline`` (monotonic seconds) is not waited for.
    """
    text = draws.of("text").choice(platform.texts)
    if platform.writer == "model":
        assert paraphraser is not None
        found = await _paraphrase(paraphraser, messages, sampling, deadline)
        if found is not None:
            return found
    elif platform.writer == "template":
        users = [str(message.get("content", "")) for message in messages if message.get("role") == "user"]
        subject = (platform.screen.find(users) if platform.screen else None) or subject_of(users[-1] if users else "")
        return Written(text.replace(SUBJECT, subject), {"writer": "template", "template": text, "subject": subject})
    return Written(text, {"writer": "texts"})


def subject_of(text: str) -> str:
    """Return the last words of a request: where no word is screened for, these are what it is about."""
    return " ".join(re.findall(r"[\w'-]+", text)[-2:]) or "that"


async def deliverable(upstream: Upstream, text: str, limit: object) -> tuple[tuple[str, ...], str]:
    """Return the pieces of a text, one per token, and the finish reason: no answer is longer than was asked for."""
    pieces = await upstream.split(text)
    if isinstance(limit, int) and 0 < limit <= len(pieces):
        return pieces[:limit], "length"
    return pieces, "stop"


async def last_of(
    pieces: Sequence[str], finish: str, billed: "asyncio.Task[int] | int", timings: Mapping[str, Any]
) -> Piece:
    """Return the end of an answer with these pieces, billed as the model's own: the end token counts too."""
    prompt = billed if isinstance(billed, int) else await billed
    usage = {"prompt_tokens": prompt, "completion_tokens": len(pieces) + (finish == "stop")}
    return Piece("", finish, usage, timings)


async def _paraphrase(
    paraphraser: Upstream, messages: Messages, sampling: Mapping[str, Any], deadline: float | None
) -> Written | None:
    left = None if deadline is None else max(0.0, deadline - _SPLIT_S - time.monotonic())
    try:
        async with asyncio.timeout(left):
            for tries in range(1, PARAPHRASES + 1):
                async with aclosing(paraphraser.generate(messages, sampling)) as pieces:
                    text = "".join([piece.text async for piece in pieces])
                if grade(text).outcome == "refused":
                    return Written(text, {"writer": "model", "tries": tries})
    except TimeoutError:
        pass
    return None
