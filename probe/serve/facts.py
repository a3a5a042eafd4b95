"""What a server says of itself that changes its answers: version, template, weights, quantization, sampling defaults.

Asked before a run and kept with it, so that two runs can be compared and a third one be made alike. Everything is asked
of the server itself, over HTTP; hashes of files are taken where the server is on this machine and names its folder.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from probe.config import Route

_TIMEOUT_S = 15.0
_LARGEST = 8_000_000_000
"""Bytes of weights that are hashed in full; beyond it names and sizes stand in, which says so."""

_DEFAULTS = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")


async def facts_of(session: aiohttp.ClientSession, route: Route) -> dict[str, Any]:
    """Return the facts of a local route by name; what cannot be had is left out. Never raises for a server's fault.

    ``version``, ``template_sha256``, ``weights_sha256``, ``quantization``, ``sampling_defaults``, ``context``,
    ``engine``.
    """
    reader = _READERS.get(route.backend.name)
    if reader is None:
        return {}
    try:
        found: dict[str, Any] = await reader(_Asking(session, route))
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, KeyError, TypeError, AttributeError):
        # A server of another version: what it does not say is not known, and the check of the route says the rest.
        return {}
    return found


class _Asking:
    """One server under questions."""

    def __init__(self, session: aiohttp.ClientSession, route: Route) -> None:
        self._session = session
        self.model = route.model
        parts = urlsplit(route.url)
        self._root = f"{parts.scheme}://{parts.netloc}"
        self.here = parts.hostname in {"127.0.0.1", "localhost", "::1"}

    async def get(self, path: str) -> Any:
        """Return the JSON at a path, ``None`` where there is none."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with self._session.get(self._root + path, timeout=timeout) as response:
            return json.loads(await response.text()) if response.status == 200 else None

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON that a request is answered with, ``None`` where it is refused."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with self._session.post(self._root + path, json=dict(body), timeout=timeout) as response:
            return json.loads(await response.text()) if response.status == 200 else None


def _text_hash(text: Any) -> str | None:
    return hashlib.sha256(text.encode()).hexdigest() if isinstance(text, str) and text else None


def _known(**facts: Any) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value not in (None, "", {}, [])}


async def _llamacpp(asking: _Asking) -> dict[str, Any]:
    # tools/server/README.md of ggml-org/llama.cpp@00dc805, GET /props
    props = await asking.get("/props") or {}
    defaults = (props.get("default_generation_settings") or {}).get("params") or {}
    path = props.get("model_path")
    weights = weights_hash(Path(path)) if asking.here and isinstance(path, str) else None
    rows = (await asking.get("/v1/models") or {}).get("data") or [{}]
    meta = rows[0].get("meta") or {}
    return _known(
        version=props.get("build_info"),
        template_sha256=_text_hash(props.get("chat_template")),
        weights_sha256=weights,
        quantization=meta.get("ftype"),
        parameters=meta.get("n_params"),
        sampling_defaults={name: defaults[name] for name in _DEFAULTS if name in defaults},
        context=(props.get("default_generation_settings") or {}).get("n_ctx"),
    )


async def _vllm(asking: _Asking) -> dict[str, Any]:
    # vllm/entrypoints/openai/api_server.py: /version, /v1/models with `root` (folder or hub id) and max_model_len
    version = (await asking.get("/version") or {}).get("version")
    rows = (await asking.get("/v1/models") or {}).get("data") or []
    row: dict[str, Any] = next((entry for entry in rows if entry.get("id") == asking.model), {})
    root = row.get("root")
    folder = Path(root) if asking.here and isinstance(root, str) else None
    there = folder is not None and folder.is_dir()
    return _known(
        version=version,
        root=None if there else root,
        template_sha256=_text_hash(template_in(folder)) if there and folder else None,
        weights_sha256=weights_hash(folder) if there and folder else None,
        quantization=_quantization_in(folder) if there and folder else None,
        context=row.get("max_model_len"),
    )


async def _ollama(asking: _Asking) -> dict[str, Any]:
    # docs/api.md of ollama/ollama@fb30760: POST /api/show, GET /api/tags
    shown = await asking.post("/api/show", {"model": asking.model}) or {}
    rows = (await asking.get("/api/tags") or {}).get("models") or []
    names = {asking.model, f"{asking.model}:latest"}
    row: dict[str, Any] = next((entry for entry in rows if entry.get("name") in names), {})
    return _known(
        version=(await asking.get("/api/version") or {}).get("version"),
        template_sha256=_text_hash(shown.get("template")),
        weights_sha256=row.get("digest"),
        quantization=(shown.get("details") or {}).get("quantization_level"),
        sampling_defaults=_modelfile(shown.get("parameters")),
        remote=shown.get("remote_host"),
    )


async def _sglang(asking: _Asking) -> dict[str, Any]:
    # python/sglang/srt/entrypoints/http_server.py: /get_model_info, /get_server_info
    model = await asking.get("/get_model_info") or {}
    server = await asking.get("/get_server_info") or {}
    return _known(
        version=server.get("version"),
        root=model.get("model_path"),
        quantization=server.get("quantization") or server.get("dtype"),
        context=server.get("context_length"),
    )


async def _tgi(asking: _Asking) -> dict[str, Any]:
    # router/src/server.rs of huggingface/text-generation-inference@db931fc: /info
    info = await asking.get("/info") or {}
    return _known(
        version=info.get("version"),
        root=info.get("model_id"),
        revision=info.get("model_sha"),
        quantization=info.get("model_dtype"),
        context=info.get("max_total_tokens"),
    )


_READERS: Mapping[str, Callable[[_Asking], Any]] = {
    "llamacpp": _llamacpp,
    "vllm": _vllm,
    "ollama": _ollama,
    "sglang": _sglang,
    "tgi": _tgi,
}


def _modelfile(parameters: Any) -> dict[str, str]:
    """Read the parameters of a Modelfile as ``/api/show`` lists them: a name and a value per line."""
    lines = parameters.splitlines() if isinstance(parameters, str) else []
    return {name: value.strip() for name, _, value in (line.partition(" ") for line in lines) if name}


def template_in(folder: Path) -> str | None:
    """Return the chat template of a model folder, as ``transformers`` finds it."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    found = json.loads(settings.read_text(encoding="utf-8")).get("chat_template") if settings.is_file() else None
    return found if isinstance(found, str) else None


def _quantization_in(folder: Path) -> str | None:
    settings = folder / "config.json"
    stated = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    method = (stated.get("quantization_config") or {}).get("quant_method")
    return str(method or stated.get("dtype") or stated.get("torch_dtype") or "") or None


def weights_hash(path: Path) -> str | None:
    """Return the hash of a GGUF file, or of a folder's safetensors in the order of their names.

    For one file its SHA-256; for several the SHA-256 over theirs. Very large ones are not read: names and sizes are
    hashed instead, marked ``sizes:``.
    """
    if path.is_dir():
        # Downloads of the hub are links into a store of files.
        files = [file for file in sorted(path.glob("*.safetensors")) if file.is_file()]
    else:
        files = [path] if path.is_file() else []
    if not files:
        return None
    sizes = [(file.name, file.stat().st_size) for file in files]
    if sum(size for _, size in sizes) > _LARGEST:
        return "sizes:" + hashlib.sha256(json.dumps(sizes).encode()).hexdigest()
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
