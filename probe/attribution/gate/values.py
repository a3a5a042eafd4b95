"""What the same-weights gate answers, test by test."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Answer = Literal["same within δ", "different", "cannot tell at this n"]
Cause = Literal["prompt or template", "quantization or sampler", "other model"]
SAME, DIFFERENT, CANNOT_TELL = get_args(Answer)
PROMPT, SAMPLER, OTHER_MODEL = get_args(Cause)


@dataclass(frozen=True, slots=True)
class GateTest:
    """One test: its statistic, p-value and number of units; ``None`` where it could not be asked, with the reason.

    ``unit`` names what n counts (``prompts``, ``tokens``, ``texts``). ``distance``: how far the route is from its twin,
    0 to 1, where the test estimates that, and ``limit`` its one-sided upper confidence limit. ``sentence``: what was
    found, with its numbers.
    """

    statistic: float | None
    p: float | None
    n: int
    unit: str
    sentence: str
    distance: float | None = None
    limit: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return {**asdict(self), "detail": dict(self.detail)}


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a hosted route serves the weights of its twin, as far as its answers to controls tell.

    ``same within δ``: no test tells them apart at ``alpha``, and the upper limit of their distance is below ``delta``.
    ``different``: some test does, after Holm's correction; ``cause`` is the likeliest. ``cannot tell at this n``:
    neither; ``n_needed`` prompts would show sameness if the distance stays as it is (``None``: no number would, or the
    question is answered).
    """

    answer: Answer
    cause: Cause | None
    sentence: str
    tests: Mapping[str, GateTest]
    n: int
    n_needed: int | None
    delta: float
    alpha: float

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return {
            "answer": self.answer,
            "cause": self.cause,
            "tests": {name: test.to_json() for name, test in self.tests.items()},
            "n": self.n,
            "n_needed": self.n_needed,
            "delta": self.delta,
            "alpha": self.alpha,
            "sentence": self.sentence,
        }


def gate_of_json(value: Mapping[str, Any]) -> Gate:
    """Return the gate that ``to_json`` wrote."""
    tests = {name: GateTest(**test) for name, test in value["tests"].items()}
    return Gate(**{**value, "tests": tests})
