"""The real vLLM for tests: started once per session, skipped with a reason where it is not installed.

A test module imports the fixture by name::

    from tests.vllm_kit import vllm_server

With ``PROBE_REQUIRE_VLLM`` set (CI), a missing vLLM is a failure and not a skip.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from probe.errors import ServeError
from probe.resources import data_folder
from probe.serve.info import ServerInfo
from probe.serve.vllm import PYTHON_VARIABLE, VllmServer, find_python

MODEL_ID = "toy"

_NAMED = os.environ.get(PYTHON_VARIABLE)
"""Read before the fixture that clears the environment for each test."""

_shared: list[VllmServer] = []
"""The one server; a fixture that several modules import is a fixture of each, and would start one for each."""


def toy_model() -> Path:
    """Return the folder of the embedded weights."""
    return data_folder("backends") / "toy"


def real_python() -> Path:
    """Return the Python that has vLLM; skips the test, and says why, where there is none."""
    if _NAMED:
        return Path(_NAMED)
    try:
        return find_python()
    except ServeError as error:
        if os.environ.get("PROBE_REQUIRE_VLLM"):
            pytest.fail(f"PROBE_REQUIRE_VLLM is set, and {error}")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerInfo]:
    """Where the real vLLM serves the embedded weights."""
    python = real_python()
    if not _shared:
        log = tmp_path_factory.mktemp("vllm") / "vllm.log"
        # The flag of `probe serve` that a stand-in cannot prove: the real server must know it.
        arguments = {"enable_thinking": False}
        server = VllmServer(toy_model(), model_id=MODEL_ID, template_arguments=arguments, log_path=log)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(PYTHON_VARIABLE, str(python))
            server.start()
        _shared.append(server)
    server = _shared[0]
    assert server.info is not None
    yield server.info
    server.stop()


def processes_of(group: int) -> list[int]:
    """Return the ids of the processes of a group that are alive, from ``/proc`` (zombies have ended)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _parent, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(its_group) == group and state not in {"Z", "X"}:
            found.append(int(entry.name))
    return found


def clean_environment() -> dict[str, str]:
    """Return this process's environment for a child that imports ``probe`` from this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
