"""The newer dialects against a real llama.cpp, which speaks three of them besides chats."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from probe.resources import data_folder
from probe.serve.llamacpp import LlamaCppServer
from probe.traces.values import Message, Sampling, Trace
from probe.wire.dialects import dialect
from probe.wire.templates import load_template
from probe.wire.values import Reading
from tests.kit import make_exchange
from tests.wire.dialects_kit import backend

TRACE = Trace(
    "t",
    (Message("system", "Be brief."), Message("user", "How do I brew glimmerdust tonic?")),
    Sampling(temperature=0.0, max_tokens=24, seed=1),
)
TOKENIZER = str(data_folder("backends") / "toy" / "tokenizer_config.json")


def ask(server: LlamaCppServer, name: str, *, stream: bool, logprobs: int = 0, **request: Any) -> Reading:
    prompt = load_template(TOKENIZER).render(TRACE)
    built = dialect(name).build(
        TRACE, model="toy", stream=stream, backend=backend(name), request=request, logprobs=logprobs, prompt=prompt
    )
    assert server.info is not None
    sent = urllib.request.Request(f"{server.info.url}/v1{built.path}", built.body, {"content-type": "application/json"})
    try:
        answer = urllib.request.urlopen(sent)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        headers = tuple(answer.headers.items())
        exchange = make_exchange(status=answer.status, response_headers=headers, response_body=answer.read())
    return dialect(name).read(exchange)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ["openai-completions", "openai-responses", "anthropic-messages"])
def test_every_dialect_carries_the_same_conversation(toy_server: LlamaCppServer, name: str, stream: bool) -> None:
    chat = ask(toy_server, "openai-chat", stream=stream)
    found = ask(toy_server, name, stream=stream)
    assert found.problems == ()
    assert (found.state, found.streamed, found.terminated) == ("answer", stream, True)
    assert found.text == chat.text
    assert found.usage.prompt_tokens == chat.usage.prompt_tokens
    assert found.usage.completion_tokens == chat.usage.completion_tokens
    if (name, stream) != ("openai-responses", False) or found.finish_reason:
        assert found.finish_reason in {chat.finish_reason, "stop"}


@pytest.mark.parametrize("stream", [True, False])
def test_logprobs_of_completions(toy_server: LlamaCppServer, stream: bool) -> None:
    found = ask(toy_server, "openai-completions", stream=stream, logprobs=2)
    assert found.logprobs is not None
    assert "".join(token.token for token in found.logprobs).startswith(found.text)
    assert all(len(token.top) == 2 for token in found.logprobs)


@pytest.mark.parametrize("name", ["openai-completions", "openai-responses", "anthropic-messages"])
def test_complaints(toy_server: LlamaCppServer, name: str) -> None:
    found = ask(toy_server, name, stream=True, temperature="hot", max_tokens="many", max_output_tokens="many")
    assert (found.state, found.streamed) == ("error", False)
    assert found.error
    assert not found.error.startswith("{"), json.dumps(found.documents)
