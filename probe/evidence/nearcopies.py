"""What near-copies are worth: how probable the common words of a template are to the weights, slots left out.

Let T be a template (``probe.evidence.templates``) that was learnt from *other* traces. A platform that fills it in
writes every common token for sure, and in the slots, at worst, what the weights would: q(text) = Π over slots
1/(longest + 1) × Π over slot tokens p(token | prefix). That is a distribution over texts (choose the lengths of the
slots evenly, draw their tokens from the weights, write the rest), or less where a text fits in more ways than one. So
q/p has expectation <= 1 under p; slot tokens cancel, and

    log q/p = -Σ_common log p(token | prefix) - Σ_slots log(longest + 1).

Conditioned on refusing p(text) becomes p(text)/R with R the rate at which the weights refuse, so R·q/p is what counts
(on average over prompts; R from below). Weights w over templates with Σ w <= 1 come from one half of the traces, and
Σ_T w(T) · R · q_T/p is the e-value of a refusal in the other half: expectation <= Σ w <= 1. (What is bet on exact
copies takes its part of the weight; it comes from the same halves.) What the twin writes itself
lowers it: a text that c of its m refusals fit counts as no rarer than c/(m+1). Without scores that use alone is known,
and its inverse, (m+1)/(c+1), has expectation <= 1/P(fits T).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from probe.evidence.case import Case, normalised
from probe.evidence.stock import halves, weights
from probe.evidence.templates import Sketches, Template, template_of

HALVINGS = 6
LEAST_TRACES = 3
_RAREST = 1e-250
_STAKE = 0.05
_RARE = 0.2
_MOST = 600.0

Array = npt.NDArray[np.float64]
TokenLogs = Callable[[Case], Array | None]
"""Log-probabilities of a case's tokens under the sampler, from above; ``None`` where they cannot be told."""


@dataclass(frozen=True, slots=True)
class World:
    """What the weights are known by: ``rate`` of refusing, from below; the twin's refusals by text; token scores.

    ``scored``: whether the route's texts have such scores at all.
    """

    rate: float
    twin: Mapping[str, int]
    logs: TokenLogs
    scored: bool = True
    _ids: dict[int, tuple[Case, tuple[int, ...]]] = field(default_factory=dict, repr=False, compare=False)

    def ids(self, case: Case) -> tuple[int, ...]:
        """Return a case's token ids; fetched once, because many patterns ask for them."""
        found = self._ids.get(id(case))
        if found is None:
            found = self._ids[id(case)] = (case, _ids(case))  # with the case, so that no other one gets its id
        return found[1]

    def stake(self, copies: int, traces: int) -> float:
        """Return the share that is bet on near-copies rather than on exact ones.

        ``copies``: of the most frequent text among ``traces`` others. Ratios from scores are large or nothing, so that
        little will do. The twin's use alone never says much: there the bet goes where exact copies are rare.
        """
        if self.scored:
            return _STAKE
        return min(max(1.0 - copies / (_RARE * traces), 2 * _STAKE), 1.0 - 2 * _STAKE)

    @property
    def refusals(self) -> int:
        """Number of the twin's refusals."""
        return sum(self.twin.values())


@dataclass(frozen=True, slots=True)
class Pattern:
    """A template over words, the same over tokens where its members are scored, and how many of the twin's fit it."""

    words: Template
    tokens: Template | None
    traces: int
    twin: int
    refusals: int

    def share(self, case: Case, world: World) -> float | None:
        """Return P(case's text | refuse) / q(text) from above; ``None`` where the text does not fit."""
        if self.tokens is None:
            return None if self.words.match(case.text.split()) is None else (self.twin + 1) / (self.refusals + 1)
        logs = world.logs(case)
        fixed = None if logs is None or case.score is None else self.tokens.match(world.ids(case))
        if fixed is None or logs is None:
            return None
        log_p = min(float(logs[np.array(fixed)].sum()) + self.tokens.log_slots, _MOST)
        scored = math.exp(max(log_p, -_MOST)) / world.rate if world.rate > 0 else math.inf
        return max(scored, self.twin / (self.refusals + 1)) if world.rate > 0 else math.inf


def _ids(case: Case) -> tuple[int, ...]:
    return () if case.score is None else tuple(map(int, case.score.columns().ids))


@dataclass(frozen=True)
class NearCopies:
    """``e``: e-value by exchange id, 0 where there is none. ``of``: for texts in a group, the group's number.

    ``patterns``, ``shares`` (of each trace's refusals) and ``model`` (P(a member's text | refuse) from above, the
    largest among its members) are those of the groups.
    """

    e: Mapping[str, float] = field(default_factory=dict)
    of: Mapping[str, int] = field(default_factory=dict)
    patterns: Sequence[Pattern] = ()
    shares: Sequence[Mapping[str, float]] = ()
    model: Sequence[float] = ()
    case_shares: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def measure(cls, traces: Mapping[str, Sequence[Case]], world: World) -> "NearCopies":
        """Group the refusals of a route's ``traces`` by template and weigh them."""
        texts = sorted({normalised(case.text) for cases in traces.values() for case in cases})
        if len(texts) < 2:
            return cls()
        finder = _Finder(Sketches(texts), traces, world)
        found = finder.patterns({trace: [normalised(case.text) for case in cases] for trace, cases in traces.items()})
        found = [(pattern, members) for pattern, members in found if pattern.traces >= LEAST_TRACES]
        finder.broad = [pattern for pattern, _ in found]
        of = {text: number for number, (_, members) in enumerate(found) for text in members}
        shares: list[dict[str, float]] = [{} for _ in found]
        case_shares: dict[str, float] = {}
        model = [0.0] * len(found)
        for trace, cases in traces.items():
            for case in cases:
                number = of.get(normalised(case.text))
                if number is None:
                    continue
                shares[number][trace] = shares[number].get(trace, 0.0) + 1.0 / len(cases)
                case_shares[case.exchange_id] = finder.share(found[number][0], case) or 1.0
                model[number] = max(model[number], case_shares[case.exchange_id])
        return cls(finder.e_values(of) if found else {}, of, [p for p, _ in found], shares, model, case_shares)

    def name(self, case: Case) -> str | None:
        """Return the id of the case's group."""
        number = self.of.get(normalised(case.text))
        return None if number is None else f"near-copies of: {self.patterns[number].words}"


def _number(entry: tuple[int, float, Pattern]) -> int:
    return entry[0]


class _Finder:
    def __init__(self, sketches: Sketches, traces: Mapping[str, Sequence[Case]], world: World) -> None:
        self._sketches, self._world = sketches, world
        self._ids = sorted(traces)
        self._cases = [traces[trace] for trace in self._ids]
        self._tokens: dict[str, tuple[int, ...]] = {}
        for cases in self._cases:
            for case in cases:
                if world.logs(case) is not None:
                    text = normalised(case.text)
                    if text not in self._tokens:
                        self._tokens[text] = world.ids(case)
        self._often: Counter[Hashable] = Counter()
        for units in (*sketches.words.values(), *self._tokens.values()):
            self._often.update(set(units))
        self._twin = [(tuple(text.split()), count) for text, count in world.twin.items()]
        self._fits: dict[Template, int] = {}
        self._used_at_least: dict[str, float] = {}
        self.broad: Sequence[Pattern] = ()

    def patterns(self, texts: Mapping[str, Sequence[str]]) -> list[tuple[Pattern, tuple[str, ...]]]:
        """Return the patterns among some traces' texts; nothing else is looked at but the twin's."""
        holders: dict[str, set[str]] = {}
        for trace, found in texts.items():
            for text in found:
                holders.setdefault(text, set()).add(trace)
        result = []
        for members in self._sketches.groups({text: len(ids) for text, ids in holders.items()}):
            words = template_of([self._sketches.words[text] for text in members])
            if words is None:
                continue
            known = [self._tokens[text] for text in members if text in self._tokens]
            tokens = template_of(known) if len(known) == len(members) else None
            held = set().union(*(holders[text] for text in members))
            pattern = Pattern(words, tokens, len(held), self._used(words), self._world.refusals)
            result.append((pattern, members))
        return result

    def share(self, pattern: Pattern, case: Case) -> float | None:
        """Return the pattern's share for a case, at most 1; ``None`` where the text does not fit.

        No smaller than the twin's use of any of the route's templates that the text fits: two members that happen to
        have the same words in a slot must not make a narrower template that the twin did not use.
        """
        share, text = pattern.share(case, self._world), normalised(case.text)
        if share is None:
            return None
        if text not in self._used_at_least:
            words = self._sketches.words[text]
            fits = [p.twin / (p.refusals + 1) for p in self.broad if p.words.match(words) is not None]
            self._used_at_least[text] = max(fits, default=0.0)
        return min(max(share, self._used_at_least[text]), 1.0)

    def _used(self, template: Template) -> int:
        if template not in self._fits:
            self._fits[template] = sum(n for words, n in self._twin if template.match(words) is not None)
        return self._fits[template]

    def _rarest(self, pattern: Pattern) -> Hashable:
        """Return the unit of a pattern, token id or word, that the fewest of the route's texts have."""
        template = pattern.words if pattern.tokens is None else pattern.tokens
        return min(
            (unit for piece in template.fixed for unit in piece), key=lambda unit: (self._often[unit], str(unit))
        )

    def _units(self, case: Case, text: str) -> Iterable[Hashable]:
        """Return what a text consists of: words, and token ids where it is scored."""
        words = self._sketches.words[text]
        return words if self._world.logs(case) is None else (*words, *self._world.ids(case))

    def e_values(self, of: Mapping[str, int]) -> dict[str, float]:
        """Return the e-values of cases whose text is in a group of the whole route."""
        e: dict[str, float] = defaultdict(float)
        known: dict[tuple[int, str], float] = {}
        numbers: dict[tuple[Template, Template | None], int] = {}
        texts = [[normalised(case.text) for case in cases] for cases in self._cases]
        for half in halves([len(cases) for cases in self._cases], HALVINGS):
            learnt = {self._ids[i]: [texts[i][half.stands[i]]] for i in map(int, half.learnt)}
            found = [pattern for pattern, _ in self.patterns(learnt)]
            weight = weights(np.array([float(p.traces) for p in found]), max(len(learnt), 1), np.zeros(len(found)))
            most = max(Counter(text for said in learnt.values() for text in said).values(), default=0)
            weight *= self._world.stake(most, max(len(learnt), 1))
            by_word: dict[Hashable, list[tuple[int, float, Pattern]]] = {}
            for stake, pattern in zip(weight, found, strict=True):
                number = numbers.setdefault((pattern.words, pattern.tokens), len(numbers))
                by_word.setdefault(self._rarest(pattern), []).append((number, float(stake), pattern))
            for i in map(int, half.tested):
                for case, text in zip(self._cases[i], texts[i], strict=True):
                    if text not in of:
                        continue
                    # A text fits a pattern only where it has all its words, the rarest too.
                    near = [entry for word in set(self._units(case, text)) for entry in by_word.get(word, ())]
                    for number, stake, pattern in sorted(near, key=_number):
                        key = (number, case.exchange_id)
                        if key not in known:
                            share = self.share(pattern, case)
                            known[key] = 0.0 if share is None else 1.0 / max(share, _RAREST)
                        e[case.exchange_id] += stake * known[key] / HALVINGS
        return dict(e)
