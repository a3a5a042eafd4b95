"""All detectors of one hosted route: first what is ordinary there, then the evidence about each answer."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probe.attribution.mixture import Finding
from probe.evidence.accounting import AccountingNorm, accounting
from probe.evidence.case import Case, normalised
from probe.evidence.consistency import ConsistencyNorm, consistency
from probe.evidence.declared import declared
from probe.evidence.echo import echo
from probe.evidence.envelope import EnvelopeNorm, envelope
from probe.evidence.likelihood import Genuine, LikelihoodNorm, likelihood
from probe.evidence.nonce import NonceNorm, nonce
from probe.evidence.repetition import RepetitionNorm, TextChance, repetition
from probe.evidence.timing import TimingNorm, timing


@dataclass(frozen=True)
class Norms:
    """What is ordinary on one route, and for the weights of its twin: a norm per detector."""

    accounting: AccountingNorm
    envelope: EnvelopeNorm
    timing: TimingNorm
    likelihood: LikelihoodNorm
    repetition: RepetitionNorm
    nonce: NonceNorm
    consistency: ConsistencyNorm

    @classmethod
    def measure(
        cls,
        hosted: Sequence[Case],
        twin: Sequence[Case],
        genuine: Sequence[Case],
        chances: Mapping[str, TextChance],
        *,
        own: Genuine | None = None,
    ) -> "Norms":
        """Measure a route. ``genuine``: answers of the twin that are scored; ``chances``: of repeated hosted texts.

        ``own``: what further answers of the twin score, where that was measured before.
        """
        controls = [case for case in hosted if case.control and case.outcome == "complied"]
        counts = AccountingNorm.measure(controls, hosted)
        wording = LikelihoodNorm.measure(
            [*genuine, *(case for case in controls if case.score is not None)],
            prompt_differs=counts.prompt_differs,
            hosted_controls=[case for case in controls if case.score is not None],
            hosted_answers=_answers(hosted),
            genuine=own,
        )
        estimate = wording.estimate
        power = estimate.power if estimate is not None and estimate.differs else None
        # Where the route turned greedy, each prompt has one answer, and its words recur however it was asked.
        greedy = estimate is not None and estimate.greedy and estimate.differs
        otherwise = wording.served_otherwise or greedy
        hidden = counts.prompt_differs
        return cls(
            accounting=counts,
            envelope=EnvelopeNorm.measure(hosted),
            timing=TimingNorm.measure(hosted),
            likelihood=wording,
            repetition=RepetitionNorm.measure(
                hosted, twin, chances, prompt_differs=hidden, power=power, otherwise=otherwise
            ),
            nonce=NonceNorm.measure(hosted, twin, prompt_differs=hidden),
            consistency=ConsistencyNorm.measure(hosted, twin, prompt_differs=hidden, power=power),
        )

    def examine(self, case: Case) -> Finding:
        """Gather the evidence about one answer."""
        found = [
            declared(case),
            likelihood(case, self.likelihood),
            repetition(case, self.repetition),
            nonce(case, self.nonce),
            consistency(case, self.consistency),
            envelope(case, self.envelope),
            timing(case, self.timing),
            accounting(case, self.accounting),
        ]
        if case.echo is not None:
            found.append(echo(case.echo))
        return Finding(case, {evidence.detector: evidence for evidence in found})


def _answers(hosted: Sequence[Case]) -> list[Case]:
    """Return the scored answers to the traces themselves, without texts that answer several traces.

    One text answers no two questions: the judge took a message of the platform for an answer, and that it is foreign to
    the weights must not protect the route.
    """
    answers = [case for case in hosted if not case.control and case.outcome == "complied"]
    traces: dict[str, set[str]] = defaultdict(set)
    for case in answers:
        traces[normalised(case.text)].add(case.trace_id)
    return [case for case in answers if case.score is not None and len(traces[normalised(case.text)]) == 1]
