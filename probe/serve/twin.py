"""Which server holds which weights, with the settings that make it a good twin, and the route that reaches it.

A good twin answers as the weights do and tells what it did: log-probabilities are allowed, nothing but the chat
template stands between the trace and the weights, the template and its thinking switch are pinned (both change what a
model refuses), no default of a file overrides an explicit parameter, and nothing is forwarded to a cloud.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from probe.errors import ServeError
from probe.resources import data_folder
from probe.serve.facts import template_in, weights_hash
from probe.serve.llamacpp import LlamaCppServer
from probe.serve.ollama import OllamaServer
from probe.serve.process import get_json, request
from probe.serve.vllm import VllmServer

Engine = Literal["llamacpp", "vllm", "ollama"]
Server = LlamaCppServer | VllmServer | OllamaServer

_SMALL = 100_000_000
"""Bytes of a model file below which threads cost more than they bring (seen with the embedded weights)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be served.

    ``weights``: ``toy``, a GGUF file, a model folder, a hub id ``org/name@revision``, or a name that Ollama knows.
    ``thinking`` ``None`` leaves it to server and template.
    """

    weights: str
    engine: Engine | None = None
    model_id: str | None = None
    port: int = 0
    context: int = 4096
    parallel: int = 4
    device: Literal["auto", "cpu", "gpu"] = "auto"
    template: Path | None = None
    thinking: bool | None = False


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is ready. ``request`` is what a route to it sends along; ``facts`` are its own words and hashes."""

    engine: Engine
    url: str
    model: str
    weights: str
    request: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def route(self, name: str) -> str:
        """Return the table of ``probe.toml``."""
        lines = [
            f"[routes.{name}]",
            f'backend = "{self.engine}"',
            f"url     = {json.dumps(self.url)}",
            f"model   = {json.dumps(self.model)}",
            f"weights = {json.dumps(self.weights)}",
            'role    = "local"',
        ]
        if self.request:
            lines.append(f"request = {_inline(self.request)}")
        return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    """Return a value as inline TOML: tables of texts, numbers and switches."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_inline(entry)}" for key, entry in value.items()) + " }"
    return json.dumps(value)


def engine_for(wanted: Wanted) -> Engine:
    """Return the engine that was asked for, or the one that the weights go with. Raises ``ServeError``."""
    if wanted.engine is not None:
        return wanted.engine
    path = Path(wanted.weights)
    if wanted.weights == "toy" or path.suffix == ".gguf":
        return "llamacpp"
    if path.is_dir() or wanted.weights.count("/") == 1:
        return "vllm"
    if path.exists():
        raise ServeError(f"{path} is neither a GGUF file nor a model folder.")
    return "ollama"


def has_gpu() -> bool:
    """Whether NVIDIA's driver is here; other devices are named with ``device="gpu"``."""
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()


def make_server(wanted: Wanted, log_path: Path | None = None) -> tuple[Engine, Server]:
    """Make the server; it is not started. Raises ``ServeError`` where the weights do not fit the engine."""
    engine = engine_for(wanted)
    gpu = wanted.device == "gpu" or (wanted.device == "auto" and has_gpu())
    if wanted.template is not None and not wanted.template.is_file():
        raise ServeError(f"There is no template file {wanted.template}.")
    if engine == "llamacpp":
        return engine, _llamacpp(wanted, log_path, gpu=gpu)
    if engine == "vllm":
        return engine, _vllm(wanted, log_path, gpu=gpu)
    path = _gguf(wanted.weights)
    template = wanted.template.read_text(encoding="utf-8") if wanted.template else None
    if template is not None and not isinstance(path, Path):
        raise ServeError("Ollama takes another template for GGUF files only: name the file, or leave --template out.")
    return engine, OllamaServer(
        path,
        context=wanted.context,
        parallel=wanted.parallel,
        template=template,
        cpu=wanted.device == "cpu",
        port=wanted.port,
        log_path=log_path,
    )


def _gguf(weights: str) -> Path | str:
    if weights == "toy":
        return data_folder("backends") / "toy" / "toy.gguf"
    return Path(weights) if weights.endswith(".gguf") else weights


def _arguments(wanted: Wanted) -> dict[str, Any] | None:
    return None if wanted.thinking is None else {"enable_thinking": wanted.thinking}


def _llamacpp(wanted: Wanted, log_path: Path | None, *, gpu: bool) -> LlamaCppServer:
    path = _gguf(wanted.weights)
    if not isinstance(path, Path):
        raise ServeError(f"llama.cpp serves GGUF files, and {wanted.weights!r} is none.")
    small = path.is_file() and path.stat().st_size < _SMALL
    return LlamaCppServer(
        path,
        model_id=wanted.model_id or path.stem,
        context=wanted.context,
        parallel=wanted.parallel,
        threads=1 if small else None,
        template=wanted.template.read_text(encoding="utf-8") if wanted.template else None,
        template_arguments=_arguments(wanted),
        gpu_layers=None if gpu else 0,
        port=wanted.port,
        log_path=log_path,
        timeout_s=600,
    )


def _vllm(wanted: Wanted, log_path: Path | None, *, gpu: bool) -> VllmServer:
    if wanted.weights.endswith(".gguf"):
        raise ServeError("vLLM serves model folders and hub ids; a GGUF file goes with llamacpp or ollama.")
    name, _, revision = wanted.weights.partition("@")
    folder = data_folder("backends") / "toy" if wanted.weights == "toy" else Path(wanted.weights)
    model: Path | str = folder if wanted.weights == "toy" or folder.exists() else name
    default_id = folder.resolve().name if isinstance(model, Path) else name
    return VllmServer(
        model,
        model_id=wanted.model_id or default_id,
        max_model_len=min(wanted.context, 2048) if wanted.weights == "toy" else wanted.context,
        device="gpu" if gpu else "cpu",
        revision=revision or None if isinstance(model, str) else None,
        template=wanted.template,
        template_arguments=_arguments(wanted),
        port=wanted.port,
        log_path=log_path,
        timeout_s=1800,
    )


def describe(wanted: Wanted, engine: Engine, server: Server) -> Served:
    """Say what a started server is, and prove that it answers with log-probabilities. Raises ``ServeError``."""
    info = server.info
    assert info is not None
    port = int(info.url.rsplit(":", 1)[1])
    facts: dict[str, Any] = {"version": info.version}
    if engine == "ollama":
        return _described_ollama(wanted, info.url, info.model, port, facts)
    template = wanted.template.read_text(encoding="utf-8") if wanted.template else _template(wanted, engine, port)
    if template is not None:
        facts["template_sha256"] = hashlib.sha256(template.encode()).hexdigest()
    switched = wanted.thinking is not None and template is not None and "enable_thinking" in template
    weights = _weights_name(wanted, facts)
    _ask_logprobs(port, info.model)
    # In the route as well: a server that somebody restarts by hand must not change what the model sees.
    pinned = {"chat_template_kwargs": {"enable_thinking": wanted.thinking}} if switched else {}
    return Served(engine, f"{info.url}/v1", info.model, weights, pinned, facts)


def _described_ollama(wanted: Wanted, url: str, model: str, port: int, facts: dict[str, Any]) -> Served:
    shown = json.loads(request(port, "POST", "/api/show", {"model": model})[1])
    if isinstance(shown.get("template"), str):
        facts["template_sha256"] = hashlib.sha256(shown["template"].encode()).hexdigest()
    facts["quantization"] = (shown.get("details") or {}).get("quantization_level")
    facts["parameters"] = shown.get("parameters") or ""
    for row in get_json(port, "/api/tags").get("models", []):
        if row.get("name") in {model, f"{model}:latest"}:
            facts["digest"] = row.get("digest")
    thinks = "thinking" in (shown.get("capabilities") or [])
    pinned: dict[str, Any] = {"think": wanted.thinking} if thinks and wanted.thinking is not None else {}
    pinned["options"] = {"num_ctx": wanted.context}
    path = _gguf(wanted.weights)
    weights = _weights_name(wanted, facts) if isinstance(path, Path) else f"{model}@{facts.get('digest') or ''}"
    return Served("ollama", url, model, weights.rstrip("@"), pinned, facts)


def _template(wanted: Wanted, engine: Engine, port: int) -> str | None:
    """Return the chat template that the server uses, where it can be had."""
    if engine == "llamacpp":
        found = get_json(port, "/props").get("chat_template")
        return found if isinstance(found, str) else None
    return template_in(data_folder("backends") / "toy" if wanted.weights == "toy" else Path(wanted.weights))


def _weights_name(wanted: Wanted, facts: dict[str, Any]) -> str:
    """Return the weights as a route names them; a file's hash stands where a hub id has its revision."""
    path = _gguf(wanted.weights)
    place = path if isinstance(path, Path) else Path(wanted.weights)
    if wanted.weights == "toy" and engine_for(wanted) == "vllm":
        place = data_folder("backends") / "toy"
    digest = weights_hash(place)
    if digest is None:
        return wanted.weights
    facts["weights_sha256"] = digest
    return f"{place.stem if place.is_file() else place.resolve().name}@{digest[:22]}"


def _ask_logprobs(port: int, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "logprobs": True}
    status, said = request(port, "POST", "/v1/chat/completions", {**body, "top_logprobs": 1}, 120)
    try:
        tokens = json.loads(said)["choices"][0]["logprobs"]["content"]
    except (ValueError, KeyError, TypeError, IndexError):
        tokens = None
    if status != 200 or not tokens:
        raise ServeError(f"The server gives no log-probabilities (HTTP {status}: {said[:200]!r}): it is no twin.")
