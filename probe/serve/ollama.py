"""Start Ollama for one model, with what makes it a good twin; the program itself is installed by the user.

``ollama serve`` takes all its settings from the environment (``envconfig/config.go`` and ``docs/faq.mdx`` of
ollama/ollama@fb30760): no cloud models, the model stays loaded, the context is as long as asked for and not guessed
from the memory, and the server listens on a port of its own, so that an Ollama that runs already is left alone.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probe.errors import ServeError
from probe.serve.info import ServerInfo
from probe.serve.process import LOOPBACK, ServerProcess, get_json, request

PROGRAM_VARIABLE = "PROBE_OLLAMA"
"""Environment variable that names the program; without it ``ollama`` is looked for on the path."""

_LOAD_S = 600.0
"""Seconds that hashing, copying and reading a model may take."""


def find_program() -> Path:
    """Return the program. Raises ``ServeError`` where there is none."""
    named = os.environ.get(PROGRAM_VARIABLE)
    found = shutil.which(named or "ollama")
    if found is None:
        where = f"{PROGRAM_VARIABLE} names {named}, which is not there" if named else "there is no `ollama` on the path"
        raise ServeError(f"Ollama is not installed ({where}): see https://ollama.com/download.")
    return Path(found)


class OllamaServer(ServerProcess):
    """One Ollama server for one model: a name that it has pulled, or a GGUF file, which it then gets a name for.

    ``context`` is tokens of prompt and answer together, ``parallel`` how many requests are worked on at once.
    ``template`` replaces the chat template of a GGUF file, in Ollama's own language (Go templates).
    """

    title = "Ollama"
    health = "/api/version"
    cause = re.compile(r"^(?:.*level=ERROR.*?msg=)?\"?((?:Error|listen|panic)\b.*)$", re.MULTILINE)

    def __init__(
        self,
        model: Path | str,
        *,
        context: int = 4096,
        parallel: int = 4,
        template: str | None = None,
        cpu: bool = False,
        port: int = 0,
        log_path: Path | None = None,
        timeout_s: float = 60,
    ) -> None:
        super().__init__(port=port, log_path=log_path, timeout_s=timeout_s)
        self._model = model
        self._context = context
        self._parallel = parallel
        self._template = template
        self._cpu = cpu

    def prepare(self) -> None:
        """Check the program and the file; see ``ServerProcess.prepare``."""
        find_program()
        if isinstance(self._model, Path) and not self._model.is_file():
            raise ServeError(f"Ollama cannot start: there is no model file {self._model}.")

    def command(self, port: int) -> Sequence[str]:
        """Return the command line; see ``ServerProcess.command``."""
        del port
        return [str(find_program()), "serve"]

    def environment(self, port: int) -> Mapping[str, str]:
        """Return the environment; see ``ServerProcess.environment``."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("OLLAMA_") or name == "OLLAMA_MODELS"
        }
        return {
            # No provider's key has business in another program.
            **{name: value for name, value in kept.items() if not name.endswith(("_API_KEY", "_TOKEN", "_SECRET"))},
            "OLLAMA_HOST": f"{LOOPBACK}:{port}",
            "OLLAMA_NO_CLOUD": "1",
            "OLLAMA_CONTEXT_LENGTH": str(self._context),
            "OLLAMA_NUM_PARALLEL": str(self._parallel),
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_MAX_LOADED_MODELS": "1",
            **({"CUDA_VISIBLE_DEVICES": "-1", "ROCR_VISIBLE_DEVICES": "-1"} if self._cpu else {}),
        }

    def describe(self, port: int) -> ServerInfo:
        """Load the model and ask what it is; see ``ServerProcess.describe``."""
        version = str(get_json(port, "/api/version")["version"])
        name = self._create(port, self._model) if isinstance(self._model, Path) else self._model
        shown = self._ask(port, "/api/show", {"model": name})
        if shown.get("remote_host") or shown.get("remote_model"):
            raise ServeError(f"{name!r} is a cloud model of Ollama: its weights are not on this machine.")
        # An empty request loads the model; it stays, so that no measured answer waits for the disk.
        self._ask(port, "/api/generate", {"model": name, "keep_alive": -1, "stream": False})
        return ServerInfo(url=f"http://{LOOPBACK}:{port}", model=name, version=version)

    def _create(self, port: int, file: Path) -> str:
        """Hand a GGUF file to the server; return the name that it goes under, which holds its hash."""
        with file.open("rb") as opened:
            digest = f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
        stem = re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("-._") or "model"
        name = f"probe-{stem}:{digest[7:19]}"
        if request(port, "HEAD", f"/api/blobs/{digest}")[0] != 200:
            status, said = _upload(port, f"/api/blobs/{digest}", file)
            if status not in {200, 201}:
                raise ServeError(f"Ollama did not take {file.name} (HTTP {status}: {said[:200]!r}).")
        template = {"template": self._template} if self._template is not None else {}
        self._ask(port, "/api/create", {"model": name, "files": {file.name: digest}, "stream": False, **template})
        return name

    def _ask(self, port: int, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        status, said = request(port, "POST", path, dict(body), _LOAD_S)
        found: Any = json.loads(said or b"{}")
        if status == 404:
            raise ServeError(f"Ollama does not have {body['model']!r}: `ollama pull {body['model']}` fetches it.")
        if status != 200 or not isinstance(found, dict) or found.get("error"):
            words = found.get("error") if isinstance(found, dict) else found
            raise ServeError(f"Ollama cannot use {body['model']!r} (HTTP {status}: {str(words)[:300]}).")
        return found


def _upload(port: int, path: str, file: Path) -> tuple[int, bytes]:
    import http.client

    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_LOAD_S)
    try:
        with file.open("rb") as opened:
            connection.request("POST", path, opened, {"Content-Length": str(file.stat().st_size)})
            response = connection.getresponse()
            return response.status, response.read()
    finally:
        connection.close()
