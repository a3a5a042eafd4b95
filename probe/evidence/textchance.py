"""How probable a refusal text is for the weights, under the sampler that the route was asked for or showed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probe.evidence.case import Case
from probe.evidence.tilt import log_partition, log_probability, token_table


@dataclass(frozen=True, slots=True)
class TextChance:
    """How probable a text is for the weights: ``probabilities`` of it, one per scored prompt of the study.

    ``under_systems``: the same for several generic system prompts in front, one tuple per system prompt. The weights
    refuse nearly always there, so that these stand for P(text | refuse, that system prompt), from below.
    """

    probabilities: tuple[float, ...]
    under_systems: tuple[tuple[float, ...], ...] = ()

    @property
    def mean(self) -> float:
        """Average probability over the scored prompts."""
        return _mean(self.probabilities)

    @property
    def steered(self) -> float:
        """Largest average under one of the system prompts; 0 where none was tried."""
        return max(map(_mean, self.under_systems), default=0.0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def chance_at(cases: Sequence[Case], scored: TextChance | None, power: float | None = None) -> TextChance | None:
    """Return the probabilities of a text under the sampler, or ``None`` where they cannot be told.

    ``cases`` have that text; ``scored`` is at temperature 1; ``power`` (1/temperature) replaces the stated one. At
    another power they come from the cases' own token tables. What a system prompt does there is not known; its
    probability is raised like that of the same text under the plain prompts, and never lowered.
    """
    powers = [case.power if power is None else power for case in cases]
    if None in powers or any(case.filtered or case.penalised for case in cases):
        return None
    if scored is not None and scored.probabilities and set(powers) == {1.0}:
        return scored
    pairs = [
        (log_probability(token_table(case.score), at), case.score.logprob)
        for case, at in zip(cases, powers, strict=True)
        if case.score is not None and case.score.count and at is not None
    ]
    if not pairs:
        return None
    if scored is None or not scored.under_systems:
        return TextChance(tuple(math.exp(log) for log, _ in pairs))
    raised = min(1.0, *(log / plain if plain < 0 else 0.0 for log, plain in pairs))
    systems = tuple(tuple(p**raised if p > 0 else 0.0 for p in row) for row in scored.under_systems)
    return TextChance(tuple(math.exp(log) for log, _ in pairs), systems)


def token_logs(case: Case, power: float | None = None) -> npt.NDArray[np.float64] | None:
    """Return the log-probability of each token under the sampler, from above; ``None`` where it cannot be told."""
    power = case.power if power is None else power
    if case.score is None or not case.score.count or power is None or case.filtered or case.penalised:
        return None
    table = token_table(case.score)
    norm = log_partition(table, power, above=False) if power != 1.0 else 0.0
    return np.minimum(-power * table.surprisal - norm, 0.0)
