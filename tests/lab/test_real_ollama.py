"""A real Ollama, where one answers at OLLAMA_HOST: its native dialect as it really is."""

import json
import os
import urllib.request
from pathlib import Path

import pytest

from probe.config import load_config
from probe.runs.execute import execute, load_packs
from probe.store.store import Store
from probe.wire.dialects import dialect
from tests.study_kit import write_config, write_pack

HOST = os.environ.get("OLLAMA_HOST", "")


def models() -> list[str]:
    """What the server has; nothing where none answers."""
    url = HOST if HOST.startswith("http") else f"http://{HOST or '127.0.0.1:11434'}"
    try:
        with urllib.request.urlopen(f"{url}/api/tags", timeout=2) as answer:
            return [row["name"] for row in json.load(answer)["models"]]
    except (OSError, ValueError, KeyError):
        return []


@pytest.mark.ollama
def test_a_study_over_a_real_ollama(tmp_path: Path) -> None:
    names = models()
    if not names:
        pytest.skip("no Ollama with a model answers at OLLAMA_HOST")
    url = HOST if HOST.startswith("http") else f"http://{HOST or '127.0.0.1:11434'}"
    write_pack(tmp_path / "pack.jsonl", 2)
    route = {"backend": "ollama", "url": url, "model": names[0], "role": "local"}
    config = load_config(write_config(tmp_path / "probe.toml", {"ollama": route}))
    done = execute(config, tmp_path / "probe.db", load_packs([str(tmp_path / "pack.jsonl")]), seed=0, repeats=1)
    assert done.open == 0
    with Store.open(tmp_path / "probe.db") as store:
        readings = [dialect("ollama-chat").read(exchange) for exchange in store.exchanges()]
    assert {reading.state for reading in readings} <= {"answer", "empty"}
    assert all(reading.usage.prompt_tokens for reading in readings)
