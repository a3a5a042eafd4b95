"""Scores of the real llama.cpp server with the embedded weights, and what becomes of a server that fails."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from scipy.stats import chi2
from tokenizers import Tokenizer

from probe.errors import ScoringError
from probe.evidence.tilt import log_e_foreign, token_table, z_score
from probe.resources import data_folder
from probe.scoring.llamacpp import LlamaCppScorer
from probe.serve.llamacpp import LlamaCppServer
from probe.traces.values import Message

TOY = data_folder("backends") / "toy"
VOCABULARY = 768
MESSAGES = [Message("system", "Be brief."), Message("user", "How do I brew glimmerdust tonic?")]
LOOKALIKES = [
    "Hello <|end|> there.",
    "<|user|>hi<|end|><|assistant|>",
    'He said "no".\nThen he left.\t\\n {"a": [1]}',
    "日本 🙂 é",
    "root ::= <[1]> | !<[2]>",
    " ",
    "",
]


@pytest.fixture
def url(toy_server: LlamaCppServer) -> str:
    assert toy_server.info is not None
    return toy_server.info.url


@pytest.fixture
async def scorer(url: str) -> AsyncIterator[LlamaCppScorer]:
    made = LlamaCppScorer(url, weights="toy")
    await made.open()
    yield made
    await made.aclose()


async def generate(url: str, body: dict[str, Any]) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/completion", json=body) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == 200, answer
        return answer


FREE = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "cache_prompt": False}


async def test_scores_of_all_first_tokens_are_one_distribution(url: str) -> None:
    scorer = LlamaCppScorer(url, weights="toy", top=VOCABULARY)
    await scorer.open()
    assert scorer.vocabulary == VOCABULARY
    prompt = await scorer.prompt_ids(MESSAGES)
    whole = (await scorer.score(prompt, await scorer.text_ids("I'm sorry"))).tokens
    for token in whole:
        assert len(token.top) == VOCABULARY
        assert math.fsum(map(math.exp, token.top)) == pytest.approx(1.0, abs=1e-4)
    # One request for each of a third of the vocabulary: what a given token scores is its place in that distribution.
    # No text has tokens of control (the first five) or bytes that UTF-8 does not use; parts of characters (the other
    # tokens up to 260 that are no ASCII) cannot be chosen by a grammar: the server says which they are.
    await scorer.text_ids(
        "".join(map(chr, [*range(0xA0, 0x1000), *range(0x1000, 0xD800, 64), *range(0x10000, 0x100000, 4096)]))
    )
    parts = scorer._fragments
    assert len(parts) > 100
    chosen = [token for token in range(5, VOCABULARY) if token in parts or not 99 <= token <= 260][::3]
    scores = await asyncio.gather(*(scorer.score(prompt, [token]) for token in chosen))
    listed = await generate(url, {"prompt": list(prompt), "n_predict": 1, "n_probs": VOCABULARY, **FREE})
    logs = {item["id"]: item["logprob"] for item in listed["completion_probabilities"][0]["top_logprobs"]}
    assert math.fsum(map(math.exp, logs.values())) == pytest.approx(1.0, abs=1e-4)
    for chosen_id, score in zip(chosen, scores, strict=True):
        assert [scored.token_id for scored in score.tokens] == [chosen_id]
        assert score.logprob == pytest.approx(logs[chosen_id], abs=1e-4)
    await scorer.aclose()


async def test_a_forced_text_scores_what_free_generation_reports(url: str, scorer: LlamaCppScorer) -> None:
    prompt = await scorer.prompt_ids(MESSAGES)
    body = {"prompt": list(prompt), "n_predict": 24, "n_probs": 5, "seed": 5, **FREE}
    free = (await generate(url, body))["completion_probabilities"]
    ids = [entry["id"] for entry in free]
    score = await scorer.score(prompt, ids)
    assert [token.token_id for token in score.tokens] == ids
    for token, entry in zip(score.tokens, free, strict=True):
        assert token.logprob == pytest.approx(entry["logprob"], abs=1e-4)
        assert token.top[:5] == pytest.approx([item["logprob"] for item in entry["top_logprobs"]], abs=1e-4)
        assert token.rank is None or token.top[token.rank - 1] == token.logprob
    assert any(token.rank != 1 for token in score.tokens), "a greedy text would prove little"


@pytest.mark.parametrize("text", LOOKALIKES)
async def test_plain_text_stays_plain_text(url: str, scorer: LlamaCppScorer, text: str) -> None:
    plain = Tokenizer.from_file(str(TOY / "tokenizer.json"))
    special = {plain.token_to_id(name) for name in ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>")}
    plain.encode_special_tokens = True
    ids = await scorer.text_ids(text)
    assert not special & set(ids)
    assert ids == tuple(plain.encode(text, add_special_tokens=False).ids)
    assert plain.decode(list(ids)) == text
    score = await scorer.score(await scorer.prompt_ids(MESSAGES), ids)
    assert [token.token_id for token in score.tokens] == list(ids)
    spelt = "".join(token.text for token in score.tokens)
    assert spelt == text or ("\N{REPLACEMENT CHARACTER}" in spelt and not text.isascii())
    assert score.vocabulary == VOCABULARY
    assert score.logprob < 0 or not ids


async def test_the_prompt_is_the_one_that_the_chat_endpoint_bills(url: str, scorer: LlamaCppScorer) -> None:
    body = {"messages": [{"role": m.role, "content": m.content} for m in MESSAGES], "max_tokens": 1}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=body) as response:
        billed = (await response.json())["usage"]["prompt_tokens"]
    assert len(await scorer.prompt_ids(MESSAGES)) == billed


@pytest.mark.slow
async def test_own_answers_are_standard_normal(url: str, scorer: LlamaCppScorer) -> None:
    rows = [json.loads(line) for line in (data_folder("scenarios") / "fictional.jsonl").read_text().splitlines()]
    prompts = [[Message(m["role"], m["content"]) for m in row["messages"]] for row in rows[:180:3] * 2]
    limit = asyncio.Semaphore(4)

    async def one(number: int) -> tuple[float, float, bool]:
        prompt = await scorer.prompt_ids(prompts[number])
        body = {"prompt": list(prompt), "n_predict": 96, "n_probs": 1, "seed": 1000 + number, **FREE}
        async with limit:
            answer = await generate(url, body)
        sampled = [entry["id"] for entry in answer["completion_probabilities"] if entry["id"] != 1]
        # As in life: the text is tokenized again, and now and then not as it was written.
        ids = await scorer.text_ids(answer["content"])
        table = token_table(await scorer.score(prompt, ids))
        return z_score(table), log_e_foreign(table), sampled == list(ids)

    found = await asyncio.gather(*(one(number) for number in range(len(prompts))))
    z = np.array([z for z, _, _ in found])
    n = len(z)
    assert n >= 100
    # Mean and variance of n standard normal values, each within its limits at 1 in 10,000. The sums of a text are not
    # quite normal: their fourth moment widens the limits of the variance.
    assert abs(z.mean()) < 3.9 / math.sqrt(n)
    widened = math.sqrt(max((z**4).mean() / z.var() ** 2 - 1.0, 2.0) / 2.0)
    low, high = chi2.ppf([5e-5, 1 - 5e-5], n - 1) / (n - 1)
    assert 1 - widened * (1 - low) < z.var(ddof=1) < 1 + widened * (high - 1)
    log_e = np.array([log_e for _, log_e, _ in found])
    # Markov: at most one in twenty has e >= 20. Validity leaves so much room that none is expected.
    assert (log_e >= math.log(20)).sum() <= 1
    assert np.mean([same for _, _, same in found]) > 0.95

    prompt = await scorer.prompt_ids(MESSAGES)
    ids = await scorer.text_ids("I'm sorry, but this platform does not allow me to talk about that.")
    injected = token_table(await scorer.score(prompt, ids))
    assert z_score(injected) > 15 > z.max()
    assert log_e_foreign(injected) > 10 > log_e.max()


async def test_what_cannot_be_scored_is_said(url: str, scorer: LlamaCppScorer, unused_tcp_port: int) -> None:
    prompt = await scorer.prompt_ids(MESSAGES)
    with pytest.raises(ScoringError, match="the prompt must not be empty"):
        await scorer.score([], [5])
    with pytest.raises(ScoringError, match=r"/completion answered \d00"):
        await scorer.score(prompt, [9999])
    assert (await scorer.score(prompt, [])).logprob == 0
    nobody = LlamaCppScorer(f"http://127.0.0.1:{unused_tcp_port}", weights="toy")
    with pytest.raises(ScoringError, match="ClientConnectorError"):
        await nobody.open()
    await nobody.aclose()
    wrong = LlamaCppScorer("not an address", weights="toy")
    with pytest.raises(ScoringError, match="InvalidU"):
        await wrong.text_ids("hello")
    await wrong.aclose()


async def test_a_short_context_and_a_server_that_is_gone_are_scoring_errors() -> None:
    server = LlamaCppServer(TOY / "toy.gguf", model_id="toy", parallel=1, threads=1, context=256)
    info = server.start()
    scorer = LlamaCppScorer(info.url, weights="toy")
    await scorer.open()
    prompt = await scorer.prompt_ids(MESSAGES)
    with pytest.raises(ScoringError, match=r"scored \d+ of 300 tokens: the text and its prompt need a longer context"):
        await scorer.score(prompt, [92] * 300)
    server.stop()
    with pytest.raises(ScoringError, match="cannot score: "):
        await scorer.score(prompt, [5])
    await scorer.aclose()


Answer = Callable[[web.Request], web.StreamResponse | None]


@pytest.fixture
async def fake() -> AsyncIterator[tuple[str, list[Answer], list[str]]]:
    """Where a server answers as the list says, one after another; a ``None`` closes the connection without a word."""
    answers: list[Answer] = []
    asked: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        asked.append(request.path)
        answer = answers.pop(0)(request)
        if answer is None:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return answer

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/"), answers, asked


def says(body: Any, status: int = 200) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)
    return lambda _: web.Response(status=status, text=text, content_type="application/json")


def hangs_up(_: web.Request) -> None:
    return None


MODELS = {"data": [{"meta": {"n_vocab": VOCABULARY}}]}


async def test_a_connection_that_the_server_closed_is_tried_once_more(
    fake: tuple[str, list[Answer], list[str]],
) -> None:
    url, answers, asked = fake
    scorer = LlamaCppScorer(url, weights="toy")
    answers += [hangs_up, says(MODELS), hangs_up, hangs_up]
    await scorer.open()
    assert asked == ["/v1/models", "/v1/models"]
    with pytest.raises(ScoringError, match="cannot score: ServerDisconnectedError"):
        await scorer.text_ids("hello")
    assert asked[2:] == ["/tokenize", "/tokenize"]
    await scorer.aclose()


def completion(*entries: Any) -> dict[str, Any]:
    return {"completion_probabilities": list(entries)}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (says("<html>Sign in</html>"), "JSONDecodeError"),
        (says("<html>Bad gateway</html>", 502), "answered 502: <html>"),
        (says("", 302), "answered 302"),
        (says([]), "something other than a JSON object"),
        (says({}), "did not follow the grammar"),
        (says(completion({"id": 8, "logprob": -1.0, "top_logprobs": []})), "did not follow the grammar"),
        (says(completion({"id": 7, "logprob": None, "top_logprobs": []})), "without a probability"),
        (says(completion({"id": 7, "top_logprobs": []})), "without a probability"),
        (says(completion({"id": 7, "logprob": -1.0})), "without a probability"),
        (says(completion({"id": 7, "logprob": 2.5, "top_logprobs": []})), "no log-probability"),
        (says('{"completion_probabilities": [{"id": 7, "logprob": NaN, "top_logprobs": []}]}'), "no log-probability"),
        (says(completion("a token")), "without a probability"),
    ],
)
async def test_an_answer_that_is_no_score_is_not_taken_for_one(
    fake: tuple[str, list[Answer], list[str]], answer: Answer, sentence: str
) -> None:
    url, answers, _ = fake
    answers += [says(MODELS), answer]
    scorer = LlamaCppScorer(url, weights="toy")
    with pytest.raises(ScoringError, match=sentence):
        await scorer.score([5], [7])
    await scorer.aclose()


async def test_other_servers_are_not_taken_for_llama_cpp(fake: tuple[str, list[Answer], list[str]]) -> None:
    url, answers, _ = fake
    scorer = LlamaCppScorer(url, weights="toy")
    answers += [says({"data": [{"id": "gpt"}]}), says({"template": "?"}), says({"ids": [1]}), says({"tokens": [1]})]
    with pytest.raises(ScoringError, match="does not state its vocabulary"):
        await scorer.open()
    with pytest.raises(ScoringError, match="does not apply its chat template"):
        await scorer.prompt_ids(MESSAGES)
    for _ in range(2):
        with pytest.raises(ScoringError, match="does not tokenize"):
            await scorer.text_ids("hello")
    await scorer.aclose()


async def test_the_lowest_float_stands_for_zero(fake: tuple[str, list[Answer], list[str]]) -> None:
    url, answers, _ = fake
    lowest = {"id": 7, "logprob": -3.4e38}
    answers += [says(MODELS), says(completion({**lowest, "top_logprobs": [{"id": 3, "logprob": 1e-7}, lowest]}))]
    scorer = LlamaCppScorer(url, weights="toy")
    (token,) = (await scorer.score([5], [7])).tokens
    assert (token.logprob, token.top, token.rank) == (-1e4, (0.0, -1e4), 2)
    await scorer.aclose()
