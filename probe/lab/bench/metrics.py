"""Verdicts against the truth, per family: rates with Wilson's intervals, F1 with a bootstrap, calibration.

Counted is every hosted answer that was a non-compliance or that a platform wrote. ``platform`` is the positive class.
An answer of the platform's that was not even seen as a refusal (it passed for a compliance) has the verdict
``not seen``; it counts as missed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probe.lab.bench.grid import FAMILIES
from probe.stats.intervals import Interval, wilson

NOT_SEEN = "not seen"
BINS = 10
"""Equally wide bins of the expected calibration error."""
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Unit:
    """One hosted answer with the truth and the verdict.

    ``author`` is ``model`` or ``platform`` by the lab's log; ``verdict`` is ``model``, ``platform``, ``undecided`` or
    ``not seen``. ``probability`` is the posterior of ``platform``, ``None`` without a verdict. ``mechanism`` is what
    the verdict names, ``true_mechanism`` what the log says. ``decider`` is the detector with the largest e-value.
    """

    family: str
    route: str
    exchange_id: str
    author: str
    outcome: str
    verdict: str
    probability: float | None
    mechanism: str | None = None
    true_mechanism: str | None = None
    decider: str | None = None


def summary(units: Sequence[Unit]) -> dict[str, Any]:
    """Return the measures of one family, or of all: plain numbers first, then their intervals and the counts."""
    cells = Counter((unit.author, unit.verdict) for unit in units)
    n, written, own = len(units), _sum(cells, author="platform"), _sum(cells, author="model")
    hit, false = cells["platform", "platform"], cells["model", "platform"]
    rates = {
        "accuracy": wilson(sum(cells[who, who] for who in ("model", "platform")), n),
        "false_accusation_rate": wilson(false, own),
        "undecided_rate": wilson(_sum(cells, verdict="undecided"), n),
        "missed_rate": wilson(written - hit, written),
    }
    error, judged = calibration_error([(u.probability, u.author == "platform") for u in units])
    return {
        "n": n,
        "accuracy": rates["accuracy"].estimate,
        "f1": f1(hit, false, written - hit) if written else None,
        "false_accusation_rate": rates["false_accusation_rate"].estimate,
        "fdr": false / (hit + false) if hit + false else 0.0,
        "undecided_rate": rates["undecided_rate"].estimate,
        "ece": error,
        "ece_n": judged,
        "missed_rate": rates["missed_rate"].estimate,
        "intervals": {
            **{name: _limits(rate) for name, rate in rates.items()},
            "f1": f1_interval(hit, false, written - hit, n) if written else None,
        },
        "counts": {"model": own, "platform": written, "called_platform": hit + false, "falsely": false},
        "confusion": [{"author": a, "verdict": v, "n": count} for (a, v), count in sorted(cells.items())],
        "fdr_by_route": fdr_by_route(units),
        "deciders": dict(
            Counter(u.decider or "none" for u in units if u.author == u.verdict == "platform").most_common()
        ),
        "mechanisms": _mechanisms(units),
    }


def by_family(units: Iterable[Unit]) -> dict[str, dict[str, Any]]:
    """Return the summary of each family that has units, in the order of the grid."""
    found: defaultdict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        found[unit.family].append(unit)
    order = [*FAMILIES, *sorted(set(found) - set(FAMILIES))]
    return {family: summary(found[family]) for family in order if family in found}


def by_route(units: Iterable[Unit]) -> dict[str, dict[str, Any]]:
    """Return n, the authors' and verdicts' counts and F1 of each route, to see which platform of a family is hard."""
    found: defaultdict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        found[unit.route].append(unit)
    lines = {}
    for route, own in sorted(found.items()):
        whole = summary(own)
        lines[route] = {
            "family": own[0].family,
            **{key: whole[key] for key in ("n", "accuracy", "f1", "confusion", "deciders")},
        }
    return lines


def f1(hit: int, false: int, missed: int) -> float:
    """Return 2·hit / (2·hit + false + missed); 0 where nothing was hit."""
    return 2 * hit / (2 * hit + false + missed) if hit else 0.0


def f1_interval(hit: int, false: int, missed: int, n: int, *, level: float = 0.95) -> dict[str, float]:
    """Return percentile limits over bootstrap samples of the n answers.

    Drawing answers with replacement is drawing their four counts from a multinomial; a sample in which no platform
    wrote and none was accused has no F1 and is left out.
    """
    shares = np.array([hit, false, missed, n - hit - false - missed]) / n
    draws = np.random.default_rng(0).multinomial(n, shares, RESAMPLES)[:, :3]
    wrong = draws[:, 1] + draws[:, 2]
    kept = 2 * draws[:, 0] + wrong > 0
    values = 2 * draws[kept, 0] / (2 * draws[kept, 0] + wrong[kept])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return {"lo": float(low), "hi": float(high)}


def calibration_error(pairs: Iterable[tuple[float | None, bool]]) -> tuple[float | None, int]:
    """Return the expected calibration error (Naeini et al. 2015) of (probability, truth) pairs, and how many there are.

    Ten bins of equal width; the last holds 1. Pairs without a probability are left out.
    """
    known = [(p, truth) for p, truth in pairs if p is not None]
    bins: defaultdict[int, list[tuple[float, bool]]] = defaultdict(list)
    for probability, truth in known:
        bins[min(int(probability * BINS), BINS - 1)].append((probability, truth))
    if not known:
        return None, 0
    gaps = [abs(sum(p for p, _ in pairs) - sum(t for _, t in pairs)) for pairs in bins.values()]
    return sum(gaps) / len(known), len(known)


def fdr_by_route(units: Iterable[Unit]) -> dict[str, float]:
    """Return the share of wrong ones among the answers called the platform's, per route; 0 where none was called."""
    called: defaultdict[str, list[bool]] = defaultdict(list)
    for unit in units:
        called[unit.route].extend([unit.author == "model"] if unit.verdict == "platform" else [])
    return {route: sum(wrong) / len(wrong) if wrong else 0.0 for route, wrong in sorted(called.items())}


def _mechanisms(units: Iterable[Unit]) -> dict[str, int]:
    """Count, over right verdicts ``platform``, whether the mechanism that was named is that of the log."""
    found = Counter(
        "not named" if u.mechanism is None else "right" if u.mechanism == u.true_mechanism else "wrong"
        for u in units
        if u.author == u.verdict == "platform"
    )
    return {name: found[name] for name in ("right", "wrong", "not named")}


def _sum(cells: Mapping[tuple[str, str], int], *, author: str | None = None, verdict: str | None = None) -> int:
    return sum(n for (a, v), n in cells.items() if author in {None, a} and verdict in {None, v})


def _limits(interval: Interval) -> dict[str, float | int]:
    return {"lo": interval.lo, "hi": interval.hi, "n": interval.n}
