"""SQLite: one file per study.

``Store`` reads and writes it, ``Writer`` commits the exchanges of a run, ``RunLock`` keeps a second run out.
"""

from probe.store.lock import RunLock
from probe.store.store import Store
from probe.store.writer import Writer

__all__ = ["RunLock", "Store", "Writer"]
