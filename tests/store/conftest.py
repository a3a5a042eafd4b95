"""Fixtures: a small study in a file of its own."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probe.store import Store

sys.path.insert(0, str(Path(__file__).parent))  # for small_study, in whatever way pytest imports

from small_study import Study


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


@pytest.fixture
def study(database: Path) -> Iterator[Study]:
    with Store.open(database) as store:
        yield Study(store)


@pytest.fixture
def make_study() -> Callable[[Path, int], Study]:
    """Make a study in a file of its own; the caller closes its store."""
    return lambda path, traces: Study(Store.open(path), traces)
