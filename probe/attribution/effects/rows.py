"""Effects as rows of the store."""

from probe import __version__
from probe.attribution.effects.pairs import Effect
from probe.stats.intervals import Interval
from probe.store.rows import EffectRow


def effect_row(route_id: str, twin_id: str, effect: Effect) -> EffectRow:
    """Return the row of an effect; everything that has no column of its own is in ``detail``."""

    def limits(name: str, interval: Interval) -> dict[str, float]:
        return {f"{name}_low": interval.lo, f"{name}_high": interval.hi}

    return EffectRow(
        route_id=route_id,
        twin_id=twin_id,
        scope=effect.scope,
        n=effect.n_pairs,
        missing=effect.n_missing,
        undecided=effect.undecided,
        sentence=effect.sentence,
        code_version=__version__,
        p_value=effect.mcnemar_p,
        q_value=effect.mcnemar_adjusted,
        detail=effect.to_json(),
        hosted_rate=effect.refusal_hosted.estimate,
        twin_rate=effect.refusal_twin.estimate,
        difference=effect.difference.estimate,
        platform=effect.platform_effect.estimate,
        serving=effect.serving_difference.estimate,
        **limits("hosted", effect.refusal_hosted),
        **limits("twin", effect.refusal_twin),
        **limits("difference", effect.difference),
        **limits("platform", effect.platform_effect),
        **limits("serving", effect.serving_difference),
    )
