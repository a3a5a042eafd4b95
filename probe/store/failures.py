"""The boundary where errors of SQLite and of the file system become sentences (``probe.errors``)."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probe.errors import StoreError, StoreFullError

BUSY_SECONDS = 30.0
"""How long a connection waits for another one's transaction before it gives up."""

_LITTLE = 1 << 20
"""Free bytes below which a refused write is put down to a full disk."""

_NO_WRITE = "The database {path} cannot be written: check the permissions of the file and its folder."
_HELD = f"The database {{path}} is held by another process, which did not let go within {BUSY_SECONDS:.0f} s."
_SENTENCES = {
    sqlite3.SQLITE_NOTADB: "{path} is not a database of the probe: it is not an SQLite file.",
    sqlite3.SQLITE_CORRUPT: "The database {path} is damaged ({error}): restore it from a copy.",
    sqlite3.SQLITE_BUSY: _HELD,
    sqlite3.SQLITE_LOCKED: _HELD,
    sqlite3.SQLITE_READONLY: _NO_WRITE,
    sqlite3.SQLITE_PERM: _NO_WRITE,
    sqlite3.SQLITE_AUTH: _NO_WRITE,
    sqlite3.SQLITE_CONSTRAINT: "The database {path} refuses a row: {error}.",
}

_FULL_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Turn what SQLite raises inside the block into a ``StoreError`` that names ``path``."""
    try:
        yield
    except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
        raise translated(error, path) from error


@contextmanager
def mapped_system(path: Path) -> Iterator[None]:
    """Turn what the file system raises inside the block into a ``StoreError`` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise translated(error, path) from error


def translated(error: Exception, path: Path) -> StoreError:
    """Return the ``StoreError`` for a foreign error; result codes: https://www.sqlite.org/rescode.html."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, OSError):
        return _from_system(error, path)
    if isinstance(error, sqlite3.Error):
        return _from_sqlite(error, path)
    return StoreError(f"A value cannot be stored in {path}: {error}.")


def _from_system(error: OSError, path: Path) -> StoreError:
    if error.errno in _FULL_ERRNO:
        return _full(path)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StoreError(f"{path} cannot be used: {reason}.")


def _full(path: Path) -> StoreFullError:
    return StoreFullError(
        f"The disk that holds {path} takes no more data: free some space and start again; what was recorded is safe."
    )


def _from_sqlite(error: sqlite3.Error, path: Path) -> StoreError:
    # Errors of Python's module itself (a closed connection) carry no code of SQLite's.
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return StoreError(f"The database {path} cannot be used: {error}.")
    match code & 0xFF:  # the primary code; the rest is detail
        case sqlite3.SQLITE_FULL:
            return _full(path)
        case sqlite3.SQLITE_CANTOPEN:
            return _cannot_open(path)
        case sqlite3.SQLITE_IOERR:
            return _io(code, path)
    known = _SENTENCES.get(code & 0xFF, "The database {path} cannot be used: {error}.")
    return StoreError(known.format(path=path, error=error))


def _cannot_open(path: Path) -> StoreError:
    if not path.parent.is_dir():
        return StoreError(f"The database {path} cannot be opened: there is no folder {path.parent}.")
    if path.is_dir():
        return StoreError(f"The database {path} cannot be opened: that is a folder.")
    return StoreError(f"The database {path} cannot be opened: check the permissions of the file and its folder.")


def _io(code: int, path: Path) -> StoreError:
    # SQLite says SQLITE_FULL for ENOSPC on a write only; the shared-memory file of the write-ahead log reports an
    # I/O error when it cannot grow, and so does every file at a quota.
    if code in {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_FSYNC}:
        try:
            free = os.statvfs(path.parent)
        except OSError:
            free = None
        if free is not None and free.f_bavail * free.f_frsize < _LITTLE:
            return _full(path)
        return StoreError(
            f"The database {path} cannot be written: a quota, a limit on file sizes or a failing disk refuses the data."
        )
    return StoreError(f"The database {path} cannot be read or written: the disk reports an error.")
