"""An effect in words that may be quoted: every number with its interval, its n and its missing; nothing claimed beyond.

"No effect" is never written: not finding one gives an upper limit, and the limit is what is said.
"""

from probe.attribution.effects.pairs import MINIMUM_PAIRS, Effect
from probe.stats.intervals import Interval

GATE_NOT_ASKED = "not asked"
"""Stands beside every effect unless a gate's answer is given (DESIGN §5, 5)."""


def rate(interval: Interval) -> str:
    """``35.0 % [26.9, 44.0]``: a proportion in per cent with its limits, one decimal."""
    if interval.estimate is None:
        return "not measured (n = 0)"
    return f"{100 * interval.estimate:.1f} % [{100 * interval.lo:.1f}, {100 * interval.hi:.1f}]"


def rate_with_n(interval: Interval) -> str:
    """``35.0 % [26.9, 44.0], n = 120``."""
    return rate(interval) if interval.estimate is None else f"{rate(interval)}, n = {interval.n}"


def points(interval: Interval) -> str:
    """``+63.3 points [+54.0, +71.1]``: a difference of proportions in percentage points with its limits."""
    if interval.estimate is None:
        return "not measured (n = 0)"
    return f"{_signed(interval.estimate)} points [{_signed(interval.lo)}, {_signed(interval.hi)}]"


def conclude(effect: Effect, *, prompt_finding: str | None = None, gate: str | None = None) -> str:
    """Say what a hosted route does to refusals and who does it, in one sentence, and after it what that leaves open.

    ``prompt_finding`` is a clause about the prompt ("the route reports 23 more prompt tokens than …"): then refusals
    by the model are put down to its prompt. ``gate`` is the same-weights gate's answer as a full sentence; that it was
    not asked stands in the tables and notes beside every effect.
    """
    if effect.insufficient:
        parts = [_too_few(effect), _prompt(effect, prompt_finding), gate]
    else:
        parts = [
            _headline(effect),
            _prompt(effect, prompt_finding),
            _undecided(effect),
            _missing(effect),
            _repeats(effect),
            gate,
        ]
    return " ".join(part for part in parts if part)


def _headline(effect: Effect) -> str:
    return (
        f"{effect.hosted} refused {rate(effect.refusal_hosted)} where {effect.twin}, its twin, refused "
        f"{rate(effect.refusal_twin)} of the same prompts{_scope(effect)} (n = {effect.n_pairs} pairs, "
        f"{effect.n_missing} missing): {_platform(effect)}."
    )


def _platform(effect: Effect) -> str:
    share, serving = effect.platform_share, effect.serving_difference
    # What is undecided may be the platform's: the limit must hold for that as well.
    limit = f"at most {_top(effect.platform_ceiling)}"
    rest = f"{points(serving)}{' (covers 0)' if serving.covers(0.0) else ''}"
    if share.n == 0:
        return f"there was no hosted refusal that a platform could have made (platform effect {limit})"
    if effect.platform_stopped == 0:
        doubt = ", with the undecided refusals counted as the platform's" if effect.undecided else ""
        return f"no platform effect was found ({limit}{doubt}), and the serving difference is {rest}"
    whose = f"the platform made {effect.platform_stopped} of the {_count(share.n, 'hosted refusal')}, {rate(share)}, "
    if effect.platform_added == 0:
        return f"{whose}but none that the twin did not give as well ({limit}), and the serving difference is {rest}"
    return (
        f"{whose}which makes {points(effect.platform_effect)} of the difference of {points(effect.difference)}; the "
        f"serving difference, what the model did differently, is {rest}"
    )


def _prompt(effect: Effect, prompt_finding: str | None) -> str:
    if prompt_finding is None:
        return ""
    by_model = effect.platform_share.n - effect.platform_stopped - effect.undecided
    if by_model <= 0:
        return f"What differs is the prompt: {prompt_finding}."
    who = (
        "The model wrote these refusals itself"
        if by_model == effect.platform_share.n
        else f"The model wrote {by_model} of the {effect.platform_share.n} hosted refusals itself"
    )
    return f"{who}; what differs is the prompt: {prompt_finding}."


def _undecided(effect: Effect) -> str:
    if not effect.undecided:
        return ""
    return (
        f"Who made {_count(effect.undecided, 'refusal')} is undecided; if the platform made all of them, the platform "
        f"effect is {points(effect.platform_ceiling)}."
    )


def _missing(effect: Effect) -> str:
    if not effect.n_missing:
        return ""
    low, high = effect.bounds.difference_missing
    return (
        f"Depending on what {_count(effect.n_missing, 'missing pair')} would have shown, the difference lies between "
        f"{_signed(low)} and {_signed(high)} points (point estimates)."
    )


def _repeats(effect: Effect) -> str:
    if effect.n_traces == effect.n_pairs:
        return ""
    return f"The pairs are repeats of {_count(effect.n_traces, 'trace')}; the intervals are widened for that."


def _too_few(effect: Effect) -> str:
    return (
        f"{'Only ' if effect.n_pairs else ''}{_count(effect.n_pairs, 'pair')} of {effect.hosted} and {effect.twin}"
        f"{_scope(effect)} can be graded ({effect.n_missing} missing); below {MINIMUM_PAIRS} no rate is stated."
    )


def _scope(effect: Effect) -> str:
    return "" if effect.scope == "all" else f" in the family {effect.scope.removeprefix('family:')}"


def _top(interval: Interval) -> str:
    return f"{100 * interval.hi:.1f} % of answers ({100 * interval.level:.0f} % interval, n = {interval.n})"


def _signed(value: float) -> str:
    # A lone "-0.0" would look like a direction.
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def _count(n: int, noun: str) -> str:
    if n == 0:
        return f"No {noun}"
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
