import json
from typing import Any

import pytest

from probe.errors import WireError
from probe.traces.values import Message, Sampling, Trace
from probe.wire.ollama_generate import OllamaGenerate
from probe.wire.values import Reading, TokenLogprob, Usage
from tests.kit import NDJSON, make_exchange, ndjson
from tests.wire.dialects_kit import backend

DIALECT = OllamaGenerate()
USER, SYSTEM = Message("user", "Grüße?"), Message("system", "Be brief.")


def build(*messages: Message, **changes: Any) -> dict[str, Any]:
    arguments = {"model": "m", "stream": False, "request": {}, "logprobs": 0, **changes}
    built = DIALECT.build(Trace("t", messages, Sampling(seed=7)), backend=backend(DIALECT.name), **arguments)
    assert built.path == "/api/generate"
    return dict(json.loads(built.body))


def read(body: Any, **overrides: Any) -> Reading:
    return DIALECT.read(make_exchange(response_body=body, **overrides))


def piece(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "toy", "response": text, "done": False, **fields}


def test_one_turn_goes_through_the_servers_template() -> None:
    body = build(SYSTEM, USER, request={"options": {"num_ctx": 4096}}, logprobs=2)
    assert (body["prompt"], body["system"], body["stream"]) == ("Grüße?", "Be brief.", False)
    assert (body["options"]["num_ctx"], body["options"]["num_predict"], body["options"]["seed"]) == (4096, 256, 7)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert "raw" not in body
    assert "system" not in build(USER)


def test_several_turns_need_a_template() -> None:
    turns = (USER, Message("assistant", "Yes?"), USER)
    with pytest.raises(WireError, match="template"):
        build(*turns)
    body = build(*turns, prompt="<|user|>Grüße?")
    assert (body["prompt"], body["raw"]) == ("<|user|>Grüße?", True)
    assert "system" not in build(SYSTEM, USER, prompt="x")


@pytest.mark.parametrize("key", ["template", "raw", "context", "system", "suffix"])
def test_a_route_cannot_change_the_prompt(key: str) -> None:
    with pytest.raises(WireError, match=key):
        build(USER, request={key: "x"})


def test_a_stream() -> None:
    last = {
        **piece(""),
        "done": True,
        "done_reason": "stop",
        "context": [1, 2, 3],
        "total_duration": 2_000_000_000,
        "prompt_eval_count": 5,
        "eval_count": 2,
        "eval_duration": 1_500_000_000,
    }
    pieces = piece("", thinking="Hm."), piece("Hel"), piece("lo.", logprobs=[{"token": "lo.", "logprob": -0.5}])
    reading = read(ndjson(*pieces, last), response_headers=NDJSON)
    assert (reading.state, reading.text, reading.reasoning, reading.streamed) == ("answer", "Hello.", "Hm.", True)
    assert (reading.usage, reading.finish_reason) == (Usage(5, 2), "stop")
    assert reading.timings == {"total": 2.0, "generation": 1.5}
    assert reading.logprobs == (TokenLogprob("lo.", -0.5),)
    assert reading.problems == ()


def test_missing_end_and_errors() -> None:
    assert read(ndjson(piece("Hel")), response_headers=NDJSON, state="cut").state == "truncated"
    assert read(piece("Hel")).state == "truncated"
    reading = read(ndjson(piece("Hel"), {"error": "gone"}), response_headers=NDJSON)
    assert (reading.state, reading.text, reading.error) == ("error", "Hel", "gone")
    assert read({**piece(""), "done": True}).state == "empty"
    assert "'response'" not in str(read({**piece("a"), "response": 7, "done": True}).problems)
    assert "response is" in read({**piece("a"), "response": 7, "done": True}).problems[0]


def test_requests() -> None:
    body = {
        "model": "m",
        "prompt": "a",
        "template": "x",
        "context": [1],
        "images": ["x"],
        "raw": True,
        "format": "json",
    }
    found = DIALECT.read_request(json.dumps({**body, "options": {"stop": ["x"], "seed": 1}}).encode())
    assert found.extra == ("template", "context", "images", "raw", "format", "options.stop")
    assert (found.messages, found.sampling, found.stream) == ((Message("user", "a"),), {"seed": 1}, True)
    with pytest.raises(WireError, match="no prompt"):
        DIALECT.read_request(b'{"prompt": 1}')
