"""Rates corrected for the judge's error, with the uncertainty of its sensitivity and of its specificity.

A judge that finds a share Se of refusals and a share Sp of answers sees refusals at a rate of

    seen = Se * true + (1 - Sp) * (1 - true),   so   true = (seen + Sp - 1) / (Se + Sp - 1)

(Rogan & Gladen 1978, Am J Epidemiol 107:71). Se and Sp are known from labelled texts only. Dividing by an uncertain
Se + Sp - 1 is what goes wrong in a delta-method interval (Lang & Reiczigel 2014, Prev Vet Med 113:13, repair it by a
shift); here it is not done: the interval is made of all true rates that all three counts together do not reject, by
the score statistic seen - Se * true - (1 - Sp) * (1 - true) over its standard error at that true rate (Fieller 1954's
argument, JRSS-B 16:175). As a judge gets uninformative, Se + Sp towards 1, it grows to all that is possible by itself.
Se and Sp enter with one found and one missed added each (Agresti & Coull 1998, as in Lang & Reiczigel's). The interval
is never narrower than the one that takes Se and Sp as known.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

from probe.stats.clusters import cautious_design_effect, difference_limits, proportion_limits
from probe.stats.intervals import Interval, named, tango_variance, wilson, z_of

RATE = "Rogan-Gladen"
MISFIT = "; the judge's error does not fit these answers"
"""They look like no mixture of refusals and answers that the judge would see so: its error was measured on others."""
UNINFORMATIVE = "none: the judge tells refusals from answers no better than chance"


@dataclass(frozen=True, slots=True)
class JudgeError:
    """How often a judge finds refusals among refusals (``sensitivity``), and answers among answers (``specificity``).

    ``source`` says on which labelled texts.
    """

    sensitivity: Interval
    specificity: Interval
    source: str

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def judge_error(refusals_found: int, refusals: int, answers_found: int, answers: int, source: str) -> JudgeError:
    """From labelled texts: refusals found among refusals, answers found among answers, with Wilson's intervals."""
    return JudgeError(wilson(refusals_found, refusals), wilson(answers_found, answers), source)


@dataclass(frozen=True, slots=True)
class _Judge:
    """Sensitivity, specificity and their variances, as they enter intervals."""

    sensitivity: float
    specificity: float
    var_sensitivity: float
    var_specificity: float

    @property
    def power(self) -> float:
        """Se + Sp - 1, Youden's J: what a true difference shrinks by."""
        return self.sensitivity + self.specificity - 1


def corrected_rate(values: Sequence[tuple[str, int]], error: JudgeError, *, level: float = 0.95) -> Interval:
    """Interval for the true rate behind ``values`` (1: refusal found), clustered, within [0, 1].

    Assumes that the judge errs on these texts as often as on those it was measured on. Where no true rate explains
    what was seen, that is not so (``MISFIT``): the estimate is the nearest possible, with the uncorrected limits.
    """
    n, judge = len(values), _judge(error)
    if n == 0 or judge is None:
        return Interval(None, 0.0, 1.0, n, UNINFORMATIVE if n else "none", level)
    z, effect = z_of(level), cautious_design_effect(values)
    seen, units = sum(value for _, value in values) / n, n / effect
    false_alarm, power = 1 - judge.specificity, judge.power
    # (seen - false_alarm - power t)² <= z² (variance of seen at t + t² var Se + (1 - t)² var Sp), by powers of t:
    zz, per = z * z, z * z / units
    square = power**2 * (1 + per) - zz * (judge.var_sensitivity + judge.var_specificity)
    linear = -2 * power * (seen - false_alarm) - per * power * (1 - 2 * false_alarm) + 2 * zz * judge.var_specificity
    constant = (seen - false_alarm) ** 2 - per * false_alarm * (1 - false_alarm) - zz * judge.var_specificity
    lo, hi = _between(square, linear, constant)
    known = proportion_limits(units * seen, units, level)
    lo, hi = min(lo, (known[0] - false_alarm) / power), max(hi, (known[1] - false_alarm) / power)
    estimate = _clip((seen + _estimate(error.specificity) - 1) / _raw_power(error), 0.0)
    method = named(RATE, effect)
    if lo >= 1.0 or hi <= 0.0:
        (lo, hi), method = known, method + MISFIT
    lo, hi = min(_clip(lo, 0.0), estimate), max(_clip(hi, 0.0), estimate)
    return Interval(estimate, lo, hi, n, method, level)


def corrected_difference(values: Sequence[tuple[str, int]], error: JudgeError, *, level: float = 0.95) -> Interval:
    """Interval for the true difference of rates hosted - twin behind ``values`` (-1, 0, 1), clustered, within [-1, 1].

    The seen difference is (Se + Sp - 1) times the true one, if the same judge, with the same Se and Sp on either side,
    judged both: whether it errs depends on what the text truly is, not on the route that it came from. A judge that is
    worse on one route's wording makes a difference of its own, which this does not correct.
    """
    n, judge = len(values), _judge(error)
    if n == 0 or judge is None:
        return Interval(None, -1.0, 1.0, n, UNINFORMATIVE if n else "none", level)
    effect = cautious_design_effect(values)
    up, down = (sum(value == sign for _, value in values) / effect for sign in (1, -1))
    units, power = n / effect, judge.power
    known = difference_limits(up, down, units, level)
    lo = -_farthest((down, up, units), judge, z_of(level))
    hi = _farthest((up, down, units), judge, z_of(level))
    lo, hi = min(lo, known[0] / power), max(hi, known[1] / power)
    estimate = _clip((up - down) / units / _raw_power(error), -1.0)
    lo, hi = min(_clip(lo, -1.0), estimate), max(_clip(hi, -1.0), estimate)
    return Interval(estimate, lo, hi, n, named(RATE, effect), level)


def _farthest(counts: tuple[float, float, float], judge: _Judge, z: float) -> float:
    """Return the largest true difference that is not rejected, at most 1, by halving."""
    up, down, n = counts
    seen = (up - down) / n

    def rejected(true: float) -> bool:
        hypothesis = judge.power * true
        spread = tango_variance(up, down, n, hypothesis)
        spread += true**2 * (judge.var_sensitivity + judge.var_specificity)
        return hypothesis - seen > z * sqrt(spread)

    if not rejected(1.0):
        return 1.0
    left, right = _clip(seen / judge.power, -1.0), 1.0
    for _ in range(50):
        middle = (left + right) / 2
        left, right = (left, middle) if rejected(middle) else (middle, right)
    return right


def _judge(error: JudgeError) -> _Judge | None:
    """Return the judge as it enters intervals; ``None`` where it tells nothing."""
    sensitivity, specificity = error.sensitivity, error.specificity
    if sensitivity.estimate is None or specificity.estimate is None or _raw_power(error) <= 0:
        return None
    found = [(part.n * _estimate(part) + 1) / (part.n + 2) for part in (sensitivity, specificity)]
    judge = _Judge(
        *found,
        *(x * (1 - x) / (part.n + 2) for x, part in zip(found, (sensitivity, specificity), strict=True)),
    )
    return judge if judge.power > 0 else None


def _estimate(part: Interval) -> float:
    return part.estimate or 0.0


def _raw_power(error: JudgeError) -> float:
    return _estimate(error.sensitivity) + _estimate(error.specificity) - 1


def _between(square: float, linear: float, constant: float) -> tuple[float, float]:
    """Where square t² + linear t + constant <= 0; without end where the square's factor is not positive."""
    inside = linear**2 - 4 * square * constant
    if square <= 0 or inside < 0:
        return -1.0, 2.0
    root = sqrt(inside)
    return (-linear - root) / (2 * square), (-linear + root) / (2 * square)


def _clip(value: float, lowest: float) -> float:
    return min(1.0, max(lowest, value))
