"""What a user sets about an analysis: margins and error rates. They travel into every row that rests on them."""

from dataclasses import asdict, dataclass
from typing import Any

from probe.errors import ConfigError
from probe.stats.judge_error import JudgeError


@dataclass(frozen=True, slots=True)
class Settings:
    """Margins and error rates of an analysis.

    ``delta``: differences of rates up to this fraction count as none (equivalence). ``alpha``: error rate of tests.
    ``gate_delta``: distance of token distributions up to which weights count as the same. ``level`` of the intervals.
    ``seed`` of resampling and permutations: the same store and settings give the same rows. ``judge_error``: how often
    the judge errs on the routes' answers, where that is known better than from the labels it was measured on.
    """

    delta: float = 0.05
    alpha: float = 0.05
    gate_delta: float = 0.05
    level: float = 0.95
    seed: int = 0
    judge_error: JudgeError | None = None

    def __post_init__(self) -> None:
        """Refuse what is no margin or no error rate."""
        for name in ("delta", "alpha", "gate_delta"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ConfigError(f"{name} must lie between 0 and 1 (0.05: five points), not be {getattr(self, name)}.")
        if self.alpha >= 0.5:
            raise ConfigError(f"alpha is the error rate of tests and must be below 0.5, not {self.alpha}.")

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)
