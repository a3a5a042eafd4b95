"""A small router for tests: a listing of endpoints, a list of models, and what it tells of generations."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from probe.config import Config, Route, load_config
from probe.routers.listing import Endpoint, endpoints_of

MODEL = "qwen/qwen3-8b"


def listed(tag: str, provider: str, **more: Any) -> dict[str, Any]:
    """Return an entry of ``data.endpoints`` as OpenRouter documents it."""
    return {
        "name": f"{provider} | {MODEL}",
        "model_id": MODEL,
        "model_name": "Qwen: Qwen3 8B",
        "provider_name": provider,
        "tag": tag,
        "quantization": tag.partition("/")[2] or "unknown",
        "context_length": 40960,
        "max_completion_tokens": 8192,
        "max_prompt_tokens": None,
        "supported_parameters": [
            *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty"),
            *("frequency_penalty", "max_tokens", "seed"),
        ],
        "status": 0,
        "uptime_last_30m": 99.9,
        "pricing": {"prompt": "0.00000005", "completion": "0.0000004", "request": "0", "discount": 0},
        **more,
    }


DEEPINFRA = listed("deepinfra/bf16", "DeepInfra")
TURBO = listed("deepinfra/turbo", "DeepInfra", quantization="fp8")
NOVITA = listed("novita/fp8", "NovitaAI")
TOGETHER = listed("together", "Together")


def document(*rows: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer of the listing."""
    return {"data": {"id": MODEL, "name": "Qwen3 8B", "endpoints": list(rows)}}


def endpoints(*rows: Mapping[str, Any]) -> list[Endpoint]:
    """Return entries as they are read."""
    found = endpoints_of(document(*rows))
    assert found is not None
    return found


@dataclass
class Router:
    """What the small router answers by path (without the query where it has no entry of its own), and who asked."""

    url: str = ""
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def tell(self, path: str, body: Any, status: int = 200) -> None:
        """Answer a path below ``/api/v1`` with this."""
        self.answers[f"/api/v1{path}"] = (status, body)


@contextmanager
def running() -> Iterator[Router]:
    """Serve a small router on a port of its own."""
    router = Router()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            router.asked.append(self.path)
            router.headers.append({name.lower(): value for name, value in self.headers.items()})
            plain = self.path.partition("?")[0]
            status, body = router.answers.get(self.path) or router.answers.get(plain) or (404, {"error": {"code": 404}})
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    router.url = f"http://127.0.0.1:{server.server_address[1]}/api/v1"
    try:
        yield router
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def study(folder: Path, text: str) -> Config:
    """Write a probe.toml and load it."""
    path = folder / "probe.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def route_of(folder: Path, request: str = "", *, model: str = MODEL, weights: str = "Qwen/Qwen3-8B") -> Route:
    """Return a route over OpenRouter with this ``request`` table (TOML)."""
    more = f"request = {request}\n" if request else ""
    text = f'[routes.or]\nbackend = "openrouter"\nmodel = "{model}"\nweights = "{weights}"\n{more}'
    return study(folder, text).routes["or"]
