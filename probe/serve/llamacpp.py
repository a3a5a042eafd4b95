"""Start a real llama.cpp HTTP server (PyPI ``xllamacpp``) for a GGUF file, and stop it by handle."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from probe.errors import ServeError
from probe.lifecycle import Startable
from probe.serve.info import ServerInfo
from probe.serve.process import reserved_port

_MAGIC = b"GGUF"


class LlamaCppServer(Startable):
    """One server process for one GGUF file; a context manager.

    ``context`` is tokens per slot, ``parallel`` the number of slots that decode together. ``template`` is the text of a
    chat template that replaces the file's own; ``template_arguments`` are given to the template with every request that
    does not say otherwise (``{"enable_thinking": False}``). ``gpu_layers``: layers on a GPU, where llama.cpp was built
    for one; ``None`` leaves it to llama.cpp, 0 keeps all on the CPU. Raises ``ServeError`` with one sentence where the
    file is missing or none, the port is taken, or the server does not come up within ``timeout_s`` seconds.
    """

    def __init__(
        self,
        model: Path,
        *,
        model_id: str,
        context: int = 1024,
        parallel: int = 4,
        threads: int | None = None,
        template: str | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        gpu_layers: int | None = None,
        port: int = 0,
        log_path: Path | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self._model = model
        self._port = port
        self._options = {
            "model": str(model),
            "model_id": model_id,
            "context": context,
            "parallel": parallel,
            "threads": threads or min(os.cpu_count() or 1, 8),
            "port": port,
            "template": template,
            "template_arguments": dict(template_arguments or {}),
            "gpu_layers": gpu_layers,
        }
        self._log_path = log_path
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self.info: ServerInfo | None = None

    def start(self) -> ServerInfo:
        """Start and wait until the model is loaded; return where it listens."""
        if not self._model.is_file():
            raise ServeError(f"llama.cpp cannot start: there is no model file {self._model}.")
        with self._model.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ServeError(f"llama.cpp cannot start: {self._model} is no GGUF file, it does not begin like one.")
        if self._port:
            # Only to say so: llama.cpp ends without a word where its port is taken.
            with reserved_port(self._port):
                pass
        self._log = self._log_path.open("ab") if self._log_path else None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "probe.serve.llamacpp_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log or subprocess.DEVNULL,
            text=True,
            # Ctrl-C in the terminal goes to the whole process group; the run decides when its server stops.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._options) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], self._timeout_s)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            status = self._status() if ready else None
            self.stop()
            what = f"did not answer within {self._timeout_s:.0f} s" if status is None else f"ended with status {status}"
            raise ServeError(
                f"llama.cpp {what} while loading {self._model.name}: is it a GGUF file, and is there memory?"
            )
        answer = json.loads(line)
        self.info = ServerInfo(url=answer["url"], model=str(self._options["model_id"]), version=answer["build"])
        return self.info

    def _status(self) -> int | None:
        """Return the status of a process that has closed its output, and so is about to end."""
        assert self._process is not None
        try:
            return self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return None

    @property
    def pid(self) -> int | None:
        """Process id of the server while it runs."""
        return self._process.pid if self._process else None

    def ended(self) -> str | None:
        """Return a sentence on how the server ended by itself, ``None`` while it runs."""
        if self._process is None or self._process.poll() is None:
            return None
        return f"llama.cpp ended with status {self._process.returncode}."

    def stop(self) -> None:
        """Stop the server and wait until it is gone; safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None
