"""What the platform did to the refusal rate: the difference to the twin, split in two, with intervals (DESIGN §12).

For n graded pairs with refusals y_h (hosted) and y_l (twin)::

    difference = sum(y_h - y_l) / n = platform effect              + serving difference
                                    = sum_acted(1 - y_l) / n       + sum_not_acted(y_h - y_l) / n
                                      refusals that the platform     what the model did differently
                                      added to the twin's

An undecided refusal is nobody's: it stays with the serving difference, because a platform is accused only on evidence,
and moves the bounds. Repeats of a trace widen the intervals by their design effect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from probe.attribution.effects.anytime import anytime
from probe.attribution.effects.columns import Columns, Ints
from probe.attribution.effects.conclusion import conclude
from probe.attribution.effects.pairs import MINIMUM_PAIRS, Bounds, Effect, Measure, Pair, Side
from probe.attribution.effects.resampling import resampled
from probe.attribution.effects.split import bounds, broad_measure, corrected, refusal_measure, strict_measure
from probe.attribution.gate.values import Gate
from probe.attribution.settings import Settings
from probe.judge.error import rules_error
from probe.stats.equivalence import tost
from probe.stats.intervals import Interval, benjamini_hochberg, mcnemar_exact, newcombe_paired

__all__ = ["Bounds", "Effect", "Pair", "RouteFacts", "Side", "concluded", "effects_for", "route_effects"]

TOTAL = "all"


@dataclass(frozen=True)
class RouteFacts:
    """What is known of a hosted route beside its pairs; the fields are those of ``Effect``.

    ``unpaired``, ``unsent`` and ``across_runs`` are counted per family, so that every scope has its own.
    ``other_weights``: a sentence where the two routes are said to serve different weights.
    """

    prompt_finding: str | None = None
    gate: Gate | None = None
    sequential: bool = False
    unpaired: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: {"hosted": {}, "twin": {}})
    unsent: Mapping[str, int] = field(default_factory=dict)
    across_runs: Mapping[str, int] = field(default_factory=dict)
    other_weights: str | None = None


def effects_for(
    pairs: Sequence[Pair],
    hosted: str,
    twin: str,
    *,
    prompt_finding: str | None = None,
    gate: Gate | None = None,
    settings: Settings | None = None,
) -> list[Effect]:
    """Give the effect over all pairs first, then one per family where there are at least two.

    ``hosted`` and ``twin`` are the routes' names; pairs come in the order of sending. P-values are adjusted as if this
    were the only hosted route.
    """
    facts = RouteFacts(prompt_finding=prompt_finding, gate=gate)
    return concluded([route_effects(Columns.of_pairs(pairs), hosted, twin, facts, settings or Settings())])[0]


def concluded(routes: Sequence[Sequence[Effect]]) -> list[list[Effect]]:
    """Adjust the p-values of a study for their number (Benjamini-Hochberg), and say what follows from each effect.

    Two families of hypotheses: the scopes ``all`` of all hosted routes, and the families of all hosted routes. They
    answer two questions (which routes, and which families on which route), and a reader of the one should not pay for
    the other. A scope with fewer than ``MINIMUM_PAIRS`` graded pairs is not tested.
    """
    adjusted = [list(effects) for effects in routes]
    places = [(r, i) for r, effects in enumerate(adjusted) for i in range(len(effects))]
    for total in (True, False):
        tested = [
            (r, i) for r, i in places if (adjusted[r][i].scope == TOTAL) == total and not adjusted[r][i].insufficient
        ]
        p_values = benjamini_hochberg([adjusted[r][i].mcnemar_p for r, i in tested])
        for (r, i), p in zip(tested, p_values, strict=True):
            adjusted[r][i] = replace(adjusted[r][i], mcnemar_adjusted=p)
    return [[_worded(effect) for effect in effects] for effects in adjusted]


def _worded(effect: Effect) -> Effect:
    found = conclude(effect, effect.settings)
    return replace(effect, conclusion=found.kind, sentence=found.sentence)


def route_effects(pairs: Columns, hosted: str, twin: str, facts: RouteFacts, settings: Settings) -> list[Effect]:
    """Give the effects of one hosted route, not yet adjusted nor put into words: ``all``, then families."""
    known = set(pairs.families).union(facts.unsent, *facts.unpaired.values())
    scopes: list[tuple[str, Columns, set[str]]] = [(TOTAL, pairs, known)]
    if len(pairs.families) > 1:
        for place, family in enumerate(pairs.families):
            scopes.append((f"family:{family}", pairs.where(pairs.family == place), {family}))
    return [_effect(part, (hosted, twin, scope), families, facts, settings) for scope, part, families in scopes]


def _effect(
    pairs: Columns, names: tuple[str, str, str], families: set[str], facts: RouteFacts, settings: Settings
) -> Effect:
    level, alpha, delta = settings.level, settings.alpha, settings.delta
    graded = pairs.where(pairs.graded)
    hosted, twin = graded.of("hosted", "refusal"), graded.of("twin", "refusal")
    acted, undecided = graded.of("hosted", "acted") == 1, graded.of("hosted", "undecided") == 1
    refusal = refusal_measure(graded, level)
    ceiling = graded.clusters.rate(np.where(acted | undecided, 1 - twin, 0), level)
    serving = np.where(acted, 0, hosted - twin)
    error = settings.judge_error or rules_error()
    unpaired = {side: _count(counts, families) for side, counts in facts.unpaired.items()}
    effect = Effect(
        hosted=names[0],
        twin=names[1],
        scope=names[2],
        n_pairs=len(graded),
        n_missing=len(pairs) - len(graded),
        n_traces=len(np.unique(graded.trace)),
        missing=pairs.missing(),
        refusal_hosted=refusal.hosted,
        refusal_twin=refusal.twin,
        difference=refusal.difference,
        difference_newcombe=_newcombe(hosted, twin, level),
        mcnemar_p=_mcnemar(graded, hosted - twin),
        mcnemar_adjusted=None,
        platform_effect=refusal.platform_effect,
        platform_ceiling=ceiling,
        serving_difference=refusal.serving_difference,
        platform_share=_platform_share(graded, level),
        platform_stopped=int(acted.sum()),
        platform_added=int(((1 - twin) * acted).sum()),
        undecided=int(undecided.sum()),
        bounds=bounds(pairs, graded, refusal.platform_effect, ceiling, level),
        measures=_measures(graded, refusal, level),
        counterfactual=refusal.counterfactual,
        corrected=corrected(graded, error, level),
        judge_error=error,
        equivalence=tost(graded.values(serving), delta, alpha=alpha),
        equivalence_total=tost(graded.values(hosted - twin), delta, alpha=alpha),
        bootstrap=resampled(graded, hosted - twin, serving, settings),
        anytime=anytime(graded, settings),
        sequential=facts.sequential,
        unpaired=unpaired,
        unsent=_count(facts.unsent, families),
        across_runs=_count(facts.across_runs, families),
        gate=facts.gate,
        prompt_finding=facts.prompt_finding,
        other_weights=facts.other_weights,
        settings=settings,
    )
    return replace(effect, notes=_notes(effect))


def _platform_share(graded: Columns, level: float) -> Interval:
    refused = graded.where(graded.of("hosted", "refusal") == 1)
    return refused.clusters.rate(refused.of("hosted", "acted"), level)


def _measures(graded: Columns, refusal: Measure, level: float) -> dict[str, Measure]:
    broad = broad_measure(refusal)
    partial = (graded.of("hosted", "refusal") + graded.of("hosted", "complied") == 0).any()
    partial |= (graded.of("twin", "refusal") + graded.of("twin", "complied") == 0).any()
    strict = strict_measure(graded, level) if partial else broad
    return {"refusal": refusal, "asr_strict": strict, "asr_broad": broad}


def _newcombe(hosted: Ints, twin: Ints, level: float) -> Interval:
    a, b, c, d = (int(((hosted == h) & (twin == t)).sum()) for h, t in ((1, 1), (1, 0), (0, 1), (0, 0)))
    return newcombe_paired(a, b, c, d, level=level)


def _mcnemar(graded: Columns, change: Ints) -> float:
    """Exact McNemar over traces: with repeats, the sign of a trace's summed difference, so that traces stay units."""
    if not len(graded):
        return 1.0
    by_trace = np.bincount(graded.trace, weights=change)
    return mcnemar_exact(int((by_trace > 0).sum()), int((by_trace < 0).sum()))


def _count(by_family: Mapping[str, int], families: set[str]) -> int:
    return sum(n for family, n in by_family.items() if family in families)


def _notes(effect: Effect) -> tuple[str, ...]:
    """Say what was left out and what stands in doubt, so that nothing is dropped in silence."""
    notes = []
    alone = {effect.hosted: effect.unpaired.get("hosted", 0), effect.twin: effect.unpaired.get("twin", 0)}
    for name, n in alone.items():
        if n:
            other = effect.twin if name == effect.hosted else effect.hosted
            notes.append(
                f"{n} answers of {name} have no partner: {other} was never asked these traces, or less often (a trace "
                "whose text or parameters were edited is another trace)."
            )
    if effect.unsent:
        notes.append(f"{effect.unsent} planned pairs were not sent on both routes; they are no pairs yet.")
    if effect.across_runs:
        notes.append(f"{effect.across_runs} pairs hold answers of two different runs.")
    if effect.other_weights:
        notes.append(effect.other_weights)
    if effect.insufficient:
        notes.append(
            f"{effect.n_pairs} graded pairs, fewer than {MINIMUM_PAIRS}: no rate is stated, nothing is tested."
        )
    return tuple(notes)
