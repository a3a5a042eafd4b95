"""A provider without capacity: an HTTP server in front of another that turns most requests away."""

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from probe.lab.chances import Chances
from probe.lifecycle import Startable
from probe.runs.pacing.clock import SystemClock

TURNED_AWAY: Mapping[str, Any] = {
    "error": {
        "message": "Provider returned error",
        "code": 429,
        "metadata": {
            "raw": "The model is temporarily rate-limited upstream. Please retry shortly.",
            "provider_name": "lab",
        },
    }
}
"""What OpenRouter says of a provider that is rate-limited (facts, §1): a fault, and no word about the request."""


class HurriedClock(SystemClock):
    """A clock whose waits are a thousandth as long: this provider will not recover, however long one waits for it."""

    SPEED = 1000.0

    def monotonic(self) -> float:
        """Return seconds that only ever grow, and fast."""
        return super().monotonic() * self.SPEED

    async def sleep(self, seconds: float) -> None:
        """Wait a thousandth of it."""
        await super().sleep(seconds / self.SPEED)


class BusyServer(Startable):
    """Answers 429 to all but a share of ``answers`` of the requests, whatever they ask; sends the others to ``url``.

    It is an ``upstream`` of a lab platform. The draws depend on the seed, the conversation and how often it was asked
    before. Requests that get through are redirected (307), which HTTP clients follow with the same body.
    """

    def __init__(self, url: str, *, answers: float, seed: int = 0) -> None:
        chances = Chances(seed, "busy")

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                draws = chances.of(json.loads(body).get("messages", []), {})
                if draws.of("capacity").random() < answers:
                    self.send_response(307)
                    self.send_header("location", url + self.path)
                    answer = b""
                else:
                    self.send_response(429)
                    self.send_header("content-type", "application/json")
                    answer = json.dumps(TURNED_AWAY).encode()
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is the base class's
                """Say nothing on stderr."""

        self._handler = Handler
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> str:
        """Start listening on a free port; return ``http://127.0.0.1:PORT``."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler)
        threading.Thread(target=self._server.serve_forever, name="probe-busy", daemon=True).start()
        return self.url

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
