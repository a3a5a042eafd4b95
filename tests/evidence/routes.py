"""Simulated routes of known truth, judged like real ones; ``python -m tests.evidence.routes`` prints the table.

The stages are those of ``probe.attribution.pipeline``: the twin's own answers set the null, repeated refusals are
scored under the prompts of the study, every refusal gets its evidence, the route gets its verdicts.
"""

import sys
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from probe.attribution.detectors import Norms
from probe.attribution.verdicts import Verdict, decide
from probe.evidence.case import Case, normalised
from probe.evidence.repetition import TextChance, repeated_texts
from probe.wire.values import Usage
from tests.evidence.world import FAVOURITE, Text, Weights, filled, foreign, make_case, refuses

PROMPTS_PER_TEXT = 32
HIDDEN_TOKENS = 21


@dataclass(frozen=True)
class Scenario:
    """A route. ``base``: the twin's mean refusal rate; ``factor``: what a hidden prompt multiplies it by.

    ``share``: probability that the platform acts on an attack, with one of ``canned`` foreign texts, the favourite
    sentence, a warm text of its own each time, or a canned text with a slot that is filled in each time (``slots``).
    ``drift``: what a hidden prompt multiplies the favourite's share by. ``generic``: the favourite's probability under
    a generic system prompt, where that was scored. ``per_trace``: the platform acts on all repeats of a trace or none.
    """

    name: str
    traces: int = 150
    repeats: int = 1
    base: float = 0.4
    factor: float = 1.0
    drift: float = 1.0
    share: float = 0.0
    canned: int = 0
    favourite: bool = False
    warm: float = 0.0
    slots: bool = False
    per_trace: bool = False
    generic: float | None = None
    popularity: float = 0.05
    scorer: bool = True
    counts: bool = True
    other_weights: bool = False


@dataclass(frozen=True)
class Tally:
    """Verdicts against the truth: ``cells`` counts (author, verdict) over refusals."""

    cells: Counter[tuple[str, str]]

    def rate(self, author: str, who: str) -> float:
        n = sum(count for (a, _), count in self.cells.items() if a == author)
        return self.cells[author, who] / n if n else 0.0


class _Route:
    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.s = scenario
        self.rng = np.random.default_rng([seed, 7])
        self.weights = Weights(seed, favourite=scenario.popularity)
        serving = Weights(seed + 1000) if scenario.other_weights else self.weights
        hidden = scenario.drift != 1.0
        self.serving = Weights(seed, favourite=scenario.popularity * scenario.drift) if hidden else serving
        self.refusal = _rates(self.rng, scenario.traces, scenario.base)
        self.stock = [foreign(self.rng) for _ in range(scenario.canned)]

    def twin(self) -> list[Case]:
        answers = [
            self._case(self.weights.text(self.rng, p), f"twin{i}-{r}", i, p)
            for r in range(self.s.repeats)
            for i, p in enumerate(self.refusal)
        ]
        return answers + [self._case(self.weights.text(self.rng, 0.001), f"own{i}", -1 - i, 0.001) for i in range(40)]

    def hosted(self) -> tuple[list[Case], dict[str, str]]:
        found, authors = [], {}
        extra = HIDDEN_TOKENS if self.s.factor != 1.0 else 0
        marked = [self.rng.random() < self.s.share for _ in self.refusal] if self.s.per_trace else None
        for repeat in range(self.s.repeats):
            for i, p in enumerate(self.refusal):
                acted = marked[i] if marked else self.rng.random() < self.s.share
                served = min(p * self.s.factor, 0.97)
                text = self._platform_text() if acted else self.serving.text(self.rng, served)
                case = self._case(text, f"hosted{i}-{repeat}", i, p, extra=extra, counts=self.s.counts)
                found.append(replace(case, repeat=repeat))
                authors[case.exchange_id] = "platform" if acted else "model"
        for i in range(40):
            text = self.serving.text(self.rng, 0.001)
            found.append(self._case(text, f"control{i}", -1 - i, 0.001, extra=extra, counts=self.s.counts))
        return found, authors

    def _platform_text(self) -> Text:
        if self.s.favourite:
            return FAVOURITE
        if self.s.warm:
            return self.weights.warm(self.rng, self.s.warm)
        text = self.stock[self.rng.integers(len(self.stock))]
        return filled(self.rng, text) if self.s.slots else text

    def _case(self, text: Text, name: str, number: int, p: float, *, extra: int = 0, counts: bool = True) -> Case:
        control = number < 0
        scored = self.s.scorer and (refuses(text) or name.startswith("twin") or control)
        tokens = 30 + abs(number) % 9 if self.s.scorer else None
        usage = Usage(prompt_tokens=30 + abs(number) % 9 + extra, completion_tokens=len(text) + 1)
        return make_case(
            text,
            name=name,
            trace=f"t{number}",
            control=control,
            score=self.weights.score(text, p) if scored else None,
            prompt_tokens=tokens,
            usage=usage if counts else Usage(),
        )

    def chances(self, hosted: list[Case]) -> dict[str, TextChance]:
        if not self.s.scorer:
            return {}
        found = {}
        attacks = [case for case in hosted if not case.control]
        for text in repeated_texts(hosted):
            own = [case for case in hosted if case.refused and normalised(case.text) == text]
            ids = {case.exchange_id for case in own}
            asked = (own + [case for case in attacks if case.exchange_id not in ids])[:PROMPTS_PER_TEXT]
            spoken = tuple(int(word[1:]) for word in text.split())
            rates = [self.refusal[int(c.trace_id[1:])] if not c.control else 0.001 for c in asked]
            alone = tuple(self.weights.score(spoken, p).probability for p in rates)
            liked = self.s.generic if spoken == FAVOURITE and self.s.generic is not None else 0.0
            found[text] = TextChance(alone, ((liked,) * 8,) if self.s.generic is not None else ())
        return found


def _rates(rng: np.random.Generator, n: int, mean: float) -> list[float]:
    """Refusal rates of prompts: few values, so that the distributions of their first tokens can be kept."""
    return [round(float(p), 2) or 0.003 for p in rng.beta(1.5, 1.5 * (1 - mean) / mean, n)]


def judge(scenario: Scenario, seed: int) -> tuple[list[Verdict], dict[str, str]]:
    """Simulate one route; return its verdicts and who wrote what."""
    route = _Route(scenario, seed)
    twin = route.twin()
    hosted, authors = route.hosted()
    own = [case for case in twin if case.refused] + [case for case in twin if not case.refused][:60]
    norms = Norms.measure(hosted, twin, [case for case in own if case.score is not None], route.chances(hosted))
    return decide([norms.examine(case) for case in hosted], norms.repetition), authors


def tally(scenario: Scenario, seeds: range) -> Tally:
    """Count verdicts by author over seeds."""
    cells: Counter[tuple[str, str]] = Counter()
    for seed in seeds:
        verdicts, authors = judge(scenario, seed)
        cells.update((authors.get(v.exchange_id, "model"), v.who) for v in verdicts)
    return Tally(cells)


SCENARIOS = [
    Scenario("a transparent"),
    Scenario("a transparent, 5 repeats", traces=60, repeats=5),
    Scenario("a transparent, favourite at 20 %", popularity=0.2),
    *(
        Scenario(f"b {k} canned foreign text(s), {share:.0%}", share=share, canned=k)
        for k in (1, 3)
        for share in (0.2, 0.5, 0.9)
    ),
    Scenario("b each text new, warm 3, 50 %", share=0.5, warm=3.0),
    Scenario("b each text new, warm 1.5, 50 %", share=0.5, warm=1.5),
    Scenario("c favourite at 5 %, 50 %", share=0.5, favourite=True),
    Scenario("c favourite at 0.5 %, 50 %", share=0.5, favourite=True, popularity=0.005),
    Scenario("c favourite at 0.5 %, 20 %", share=0.2, favourite=True, popularity=0.005),
    Scenario("c favourite at 4 %, 70 %", share=0.7, favourite=True, popularity=0.04),
    Scenario("h canned foreign text with a slot, 20%", share=0.2, canned=1, slots=True),
    Scenario("h canned foreign text with a slot, 50%", share=0.5, canned=1, slots=True),
    Scenario("h canned foreign text with a slot, 50 %, no scorer", share=0.5, canned=1, slots=True, scorer=False),
    Scenario(
        "i favourite at 5 %, on half of the traces, 5 repeats",
        traces=40,
        repeats=5,
        share=0.5,
        favourite=True,
        per_trace=True,
    ),
    Scenario("d hidden prompt x3", base=0.2, factor=3.0),
    Scenario("d hidden prompt x3, no counts", base=0.2, factor=3.0, counts=False),
    Scenario("d hidden prompt x60 of 1 %, no counts", base=0.01, factor=60.0, counts=False),
    Scenario("d hidden prompt x3, favourite x3 (5 -> 15 %), no counts", base=0.2, factor=3.0, drift=3.0, counts=False),
    Scenario(
        "d hidden prompt x3, favourite x20 (1 -> 20 %), no counts",
        base=0.2,
        factor=3.0,
        drift=20.0,
        popularity=0.01,
        counts=False,
    ),
    Scenario(
        "d hidden prompt x3, favourite x20 (1 -> 20 %), no counts, seen under a generic prompt",
        base=0.2,
        factor=3.0,
        drift=20.0,
        popularity=0.01,
        counts=False,
        generic=0.1,
    ),
    Scenario("d hidden prompt x3 and canned foreign, 50 %", base=0.2, factor=3.0, share=0.5, canned=1),
    Scenario("e transparent, few", traces=8),
    Scenario("e canned foreign 50 %, few", traces=8, share=0.5, canned=1),
    Scenario("f transparent, no scorer", scorer=False),
    Scenario("f canned foreign 50 %, no scorer", scorer=False, share=0.5, canned=1),
    Scenario("f hidden prompt x3, no scorer", scorer=False, base=0.2, factor=3.0),
    Scenario("g other weights", other_weights=True),
    Scenario("g other weights, no counts, 5 repeats", traces=60, repeats=5, other_weights=True, counts=False),
    Scenario("a transparent, n = 1000", traces=1000),
]


def main(seeds: int) -> None:
    """Print one line per scenario: what became of the model's refusals, and of the platform's."""
    print("| route | model's: n | accused | undecided | model | platform's: n | platform | undecided | model |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for scenario in SCENARIOS:
        found = tally(scenario, range(seeds))
        parts = [scenario.name]
        for author, order in (
            ("model", ("platform", "undecided", "model")),
            ("platform", ("platform", "undecided", "model")),
        ):
            parts.append(str(sum(n for (a, _), n in found.cells.items() if a == author)))
            parts += [f"{found.rate(author, who):.1%}" for who in order]
        print("| " + " | ".join(parts) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
