"""Runs one command for a parent, and takes down all that it started when the parent is gone.

Started as a script (``python guard.py COMMAND…``), never imported by the server it guards. It prints the process group
of the command on one line, then waits for whichever comes first: the command's end, or the end of its standard input.
The other end of that pipe is held by the parent alone, so it closes however the parent goes, ``kill -9`` included.

Why a process in between: vLLM is a tree (API server, engine, worker), and its engine and worker outlive an API server
that is killed (seen with vLLM 0.32.0: 2.3 GB stayed behind). Linux's parent-death signal alone would not reach them,
and it fires when the *thread* that started the process ends, which a server started from a worker thread does not
survive. Here it is only the second line: should the guard itself be killed, it lets the command leave in good order.

Nothing but the standard library, so that it starts in milliseconds (``-I -S``).
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_S = 10.0
"""Seconds a command gets between SIGTERM and SIGKILL. vLLM needs about two."""
_STRAGGLERS_S = 3.0
"""Seconds that what the command left behind gets to clean up (multiprocessing's tracker unlinks shared memory)."""
_PR_SET_PDEATHSIG = 1
"""``prctl(2)``; from ``<linux/prctl.h>``."""


def main() -> int:
    """Run the command of ``sys.argv``; return its exit status as a shell would (128 + signal)."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_guard() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))

    try:
        child = subprocess.Popen(  # noqa: S603  the parent's own command line
            sys.argv[1:],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            process_group=0,
            preexec_fn=die_with_guard,  # noqa: PLW1509  no thread is running yet
        )
    except OSError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 127
    print(child.pid, flush=True)
    ended = threading.Event()
    threading.Thread(target=_stop_on_eof, args=(child.pid, ended), daemon=True).start()
    status = child.wait()
    ended.set()
    _sweep(child.pid)
    return status if status >= 0 else 128 - status


def _stop_on_eof(group: int, ended: threading.Event) -> None:
    # Unbuffered: a thread that waits inside sys.stdin holds a lock that the interpreter wants on its way out.
    while os.read(0, 4096):
        pass
    _signal(group, signal.SIGTERM)
    if not ended.wait(GRACE_S):
        _signal(group, signal.SIGKILL)


def _sweep(group: int) -> None:
    """Wait until the group is empty; kill what stays."""
    deadline = time.monotonic() + _STRAGGLERS_S
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except OSError:
            return
        time.sleep(0.05)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main())
