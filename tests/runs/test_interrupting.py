"""Ctrl-C and SIGTERM: what is under way comes to its end, the second signal leaves, and the next start goes on."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from runner_kit import Call, Scripted, hosted, local, reasons, scripted, start, study

from probe.store.store import Store
from probe.store.verify import verify

PATIENCE_S = 60.0


class Door:
    """Answers the first requests at once, and holds the others until it is opened."""

    def __init__(self, free: int, held: int) -> None:
        self._free = free
        self._expected = held
        self._lock = threading.Lock()
        self._count = 0
        self.all_there = threading.Event()
        self.open = threading.Event()

    def __call__(self, call: Call) -> None:
        """Behave."""
        if call.number >= self._free and not self.open.is_set():
            with self._lock:
                self._count += 1
                if self._count == self._expected:
                    self.all_there.set()
            self.open.wait(PATIENCE_S)
        call.reply()


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """`probe run` as a process of its own."""
    command = [sys.executable, "-m", "probe", "run", "--seed", "1", *arguments]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        yield process
        if process.poll() is None:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_what_is_under_way_come_to_its_end(tmp_path: Path, number: signal.Signals) -> None:
    door = Door(free=5, held=4)
    with scripted(door) as (server,):
        study(tmp_path, 40, paid=hosted(server.url, pace={"concurrency": 4}))
        with running(tmp_path) as process:
            assert door.all_there.wait(PATIENCE_S)
            process.send_signal(number)
            assert process.stderr is not None
            assert "comes to its end" in process.stderr.readline()
            door.open.set()
            said, problems = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 128 + number
        assert "the same command goes on from there" in problems
        assert "Traceback" not in problems + said
        assert len(server.texts) == 9, "nothing more was handed out"
        assert reasons(tmp_path, "paid") == {"answered": 9, "planned": 31}
        done = start(tmp_path)
    assert (done.resumed, done.open, done.summary.in_flight) == (True, 0, 0)
    assert verify(tmp_path / "probe.db").sound


def test_the_second_signal_leaves_at_once(tmp_path: Path) -> None:
    door = Door(free=2, held=3)
    with scripted(door) as (server,):
        study(tmp_path, 10, paid=hosted(server.url, pace={"concurrency": 3}))
        with running(tmp_path) as process:
            assert door.all_there.wait(PATIENCE_S)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            process.stderr.readline()
            process.send_signal(signal.SIGINT)
            said, problems = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        assert "Traceback" not in problems
        assert "Spent in all starts: 5 hosted requests" in said, "what may have been billed is said"
        assert "paid: 3 were interrupted" in said
        assert reasons(tmp_path, "paid") == {"answered": 2, "planned interrupted": 3, "planned": 5}
        with Store.open(tmp_path / "probe.db") as store:
            run = store.runs()[0]
            assert store.in_flight(run.id) == []
            states = [exchange.state for exchange in store.exchanges(answered=False)]
        assert states == ["client_gone"] * 3
        door.open.set()
        done = start(tmp_path)
    assert (done.open, done.spent.requests) == (0, 2 + 3 + 8)
    assert verify(tmp_path / "probe.db").sound


def test_a_run_that_sleeps_until_tomorrow_can_be_ended(tmp_path: Path) -> None:
    with scripted(None, None) as (limited, own):
        study(
            tmp_path,
            6,
            own=local(own.url),
            limited=hosted(limited.url, twin="own", pace={"requests_per_day": 2, "concurrency": 1}),
        )
        with running(tmp_path, "--wait", "--no-aa") as process:
            wait_for(limited, 2)
            wait_for(own, 6)
            process.send_signal(signal.SIGINT)
            said, problems = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said + problems
    counted = reasons(tmp_path, "limited")
    assert counted["answered"] == 2
    assert sum(counted.values()) == 6
    assert reasons(tmp_path, "own") == {"answered": 6}, "nobody waits for a route that pauses"


def wait_for(server: Scripted, count: int) -> None:
    """Wait until a server was asked so often."""
    there = threading.Event()
    behave = server.behave

    def counting(call: Call) -> None:
        behave(call)
        if call.number + 1 >= count:
            there.set()

    server.behave = counting
    if len(server.texts) >= count:
        there.set()
    assert there.wait(PATIENCE_S)
