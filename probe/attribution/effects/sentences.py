"""An effect in words that may be quoted: every number with its interval, its n and its missing; nothing claimed beyond.

"No effect" is never written: not finding one gives an upper limit, and the limit is what is said. No layer is named.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from probe.attribution.effects.pairs import MINIMUM_PAIRS, Effect
from probe.attribution.gate.values import CANNOT_TELL, DIFFERENT, OTHER_MODEL, PROMPT, SAME
from probe.stats.intervals import Interval

GATE_NOT_ASKED = "not asked"
"""Stands beside an effect that no gate was asked for (DESIGN §5, 5)."""


@dataclass(frozen=True, slots=True)
class Words:
    """What was concluded (``conclusion.conclude``), as far as the sentences need it.

    ``serving``: the serving difference with limits that hold, of a run that stopped early as well. ``doubts``: why it
    is not taken for shown although it excludes 0.
    """

    kind: str
    missing: str
    delta: float
    serving: Interval
    within: bool = False
    differs: bool = False
    doubts: Collection[str] = ()


def rate(interval: Interval) -> str:
    """``35.0 % [26.9, 44.0]``: a proportion in per cent with its limits, one decimal."""
    if interval.estimate is None:
        return "not measured (n = 0)"
    return f"{100 * interval.estimate:.1f} % [{100 * interval.lo:.1f}, {100 * interval.hi:.1f}]"


def rate_with_n(interval: Interval) -> str:
    """``35.0 % [26.9, 44.0], n = 120``."""
    return rate(interval) if interval.estimate is None else f"{rate(interval)}, n = {interval.n:,}"


def points(interval: Interval) -> str:
    """``+63.3 points [+54.0, +71.1]``: a difference of proportions in percentage points with its limits."""
    if interval.estimate is None:
        return "not measured (n = 0)"
    return f"{signed(interval.estimate)} points [{signed(interval.lo)}, {signed(interval.hi)}]"


def signed(value: float) -> str:
    """``+3.9`` or ``−3.9``: a fraction in points."""
    # A lone "-0.0" would look like a direction.
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def count(n: int, noun: str) -> str:
    """``No refusal``, ``1 refusal``, ``1,234 refusals``."""
    if n == 0:
        return f"No {noun}"
    return f"{n} {noun}" if n == 1 else f"{n:,} {noun}s"


def margin(delta: float) -> str:
    """``±5 points``."""
    return f"±{100 * delta:g} points"


def headline(sentence: str) -> tuple[str, str]:
    """Split what was said of an effect into its first sentence, which can be quoted alone, and the rest."""
    found = re.search(r"\. (?=[A-Z\d])", sentence)
    return (sentence, "") if found is None else (sentence[: found.start() + 1], sentence[found.end() :])


def say(effect: Effect, words: Words) -> str:
    """Say what a hosted route does to refusals and who does it, in one sentence, and after it what that leaves open."""
    if effect.insufficient:
        parts = [_too_few(effect), _missing_for(words), _prompt(effect), _gate(effect, words), _control(effect)]
    else:
        parts = [
            _headline(effect, words),
            _serving(effect, words),
            _success(effect, words),
            _cancelling(words),
            _prompt(effect),
            _gate(effect, words),
            _undecided(effect),
            _missing(effect),
            _repeats(effect),
            _sequential(effect),
            _control(effect),
            _missing_for(words),
        ]
    return " ".join(part for part in parts if part)


def _headline(effect: Effect, words: Words) -> str:
    claim = {
        "platform": "The platform refuses on the model's behalf",
        "both": "Platform and model both make the difference",
        "model": _model_claim(effect, words),
        "prompt or template": "The model refuses otherwise because its prompt or template differs",
        "no difference within δ": f"The difference is shown to lie within {margin(words.delta)}",
        "undecided": "Undecided",
    }[words.kind]
    if words.kind == "both" and _prompt_differs(effect):
        claim = "The platform and the prompt that it gives the model both make the difference"
    return (
        f"{claim}: {effect.hosted} refused {rate(effect.refusal_hosted)} where {effect.twin}, its twin, refused "
        f"{rate(effect.refusal_twin)} of the same prompts{_scope(effect)} (n = {effect.n_pairs:,} pairs, "
        f"{effect.n_missing:,} missing): {_platform(effect, words)}."
    )


def _model_claim(effect: Effect, words: Words) -> str:
    which = "more" if words.serving.lo > 0.0 else "less"
    if effect.gate is not None and effect.gate.answer == DIFFERENT:
        what = "The weights differ" if effect.gate.cause == OTHER_MODEL else "The weights or their sampler differ"
        return f"{what}, and the model refuses {which} often by itself"
    return f"The model refuses {which} often by itself"


def _platform(effect: Effect, words: Words) -> str:
    share, serving = effect.platform_share, words.serving
    # What is undecided may be the platform's: the limit must hold for that as well.
    limit = f"at most {_top(effect.platform_ceiling)}"
    rest = f"{points(serving)}{' (covers 0)' if serving.covers(0.0) else ''}"
    if share.n == 0:
        return (
            f"there was no hosted refusal that a platform could have made (platform effect {limit}), and the serving "
            f"difference is {rest}"
        )
    if effect.platform_stopped == 0:
        doubt = ", with the undecided refusals counted as the platform's" if effect.undecided else ""
        return f"no platform effect was found ({limit}{doubt}), and the serving difference is {rest}"
    whose = f"the platform made {effect.platform_stopped:,} of the {count(share.n, 'hosted refusal')}, {rate(share)}, "
    if effect.platform_added == 0:
        return f"{whose}but none that the twin did not give as well ({limit}), and the serving difference is {rest}"
    return (
        f"{whose}which makes {points(effect.platform_effect)} of the difference of {points(_whole(effect))}; the "
        f"serving difference, what the model did differently, is {rest}"
    )


def _whole(effect: Effect) -> Interval:
    """Return the whole difference; of a run that stopped early with the limits that hold whenever one looks."""
    found = effect.difference
    if not effect.sequential or found.estimate is None:
        return found
    return Interval(found.estimate, effect.anytime.lo, effect.anytime.hi, found.n, effect.anytime.method, found.level)


def _serving(effect: Effect, words: Words) -> str:
    """Say what is shown of the serving difference: equivalence, a difference, or neither."""
    within = margin(words.delta)
    tested = effect.equivalence
    if words.within:
        if effect.sequential or tested is None:
            return f"That the serving difference lies within {within} is shown."
        level = f"{100 * tested.interval.level:.0f} % interval {points(tested.interval)}"
        return f"That the serving difference lies within {within} is shown ({level})."
    if words.doubts:
        why = {
            "undecided": "the undecided refusals may be the platform's",
            "missing": "the missing pairs may have gone the other way",
            "answers": "a platform that reads answers stops those that the model gave, and leaves its refusals over",
        }
        reasons = "; ".join(text for name, text in why.items() if name in words.doubts)
        return f"The serving difference excludes 0 and yet is not shown to be the model's doing: {reasons}."
    if words.differs:
        return ""
    return f"The serving difference is neither shown to differ from 0 nor shown to lie within {within}."


def _success(effect: Effect, words: Words) -> str:
    """Say how many attacks got through: what studies of attack success report.

    What the route would show without the platform is read off the twin, and so said only where nothing shows that the
    model behind the route behaves differently.
    """
    strict = effect.measures.get("asr_strict")
    if strict is None or strict.hosted.estimate is None:
        return ""
    said = f"{rate(strict.hosted)} of attacks got through here against {rate(strict.twin)} on the twin"
    if not effect.platform_stopped:
        return f"{said} (answered in full; n = {strict.hosted.n:,})."
    without = f"without the platform this route would show {rate(strict.counterfactual)}"
    if words.kind == "both" or (effect.gate is not None and effect.gate.answer == DIFFERENT):
        without = "what it would show without the platform is not known, because its model differs from the twin"
    return f"{said} (answered in full; n = {strict.hosted.n:,}); {without}."


def _cancelling(words: Words) -> str:
    if words.kind != "both" or words.serving.hi >= 0.0:
        return ""
    return (
        "The two go against each other; a platform that answers in the place of refusals which the model would have "
        "given itself leaves the same picture."
    )


def _prompt_differs(effect: Effect) -> bool:
    return effect.prompt_finding is not None or (effect.gate is not None and effect.gate.cause == PROMPT)


def _prompt(effect: Effect) -> str:
    if effect.prompt_finding is None:
        return ""
    by_model = effect.platform_share.n - effect.platform_stopped - effect.undecided
    if by_model <= 0:
        return f"What differs is the prompt: {effect.prompt_finding}."
    who = (
        "The model wrote these refusals itself"
        if by_model == effect.platform_share.n
        else f"The model wrote {by_model:,} of the {effect.platform_share.n:,} hosted refusals itself"
    )
    return f"{who}; what differs is the prompt: {effect.prompt_finding}."


def _gate(effect: Effect, words: Words) -> str:
    """Quote the gate, and say what its answer leaves open for this conclusion (DESIGN §5, 5)."""
    named = f"{effect.other_weights} " if effect.other_weights else ""
    gate = effect.gate
    if gate is None:
        return f"{named}Whether both serve the same weights was not asked (`probe gate`)."
    said = f"{named}The same-weights gate: {gate.sentence}"
    open_to = (
        "So what differs acts on such prompts only: a prompt that is added to them, other weights for them, or a "
        "platform whose refusals cannot be told from the model's."
        if gate.answer == SAME
        else "So other weights, another prompt, and a platform whose refusals cannot be told from the model's were not "
        "told apart."
        if gate.answer == CANNOT_TELL
        else ""
    )
    if words.kind == "model":
        return f"{said} {open_to}".strip()
    if gate.answer == DIFFERENT and gate.cause == OTHER_MODEL and effect.platform_stopped:
        return (
            f"{said} What the model behind this route would have answered is therefore not known from the twin, and "
            "verdicts that rest on wording assume the twin's weights; what the platform declares stands."
        )
    return said


def _undecided(effect: Effect) -> str:
    if not effect.undecided:
        return ""
    return (
        f"Who made {count(effect.undecided, 'refusal')} is undecided; if the platform made all of them, the platform "
        f"effect is {points(effect.platform_ceiling)}."
    )


def _missing(effect: Effect) -> str:
    if not effect.n_missing:
        return ""
    low, high = effect.bounds.difference_missing
    return (
        f"Depending on what {count(effect.n_missing, 'missing pair')} would have shown, the difference lies between "
        f"{signed(low)} and {signed(high)} points (point estimates)."
    )


def _repeats(effect: Effect) -> str:
    if effect.n_traces == effect.n_pairs:
        return ""
    return f"The pairs are repeats of {count(effect.n_traces, 'trace')}; the intervals are widened for that."


def _sequential(effect: Effect) -> str:
    if not effect.sequential:
        return ""
    return (
        "The run was stopped as soon as the question was answered: the difference has limits that hold however often "
        "one looks; those of the rates do not allow for it."
    )


def _control(effect: Effect) -> str:
    if effect.aa is None or not effect.aa.failed:
        return ""
    return f"Warning: an A/A control of this study failed, so its differences are in doubt. {effect.aa.sentence}"


def _missing_for(words: Words) -> str:
    return f"What would decide it: {words.missing}." if words.missing else ""


def _too_few(effect: Effect) -> str:
    return (
        f"Undecided: {'only ' if effect.n_pairs else ''}{count(effect.n_pairs, 'pair').lower()} of {effect.hosted} and "
        f"{effect.twin}{_scope(effect)} can be graded ({effect.n_missing:,} missing); below {MINIMUM_PAIRS} no rate is "
        "stated."
    )


def _scope(effect: Effect) -> str:
    return "" if effect.scope == "all" else f" in the family {effect.scope.removeprefix('family:')}"


def _top(interval: Interval) -> str:
    return f"{100 * interval.hi:.1f} % of answers ({100 * interval.level:.0f} % interval, n = {interval.n:,})"
