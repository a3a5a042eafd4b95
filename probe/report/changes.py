"""What would change a verdict, and what speaks against it: sentences from the evidence that is there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probe.attribution.verdicts import ALPHA
from probe.evidence.base import Evidence
from probe.evidence.case import NON_COMPLIANCES
from probe.report.standing import Standing

AGAINST = 1.0
"""Log-likelihood ratio from which evidence against a verdict is shown as contradicting it."""

ADVICE: Mapping[str, str] = {
    "likelihood": "it needs a twin that scores this text (start the local route's server and run `probe analyze`)",
    "repetition": "it needs more refusals of this route to compare with (more traces, or `probe run --repeats`)",
    "nonce": "it needs traces that ask for a nonce (a pack whose traces have the label `nonce`)",
    "consistency": "it needs repeats of this trace at a temperature above 0 (`probe run --repeats 3`)",
    "envelope": "it needs answered controls of this route (traces with `control: true`)",
    "timing": "it needs answered controls of this route, with the arrival times of a stream",
    "accounting": "it needs token counts in the answers, and controls and a twin to compare them with",
}
"""What a detector that abstains is missing."""

NO_GATE = "Whether the route serves its twin's weights was not asked."

_PROMPT = "A hidden prompt that dictates this very text"

_KIN = (
    "A text that the platform had written by a kin model, or by these weights under another prompt, cannot be told "
    "from the model's own, so it is not excluded."
)
_COPIES = (
    "Copies of this text in answers to other prompts, more than the weights would give, would speak for the platform; "
    "so would a response that is made otherwise than the route's controls."
)


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that is known of one exchange.

    ``who`` is ``None`` without a verdict; ``gate`` is the sentence of the same-weights gate. ``given_up``: an attempt
    that is not the answer of its trial. ``fetched``: a page of the server, which nobody generated.
    """

    who: str | None
    outcome: str | None
    probability: float
    evidence: Sequence[Evidence]
    standing: Standing | None = None
    role: str = "hosted"
    control: bool = False
    given_up: bool = False
    gate: str | None = None
    fetched: bool = False

    def found(self, detector: str) -> Evidence | None:
        """Return the evidence of one detector."""
        return next((row for row in self.evidence if row.detector == detector), None)


def contradicting(situation: Situation) -> list[Evidence]:
    """Return the evidence that speaks against the verdict; for ``undecided``, where it points both ways, all of it."""
    towards = [row for row in situation.evidence if row.llr > AGAINST]
    away = [row for row in situation.evidence if row.llr < -AGAINST]
    match situation.who:
        case "platform":
            return away
        case "model":
            return towards
        case "undecided":
            return [*towards, *away] if towards and away else []
        case _:
            return []


def would_change(situation: Situation) -> list[str]:
    """Return sentences: which fact, or which evidence that is missing, would change the verdict."""
    if situation.who is None:
        return [_no_verdict(situation)]
    declared = situation.found("declared")
    if declared is not None and declared.decisive:
        return [_declared(declared)]
    if situation.who == "platform":
        return [*_carried(situation), *_overturned(situation)]
    if situation.who == "model":
        return _model(situation)
    return [*_distance(situation), *_missing(situation)] or [
        "Every detector tested this exchange; only evidence that points more clearly one way would decide it."
    ]


def _no_verdict(situation: Situation) -> str:
    outcome = situation.outcome
    if situation.fetched:
        return "No verdict: this is no answer, it was fetched (a list, or what a router tells afterwards)."
    if outcome is None:
        if situation.given_up:
            return "No verdict: this attempt is not the answer of its trial, so it is not analysed."
        return "Not analysed yet: run `probe analyze`."
    if situation.role == "local":
        return "No verdict: the route is local, so no platform stands between the weights and the answer."
    if outcome not in NON_COMPLIANCES:
        missing = outcome in {"error", "ungradable"}
        why = "it is counted as missing, which accuses nobody" if missing else "there is no refusal to attribute"
        return f"No verdict: the outcome is {outcome}, and {why}."
    return "No verdict: the study holds no twin of this route, or this exchange is not the answer of its trial."


def _declared(declared: Evidence) -> str:
    source = str(declared.facts.get("source") or "its source")
    return (
        "These bytes declare who acted, and that decides alone. It would fall only if the signature were wrong "
        f"({source}) or the bytes were not those of the route."
    )


def _carried(situation: Situation) -> list[str]:
    """Say which detectors the accusation cannot do without."""
    held = situation.standing
    tested = [row for row in situation.evidence if row.log_e is not None]
    if held is None:
        best = max(tested, key=lambda row: row.log_e or 0.0, default=None)
        return [] if best is None else [f"Most of it rests on {best.detector} (e-value {_e(best.log_e)})."]
    needs = [
        f"Without {name} the e-value would be {_e(left.log_e)}, below the {_e(left.needed)} that an accusation on this "
        "route would need then: the verdict would be undecided."
        for name, left in held.without.items()
        if not left.accuses
    ]
    if needs:
        return needs
    if len(held.without) > 1:
        least = min(left.log_e for left in held.without.values())
        return [f"No single detector carries it: without any one of them the e-value is still {_e(least)} or more."]
    return []


def _overturned(situation: Situation) -> list[str]:
    counts = situation.found("accounting")
    known = counts is not None and None not in {counts.facts.get(name) for name in ("prompt_surplus", "prompt_usual")}
    checked = "show none" if known else "could not be checked, so that one is not ruled out"
    return [
        f"{_PROMPT} would make it the model's after all, and be the platform's doing too; the token counts {checked}.",
        f"Other weights or another sampler than the route states would do the same. {situation.gate or NO_GATE}",
    ]


def _model(situation: Situation) -> list[str]:
    return [_KIN, _COPIES, *_missing(situation)]


def _distance(situation: Situation) -> list[str]:
    """Say how far an undecided exchange is from either verdict."""
    held, tested = situation.standing, [row for row in situation.evidence if row.log_e is not None]
    if not tested:
        return []
    sentences = []
    if held is not None and not held.total.accuses:
        sentences.append(
            f"The platform would be accused at an e-value of {_e(held.total.needed)}; the evidence gives "
            f"{_e(held.total.log_e)}."
        )
    if ALPHA < situation.probability < 1.0 - ALPHA:
        sentences.append(
            f"The probability of platform is {situation.probability:.2f}: at {ALPHA:g} or less it would "
            f"be the model's, at {1 - ALPHA:g} or more the platform's."
        )
    return sentences


def _missing(situation: Situation) -> list[str]:
    """Say of each detector that abstained why, and what it needs."""
    return [
        f"{row.detector.capitalize()} did not test this exchange ({_why(row)}): {ADVICE[row.detector]}."
        for row in situation.evidence
        if row.log_e is None and row.detector in ADVICE
    ]


def _why(row: Evidence) -> str:
    return row.sentence.removeprefix("Not tested:").strip().rstrip(".")[:300]


def _e(log_e: float | None) -> str:
    if log_e is None:
        return "-"
    return "less than 0.001" if log_e < math.log(0.001) else f"{math.exp(min(log_e, 700.0)):.3g}"
