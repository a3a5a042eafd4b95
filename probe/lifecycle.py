"""What everything that is started and stopped has in common."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Startable(ABC):
    """Something with ``start`` and ``stop``, so that ``with`` starts and, whatever happens inside, stops it."""

    @abstractmethod
    def start(self) -> object:
        """Start; return where it is."""

    @abstractmethod
    def stop(self) -> None:
        """Stop and wait until it is gone; twice is fine."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
