"""Which exchanges answer a trial: what was paid for is not sent again, and what is no answer has a reason."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from answers_kit import ANSWERS, DOCUMENTED, Said

from probe.proxy.tickets import NOT_FOUND, TLS_FAILED
from probe.runs.answers import OPEN, classify
from probe.runs.words import SHOWN
from probe.wire.catalogue import load_backend
from tests.kit import SSE, delta, make_exchange, sse

SAMPLES = Path(__file__).parents[1] / "backends" / "samples"


@pytest.mark.parametrize("said", [*DOCUMENTED, *ANSWERS], ids=lambda said: said.name)
def test_each_thing_that_providers_say(said: Said) -> None:
    found = classify(make_exchange(status=said.status, response_body=said.body), load_backend(said.backend))
    assert found.reason == said.reason
    assert said.words in found.words
    assert found.state == ("answered" if not said.reason else "planned" if said.reason in OPEN else "failed")


def declared() -> Iterator[tuple[str, dict[str, Any]]]:
    """Samples of declared blocks, as the catalogue's own tests have them."""
    for file in sorted((SAMPLES / "openrouter").glob("openrouter-*.json")):
        name = file.stem
        if name in {"openrouter-moderation", "openrouter-guardrail-content", "openrouter-guardrail-injection"}:
            for entry in json.loads(file.read_text(encoding="utf-8"))["matches"]:
                yield name, entry


@pytest.mark.parametrize(("name", "entry"), declared())
def test_what_the_catalogue_declares_as_a_block_is_an_answer(name: str, entry: dict[str, Any]) -> None:
    del name
    exchange = make_exchange(status=entry["status"], response_body=entry["body"])
    found = classify(exchange, load_backend("openrouter"))
    assert (found.reason, found.blocked, found.words) == ("", True, "")


def http_errors() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(SAMPLES.glob("*/*.json")):
        for entry in json.loads(file.read_text(encoding="utf-8"))["matches"]:
            # Its words alone, "temporarily limited", read like an overload: this one needs its signature.
            if entry["status"] >= 400 and "body" in entry and file.stem != "openai-access-limited":
                yield file.stem, entry


@pytest.mark.parametrize(("name", "entry"), http_errors())
def test_a_block_that_no_signature_knows_is_an_answer_all_the_same(name: str, entry: dict[str, Any]) -> None:
    """Every known block by an HTTP error, seen without signatures: as the next, unknown one will be."""
    del name
    bare = replace(load_backend("openai"), signatures=(), canned=())
    found = classify(make_exchange(status=entry["status"], response_body=entry["body"]), bare)
    assert (found.reason, found.unexplained) == ("", True)


BEGUN = sse(delta("Once upon"), done=False)
FAILED = {"error": {"code": 502, "message": "Upstream gone"}, "choices": [{"index": 0, "delta": {}}]}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, ""),
        ({"state": "cut"}, ""),
        ({"state": "timeout"}, ""),
        ({"response_body": b""}, ""),
        ({"state": "cut", "response_body": b'data: {"choices":[{"delta":{"content":"On', "response_headers": SSE}, ""),
        ({"state": "cut", "response_body": BEGUN, "response_headers": SSE}, ""),
        ({"response_body": BEGUN + sse(FAILED), "response_headers": SSE}, ""),
        ({"response_body": sse(FAILED), "response_headers": SSE}, "overloaded"),
        ({"state": "cut", "response_body": b""}, "reset"),
        ({"state": "cut", "response_body": b"", "status": None}, "reset"),
        ({"state": "cut", "response_body": b"", "status": 103}, "reset"),
        ({"state": "cut", "response_body": b": PROCESSING\n\n", "response_headers": SSE}, "reset"),
        ({"state": "timeout", "response_body": b": PROCESSING\n\n", "response_headers": SSE}, "timeout"),
        ({"state": "timeout", "response_body": b"", "status": None}, "timeout"),
        ({"state": "cut", "response_body": b"", "status": 429}, "rate_limited"),
        ({"state": "client_gone"}, "interrupted"),
        ({"state": "unreachable", "status": None, "error": "[Errno 111] Connect call failed"}, "unreachable"),
        ({"state": "unreachable", "status": None, "error": NOT_FOUND + "[Errno -2]"}, "dns"),
        ({"state": "unreachable", "status": None, "error": TLS_FAILED + "self-signed certificate"}, "tls"),
    ],
)
def test_each_way_in_which_an_exchange_ends(fields: dict[str, Any], reason: str) -> None:
    assert classify(make_exchange(**fields), load_backend("openrouter")).reason == reason


def test_a_prompt_that_is_quoted_decides_nothing() -> None:
    """A trace may speak of keys, countries and credit; what providers quote of it are not their words."""
    quoted = "My API key is invalid, this model does not exist, and it is not available in your country."
    body = {
        "error": {"code": 403, "message": "No.", "metadata": {"flagged_input": quoted, "failed_generation": quoted}}
    }
    found = classify(make_exchange(status=403, response_body=body), load_backend("openrouter"))
    assert found.reason == ""


def test_quoted_words_are_one_short_line_that_cannot_write_to_a_terminal() -> None:
    body = {"error": {"message": "Rate\x1b[31m limit\n\nreached " + "x" * 900, "code": 429}}
    found = classify(make_exchange(status=429, response_body=body), load_backend("openrouter"))
    assert len(found.words) <= SHOWN
    assert found.words.isprintable()
    assert found.words.startswith("Rate")


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[" * 5000, b'{"error": [[[]]]}', b'{"error": {"message": {}}}', b"null"]
)
@pytest.mark.parametrize("status", [200, 400, 403, 404, 429, 500])
def test_nonsense_is_classified_and_never_an_exception(status: int, body: bytes) -> None:
    classify(make_exchange(status=status, response_body=body), load_backend("openrouter"))
