import json
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tokenizers import Tokenizer

from probe.errors import ScoringError
from probe.scoring.llamacpp import LlamaCppScorer
from probe.scoring.vllm import VllmScorer
from probe.serve.info import ServerInfo
from probe.serve.llamacpp import LlamaCppServer
from probe.traces.values import Message
from tests.vllm_kit import MODEL_ID, toy_model, vllm_server

__all__ = ["vllm_server"]

SAMPLES = Path(__file__).resolve().parents[1] / "serve" / "samples" / "vllm"


def sample(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return loaded


def body_of(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads("".join(sample(name)["response"]["chunks"]))
    return loaded


class Replay:
    """Answers each path with a recorded body, or with what a test makes of it."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[dict[str, Any]], tuple[int, Any]]] = {}
        self.requests: list[dict[str, Any]] = []
        self.play("models")

    def play(self, name: str) -> None:
        recorded = sample(name)
        self.say(recorded["request"]["path"], recorded["response"]["status"], body_of(name))

    def say(self, path: str, status: int, body: Any) -> None:
        self.answers[path] = lambda _: (status, body)

    async def handle(self, request: web.Request) -> web.Response:
        asked = await request.json() if request.can_read_body else {}
        self.requests.append(asked)
        status, body = self.answers[request.path](asked)
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type="application/json")


@pytest.fixture
async def replay() -> AsyncIterator[tuple[Replay, str]]:
    answers = Replay()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answers.handle)
    async with TestServer(app) as server:
        yield answers, str(server.make_url("")).rstrip("/")


@pytest.fixture
async def scorer(replay: tuple[Replay, str]) -> AsyncIterator[VllmScorer]:
    made = VllmScorer(replay[1], model="toy", weights="toy", top=3)
    yield made
    await made.aclose()


async def test_a_recorded_answer_is_read(replay: tuple[Replay, str], scorer: VllmScorer) -> None:
    answers, _ = replay
    answers.play("error-prompt-logprobs")
    await scorer.open()
    assert scorer.vocabulary == 768
    answers.play("completions-prompt-logprobs")
    ids = sample("completions-prompt-logprobs")["request"]["body"]["prompt"]
    score = await scorer.score(ids[:1], ids[1:])
    recorded = body_of("completions-prompt-logprobs")["choices"][0]["prompt_logprobs"][1:]
    assert [token.token_id for token in score.tokens] == ids[1:]
    assert score.vocabulary == 768
    assert answers.requests[-1]["prompt"] == ids
    assert answers.requests[-1]["prompt_logprobs"] == 3
    for token, entry in zip(score.tokens, recorded, strict=True):
        own = entry[str(token.token_id)]
        assert token.logprob == own["logprob"]
        assert token.text == own["decoded_token"]
        assert len(token.top) == 3
        assert list(token.top) == sorted(token.top, reverse=True)
        assert token.rank == (own["rank"] if own["rank"] <= 3 else None)
    assert {len(entry) for entry in recorded} == {3, 4}


async def test_the_whole_vocabulary_is_counted_where_the_server_gives_it(
    replay: tuple[Replay, str], scorer: VllmScorer
) -> None:
    entries = {str(token): {"logprob": -2.0, "rank": 1, "decoded_token": ""} for token in range(5)}
    replay[0].say("/v1/completions", 200, {"choices": [{"prompt_logprobs": [None, entries]}]})
    await scorer.open()
    assert scorer.vocabulary == 5


async def test_a_continuation_without_tokens_needs_no_request(replay: tuple[Replay, str], scorer: VllmScorer) -> None:
    assert (await scorer.score([1], [])).logprob == 0
    assert not replay[0].requests


async def test_what_cannot_be_scored_is_said(replay: tuple[Replay, str], scorer: VllmScorer) -> None:
    answers, url = replay
    answers.play("error-prompt-logprobs")
    await scorer.open()
    with pytest.raises(ScoringError, match="the prompt must not be empty"):
        await scorer.score([], [5])
    with pytest.raises(ScoringError, match=r"has 1024 tokens with its prompt, and .* takes 1023"):
        await scorer.score([5] * 1000, [5] * 24)
    answers.play("error-token-id")
    with pytest.raises(ScoringError, match=r"answered 400: Token id 9999 is out of vocabulary$"):
        await scorer.score([5], [9999])
    answers.play("completions-prompt-logprobs")
    with pytest.raises(ScoringError, match="did not score every token"):
        await scorer.score([5], [6])
    other = VllmScorer(url, model="nope", weights="w")
    with pytest.raises(ScoringError, match="serves toy and not 'nope'"):
        await other.open()
    await other.aclose()


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"7": {"logprob": -1.0}}, "scored another token"),
        (None, "scored another token"),
        ({"6": {"logprob": None}}, "scored another token"),
        ({"6": {"logprob": 3.5}}, "gives logits"),
        ({"6": {"logprob": -0.1}, "7": {"logprob": -0.2}}, "gives logits"),
    ],
)
async def test_an_answer_that_is_no_score_is_not_taken_for_one(
    replay: tuple[Replay, str], scorer: VllmScorer, entry: Any, sentence: str
) -> None:
    replay[0].say("/v1/completions", 200, {"choices": [{"prompt_logprobs": [None, entry]}]})
    with pytest.raises(ScoringError, match=sentence):
        await scorer.score([5], [6])


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (200, "{", "JSONDecodeError"),
        (200, [], "something other than a JSON object"),
        (200, {"choices": []}, "gave no prompt_logprobs"),
        (200, {"choices": [{"prompt_logprobs": None}]}, "did not score every token"),
        (502, "<html>Bad gateway</html>", "answered 502: <html>"),
        (302, "", "answered 302"),
    ],
)
async def test_a_broken_answer_becomes_one_sentence(
    replay: tuple[Replay, str], scorer: VllmScorer, status: int, body: Any, sentence: str
) -> None:
    replay[0].say("/v1/completions", status, body)
    with pytest.raises(ScoringError, match=sentence):
        await scorer.score([5], [6])


async def test_nobody_there_is_a_scoring_error(unused_tcp_port: int) -> None:
    scorer = VllmScorer(f"http://127.0.0.1:{unused_tcp_port}/v1", model="toy", weights="w")
    with pytest.raises(ScoringError, match="ClientConnectorError"):
        await scorer.open()
    await scorer.aclose()


TEXTS = [
    "Hello <|end|> there.",
    "<|user|>hi<|end|><|assistant|>",
    "<|end|><|end|> <|pad|> <| end |>",
    "plain <b> [c] text",
    "日本 🙂 é <|end|>",
    " ",
    "",
]


async def test_text_that_spells_special_tokens_is_text(replay: tuple[Replay, str], scorer: VllmScorer) -> None:
    file = str(toy_model() / "tokenizer.json")
    theirs, plain = Tokenizer.from_file(file), Tokenizer.from_file(file)
    plain.encode_special_tokens = True

    def tokenize(asked: dict[str, Any]) -> tuple[int, Any]:
        encoded = theirs.encode(asked["prompt"], add_special_tokens=False)
        return 200, {"tokens": encoded.ids, "token_strs": encoded.tokens}

    replay[0].answers["/tokenize"] = tokenize
    for text in TEXTS:
        assert await scorer.text_ids(text) == tuple(plain.encode(text, add_special_tokens=False).ids), text


MESSAGES = [
    Message("system", "Be brief."),
    Message("user", "Please tell me about the weather on Monday."),
]


@pytest.fixture
async def real(vllm_server: ServerInfo) -> AsyncIterator[VllmScorer]:
    made = VllmScorer(vllm_server.url, model=MODEL_ID, weights="toy")
    await made.open()
    yield made
    await made.aclose()


@pytest.mark.vllm
async def test_vllm_tokenizes_like_the_tokenizer_of_the_weights(real: VllmScorer) -> None:
    plain = Tokenizer.from_file(str(toy_model() / "tokenizer.json"))
    special = plain.token_to_id("<|user|>")
    assert real.vocabulary == json.loads((toy_model() / "config.json").read_text())["vocab_size"]
    ids = await real.prompt_ids(MESSAGES)
    assert ids.count(special) == 1
    assert ids[-1] == plain.token_to_id("<|assistant|>")
    plain.encode_special_tokens = True
    for text in TEXTS:
        assert await real.text_ids(text) == tuple(plain.encode(text, add_special_tokens=False).ids), text


@pytest.mark.vllm
async def test_vllm_and_llama_cpp_agree_on_a_text(real: VllmScorer) -> None:
    with LlamaCppServer(toy_model() / "toy.gguf", model_id=MODEL_ID) as server:
        assert server.info is not None
        other = LlamaCppScorer(server.info.url, weights="toy", top=20)
        await other.open()
        prompt = await real.prompt_ids(MESSAGES)
        assert await other.prompt_ids(MESSAGES) == prompt
        for text in ("Under a deep yellow sky, the moon dreams.", "I'm sorry, but I can't help with that.", "zx}{ 7"):
            ids = await real.text_ids(text)
            assert await other.text_ids(text) == ids
            one, two = await real.score(prompt, ids), await other.score(prompt, ids)
            for a, b in zip(one.tokens, two.tokens, strict=True):
                assert a.logprob == pytest.approx(b.logprob, abs=1e-3)
                assert [math.exp(v) for v in a.top] == pytest.approx([math.exp(v) for v in b.top], abs=1e-3)
                assert a.rank == b.rank or (a.rank is None and b.rank == 20) or (b.rank is None and a.rank == 20)
        await other.aclose()


THOUGHT = "The user wants the weather. "


class Template:
    """Stands for vLLM's endpoints with a template that marks reasoning; ``drops`` it, as some templates do."""

    def __init__(self, replay: Replay, *, drops: bool = False) -> None:
        self._tokenizer = Tokenizer.from_file(str(toy_model() / "tokenizer.json"))
        self._drops = drops
        replay.answers["/tokenize"] = self.tokenize
        replay.answers["/detokenize"] = self.detokenize

    def tokenize(self, asked: dict[str, Any]) -> tuple[int, Any]:
        text = asked.get("prompt")
        if text is None:
            text = self.rendered(asked)
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return 200, {"tokens": encoded.ids, "token_strs": encoded.tokens}

    def detokenize(self, asked: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"prompt": self._tokenizer.decode(asked["tokens"], skip_special_tokens=False)}

    def rendered(self, asked: dict[str, Any]) -> str:
        parts = []
        for message in asked["messages"]:
            # vLLM knows this key only, and hands it to the template under both names.
            thought = message.get("reasoning")
            mark = f"<think>\n{thought.strip()}\n</think>\n\n" if thought and not self._drops else ""
            parts.append(f"<|{message['role']}|>{mark}{message['content']}<|end|>")
        whole = "".join(parts)
        if asked.get("add_generation_prompt", True):
            return whole + "<|assistant|>"
        assert asked["continue_final_message"]
        return whole.removesuffix("<|end|>")


async def test_reasoning_is_placed_by_the_template(replay: tuple[Replay, str], scorer: VllmScorer) -> None:
    Template(replay[0])
    tokenizer = Tokenizer.from_file(str(toy_model() / "tokenizer.json"))
    prompt, ids = await scorer.prompt_ids(MESSAGES), await scorer.answer_ids(MESSAGES, "It rains.", THOUGHT)
    assert tokenizer.decode(list(ids)) == f"<think>\n{THOUGHT.strip()}\n</think>\n\nIt rains."
    whole = tokenizer.decode([*prompt, *ids], skip_special_tokens=False)
    assert tokenizer.encode(whole, add_special_tokens=False).ids == [*prompt, *ids]
    assert await scorer.answer_ids(MESSAGES, "It rains.", "") == await scorer.text_ids("It rains.")


async def test_reasoning_that_cannot_be_placed_is_said(replay: tuple[Replay, str], scorer: VllmScorer) -> None:
    Template(replay[0], drops=True)
    with pytest.raises(ScoringError, match="leaves out the reasoning"):
        await scorer.answer_ids(MESSAGES, "It rains.", THOUGHT)
    Template(replay[0])
    with pytest.raises(ScoringError, match="spells special tokens"):
        await scorer.answer_ids(MESSAGES, "It rains.", "So <|end|> it is.")
    replay[0].say("/detokenize", 200, {"tokens": []})
    with pytest.raises(ScoringError, match="does not turn tokens into text"):
        await scorer.answer_ids(MESSAGES, "It rains.", THOUGHT)
