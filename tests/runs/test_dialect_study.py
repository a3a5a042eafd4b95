"""A run over hosted routes that speak other dialects than chats: sent, signed, recorded, and read."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from probe.lab.platform_spec import Platform
from probe.lab.server import LabServer
from probe.serve.llamacpp import LlamaCppServer
from probe.store.store import Store
from probe.wire.dialects import dialect
from tests.study_kit import hosted_route, local_route, write_config, write_pack

ACCESS, SECRET, KEY = "AKIDSTUDY4F9C1D7E2B8", "study/secret+4f9c1d7e2b8a6053", "sk-study-0123456789abcdef"
MODEL = "lab.toy-v1:0"
"""An id that has to be escaped in a path, and stay so until it is signed."""

ROUTES = {"anthropic": "/anthropic/v1", "gemini": "/gemini/v1beta", "bedrock": "/bedrock"}


@pytest.fixture(scope="module")
def platforms(toy_server: LlamaCppServer) -> Iterator[LabServer]:
    assert toy_server.info is not None
    fronts = [Platform(name, front=name) for name in ROUTES]
    with LabServer(fronts, toy_server.info.url, MODEL, seed=1, aws={ACCESS: SECRET}) as server:
        yield server


@pytest.mark.parametrize("stream", [True, False])
def test_a_run_over_other_dialects(
    tmp_path: Path, toy_server: LlamaCppServer, platforms: LabServer, stream: bool
) -> None:
    assert toy_server.info is not None
    write_pack(tmp_path / "pack.jsonl", 3)
    routes = {"local": local_route(toy_server.info.url)}
    for name, path in ROUTES.items():
        hosted = hosted_route(platforms.url, backend=name, url=platforms.url + path, model=MODEL, stream=stream)
        routes[name] = {**hosted, "key_env": "" if name == "bedrock" else "STUDY_KEY"}
    write_config(tmp_path / "probe.toml", routes)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "STUDY_KEY": KEY,
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "probe", "run", "--json"]
    without = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert without.returncode != 0
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in without.stderr
    assert "Traceback" not in without.stderr
    environment["AWS_SECRET_ACCESS_KEY"] = SECRET
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["open"] == 0
    with Store.open(tmp_path / "probe.db") as store:
        rows = {row.id: row for row in store.routes().values()}
        seen = set()
        for exchange in store.exchanges():
            row = rows[exchange.route_id]
            speaks = dialect(row.dialect)
            reading = speaks.read(exchange)
            assert (reading.state, reading.streamed, reading.problems) == ("answer", stream or row.name == "local", ())
            assert reading.usage.completion_tokens
            request = speaks.read_request(exchange.request_body, exchange.url)
            assert [message.role for message in request.messages] == ["user"]
            assert (request.model, request.stream) == (row.model, reading.streamed)
            assert request.extra == ()
            seen.add(row.name)
            shown = repr(exchange)
            assert not any(secret in shown for secret in (ACCESS, SECRET, KEY))
        assert seen == {"local", *ROUTES}
    for file in tmp_path.glob("probe.db*"):
        assert not any(secret.encode() in file.read_bytes() for secret in (ACCESS, SECRET, KEY))
