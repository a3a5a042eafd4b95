"""A real llama.cpp server: an extra space in the template, and the gate over real answers and scores."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from probe.attribution.gate.ask import ask
from probe.attribution.gate.values import CANNOT_TELL, DIFFERENT, PROMPT
from probe.attribution.settings import Settings
from probe.evidence.case import Case
from probe.lab.platform_spec import Platform
from probe.lab.seeing import with_a_space
from probe.lab.server import LabServer
from probe.scoring.llamacpp import LlamaCppScorer
from probe.serve.llamacpp import LlamaCppServer
from probe.traces.pack import find_pack, read_pack
from probe.traces.values import Message
from probe.wire.values import Reading, Usage
from tests.lab.raw import ask as ask_platform

HIDDEN = "You are a careful assistant."
PLATFORMS = [
    Platform("plain"),
    Platform("space", template_space=True, family="space"),
    Platform("space-unbilled", template_space=True, counts_hidden=False),
    Platform("both", template_space=True, hidden_system=HIDDEN),
]


@pytest.fixture(scope="module")
def platforms(toy_server: LlamaCppServer) -> Iterator[LabServer]:
    assert toy_server.info is not None
    with LabServer(PLATFORMS, toy_server.info.url, "toy", seed=9) as server:
        yield server


def test_the_last_user_turn_gets_the_space_and_nothing_else_changes() -> None:
    said = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"}]
    asked = [*said, {"role": "user", "content": "Three"}]
    assert with_a_space(asked) == [*said, {"role": "user", "content": "Three "}]
    assert with_a_space(said) == [{"role": "user", "content": "One "}, said[1]]
    assert asked[-1]["content"] == "Three", "what was sent is not changed"
    assert with_a_space([]) == []


@pytest.mark.parametrize(("name", "more"), [("plain", 0), ("space", 1), ("space-unbilled", 0)])
def test_the_space_is_billed_unless_the_platform_hides_it(platforms: LabServer, name: str, more: int) -> None:
    plain = ask_platform(platforms.url, "plain", "How are you today?")
    answered = ask_platform(platforms.url, name, "How are you today?")
    sent = plain.reading.usage.prompt_tokens
    assert sent is not None
    assert answered.reading.usage.prompt_tokens == sent + more
    found = platforms.log.find(answered.header("x-request-id"))
    assert found is not None
    deed = "prompt_rewrite" if name != "plain" else "none"
    assert (found.deed, found.author, found.detail.get("mechanism")) == (
        deed,
        "model",
        "prompt_rewrite" if name != "plain" else None,
    )


def test_a_space_comes_on_top_of_a_hidden_prompt(platforms: LabServer) -> None:
    answered = ask_platform(platforms.url, "both", "How are you today?")
    alone = ask_platform(platforms.url, "plain", "How are you today?")
    hidden, sent = answered.reading.usage.prompt_tokens, alone.reading.usage.prompt_tokens
    assert hidden is not None
    assert sent is not None
    assert hidden > sent + 1


def written(url: str, messages: list[dict[str, str]], temperature: float, seed: int) -> dict[str, Any]:
    body = {"messages": messages, "temperature": temperature, "max_tokens": 96, "seed": seed}
    body |= {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return dict(json.load(response))


async def cases_of(url: str, prompts: list[list[dict[str, str]]], *, space: bool) -> list[Case]:
    scorer = LlamaCppScorer(url, weights="toy")
    found = []
    for place, prompt in enumerate(prompts):
        ids = await scorer.prompt_ids([Message(m["role"], m["content"]) for m in prompt])
        for heat in (1.0, 0.0):
            answer = written(url, list(with_a_space(prompt)) if space else prompt, heat, place)  # type: ignore[arg-type]
            text = answer["choices"][0]["message"]["content"]
            usage = Usage(answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])
            score = await scorer.score(ids, await scorer.text_ids(text))
            reading = Reading("answer", text=text, finish_reason="stop", usage=usage)
            found.append(
                Case(
                    f"x{place}-{heat}",
                    f"t{place}",
                    control=True,
                    outcome="complied",
                    reading=reading,
                    sampling={"temperature": heat, "top_p": 1.0},
                    prompt_tokens=len(ids),
                    score=score,
                )
            )
    await scorer.aclose()
    return found


def test_real_answers_pass_the_gate_and_an_extra_space_does_not(toy_server: LlamaCppServer) -> None:
    assert toy_server.info is not None
    controls = [trace for trace in read_pack(find_pack("fictional"))[1] if trace.control][:20]
    prompts = [[{"role": m.role, "content": m.content} for m in trace.messages] for trace in controls]
    same = ask(asyncio.run(cases_of(toy_server.info.url, prompts, space=False)), [], Settings())
    assert same.answer == CANNOT_TELL, same.sentence
    assert same.n_needed is not None
    assert same.n_needed >= 59
    assert same.tests["greedy"].statistic == 0.0
    assert same.tests["ranks"].n == 20
    moved = ask(asyncio.run(cases_of(toy_server.info.url, prompts, space=True)), [], Settings())
    assert (moved.answer, moved.cause) == (DIFFERENT, PROMPT), moved.sentence
    assert "1 more prompt tokens than were sent, on 20 of 20 requests" in moved.sentence
    # One token may be the host's way of counting: it is not said without that doubt.
    assert "or a host that counts special tokens otherwise" in moved.sentence
