"""A/A controls: tests of what must not differ. Where one does, a report's other differences stand in doubt too."""

from dataclasses import asdict, dataclass
from typing import Any

from probe.stats.intervals import Interval


@dataclass(frozen=True, slots=True)
class AATest:
    """Two halves that nothing sets apart. ``p`` is ``None`` where it could not be asked (``note`` says why).

    ``difference`` of refusal rates; ``n`` counts traces. ``adjusted``: Holm's p over all A/A tests of one report.
    """

    name: str
    difference: Interval
    n: int
    p: float | None = None
    adjusted: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class AA:
    """The A/A controls of one hosted route. ``failed``: some adjusted p is at most alpha."""

    tests: tuple[AATest, ...]
    failed: bool
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return {"tests": [asdict(test) for test in self.tests], "failed": self.failed, "sentence": self.sentence}
