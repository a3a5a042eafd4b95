"""The dialect against what real servers send: llama.cpp here and now, vLLM as it was recorded."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from probe.serve.llamacpp import LlamaCppServer
from probe.traces.values import Message, Sampling, Trace
from probe.wire.catalogue import load_backend
from probe.wire.openai_chat import OpenAiChat
from probe.wire.values import Reading
from tests.kit import make_exchange

DIALECT = OpenAiChat()
VLLM = Path(__file__).parents[1] / "serve" / "samples" / "vllm"


def ask(server: LlamaCppServer, *, stream: bool, request: dict[str, Any]) -> Reading:
    trace = Trace("t", (Message("user", "Hello?"),), Sampling(max_tokens=8, seed=1))
    built = DIALECT.build(
        trace, model="toy", stream=stream, backend=load_backend("llamacpp"), request=request, logprobs=2
    )
    assert server.info is not None
    sent = urllib.request.Request(f"{server.info.url}/v1{built.path}", built.body, {"content-type": "application/json"})
    try:
        answer = urllib.request.urlopen(sent)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        headers = tuple(answer.headers.items())
        return DIALECT.read(make_exchange(status=answer.status, response_headers=headers, response_body=answer.read()))


@pytest.mark.parametrize("stream", [True, False])
def test_llamacpp_answers(toy_server: LlamaCppServer, stream: bool) -> None:
    reading = ask(toy_server, stream=stream, request={})
    assert reading.state == "answer"
    assert reading.streamed is stream
    assert reading.problems == ()
    assert reading.usage.completion_tokens is not None
    assert reading.logprobs is not None
    assert len(reading.logprobs) in {reading.usage.completion_tokens, reading.usage.completion_tokens - 1}
    assert "".join(token.token for token in reading.logprobs).startswith(reading.text)
    assert set(reading.timings) == {"prompt", "generation"}
    assert reading.fingerprint


def test_llamacpp_complains(toy_server: LlamaCppServer) -> None:
    reading = ask(toy_server, stream=True, request={"max_tokens": "many"})
    assert (reading.state, reading.streamed) == ("error", False)
    assert reading.error


def recorded(name: str) -> Reading:
    sample = json.loads((VLLM / f"{name}.json").read_text(encoding="utf-8"))["response"]
    headers = tuple((key, value) for key, value in sample["headers"])
    return DIALECT.read(
        make_exchange(status=sample["status"], response_headers=headers, response_body="".join(sample["chunks"]))
    )


@pytest.mark.parametrize("name", ["chat", "chat-logprobs", "chat-stream", "chat-stream-logprobs", "chat-stop"])
def test_vllm_answers(name: str) -> None:
    reading = recorded(name)
    assert (reading.state, reading.problems) == ("answer", ())
    assert reading.finish_reason in {"stop", "length"}
    assert reading.streamed == ("stream" in name)
    assert (reading.logprobs is not None) == ("logprobs" in name)


@pytest.mark.parametrize("name", [path.stem for path in sorted(VLLM.glob("error-*.json"))])
def test_vllm_complains(name: str) -> None:
    reading = recorded(name)
    assert reading.state == "error"
    assert reading.error
    assert not reading.error.startswith("{")
