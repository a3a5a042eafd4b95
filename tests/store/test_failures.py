import errno
import sqlite3
from pathlib import Path

import pytest

from probe.errors import StoreError, StoreFullError
from probe.store.failures import mapped, mapped_system, translated

CODES = sorted(
    {value for name, value in vars(sqlite3).items() if name.startswith("SQLITE_") and isinstance(value, int)}
)


@pytest.mark.parametrize("code", CODES)
def test_every_result_code_becomes_one_sentence(code: int) -> None:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    mapped_error = translated(error, Path("/tmp/study.db"))
    assert type(mapped_error) in {StoreError, StoreFullError}
    assert str(mapped_error).startswith(("The d", "/tmp/study.db"))
    assert str(mapped_error).endswith(".")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_of_the_system_is_a_full_store(number: int) -> None:
    with pytest.raises(StoreFullError), mapped_system(Path("study.db")):
        raise OSError(number, "no")


def test_other_errors_of_the_system_say_what_they_are() -> None:
    with (
        pytest.raises(StoreError, match=r"study\.db cannot be used: Permission denied\."),
        mapped_system(Path("study.db")),
    ):
        raise PermissionError(errno.EACCES, "no")


def test_values_that_do_not_fit_are_ours_and_other_errors_pass() -> None:
    with pytest.raises(StoreError, match="cannot be stored"), mapped(Path("study.db")):
        sqlite3.connect(":memory:").execute("SELECT ?", (2**70,))
    with pytest.raises(KeyError), mapped(Path("study.db")):
        raise KeyError


def test_a_store_error_is_not_wrapped_again() -> None:
    error = StoreFullError("Full.")
    assert translated(error, Path()) is error
