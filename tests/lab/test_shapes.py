"""Every shape of a declared block is read as what it is by the backend that a route to its provider would name."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from probe.lab.fronts.catalogue import FRONT_NAMES
from probe.lab.platform_spec import Platform, Screen
from probe.lab.server import LabServer
from probe.lab.shapes import BLOCK_SHAPES, BlockShape, read_shapes, shorten
from probe.serve.llamacpp import LlamaCppServer
from probe.wire.catalogue import load_backend
from probe.wire.signatures import Match, match_signatures
from tests.lab.raw import HOSTILE, QUESTION, Answered, ask

OPAQUE = {"kong-prompt-guard", "nemo-native-silent"}
"""Nothing in these bytes tells that a guard acted: an honest probe finds no more than a sentence that it knows."""

UNTOLD = {"converse-guardrail-output", "converse-content-filtered"}
"""Streams whose text before the end may be the model's or the guardrail's: the signature says only that it acted."""

STREAMS = {"bedrock": "application/vnd.amazon.eventstream"}
"""Streams that are no server-sent events."""

FILES = {"openai-responses": "openai", "openai-completions": "openai"}
"""Fronts whose backend file has another name: it is the dialect of a route that differs, not the signatures."""


@pytest.fixture(scope="module")
def blocks(toy_server: LlamaCppServer) -> Iterator[LabServer]:
    platforms = [
        Platform(name, family="blocks", front=shape.backend, screen=Screen(), action="declared_block", block=name)
        for name, shape in BLOCK_SHAPES.items()
    ]
    assert toy_server.info is not None
    with LabServer(platforms, toy_server.info.url, "toy", seed=2) as server:
        yield server


def blocked(lab: LabServer, shape: BlockShape, *, stream: bool, question: str = HOSTILE) -> Answered:
    return ask(lab.url, shape.name, question, front=shape.backend, stream=stream)


def matches(shape: BlockShape, answer: Answered) -> tuple[Match, ...]:
    return match_signatures(load_backend(FILES.get(shape.backend, shape.backend)), answer.exchange, answer.reading)


SHAPES = [
    pytest.param(shape, stream, id=f"{name}-{stream}")
    for name, shape in BLOCK_SHAPES.items()
    for stream in (True, False)
]


def test_there_are_many_providers() -> None:
    assert len({shape.provider for shape in BLOCK_SHAPES.values()}) >= 30
    without = {"ollama", "ollama-generate", "groq", "fireworks"}
    assert {shape.backend for shape in BLOCK_SHAPES.values()} == set(FRONT_NAMES) - without
    assert set(BLOCK_SHAPES) >= OPAQUE


@pytest.mark.parametrize(("shape", "stream"), SHAPES)
def test_a_block_is_read_as_the_platforms(blocks: LabServer, shape: BlockShape, stream: bool) -> None:
    answer = blocked(blocks, shape, stream=stream)
    assert answer.whole
    found = matches(shape, answer)
    if shape.name in OPAQUE:
        assert all(match.author == "unknown" for match in found)
        return
    # The first one of a platform is the one that a verdict names; others may say less.
    named = next((match for match in found if match.author == "platform"), None)
    assert named is not None, answer.body
    told = shape.mechanism if shape.name in UNTOLD else shape.mechanism_of(stream=stream)
    assert named.mechanism == told


@pytest.mark.parametrize(("shape", "stream"), SHAPES)
def test_a_block_is_logged(blocks: LabServer, shape: BlockShape, stream: bool) -> None:
    entry = blocks.log.find(blocked(blocks, shape, stream=stream).header("x-request-id"))
    assert entry is not None
    assert (entry.deed, entry.author, entry.platform) == ("declared_block", "platform", shape.name)
    assert entry.detail == {"family": "blocks", "mechanism": shape.mechanism_of(stream=stream), "shape": shape.name}


@pytest.mark.parametrize(("shape", "stream"), SHAPES)
def test_a_block_has_status_headers_and_framing_of_its_shape(
    blocks: LabServer, shape: BlockShape, stream: bool
) -> None:
    answer = blocked(blocks, shape, stream=stream, question=QUESTION)
    streamed = stream and shape.streams != "same"
    assert answer.status == (200 if streamed else shape.status)
    # After a part of an answer the head has been sent already.
    if not (streamed and shape.streams == "cut"):
        assert set(shape.headers) <= set(answer.headers)
    assert answer.header("content-type").startswith(
        STREAMS.get(shape.backend, "text/event-stream") if streamed else "application/json"
    )
    if streamed:
        assert shape.backend in STREAMS or shape.framing.encode() + b"{" in answer.body
        assert (shape.streams == "cut") == bool(
            answer.reading.text and answer.reading.streamed and len(answer.writes) > 1
        )
    else:
        assert json.loads(answer.body)
    for slot in (b"{model}", b"{id}", b"{created}", b"{flagged}", b"{prompt_tokens}"):
        assert slot not in answer.body


def test_what_the_user_wrote_is_quoted_as_json(blocks: LabServer) -> None:
    answer = blocked(blocks, BLOCK_SHAPES["openrouter-moderation"], stream=False)
    assert json.loads(answer.body)["error"]["metadata"]["flagged_input"] == HOSTILE


def test_a_long_input_is_quoted_without_its_middle() -> None:
    assert shorten("a" * 100) == "a" * 100
    assert shorten("a" * 60 + "b" * 60) == "a" * 48 + "..." + "b" * 48


GOOD = '[[shapes]]\nname="x"\nprovider="X"\nbackend="openai"\nsource="doc"\nstatus=400\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "body='{\"a\":}'", "not JSON"),
        (GOOD + "body='{}'\nstreams='cut'", "needs events exactly where"),
        (GOOD + "body='{}'\nevents=['{}']", "needs events exactly where"),
        (GOOD.replace("openai", "contoso") + "body='{}'", "which is none of"),
        (GOOD + "body='{}'\nmechanism='magic'", "which is none of"),
        (GOOD.replace("doc", "") + "body='{}'", "names no source"),
        ((GOOD + "body='{}'\n") * 2, "stands there twice"),
        (GOOD, "lacks or has an odd key"),
        (GOOD + "body='{}'\ncolour='red'", "lacks or has an odd key"),
    ],
)
def test_a_shape_that_is_wrong_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "shapes.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        read_shapes(path)
