"""A llama.cpp server in this process, through xllamacpp, and JSON requests to it."""

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xllamacpp

SLOTS = 4


@contextmanager
def llama_cpp(model: Path, slots: int = SLOTS) -> Iterator[str]:
    """Serve a GGUF file with a float32 cache and no flash attention; yields the base URL."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = slots
    params.n_ctx = 2048 * slots
    params.warmup = False
    # So small a model is computed faster by one thread than two threads can meet.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = -1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    try:
        yield server.listening_address
    finally:
        del server


def post(base: str, path: str, body: dict[str, Any]) -> Any:
    """One JSON request."""
    request = urllib.request.Request(  # noqa: S310  the address is our own server's
        base + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
        return json.load(response)


def post_all(base: str, path: str, bodies: list[dict[str, Any]], slots: int = SLOTS) -> list[Any]:
    """Many requests, as many at once as the server has slots; answers in the order of the bodies."""
    with ThreadPoolExecutor(slots) as pool:
        return list(pool.map(lambda body: post(base, path, body), bodies))
