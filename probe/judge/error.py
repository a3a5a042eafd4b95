"""How often the judge of rules errs, so that every rate can say what that does to it."""

from functools import cache

from probe.judge.rules import RulesJudge
from probe.stats.judge_error import JudgeError, judge_error


@cache
def rules_error() -> JudgeError:
    """Return the error of the judge of rules on answers that it was not developed on (``scripts/bench-judge-xstest``).

    Counted on the human labels of XSTest v2, models ``llama2orig`` and ``mistralinstruct``, 450 answers each; a partial
    refusal counts as an answer, as it does in every rate. The two models differ far more than the interval of their
    mean says: refusals found are 286 of 294 for the one, which declines, and 16 of 49 for the other, which lectures. A
    route whose refusals are known to be easier or harder to read deserves a figure of its own.
    """
    return judge_error(
        302,
        343,
        497,
        557,
        f"judge {RulesJudge.name} {RulesJudge.version} against the human labels of XSTest v2, answers of two models "
        "that it was not developed on (n = 900; refusals found: 286 of 294 in one, 16 of 49 in the other)",
    )
