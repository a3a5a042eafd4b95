"""What a backend's file says, as sections and as JSON."""

import json
from pathlib import Path

import pytest

from probe.wire.catalogue import backend_names, load_backend, read_backend
from probe.wire.explain import confidences_of, dropped, explain, full, sources_of, summary
from tests.wire.catalogue_kit import GOOD, SIGNATURE, write

MORE = """
[[facts]]
about = ["weather"]
says = "It rains."
source = "https://example.com"
confidence = "unconfirmed"
[[canned]]
text = "I am only a lake."
by = "the lake"
source = "recorded"
confidence = "recorded"
"""


def test_a_small_file(tmp_path: Path) -> None:
    backend = read_backend(write(tmp_path, GOOD + MORE + SIGNATURE + "status = 400\n"))
    assert sources_of(backend) == ("https://example.com", "https://example.org", "recorded")
    assert confidences_of(backend) == {"primary": 2, "unconfirmed": 1, "recorded": 1}
    assert dropped(backend) == (
        *("top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "max_tokens", "seed"),
    )
    sections = {section.title: section.lines for section in explain(backend)}
    assert list(sections) == [
        "Test (test)",
        "What is added to each request",
        "Sampling parameters",
        "Signatures: how an answer shows that somebody acted (1)",
        "Texts that are known to be written in the model's place (1)",
        "Facts",
    ]
    assert sections["What is added to each request"] == ((0, "Nothing."),)
    assert sections["Facts"] == ((0, "It rains."), (1, "unconfirmed: https://example.com"))
    assert (0, "Key: none.") in sections["Test (test)"]
    assert (0, "Sent: temperature, top_k.") in sections["Sampling parameters"]


@pytest.mark.parametrize("name", backend_names())
def test_each_fact_is_told_once(name: str) -> None:
    backend = load_backend(name)
    told = [text for section in explain(backend) for _, text in section.lines]
    for fact in backend.facts:
        assert told.count(fact.says) == sum(other.says == fact.says for other in backend.facts)


@pytest.mark.parametrize("name", backend_names())
def test_everything_is_json(name: str) -> None:
    backend = load_backend(name)
    found = json.loads(json.dumps(full(backend)))
    assert found["name"] == name
    assert [entry["id"] for entry in found["signatures"]] == summary(backend)["signatures"]
    assert set(found["parameters"]).isdisjoint(found["dropped"])
    for kind in ("facts", "reports", "signatures", "canned"):
        assert all(entry["source"] and entry["confidence"] for entry in found[kind])
