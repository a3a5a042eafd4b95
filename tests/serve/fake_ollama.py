"""Stands in for the program `ollama` in tests: `ollama serve` with the calls that starting a twin makes.

``OLLAMA_FAKE`` is the folder it writes into: its environment, and every request. ``FAKE_CLOUD`` makes its model a cloud
model, ``FAKE_ENDS`` lets it end at once.
"""

import hashlib
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["OLLAMA_FAKE"])
HOST, PORT = os.environ["OLLAMA_HOST"].split(":")
MODELS = {"kettle:8b"}
BLOBS: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, document: Any, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.answer({}, 200 if self.path.rsplit("/", 1)[1] in BLOBS else 404)

    def do_GET(self) -> None:
        rows = [{"name": name, "digest": "d" * 64} for name in sorted(MODELS)]
        self.answer({"/api/version": {"version": "0.99"}, "/api/tags": {"models": rows}}[self.path])

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        if self.path.startswith("/api/blobs/"):
            digest = self.path.rsplit("/", 1)[1]
            whole = f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
            BLOBS.add(digest)
            self.answer({}, 201 if whole else 400)
            return
        body = json.loads(data)
        with (FOLDER / "requests.jsonl").open("a") as log:
            log.write(json.dumps([self.path, body]) + "\n")
        if self.path == "/api/create":
            assert set(body["files"].values()) <= BLOBS
            MODELS.add(body["model"])
            self.answer({"status": "success"})
        elif body["model"] not in MODELS:
            self.answer({"error": f"model '{body['model']}' not found"}, 404)
        elif self.path == "/api/show":
            cloud = {"remote_host": "https://ollama.com"} if os.environ.get("FAKE_CLOUD") else {}
            details = {"quantization_level": "Q8_0"}
            self.answer({"template": "T", "details": details, "capabilities": ["completion", "thinking"], **cloud})
        else:
            self.answer({"model": body["model"], "done": True, "done_reason": "load", "response": ""})

    def log_message(self, *args: object) -> None: ...


def main() -> None:
    if os.environ.get("FAKE_ENDS"):
        print("Error: listen tcp 127.0.0.1: bind: address already in use", file=sys.stderr)
        sys.exit(1)
    assert sys.argv[1:] == ["serve"]
    (FOLDER / "environment.json").write_text(json.dumps(dict(os.environ)))
    HTTPServer((HOST, int(PORT)), Handler).serve_forever()


main()
