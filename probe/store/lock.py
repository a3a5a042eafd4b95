"""One run at a time per database.

``flock`` on a file beside the database, because the kernel lets go of it when the process dies, however it dies: a
row in a table, or a file that merely exists, would have to be cleaned up by hand after ``kill -9``. Readers, and
commands that derive, do not take it.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from probe.errors import StoreError
from probe.store.failures import mapped_system


class RunLock:
    """The right to run against a database; held until ``release`` or the end of the process."""

    def __init__(self, database: Path) -> None:
        """Take the lock. Raises ``StoreError`` where another run has it, or where it cannot be taken there."""
        database = Path(database)
        self.path = database.with_name(database.name + ".lock")
        if not database.parent.is_dir():
            raise StoreError(f"The database {database} cannot be opened: there is no folder {database.parent}.")
        with mapped_system(self.path):
            # Never deleted: a process that waits with the old file open would get a lock on nothing.
            self._file: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with mapped_system(self.path):
                self._take(database)
        except BaseException:
            os.close(self._file)
            self._file = None
            raise

    def _take(self, database: Path) -> None:
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise StoreError(
                f"Another run writes to {database} (process {holder}): wait for its end, or use another file."
            ) from None
        with contextlib.suppress(OSError):  # the number is a courtesy; the lock is what counts
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Let go; twice is fine."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
