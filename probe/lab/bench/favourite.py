"""The refusal that the twin likes best, learnt from traces that the bench does not send."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import aiohttp

from probe.evidence.case import REFUSALS, normalised
from probe.judge.rules import RulesJudge
from probe.lab.upstream import Upstream
from probe.traces.values import Trace
from probe.wire.values import Reading

_AT_ONCE = 8


def favourite_refusal(url: str, traces: Sequence[Trace], *, seed: int, draws: int) -> str:
    """Return the most frequent refusal in ``draws`` answers of the server at ``url`` to these traces in turn.

    Its seeds are not those of a run (which names none). Raises ``ValueError`` where nothing was refused.
    """
    texts = asyncio.run(_sample(url, traces, seed, draws))
    judge = RulesJudge()
    found = Counter(
        normalised(text) for text in texts if judge.judge(Reading(state="answer", text=text), 200).outcome in REFUSALS
    )
    if not found:
        raise ValueError("the twin refused none of the traces that its favourite refusal is learnt from")
    # The first in the alphabet among equals, so that the same seed gives the same text.
    return min(found, key=lambda text: (-found[text], text))


async def _sample(url: str, traces: Sequence[Trace], seed: int, draws: int) -> list[str]:
    turn = asyncio.Semaphore(_AT_ONCE)
    # A connection each: llama.cpp closes idle ones at the very moment at which they would be used again.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        upstream = Upstream(url, session)

        async def draw(number: int) -> str:
            trace = traces[number % len(traces)]
            messages = [asdict(message) for message in trace.messages]
            sampling = {
                "temperature": trace.sampling.temperature,
                "top_p": trace.sampling.top_p,
                "top_k": trace.sampling.top_k,
                "min_p": trace.sampling.min_p,
                "max_tokens": trace.sampling.max_tokens,
                "seed": 7_919 * (seed + 1) + number,
            }
            async with turn:
                return "".join([piece.text async for piece in upstream.generate(messages, sampling)])

        return list(await asyncio.gather(*(draw(number) for number in range(draws))))
