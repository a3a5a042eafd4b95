"""Fixtures for all tests: no keys in the environment, a real llama.cpp server with the embedded weights."""

from collections.abc import Iterator

import pytest

from probe.lab.server import LabServer
from probe.resources import data_folder
from probe.serve.llamacpp import LlamaCppServer
from tests.study_kit import PLATFORMS


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_TOKEN")) or (
            name.startswith("PROBE_") and not name.startswith("PROBE_REQUIRE")
        ):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def toy_server() -> Iterator[LlamaCppServer]:
    """The embedded weights on a real llama.cpp server, once for all tests."""
    with LlamaCppServer(data_folder("backends") / "toy" / "toy.gguf", model_id="toy", parallel=4, threads=1) as server:
        yield server


@pytest.fixture(scope="session")
def lab(toy_server: LlamaCppServer) -> Iterator[LabServer]:
    """Lab platforms in front of the embedded weights."""
    assert toy_server.info is not None
    with LabServer(PLATFORMS, toy_server.info.url, "toy", seed=1) as server:
        yield server
