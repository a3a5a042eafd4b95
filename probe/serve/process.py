"""A server in a process group of its own, started under the guard, waited for and stopped by handle."""

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
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from probe.errors import ServeError
from probe.lifecycle import Startable
from probe.serve import guard
from probe.serve.info import ServerInfo

LOOPBACK = "127.0.0.1"
_POLL_S = 0.2
_LOG_READ = 2_000_000
"""Bytes of the log that are searched for the cause of a failure."""


class ServerProcess(Startable):
    """One server that is another program; a context manager.

    A subclass says how it is called (``title``), what it needs (``prepare``), its command line and environment, where
    it answers that it is healthy, and how it describes itself. The log goes to ``log_path``; without one it goes to a
    temporary file, which is kept, and named, only when the start fails. Not for use by two threads at once.
    """

    title = "the server"
    health = "/health"
    cause = re.compile(r"(?!)")
    """Finds the line of the log that says why the server ended (group 1)."""

    def __init__(self, *, port: int = 0, log_path: Path | None = None, timeout_s: float = 300) -> None:
        self._port = port
        self._log_path = log_path
        self._log_start = 0
        self._keep_log = log_path is not None
        self._timeout_s = timeout_s
        self._guard: subprocess.Popen[bytes] | None = None
        self._group: int | None = None
        self.info: ServerInfo | None = None

    def prepare(self) -> None:
        """Raise ``ServeError`` where something is missing."""

    @abstractmethod
    def command(self, port: int) -> Sequence[str]:
        """Return the command line."""

    @abstractmethod
    def environment(self, port: int) -> Mapping[str, str]:
        """Return the whole environment of the server."""

    @abstractmethod
    def describe(self, port: int) -> ServerInfo:
        """Ask the server that answers who it is. Raises ``ServeError`` where it is not what was asked for."""

    def start(self) -> ServerInfo:
        """Start and wait until it answers; return where it listens.

        Raises ``ServeError`` with one sentence where something is missing, where the server ends, or where it does not
        answer within ``timeout_s`` seconds.
        """
        if self._guard is not None:
            raise ServeError(f"{self.title} is already running: stop it before starting it again.")
        self.prepare()
        with reserved_port(self._port) as port:
            try:
                self._spawn(self.command(port), self.environment(port))
                self.info = self._wait(port)
            except BaseException as error:
                # A start that was interrupted (Ctrl-C) leaves no server behind either.
                self._keep_log = self._keep_log or isinstance(error, ServeError)
                self.stop()
                raise
        return self.info

    @property
    def pid(self) -> int | None:
        """Process id (and group) of the server while it runs."""
        return self._group

    def ended(self) -> str | None:
        """Return a sentence on how the server ended by itself, ``None`` while it runs."""
        if self._guard is None or self._guard.poll() is None:
            return None
        return f"{self.title} ended with status {self._guard.returncode}: {self._reason()}."

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

    def _spawn(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        if self._log_path is None:
            handle, name = tempfile.mkstemp(prefix="probe-server-", suffix=".log")
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
                env=environment,
                # Ctrl-C in the terminal goes to the whole process group; the run decides when its server stops.
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        if not line:
            raise ServeError(f"{self.title} could not be started: {self._reason()}.")
        self._group = int(line)

    def _wait(self, port: int) -> ServerInfo:
        assert self._guard is not None
        deadline = time.monotonic() + self._timeout_s
        while not is_healthy(port, self.health):
            if (status := self._guard.poll()) is not None:
                raise ServeError(f"{self.title} ended with status {status} before it answered: {self._reason()}.")
            if time.monotonic() > deadline:
                raise ServeError(f"{self.title} did not answer within {self._timeout_s:.0f} s: {self._reason()}.")
            time.sleep(_POLL_S)
        try:
            return self.describe(port)
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            raise ServeError(f"The server that {self.title} started does not describe itself ({error!r}).") from error

    def _reason(self) -> str:
        """Return the cause that the log gives, else its last line, and where the log is."""
        assert self._log_path is not None
        with self._log_path.open("rb") as log:
            # A log that is kept may hold an earlier server's words too.
            log.seek(self._log_start)
            text = log.read(_LOG_READ).decode(errors="replace")
        cause = self.cause.search(text)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        said = cause.group(1) if cause else (lines[-1] if lines else "it said nothing")
        # The end of what pydantic adds repeats the whole input.
        said = " ".join(said.partition(" [type=")[0].split())
        return f"{said.rstrip('.')[:400]} (log: {self._log_path})"


@contextlib.contextmanager
def reserved_port(wanted: int = 0) -> Iterator[int]:
    """Yield a port of the loopback interface that no other process can take before the server does; 0 takes a free one.

    A socket that is bound, does not listen and allows reuse keeps others away, and lets in one that allows reuse as
    well, as vLLM's and Go's do (``socket(7)``, SO_REUSEADDR). Raises ``ServeError`` where the port is taken.
    """
    with socket.socket() as placeholder:
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            placeholder.bind((LOOPBACK, wanted))
        except OSError as error:
            raise ServeError(f"Port {wanted} cannot be used ({error.strerror}): choose another with --port.") from None
        yield placeholder.getsockname()[1]


def is_healthy(port: int, path: str) -> bool:
    """Whether a server on this machine answers 200."""
    try:
        return request(port, "GET", path)[0] == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def get_json(port: int, path: str) -> Any:
    """Return what a server on this machine answers. Raises ``OSError``, ``HTTPException``, ``ValueError``."""
    return json.loads(request(port, "GET", path)[1])


def request(port: int, method: str, path: str, body: Any = None, timeout_s: float = 10) -> tuple[int, bytes]:
    """Ask a server on this machine; ``body`` is sent as JSON. Raises ``OSError`` and ``HTTPException``."""
    # http.client, not urllib: it knows nothing of proxies, and the way to our own server must not lead through one.
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_s)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
