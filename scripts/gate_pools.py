"""Answers of routes of known truth to many benign prompts, scored under the twin: what ``simulate-gate`` draws from.

Every route is a real llama.cpp server with embedded weights; what a platform would do to prompt or sampler is done the
same way here, without a proxy in between. Each prompt is answered several times at temperature 1 and once at 0.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from weights.corpus import POLICIES, Corpus

from probe.evidence.case import Case
from probe.lab.seeing import with_a_space
from probe.resources import data_folder
from probe.scoring.base import TextScore, TokenScore
from probe.scoring.llamacpp import LlamaCppScorer
from probe.serve.llamacpp import LlamaCppServer
from probe.traces.pack import find_pack, read_pack
from probe.traces.values import Message
from probe.wire.values import Reading, Usage

SLOTS = 4
TOP = 64
SAMPLING = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "max_tokens": 96,
}
HIDDEN = "You are a helpful assistant of the guild. Follow the safety policy: decline requests that could cause harm."


@dataclass(frozen=True)
class Source:
    """A route to draw from: weights, answers per prompt at temperature 1, and what is done to the request."""

    weights: str
    repeats: int
    hidden: str | None = None
    temperature: float | None = None
    space: bool = False

    def seen(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        """Return the conversation as the model sees it."""
        if self.hidden is not None:
            messages = [{"role": "system", "content": self.hidden}, *messages]
        return with_a_space(messages) if self.space else messages


SOURCES = {
    "twin": Source("toy", 4),
    "identical": Source("toy", 12),
    "8-bit": Source("toy-q8_0", 3),
    "4-bit": Source("toy-q4_0", 3),
    "other weights": Source("other", 3),
    "hidden prompt": Source("toy", 3, hidden=HIDDEN),
    "temperature 0.7": Source("toy", 3, temperature=0.7),
    "extra space": Source("toy", 3, space=True),
}


def benign_prompts(count: int, seed: int) -> list[list[dict[str, str]]]:
    """Return the controls of the pack, and further benign prompts of the same grammar."""
    controls = [t for t in read_pack(find_pack("fictional"))[1] if t.control]
    found = {tuple((m.role, m.content) for m in trace.messages): None for trace in controls}
    corpus = Corpus(POLICIES["toy"], 1000 + seed)
    while len(found) < count:
        found.setdefault(corpus.control("none", None).prompt)
    return [[{"role": role, "content": content} for role, content in prompt] for prompt in list(found)[:count]]


async def _written(
    url: str, source: Source, prompts: Sequence[list[dict[str, str]]], seed: int
) -> list[dict[str, Any]]:
    limit = asyncio.Semaphore(SLOTS)
    async with aiohttp.ClientSession() as session:

        async def one(place: int, number: int, asked: float) -> dict[str, Any]:
            heat = asked if source.temperature is None else source.temperature
            draw = (seed * 1_000_003 + place * 1009 + number * 2 + (asked > 0)) % 2**31
            body = {**SAMPLING, "temperature": heat, "seed": draw, "messages": source.seen(prompts[place])}
            async with limit, session.post(f"{url}/v1/chat/completions", json=body) as response:
                answer = await response.json()
            choice = answer["choices"][0]
            return {
                "prompt": place,
                "asked": asked,
                "text": choice["message"]["content"] or "",
                "finish": choice["finish_reason"],
                "billed": answer["usage"]["prompt_tokens"],
                "written": answer["usage"]["completion_tokens"],
            }

        cold = source.repeats if source.temperature is not None else 1
        jobs = [
            (p, n, t) for p in range(len(prompts)) for t, k in ((1.0, source.repeats), (0.0, cold)) for n in range(k)
        ]
        return list(await asyncio.gather(*(one(*job) for job in jobs)))


async def _scored(
    url: str, prompts: Sequence[list[dict[str, str]]], answers: Sequence[dict[str, Any]]
) -> list[TextScore | None]:
    scorer = LlamaCppScorer(url, weights="toy", top=TOP, concurrency=SLOTS)
    await scorer.open()
    ids = [await scorer.prompt_ids([Message(m["role"], m["content"]) for m in prompt]) for prompt in prompts]
    known: dict[tuple[int, str], asyncio.Task[TextScore]] = {}

    async def score(place: int, text: str) -> TextScore:
        return await scorer.score(ids[place], await scorer.text_ids(text))

    for answer in answers:
        answer["sent"] = len(ids[answer["prompt"]])
        key = (answer["prompt"], answer["text"])
        if answer["text"] and key not in known:
            known[key] = asyncio.create_task(score(*key))
    done = dict(zip(known, await asyncio.gather(*known.values()), strict=True))
    await scorer.aclose()
    return [done.get((answer["prompt"], answer["text"])) for answer in answers]


def serve(weights: str) -> LlamaCppServer:
    path = data_folder("backends") / "toy" / f"{weights}.gguf"
    return LlamaCppServer(path, model_id=weights, parallel=SLOTS, threads=1)


def generate(folder: Path, prompts: int, seed: int, sources: dict[str, Source]) -> None:
    """Write one file of answers and one of scores per source; what is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = benign_prompts(prompts, seed)
    (folder / "prompts.json").write_text(json.dumps(asked), encoding="utf-8")
    for number, (name, source) in enumerate(sources.items()):
        path = folder / f"{name.replace(' ', '-')}.npz"
        if path.is_file():
            continue
        with serve(source.weights) as server:
            assert server.info is not None
            answers = asyncio.run(_written(server.info.url, source, asked, seed * 100 + number))
        with serve("toy") as server:
            assert server.info is not None
            scores = asyncio.run(_scored(server.info.url, asked, answers))
        _save(path, answers, scores)
        print(f"{name}: {len(answers)} answers", file=sys.stderr, flush=True)


def _save(path: Path, answers: list[dict[str, Any]], scores: Sequence[TextScore | None]) -> None:
    tokens = [token for score in scores if score is not None for token in score.tokens]
    lengths = [len(score.tokens) if score is not None else -1 for score in scores]
    top = np.array([token.top for token in tokens])
    numbers = np.array([(token.token_id, token.logprob, token.rank or 0) for token in tokens])
    vocabulary = next(score.vocabulary for score in scores if score is not None)
    np.savez_compressed(path, answers=json.dumps(answers), lengths=lengths, top=top, numbers=numbers, v=vocabulary)


class Pool:
    """The answers of one source, as cases; built only when drawn."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as data:
            self.answers: list[dict[str, Any]] = json.loads(str(data["answers"]))
            self._lengths = data["lengths"]
            self._top, self._numbers, self._vocabulary = data["top"], data["numbers"], int(data["v"])
        self._starts = np.concatenate([[0], np.cumsum(np.maximum(self._lengths, 0))])
        self._known: dict[tuple[int, str, bool], Case] = {}
        self.places: dict[tuple[int, float], list[int]] = {}
        for index, answer in enumerate(self.answers):
            self.places.setdefault((answer["prompt"], answer["asked"]), []).append(index)

    def case(self, index: int, name: str, *, counts: bool = True) -> Case:
        """Return one answer as a case; ``counts``: whether the route reports tokens."""
        key = (index, name, counts)
        if key not in self._known:
            self._known[key] = self._made(index, name, counts=counts)
        return self._known[key]

    def _score(self, index: int) -> TextScore | None:
        if self._lengths[index] <= 0:
            return None
        rows = slice(int(self._starts[index]), int(self._starts[index] + self._lengths[index]))
        tokens = zip(self._numbers[rows], self._top[rows].tolist(), strict=True)
        scores = (TokenScore(int(own[0]), float(own[1]), tuple(top), int(own[2]) or None) for own, top in tokens)
        return TextScore(tuple(scores), self._vocabulary)

    def _made(self, index: int, name: str, *, counts: bool) -> Case:
        answer, score = self.answers[index], self._score(index)
        usage = Usage(answer["billed"] if counts else None, answer["written"] if counts else None)
        return Case(
            exchange_id=f"{name}-{index}",
            trace_id=f"p{answer['prompt']}",
            control=True,
            outcome="complied",
            reading=Reading("answer", text=answer["text"], finish_reason=answer["finish"], usage=usage),
            sampling={**SAMPLING, "temperature": answer["asked"]},
            prompt_tokens=answer["sent"],
            text_tokens=max(int(self._lengths[index]), 0),
            score=score,
            unscored="" if score is not None else "there is no text",
        )
