import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from probe.errors import StoreError
from probe.store import RunLock, Store, Writer

HOLD = (
    "import sys, time; from pathlib import Path; from probe.store import RunLock; "
    "lock = RunLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
)


def test_the_second_run_gets_a_sentence_that_names_the_first(database: Path) -> None:
    with RunLock(database):
        with pytest.raises(StoreError, match=f"process {os.getpid()}") as error:
            RunLock(database)
        assert str(database) in str(error.value)
        with pytest.raises(StoreError, match="Another run"):
            Writer(database)
    with RunLock(database) as lock:
        lock.release()
        RunLock(database).release()


def test_a_killed_run_leaves_no_lock(database: Path) -> None:
    Store.open(database).close()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(database)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match=f"process {child.pid}"):
            Writer(database)
        with Store.open(database) as store:  # readers and those who derive are not kept out
            store.clear_derived()
        child.send_signal(signal.SIGKILL)
        child.wait()
    Writer(database).close()


def test_a_missing_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no folder"):
        RunLock(tmp_path / "nowhere" / "study.db")
    (tmp_path / "study.db.lock").mkdir()
    with pytest.raises(StoreError, match="cannot be used: Is a directory"):
        RunLock(tmp_path / "study.db")
