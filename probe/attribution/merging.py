"""One e-value per exchange out of those of its detectors, and how many exchanges these may accuse.

Detectors of one kind look at the same bytes, so nothing is assumed about how they depend on each other: e-values are
averaged, because an average of e-values is one whatever their dependence (Vovk & Wang 2021, "E-values: calibration,
combination and applications", §4). What is said and how the response is made are different bytes: under the null the
text comes from the weights and its envelope from the server, so a product of one of each is an e-value too.

The weights of the average say what kind of platform the route is: one that repeats a sentence, one that writes texts of
its own, one whose answers are made in another way. They are learnt, each exchange's from the traces of the other folds
only, so that they are constants for it. A fifth is shared evenly in any case: what was not seen before costs a
factor, not the verdict.

What is not proven: the e-values of repeated texts are valid as a sum over the route only (compound e-values), and rest
on the same other traces as the learnt weights do. The sum may then exceed its bound by the number of columns at worst;
in simulated routes of known truth it did not (``tests/evidence/test_stock.py``, ``tests/evidence/routes.py``).
"""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probe.evidence.accounting import REWRITE
from probe.evidence.base import Evidence

TEXT = ("likelihood", "repetition", "nonce", "consistency")
"""Detectors of what is said."""

WIRE = ("envelope", "timing", "accounting")
"""Detectors of how the response is made."""

_PROMPTS = ("accounting", "echo")
"""Detectors that may tell that the prompt was another one."""

FOLDS = 5
EVEN = 0.2
"""Share of the weights that is not learnt."""

SIGN = 2.0
"""A log e-value from which a detector of the envelope is called odd: about seven times what is expected."""

FLOOR = -60.0
"""Natural log; keeps an e-value of 0 a number."""

MOST = 500.0
"""Natural log; keeps products within floating point."""

_ROUNDS = 100

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Open:
    """A non-compliance that nothing declares: what the detectors said about it. ``silent``: it has no text."""

    exchange_id: str
    trace_id: str
    evidence: Mapping[str, Evidence]
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """The merged log e-value per exchange of a route, and which of them accuse.

    ``selected`` by e-BH; ``needed``: the log e-value that accuses there, or would accuse one alone where none is
    selected. ``panels`` by ``Open.silent``.
    """

    log_es: Mapping[str, float]
    selected: frozenset[str]
    needed: float
    panels: Mapping[bool, "Panel"]


@dataclass(frozen=True, slots=True)
class Panel:
    """The detectors that could test anything on a route: the others take no part in its averages."""

    text: tuple[str, ...]
    wire: tuple[str, ...]

    @classmethod
    def on(cls, evidence: Iterable[Mapping[str, Evidence]]) -> "Panel":
        """Look through the evidence of a route's open cases."""
        names = {name for found in evidence for name, one in found.items() if one.log_e is not None}
        return cls(tuple(n for n in TEXT if n in names), tuple(n for n in WIRE if n in names))


def saw_other_prompt(evidence: Mapping[str, Evidence]) -> bool:
    """Tell whether token counts or a router's echo show that the model saw another prompt than was sent."""
    return any(found.mechanism == REWRITE for name in _PROMPTS if (found := evidence.get(name)) is not None)


def log_e(evidence: Mapping[str, Evidence], detector: str) -> float | None:
    """Return the natural log of a detector's e-value; ``None`` where it abstains or was not asked."""
    found = evidence.get(detector)
    return None if found is None or found.log_e is None else min(max(found.log_e, FLOOR), MOST)


def wire_log_e(evidence: Mapping[str, Evidence], tested: Panel) -> dict[str, float]:
    """Return the logs of the e-values of the envelope's detectors; one that abstains counts as 1."""
    return {name: log_e(evidence, name) or 0.0 for name in tested.wire}


def oddest(evidence: Mapping[str, Evidence], tested: Panel) -> float:
    """Return the largest log e-value that a detector of the envelope has: what says that a response is made oddly."""
    return max(wire_log_e(evidence, tested).values(), default=0.0)


def odd_alone(evidence: Mapping[str, Evidence], tested: Panel) -> bool:
    """Tell whether a response is made so oddly that this may count without its text: see ``merged``."""
    odd = {name for name, value in wire_log_e(evidence, tested).items() if value >= SIGN}
    return len(odd) >= 2 and ("likelihood" not in tested.text or "accounting" in odd)


def text_log_e(evidence: Mapping[str, Evidence], tested: Panel) -> dict[str, float]:
    """Return the logs of the e-values of the text's detectors.

    One that abstains counts as 0, because whether it abstains depends on the text. Where the counts or an echo show
    another prompt the text proves nothing.
    """
    found = {}
    for name in tested.text:
        value = log_e(evidence, name)
        found[name] = FLOOR if value is None else value
        if saw_other_prompt(evidence):
            found[name] = min(found[name], 0.0)
    return found


def merged(
    evidence: Sequence[Mapping[str, Evidence]], traces: Sequence[str], tested: Panel, *, silent: bool = False
) -> Array:
    """Return the log of the merged e-value for each of a route's cases, shape (n,).

    ``traces`` names the trace of each case: repeats of one trace are in one fold. How a response is made strengthens
    what the text says. It accuses without the text where two detectors find it odd, and one of them is the accounting
    or no twin could score: a host that sends the model's own refusals another way, or annotates them, makes odd
    envelopes too, but no impossible counts. Of ``silent`` cases, which have no text, nothing else can be asked.
    """
    columns = [_columns(found, tested, silent=silent) for found in evidence]
    if not columns or not columns[0]:
        return np.full(len(columns), FLOOR)
    logs = np.array(columns)
    folds = np.array([zlib.crc32(trace.encode()) % FOLDS for trace in traces])
    result = np.empty(len(logs))
    for fold in range(FOLDS):
        here = folds == fold
        if here.any():
            weights = EVEN / logs.shape[1] + (1.0 - EVEN) * learnt_weights(logs[~here])
            result[here] = np.logaddexp.reduce(logs[here] + np.log(weights), axis=1)
    return np.clip(result, FLOOR, MOST)


def _columns(evidence: Mapping[str, Evidence], tested: Panel, *, silent: bool) -> list[float]:
    text, wire = text_log_e(evidence, tested), wire_log_e(evidence, tested)
    alone = list(wire.values())
    if not silent and not odd_alone(evidence, tested):
        alone = [FLOOR] * len(alone)
    return [*text.values(), *(said + made for said in text.values() for made in wire.values()), *alone]


def learnt_weights(logs: Array) -> Array:
    """Return weights of the columns, shape (c,), that suit cases like these, shape (n, c), by maximum likelihood.

    A mixture of "the weights wrote it" (ratio 1) and one kind of platform per column (ratio e); expectation
    maximisation, one pseudo-case spread evenly.
    """
    c = logs.shape[1]
    even = np.full(c + 1, 1.0 / (c + 1))
    shares = even
    ratios = np.column_stack([np.zeros(len(logs)), logs])
    for _ in range(_ROUNDS):
        joint = ratios + np.log(shares)
        found = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None]).sum(axis=0)
        before, shares = shares, (found + even) / (len(logs) + 1.0)
        if np.abs(shares - before).max() < 1e-6:
            break
    return np.asarray(shares[1:] / shares[1:].sum())


def totals(cases: Sequence[Open], alpha: float) -> Totals:
    """Merge the evidence about a route's open cases: those with a text by all of it, those without by the envelope."""
    log_es: dict[str, float] = {}
    panels = {}
    for silent in (False, True):
        group = [case for case in cases if case.silent == silent]
        panel = Panel.on([case.evidence for case in group])
        panels[silent] = Panel((), panel.wire) if silent else panel
        found = merged([c.evidence for c in group], [c.trace_id for c in group], panels[silent], silent=silent)
        log_es |= {case.exchange_id: float(one) for case, one in zip(group, found, strict=True)}
    everything = list(log_es.values())
    needed = accusable(everything, alpha)
    selected = frozenset(key for key, value in log_es.items() if value >= needed)
    return Totals(log_es, selected, needed if selected else math.log(max(len(log_es), 1) / alpha), panels)


def accusable(log_es: Sequence[float], alpha: float) -> float:
    """Return the smallest log e-value that may accuse one of n cases.

    The k largest do where they are at least n/(α·k), for the largest such k. That keeps the expected share of wrong
    accusations below α under any dependence (e-BH; Wang & Ramdas 2022, "False discovery rate control with e-values").
    Infinite where none may.
    """
    ordered = sorted(log_es, reverse=True)
    limits = [math.log(len(ordered) / (alpha * rank)) for rank in range(1, len(ordered) + 1)]
    return min((limit for value, limit in zip(ordered, limits, strict=True) if value >= limit), default=math.inf)
