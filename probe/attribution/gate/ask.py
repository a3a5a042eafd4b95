"""All tests of the gate over the answers of two routes to controls, and what follows from them."""

from collections.abc import Sequence

from probe.attribution.gate.values import CANNOT_TELL, Gate
from probe.attribution.settings import Settings
from probe.evidence.case import Case


def ask(hosted: Sequence[Case], twin: Sequence[Case], settings: Settings) -> Gate:
    """Answer the gate. ``hosted``: a route's answers to controls, scored under the twin; ``twin``: its own.

    Answers at temperature 0 and at higher ones may be mixed; each test takes what it can use.
    """
    del twin
    sentence = "Whether these are the same weights cannot be told: no test was asked."
    return Gate(CANNOT_TELL, None, sentence, {}, len(hosted), None, settings.gate_delta, settings.alpha)
