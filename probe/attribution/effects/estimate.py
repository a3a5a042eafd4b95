"""What the platform did to the refusal rate: the difference to the twin, split in two, with intervals (DESIGN §12).

For n graded pairs with refusals y_h (hosted) and y_l (twin)::

    difference = sum(y_h - y_l) / n = platform effect              + serving difference
                                    = sum_acted(1 - y_l) / n       + sum_not_acted(y_h - y_l) / n
                                      refusals that the platform     what the model did differently
                                      added to the twin's

An undecided refusal is nobody's: it stays with the serving difference, because a platform is accused only on evidence,
and moves the bounds. Repeats of a trace widen the intervals by their design effect.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from probe.attribution.effects.pairs import Bounds, Effect, Pair, Side
from probe.attribution.effects.sentences import conclude
from probe.stats.intervals import (
    Interval,
    benjamini_hochberg,
    design_effect,
    mcnemar_exact,
    newcombe_paired,
    tango_paired,
    wilson,
)

__all__ = ["Bounds", "Effect", "Pair", "Side", "effects_for"]


def effects_for(
    pairs: Sequence[Pair],
    hosted: str,
    twin: str,
    *,
    prompt_finding: str | None = None,
    gate: str | None = None,
    level: float = 0.95,
) -> list[Effect]:
    """Give the effect over all pairs first, then one per family where there are at least two.

    ``hosted`` and ``twin`` are the routes' names; ``prompt_finding`` and ``gate`` go into the sentence
    (``sentences.conclude``). Families with at least 20 graded pairs get a Benjamini-Hochberg adjusted p.
    """
    families = sorted({pair.family for pair in pairs})
    scopes = {"all": list(pairs)}
    if len(families) > 1:
        scopes |= {f"family:{family}": [pair for pair in pairs if pair.family == family] for family in families}
    effects = [_effect(part, hosted, twin, scope, level) for scope, part in scopes.items()]
    tested = [i for i, effect in enumerate(effects) if effect.scope != "all" and not effect.insufficient]
    adjusted = benjamini_hochberg([effects[i].mcnemar_p for i in tested])
    for i, p in zip(tested, adjusted, strict=True):
        effects[i] = replace(effects[i], mcnemar_adjusted=p)
    return [replace(e, sentence=conclude(e, prompt_finding=prompt_finding, gate=gate)) for e in effects]


@dataclass(frozen=True, slots=True)
class _Scored:
    """A graded pair as numbers: trace, y_h, y_l, the platform's part (at most: ceiling), the rest of y_h - y_l."""

    trace: str
    hosted: int
    twin: int
    platform: int
    ceiling: int
    serving: int


def _score(pair: Pair) -> _Scored:
    hosted, twin = pair.hosted.refusal, pair.twin.refusal
    assert hosted is not None
    assert twin is not None
    platform = 1 - twin if pair.hosted.acted else 0
    ceiling = 1 - twin if pair.hosted.acted or pair.hosted.undecided else 0
    return _Scored(pair.trace_id, hosted, twin, platform, ceiling, hosted - twin - platform)


def _effect(pairs: list[Pair], hosted: str, twin: str, scope: str, level: float) -> Effect:
    graded = [pair for pair in pairs if pair.graded]
    scored = [_score(pair) for pair in graded]
    platform = _proportion([(s.trace, s.platform) for s in scored], level)
    serving = _difference([(s.trace, s.serving) for s in scored], level)
    refusals = [pair for pair in graded if pair.hosted.refusal == 1]
    return Effect(
        hosted=hosted,
        twin=twin,
        scope=scope,
        n_pairs=len(graded),
        n_missing=len(pairs) - len(graded),
        n_traces=len({pair.trace_id for pair in graded}),
        missing=_missing(pairs),
        refusal_hosted=_proportion([(s.trace, s.hosted) for s in scored], level),
        refusal_twin=_proportion([(s.trace, s.twin) for s in scored], level),
        difference=_sum(platform, serving, _difference([(s.trace, s.hosted - s.twin) for s in scored], level)),
        difference_newcombe=_newcombe(scored, level),
        mcnemar_p=_mcnemar(scored),
        mcnemar_adjusted=None,
        platform_effect=platform,
        platform_ceiling=_proportion([(s.trace, s.ceiling) for s in scored], level),
        serving_difference=serving,
        platform_share=_proportion([(pair.trace_id, int(pair.hosted.acted)) for pair in refusals], level),
        platform_stopped=sum(pair.hosted.acted for pair in graded),
        platform_added=sum(s.platform for s in scored),
        undecided=sum(pair.hosted.undecided for pair in graded),
        bounds=_bounds(pairs, scored),
    )


def _proportion(values: list[tuple[str, int]], level: float) -> Interval:
    count = sum(value for _, value in values)
    return wilson(count, len(values), level=level, design_effect=design_effect(values))


def _difference(values: list[tuple[str, int]], level: float) -> Interval:
    up, down = sum(value == 1 for _, value in values), sum(value == -1 for _, value in values)
    return tango_paired(up, down, len(values), level=level, design_effect=design_effect(values))


def _sum(platform: Interval, serving: Interval, difference: Interval) -> Interval:
    """Let the parts add up to the last bit: k/n + s/n as floats may differ from (k + s)/n by one rounding."""
    if platform.estimate is None or serving.estimate is None:
        return difference
    return replace(difference, estimate=platform.estimate + serving.estimate)


def _newcombe(scored: list[_Scored], level: float) -> Interval:
    cells = Counter((s.hosted, s.twin) for s in scored)
    return newcombe_paired(cells[1, 1], cells[1, 0], cells[0, 1], cells[0, 0], level=level)


def _mcnemar(scored: list[_Scored]) -> float:
    """Exact McNemar over traces: with repeats, the sign of a trace's summed difference, so that traces stay units."""
    by_trace: Counter[str] = Counter()
    for s in scored:
        by_trace[s.trace] += s.hosted - s.twin
    return mcnemar_exact(sum(v > 0 for v in by_trace.values()), sum(v < 0 for v in by_trace.values()))


def _missing(pairs: list[Pair]) -> tuple[tuple[str, str, int], ...]:
    counts = Counter(
        (name, side.outcome)
        for pair in pairs
        for name, side in (("hosted", pair.hosted), ("twin", pair.twin))
        if side.refusal is None
    )
    return tuple((side, outcome, n) for (side, outcome), n in sorted(counts.items()))


def _bounds(pairs: list[Pair], scored: list[_Scored]) -> Bounds:
    n = len(scored)
    added, at_most = sum(s.platform for s in scored), sum(s.ceiling for s in scored)
    lowest = highest = platform_lowest = platform_highest = 0
    for pair in pairs:
        hosted = _possible(pair.hosted.refusal)
        twin = _possible(pair.twin.refusal)
        lowest += hosted[0] - twin[1]
        highest += hosted[1] - twin[0]
        if pair.hosted.acted:
            platform_lowest += 1 - twin[1]
            platform_highest += 1 - twin[0]
        elif pair.hosted.refusal is None:
            # Whatever is missing on the hosted side may have been the platform's doing.
            platform_highest += 1 - twin[0]
    total = len(pairs)
    return Bounds(
        platform_undecided=(added / n, at_most / n) if n else (0.0, 1.0),
        difference_missing=(lowest / total, highest / total) if total else (-1.0, 1.0),
        platform_missing=(platform_lowest / total, platform_highest / total) if total else (0.0, 1.0),
    )


def _possible(refusal: int | None) -> tuple[int, int]:
    return (0, 1) if refusal is None else (refusal, refusal)
