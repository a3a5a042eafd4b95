"""What a detector says about one exchange. Evidence is not a verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Evidence:
    """One detector's finding about one exchange.

    ``log_e``: natural log of an e-value against the null "these weights wrote this text under normal serving" (its
    expectation under the null is at most 1; Vovk & Wang 2021, arXiv 1912.06116); ``None`` where the detector
    abstains. ``llr``: natural-log likelihood ratio platform : model for the posterior; 0 where it abstains.
    ``sentence`` is plain English. ``facts`` are the numbers behind it, ``exhibit`` the bytes it rests on (a header
    line, a JSON path with its value, a token). ``decisive``: a declared signature, which decides alone and names
    ``mechanism`` and ``layer``.
    """

    detector: str
    version: str
    log_e: float | None
    llr: float
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    exhibit: str = ""
    decisive: bool = False
    mechanism: str | None = None
    layer: str | None = None

    @property
    def abstains(self) -> bool:
        """Whether the detector found nothing it could test; ``sentence`` says why."""
        return self.log_e is None
