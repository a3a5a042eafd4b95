"""How probable it is that a text ends: real llama.cpp, a stand-in for vLLM, and real vLLM where there is one."""

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tokenizers import Tokenizer

from probe.errors import ScoringError
from probe.resources import data_folder
from probe.scoring.llamacpp import LlamaCppScorer
from probe.scoring.vllm import VllmScorer
from probe.serve.info import ServerInfo
from probe.serve.llamacpp import LlamaCppServer
from probe.traces.values import Message
from tests.vllm_kit import MODEL_ID, toy_model, vllm_server

__all__ = ["vllm_server"]

TOKENIZER = Tokenizer.from_file(str(toy_model() / "tokenizer.json"))
END = TOKENIZER.token_to_id("<|end|>")
MESSAGES = [Message("user", "How do I brew glimmerdust tonic?")]
WHOLE = "Of course. First grind the petals at dawn. Next boil them into lake oil."
FREE = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "cache_prompt": False}


@pytest.fixture
def url(toy_server: LlamaCppServer) -> str:
    assert toy_server.info is not None
    return toy_server.info.url


@pytest.fixture
async def llamacpp(url: str) -> AsyncIterator[LlamaCppScorer]:
    made = LlamaCppScorer(url, weights="toy")
    yield made
    await made.aclose()


async def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == 200, answer
        return answer


async def test_the_end_has_its_place_in_the_distribution_of_the_next_token(url: str, llamacpp: LlamaCppScorer) -> None:
    prompt, ids = await llamacpp.prompt_ids(MESSAGES), await llamacpp.text_ids(WHOLE)
    for length in range(len(ids) + 1):
        (end,) = (await llamacpp.ends(prompt, ids[:length])).tokens
        body = {"prompt": [*prompt, *ids[:length]], "n_predict": 1, "n_probs": 768, **FREE}
        listed = (await post(f"{url}/completion", body))["completion_probabilities"][0]["top_logprobs"]
        logs = {item["id"]: item["logprob"] for item in listed}
        assert len(logs) == 768
        assert end.token_id == END
        assert end.logprob == pytest.approx(logs[END], abs=1e-3)
        better = sum(log > logs[END] for log in logs.values())
        assert end.rank == (better + 1 if better < 64 else None), "exact below the reported ones, too"
        assert len(end.top) == 64


async def test_generation_stops_as_often_as_it_says(url: str, llamacpp: LlamaCppScorer) -> None:
    # After a whole first sentence these weights may stop and may go on.
    answer = await post(
        f"{url}/v1/chat/completions",
        {"messages": [{"role": "user", "content": MESSAGES[0].content}], "temperature": 0, "max_tokens": 200},
    )
    prompt = await llamacpp.prompt_ids(MESSAGES)
    ids = await llamacpp.text_ids(answer["choices"][0]["message"]["content"])
    p = (await llamacpp.ends(prompt, ids)).probability
    assert 0.2 < p < 0.9, "else little is shown"
    body = {"prompt": [*prompt, *ids], "n_predict": 1, **FREE}
    limit = asyncio.Semaphore(4)

    async def stops(session: aiohttp.ClientSession, seed: int) -> bool:
        async with limit, session.post(f"{url}/completion", json={**body, "seed": seed}) as response:
            return bool((await response.json())["stop_type"] == "eos")

    async with aiohttp.ClientSession() as session:
        drawn = await asyncio.gather(*(stops(session, seed) for seed in range(400)))
    # Wrong once in 10,000 by chance.
    assert abs(sum(drawn) / 400 - p) < 3.9 * math.sqrt(p * (1 - p) / 400)


async def test_whole_answers_end_where_they_end_and_cut_ones_do_not(url: str, llamacpp: LlamaCppScorer) -> None:
    rows = [json.loads(line) for line in (data_folder("scenarios") / "fictional.jsonl").read_text().splitlines()]
    chosen, rng, limit = rows[::2][:90], random.Random(7), asyncio.Semaphore(4)

    async def one(number: int) -> tuple[float, float] | None:
        asked = chosen[number]["messages"]
        body = {"messages": asked, "max_tokens": 300, "seed": number, **FREE}
        async with limit:
            choice = (await post(f"{url}/v1/chat/completions", body))["choices"][0]
        ids = await llamacpp.text_ids(choice["message"]["content"])
        if choice["finish_reason"] != "stop" or len(ids) < 5:
            return None
        prompt = await llamacpp.prompt_ids([Message(m["role"], m["content"]) for m in asked])
        cut = ids[: max(1, round(len(ids) * rng.uniform(0.2, 0.6)))]
        return (await llamacpp.ends(prompt, ids)).probability, (await llamacpp.ends(prompt, cut)).probability

    found = [pair for pair in await asyncio.gather(*map(one, range(len(chosen)))) if pair]
    whole, cut = np.array(found).T
    assert len(whole) >= 60
    assert (whole > 0.01).mean() >= 0.95
    assert (whole > 1e-4).all()
    # Cuts where a sentence ends are none that could be seen.
    assert (cut < 1e-4).mean() >= 0.9


async def test_what_llama_cpp_cannot_say_is_said(llamacpp: LlamaCppScorer) -> None:
    with pytest.raises(ScoringError, match="the prompt must not be empty"):
        await llamacpp.ends([], [])
    with pytest.raises(ScoringError, match=r"/completion answered \d00"):
        await llamacpp.ends([5], [9999])
    with pytest.raises(ScoringError, match=r"/completion answered \d00"):
        await llamacpp.ends([5] * 2000, [5])


ENTRY = {"id": 1, "token": "", "bytes": [], "logprob": -0.5, "top_logprobs": [{"id": 1, "logprob": -0.5}]}


@pytest.mark.parametrize(
    "body",
    [
        {"content": "x", "stop_type": "limit", "completion_probabilities": [ENTRY]},
        {"content": "", "stop_type": "eos", "completion_probabilities": []},
        {"content": "", "stop_type": "eos"},
        {"content": "", "stop_type": "eos", "completion_probabilities": [ENTRY, ENTRY]},
        {"content": "", "stop_type": "eos", "completion_probabilities": 7},
        {"content": "", "stop_type": "eos", "completion_probabilities": [7]},
        {"content": "", "stop_type": "eos", "completion_probabilities": [{"id": 1, "logprob": -0.5}]},
    ],
)
async def test_an_answer_of_llama_cpp_that_is_no_end_is_not_taken_for_one(body: Any) -> None:
    async def handle(request: web.Request) -> web.Response:
        models = {"data": [{"meta": {"n_vocab": 768}}]}
        return web.json_response(models if request.path == "/v1/models" else body)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(app) as server:
        scorer = LlamaCppScorer(str(server.make_url("")).rstrip("/"), weights="toy")
        with pytest.raises(ScoringError):
            await scorer.ends([5], [6])
        await scorer.aclose()


class FakeVllm:
    """Stands for vLLM with a template: how an answer ends, and what comes before the next turn."""

    def __init__(self, end: str = "<|end|>", *, changes: bool = False, names: bool = True) -> None:
        self._end, self._changes, self._names = end, changes, names
        self.tokenized: list[dict[str, Any]] = []
        self.scored: list[list[int]] = []

    async def handle(self, request: web.Request) -> web.Response:
        if request.path == "/tokenize":
            return web.json_response(self._tokenize(await request.json()))
        if request.path == "/v1/completions":
            return web.json_response(self._complete(await request.json()))
        return web.Response(status=404)

    def _tokenize(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.tokenized.append(asked)
        text = "".join(f"<|{m['role']}|>{m['content']}{self._ending(m)}" for m in asked["messages"])
        if asked.get("continue_final_message"):
            text = text.removesuffix(self._end)
        elif self._changes:
            text = f"<|system|>{text}"
        encoded = TOKENIZER.encode(text, add_special_tokens=False)
        return {"tokens": encoded.ids, "token_strs": encoded.tokens if self._names else None}

    def _ending(self, message: dict[str, str]) -> str:
        return self._end if message["role"] == "assistant" else ""

    def _complete(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.scored.append(asked["prompt"])
        entries = [{str(token): {"logprob": -0.25, "decoded_token": ""}} for token in asked["prompt"]]
        return {"choices": [{"prompt_logprobs": [None, *entries[1:]]}]}


async def scored_end(fake: FakeVllm) -> int:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    async with TestServer(app) as server:
        scorer = VllmScorer(str(server.make_url("")), model="toy", weights="toy", vocabulary=768)
        try:
            for _ in range(2):
                score = await scorer.ends([5, 6], [7])
        finally:
            await scorer.aclose()
    (end,) = score.tokens
    assert score.logprob == -0.25
    assert fake.scored == [[5, 6, 7, end.token_id]] * 2
    return end.token_id


async def test_vllm_scores_the_token_that_its_template_writes_after_an_answer() -> None:
    usual, late, none = FakeVllm(), FakeVllm(" \n<|end|>"), FakeVllm("")
    assert await scored_end(usual) == END
    assert len(usual.tokenized) == 2, "found out once"
    assert await scored_end(late) == END
    assert await scored_end(none) == TOKENIZER.token_to_id("<|user|>"), "the next turn's mark"
    assert len(none.tokenized) == 3


async def test_a_template_that_writes_no_end_is_said() -> None:
    for fake in (FakeVllm(changes=True), FakeVllm(names=False)):
        with pytest.raises(ScoringError, match="does not tell which token ends an answer"):
            await scored_end(fake)
        assert not fake.scored


@pytest.mark.vllm
async def test_vllm_and_llama_cpp_agree_on_where_a_text_ends(vllm_server: ServerInfo, llamacpp: LlamaCppScorer) -> None:
    vllm = VllmScorer(vllm_server.url, model=MODEL_ID, weights="toy")
    await vllm.open()
    prompt, ids = await llamacpp.prompt_ids(MESSAGES), await llamacpp.text_ids(WHOLE)
    for length in range(0, len(ids) + 1, 3):
        (one,) = (await vllm.ends(prompt, ids[:length])).tokens
        (two,) = (await llamacpp.ends(prompt, ids[:length])).tokens
        assert one.token_id == two.token_id == END
        assert one.logprob == pytest.approx(two.logprob, abs=2e-3)
    await vllm.aclose()
