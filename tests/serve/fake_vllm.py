"""Stands in for vLLM in fast tests: same command line and readiness, a worker of its own, and ways to go wrong.

``VLLM_FAKE`` chooses: ``ends``, ``silent``, ``other-model``, ``stubborn`` (its worker ignores SIGTERM), else it works.
It writes its environment to the file that ``VLLM_FAKE_ENVIRONMENT`` names.
"""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

MODE = os.environ.get("VLLM_FAKE", "")
MODEL = sys.argv[sys.argv.index("--served-model-name") + 1]
PORT = int(sys.argv[sys.argv.index("--port") + 1])
WORKER = (
    "import signal, sys, time\nif 'stubborn' in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(99)"
)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = "another" if MODE == "other-model" else MODEL
        bodies: dict[str, Any] = {"/version": {"version": "0.0"}, "/v1/models": {"data": [{"id": name}]}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(bodies.get(self.path, "")).encode())

    def log_message(self, *args: object) -> None: ...


def main() -> None:
    if report := os.environ.get("VLLM_FAKE_ENVIRONMENT"):
        Path(report).write_text(json.dumps(dict(os.environ)))
    if MODE == "ends":
        print("(EngineCore pid=2) ERROR 11-21 10:00:00 [core.py:1] Traceback (most recent call last):")
        print("(EngineCore pid=2) ERROR 11-21 10:00:00 [core.py:2] ValueError: the weights are torn.", flush=True)
        print("RuntimeError: Engine core initialization failed. See root cause above.", file=sys.stderr)
        sys.exit(3)
    if MODE == "silent":
        time.sleep(99)
    worker = subprocess.Popen([sys.executable, "-c", WORKER, MODE])
    signal.signal(signal.SIGTERM, lambda *_: (worker.terminate(), os._exit(0)))
    HTTPServer(("127.0.0.1", PORT), Handler).serve_forever()


main()
