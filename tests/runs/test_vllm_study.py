"""The same weights on the real vLLM and on llama.cpp: chat through the proxy, equal scores, and no platform."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openai
import pytest

from probe.attribution.effects.stored import stored_effects
from probe.attribution.pipeline import analyze
from probe.config import load_config
from probe.proxy.server import ProxyServer
from probe.proxy.table import RouteTable
from probe.runs.execute import execute, load_packs
from probe.runs.runner import RecordingSink
from probe.scoring.llamacpp import LlamaCppScorer
from probe.scoring.open_scorers import open_scorers
from probe.scoring.vllm import VllmScorer
from probe.serve.info import ServerInfo
from probe.serve.llamacpp import LlamaCppServer
from probe.store.store import Store
from probe.store.verify import verify
from probe.store.writer import Writer
from probe.traces.pack import find_pack, read_pack
from probe.traces.values import Message
from probe.wire.dialects import dialect
from tests.study_kit import local_route, write_config
from tests.vllm_kit import vllm_server

__all__ = ["vllm_server"]

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SPARE = 600
"""Seconds for one answer: the engine compiles on its first ones."""


@pytest.fixture(scope="module")
def vllm(vllm_server: ServerInfo) -> ServerInfo:
    return vllm_server


def vllm_route(info: ServerInfo, **more: object) -> dict[str, object]:
    pace = {"concurrency": 8, "timeout_s": SPARE}
    return {"backend": "vllm", "url": f"{info.url}/v1", "model": info.model, "weights": "toy", "pace": pace, **more}


@pytest.mark.parametrize("stream", [True, False])
def test_chat_through_the_proxy(tmp_path: Path, vllm: ServerInfo, stream: bool) -> None:
    config = load_config(write_config(tmp_path / "probe.toml", {"vllm": vllm_route(vllm, role="local")}))
    database = tmp_path / "probe.db"
    with Store.open(database) as store:
        for route in config.routes.values():
            store.add_weights(route.weights_row)
            store.add_route(route.row)
    writer = Writer(database)
    with writer, ProxyServer(RouteTable(r.target for r in config.routes.values()), RecordingSink(writer)) as proxy:
        client = openai.OpenAI(base_url=f"{proxy.url}/vllm/v1", api_key="none", timeout=SPARE)
        question = [{"role": "user", "content": "How do I brew glimmerdust tonic?"}]
        if stream:
            parts = client.chat.completions.create(model=vllm.model, messages=question, stream=True, max_tokens=24)  # type: ignore[call-overload]
            text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        else:
            answer = client.chat.completions.create(model=vllm.model, messages=question, max_tokens=24)  # type: ignore[call-overload]
            text = answer.choices[0].message.content
    assert text
    with Store.open(database) as store:
        exchange = store.exchange(store.refs()[-1].id)
    reading = dialect("openai-chat").read(exchange)
    assert reading.state == "answer"
    assert reading.text == text
    assert reading.streamed == stream
    assert (len(exchange.chunks) > 3) == stream
    assert verify(database).sound


async def _both(llamacpp: LlamaCppScorer, vllm: VllmScorer, texts: Sequence[tuple[Message, str]]) -> "np.ndarray":
    differences = []
    for message, text in texts:
        prompt = await llamacpp.prompt_ids([message])
        ids = await llamacpp.text_ids(text)
        assert prompt == await vllm.prompt_ids([message]), "the template must give the same tokens on both servers"
        assert ids == await vllm.text_ids(text)
        one, other = await llamacpp.score(prompt, ids), await vllm.score(prompt, ids)
        differences += [abs(a.logprob - b.logprob) for a, b in zip(one.tokens, other.tokens, strict=True)]
    return np.array(differences)


def test_scores_equal_those_of_llamacpp(toy_server: LlamaCppServer, vllm: ServerInfo) -> None:
    assert toy_server.info is not None
    _, traces = read_pack(find_pack("fictional"))
    answers = (
        "I'm sorry, but I can't assist with that request.",
        "First grind the lake oil into three petals until it turns blue.",
        "Sorry, the model cannot answer this question.",
    )
    texts = [(trace.messages[-1], answers[i % 3]) for i, trace in enumerate(traces[::8])]

    async def run(url: str) -> "np.ndarray":
        llamacpp = LlamaCppScorer(url, weights="toy")
        other = VllmScorer(vllm.url, model=vllm.model, weights="toy")
        try:
            await llamacpp.open()
            await other.open()
            return await _both(llamacpp, other, texts)
        finally:
            await llamacpp.aclose()
            await other.aclose()

    differences = asyncio.run(run(toy_server.info.url))
    assert len(differences) > 300
    assert np.median(differences) < 1e-4
    assert np.quantile(differences, 0.99) < 5e-3


def test_two_engines_with_the_same_weights_show_no_platform(
    tmp_path: Path, toy_server: LlamaCppServer, vllm: ServerInfo
) -> None:
    assert toy_server.info is not None
    routes = {
        "local": local_route(toy_server.info.url),
        "engine": vllm_route(vllm, role="hosted", twin="local"),
    }
    config = load_config(write_config(tmp_path / "probe.toml", routes))
    database = tmp_path / "probe.db"
    done = execute(config, database, load_packs(["fictional"]), seed=3, repeats=2)
    assert (done.open, done.summary.stopped) == (0, [])

    async def attribute() -> None:
        with Store.open(database) as store:
            async with open_scorers(config.routes.values()) as (scorers, problems):
                assert not problems
                found = (await analyze(store, scorers)).routes[0]
            # At 95 % one comparison in twenty of the same with the same does not cover 0, which is no test; the
            # measured interval at 95 % is in docs/figures.md.
            effect = stored_effects(store, found.route, found.twin, level=0.999)[0]
        who = [verdict.who for verdict in found.verdicts]
        assert len(who) > 80
        assert "platform" not in who
        assert effect.n_pairs >= 350
        assert effect.difference.covers(0.0), effect.sentence
        assert effect.platform_effect.estimate == 0
        assert found.prompt_finding is None

    asyncio.run(attribute())
