"""What servers say of themselves: a real llama.cpp, and recorded shapes of the others."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from probe.config import Route
from probe.resources import data_folder
from probe.serve.facts import facts_of, weights_hash
from probe.serve.llamacpp import LlamaCppServer
from probe.wire.catalogue import load_backend

TOY = data_folder("backends") / "toy"


def route(backend: str, url: str, model: str = "kettle") -> Route:
    return Route("local", load_backend(backend), url, model, model, "local")


async def ask(backend: str, answers: Mapping[str, Any], model: str = "kettle") -> dict[str, Any]:
    async def answer(request: web.Request) -> web.Response:
        found = answers.get(request.path)
        if isinstance(found, str):
            return web.Response(text=found)
        return web.json_response(found) if found is not None else web.Response(status=404)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession() as session:
            return await facts_of(session, route(backend, f"http://127.0.0.1:{runner.addresses[0][1]}/v1", model))
    finally:
        await runner.cleanup()


async def test_a_real_llamacpp_names_weights_template_and_defaults(toy_server: LlamaCppServer) -> None:
    assert toy_server.info is not None
    async with aiohttp.ClientSession() as session:
        found = await facts_of(session, route("llamacpp", f"{toy_server.info.url}/v1", "toy"))
    assert found["weights_sha256"] == hashlib.sha256((TOY / "toy.gguf").read_bytes()).hexdigest()
    assert len(found["template_sha256"]) == 64
    assert found["sampling_defaults"]["top_k"] == 40, "llama.cpp filters unless told otherwise"
    assert found["version"]


async def test_vllm_names_the_folder_that_it_serves() -> None:
    rows = [{"id": "other"}, {"id": "kettle", "root": str(TOY), "max_model_len": 2048}]
    found = await ask("vllm", {"/version": {"version": "0.32.0"}, "/v1/models": {"data": rows}})
    assert found["version"] == "0.32.0"
    assert found["weights_sha256"] == hashlib.sha256((TOY / "model.safetensors").read_bytes()).hexdigest()
    assert found["context"] == 2048
    assert "root" not in found, "paths of this machine do not go into a manifest"


async def test_vllm_with_weights_of_the_hub_names_them() -> None:
    rows = [{"id": "kettle", "root": "org/kettle", "max_model_len": 2048}]
    found = await ask("vllm", {"/v1/models": {"data": rows}})
    assert found == {"root": "org/kettle", "context": 2048}


async def test_ollama_names_digest_template_and_modelfile() -> None:
    shown = {
        "template": "{{ .Prompt }}",
        "details": {"quantization_level": "Q4_K_M"},
        "parameters": 'temperature                    0.6\nstop                           "<|im_end|>"',
    }
    tags = {"models": [{"name": "kettle:latest", "digest": "abc"}]}
    answers = {"/api/show": shown, "/api/tags": tags, "/api/version": {"version": "0.12"}}
    found = await ask("ollama", answers)
    assert found == {
        "version": "0.12",
        "template_sha256": hashlib.sha256(b"{{ .Prompt }}").hexdigest(),
        "weights_sha256": "abc",
        "quantization": "Q4_K_M",
        "sampling_defaults": {"temperature": "0.6", "stop": '"<|im_end|>"'},
    }


@pytest.mark.parametrize("answers", [{}, {"/props": "no JSON"}, {"/props": [1]}, {"/props": {"chat_template": 3}}])
async def test_a_server_that_says_nothing_readable_is_no_error(answers: dict[str, Any]) -> None:
    assert await ask("llamacpp", answers) == {}


async def test_hosted_routes_are_not_asked() -> None:
    async with aiohttp.ClientSession() as session:
        assert await facts_of(session, route("openai", "http://nobody.invalid/v1")) == {}


def test_weights_are_hashed_by_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"a")
    one = weights_hash(tmp_path)
    assert one == hashlib.sha256(b"a").hexdigest() == weights_hash(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"b")
    both = hashlib.sha256(hashlib.sha256(b"a").digest() + hashlib.sha256(b"b").digest()).hexdigest()
    assert weights_hash(tmp_path) == both
    (tmp_path / "config.json").write_text(json.dumps({}))
    assert weights_hash(tmp_path) == both
    assert weights_hash(tmp_path / "nothing") is None
