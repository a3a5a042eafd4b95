"""`probe serve` with llama.cpp where it cannot start: one true sentence, at once."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from probe.errors import ServeError
from probe.serve.llamacpp import LlamaCppServer
from probe.serve.twin import Wanted, make_server


def test_a_file_that_is_no_gguf_is_not_started(tmp_path: Path) -> None:
    weights = tmp_path / "notes.gguf"
    weights.write_text("hello")
    with pytest.raises(ServeError, match="is no GGUF file"):
        LlamaCppServer(weights, model_id="m").start()


def test_a_file_that_was_cut_is_not_said_to_take_long(tmp_path: Path) -> None:
    weights = tmp_path / "cut.gguf"
    weights.write_bytes(b"GGUF\x03\0\0\0")
    with pytest.raises(ServeError, match=r"llama.cpp ended with status .* while loading cut.gguf"):
        LlamaCppServer(weights, model_id="m").start()


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        _, server = make_server(Wanted(weights="toy", port=port), None)
        with pytest.raises(ServeError, match=f"Port {port} cannot be used"):
            server.start()


def test_ctrl_c_while_it_starts_says_so_and_speaks_of_no_database() -> None:
    # Interrupted from inside, when the start has begun: no timing decides.
    script = (
        "import signal, sys\n"
        "from probe.serve import llamacpp\n"
        "llamacpp.select.select = lambda *_: signal.raise_signal(signal.SIGINT)\n"
        "sys.argv = ['probe', 'serve', 'toy']\n"
        "from probe.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "Stopped before the server was ready.\n"
