"""Effects as rows of the store, and back: a report shows what the analysis found, with the settings of then."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from probe import __version__
from probe.attribution.effects.aa import AA, AATest
from probe.attribution.effects.pairs import INTERVALS, PLAIN, Bounds, Effect, Measure
from probe.attribution.gate.values import gate_of_json
from probe.attribution.settings import Settings
from probe.stats.equivalence import Equivalence
from probe.stats.intervals import Interval
from probe.stats.judge_error import JudgeError
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


def effect_of_row(row: EffectRow) -> Effect:
    """Return the effect that ``effect_row`` wrote, to the last bit."""
    return effect_of_json(row.detail)


def effect_of_json(value: Mapping[str, Any]) -> Effect:
    """Return the effect that ``to_json`` wrote; what an older version did not know keeps its default."""
    given: dict[str, Any] = {name: value[name] for name in (*PLAIN, "bounds", "notes", "unpaired") if name in value}
    given |= {name: Interval(**value[name]) for name in INTERVALS if name in value}
    given["missing"] = tuple((entry["side"], entry["outcome"], entry["n"]) for entry in value["missing"])
    given["bounds"] = _bounds(value["bounds"])
    given["notes"] = tuple(value.get("notes", ()))
    readers = {"judge_error": _judge_error, "equivalence": _equivalence, "equivalence_total": _equivalence}
    for name, read in {**readers, "aa": _aa, "gate": gate_of_json}.items():
        if value.get(name) is not None:
            given[name] = read(value[name])
    if "measures" in value:
        given["measures"] = {name: _measure(measure) for name, measure in value["measures"].items()}
    for name in ("corrected", "bootstrap"):
        if name in value:
            given[name] = {key: Interval(**interval) for key, interval in value[name].items()}
    if "settings" in value:
        error = value["settings"]["judge_error"]
        given["settings"] = Settings(**{**value["settings"], "judge_error": error and _judge_error(error)})
    return Effect(**given)


def _bounds(value: Mapping[str, Any]) -> Bounds:
    known = {field.name for field in fields(Bounds)} - {"intervals"}
    pairs = {name: (limits[0], limits[1]) for name, limits in value.items() if name in known}
    intervals = {name: (limits[0], limits[1]) for name, limits in value.get("intervals", {}).items()}
    return Bounds(**pairs, intervals=intervals)


def _measure(value: Mapping[str, Any]) -> Measure:
    return Measure(**{name: Interval(**interval) for name, interval in value.items()})


def _judge_error(value: Mapping[str, Any]) -> JudgeError:
    return JudgeError(Interval(**value["sensitivity"]), Interval(**value["specificity"]), value["source"])


def _equivalence(value: Mapping[str, Any]) -> Equivalence:
    return Equivalence(**{**value, "interval": Interval(**value["interval"])})


def _aa(value: Mapping[str, Any]) -> AA:
    tests = (AATest(**{**test, "difference": Interval(**test["difference"])}) for test in value["tests"])
    return AA(tuple(tests), value["failed"], value["sentence"])
