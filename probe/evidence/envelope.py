"""``envelope``: is this answer made like the route's ordinary answers, whatever it says?

Score of a member of the bag (reference answers and the tested one): in how many features, and how telling ones, it
differs from the second nearest member. A route that answers from several upstream hosts has a pattern for each; an
answer that mixes them or is like none is odd. The bag is treated alike, so that the rank of the tested answer is
uniform if it is one of the others. Features that depend on what is said are left out (``envelope_features`` says which
and why).

An answer that broke off is compared with controls that got as far: an answer to an attack may be longer than one to a
control, and what is longer breaks more easily.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from probe.evidence.base import Evidence
from probe.evidence.breaks import BreakNorm
from probe.evidence.case import Case
from probe.evidence.conformal import (
    COMMON,
    LEAST,
    NOT_DECLINING,
    TESTED,
    TEXTLESS,
    Indices,
    References,
    e_of_rank,
    llr_of,
    rank_of,
    reference_note,
)
from probe.evidence.envelope_features import OPTIONAL, Features, without_end
from probe.evidence.envelope_words import exhibit_of, in_words
from probe.evidence.made import Made, made

NAME, VERSION = "envelope", "1"

CUT = "cut_stream"
"""Mechanism of evidence that somebody ended the answer."""

PIECE = "pieces"
LONG_ENOUGH = 40
"""Characters from which a text in one piece is told from one that comes in several."""

HORIZONS = (0.1, 0.3, 0.6)
"""Quantiles of the controls' sizes before which an answer may have broken off; three wagers of equal stake."""

BROKEN, BREAKS = 0.03, 0.95
"""Stakes on where an answer broke off and on how often answers do; the rest is on how its beginning is made."""

_NAMED = 3
_STRIKING = 0.05
"""Share in the bag below which a value is worth a word."""

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EnvelopeNorm:
    """How the answers of a route are made.

    ``codes`` (n, f): the value of each feature of each case as a number, -1 where it says nothing. ``first`` and
    ``total`` (n,): characters of the first piece of text and of the whole. ``sizes`` (n,): bytes of the body.
    """

    references: References
    names: tuple[str, ...]
    values: tuple[Features, ...]
    vocabulary: tuple[Mapping[str, int], ...]
    codes: Codes
    first: Codes
    total: Codes
    sizes: Codes
    cut: npt.NDArray[np.bool_]
    breaks: BreakNorm = field(default_factory=BreakNorm)
    _known: dict[tuple[bytes, bytes], tuple[float, int]] = field(default_factory=dict, repr=False)

    @classmethod
    def measure(cls, cases: Sequence[Case]) -> "EnvelopeNorm":
        """Read all answers of one hosted route."""
        how = [made(case) for case in cases]
        cut = np.array([case.outcome == "cut" for case in cases], dtype=bool)
        # Most answers are made like many others and share their features: each pattern is looked at once.
        patterns: dict[tuple[int, bool], int] = {}
        which = np.array(
            [patterns.setdefault((id(h.features), bool(c)), len(patterns)) for h, c in zip(how, cut, strict=True)]
        )
        places = dict(zip(which.tolist(), range(len(cases)), strict=True))
        distinct = [_features(cases[places[number]], how[places[number]]) for number in range(len(patterns))]
        # In the order of first occurrence, so that codes do not depend on how cases share their features.
        names = sorted({name for found in distinct for name in found if not name.endswith("?")})
        vocabulary: list[dict[str, int]] = []
        codes = np.full((len(distinct), len(names)), -1, dtype=np.int64)
        for column, name in enumerate(names):
            known: dict[str, int] = {}
            for row, found in enumerate(distinct):
                value = _value(found, name)
                if value is not None:
                    codes[row, column] = known.setdefault(value, len(known))
            vocabulary.append(known)
        return cls(
            references=References.pick(cases),
            names=tuple(names),
            values=tuple(distinct[number] for number in which),
            vocabulary=tuple(vocabulary),
            codes=codes[which] if len(which) else codes,
            first=np.array([h.first for h in how], dtype=np.int64),
            total=np.array([h.total for h in how], dtype=np.int64),
            sizes=np.array([h.size for h in how], dtype=np.int64),
            cut=cut,
            breaks=BreakNorm.measure(cases),
        )

    def row(self, case: Case) -> tuple[Features, Codes, int, int]:
        """Return features, codes, and the lengths of first piece and text of any case."""
        place = self.references.place(case)
        if place is not None:
            return self.values[place], self.codes[place], int(self.first[place]), int(self.total[place])
        how = made(case)
        found = _features(case, how)
        codes = [
            -1 if (value := _value(found, name)) is None else known.get(value, len(known))
            for name, known in zip(self.names, self.vocabulary, strict=True)
        ]
        return found, np.array(codes, dtype=np.int64), how.first, how.total

    def rank(self, codes: Codes, first: int, total: int, chosen: Indices) -> tuple[float, int]:
        """Return the score of an answer and its rank among the chosen reference answers."""
        pieces = self.piece_column(first, total, chosen)
        key = (np.append(codes, pieces).tobytes(), chosen.tobytes())
        if key not in self._known:
            bag = np.vstack([self.codes[chosen], codes])
            bag = np.column_stack([bag, pieces]) if len(pieces) else bag
            bag = bag[:, (bag != bag[-1]).any(axis=0)]
            patterns: dict[bytes, int] = {}
            ids = np.array([patterns.setdefault(row.tobytes(), len(patterns)) for row in bag])
            _, places, counts = np.unique(ids, return_index=True, return_counts=True)
            scores = strangeness(bag[places], counts)[ids]
            self._known[key] = float(scores[-1]), rank_of(float(scores[-1]), scores[:-1])
        return self._known[key]

    def piece_column(self, first: int, total: int, chosen: Indices) -> Codes:
        """Return whether as much text as the tested answer has came in one piece: last entry is its own, -1 unknown.

        The reference answers are looked at over the same number of characters: a short text comes in one piece more
        easily.
        """
        if total < LONG_ENOUGH:
            return np.empty(0, dtype=np.int64)
        known = self.total[chosen] >= total
        column = np.append(np.where(known, self.first[chosen] >= total, -1), int(first >= total))
        return column if (column == 1).any() else np.empty(0, dtype=np.int64)


def _value(found: Features, name: str) -> str | None:
    if name in found or not name.startswith(OPTIONAL):
        return found.get(name)
    above = name.removeprefix(OPTIONAL).rpartition(".")[0]
    return "absent" if (f"{above}.?" if above else "?") in found else None


def _features(case: Case, how: Made) -> Features:
    return without_end(how.features) if case.outcome == "cut" else how.features


def _size(case: Case) -> int:
    return made(case).size


def strangeness(patterns: Codes, counts: Codes) -> npt.NDArray[np.float64]:
    """Return the distance of every pattern to its second nearest neighbour in the bag.

    ``patterns`` (p, f) are the distinct rows of the bag, ``counts`` (p,) how many members have each. The distance of
    two members adds up, over the features in which they differ, -log(share of the pairs of members that differ in it).
    A feature that is different in every answer weighs nothing, and one that is always the same weighs log n.
    """
    size = float(counts.sum())
    differ = np.zeros((len(patterns), len(patterns)))
    for column in patterns.T:
        valid = column >= 0
        pair = valid[:, None] & valid[None, :] & (column[:, None] != column[None, :])
        pairs = float(counts @ pair @ counts)
        if pairs:
            differ += pair * math.log(size * size / pairs)
    np.fill_diagonal(differ, np.inf)
    if len(patterns) == 1:
        return np.zeros(1)
    nearest = differ.argmin(axis=1)
    first = differ[np.arange(len(differ)), nearest]
    differ[np.arange(len(differ)), nearest] = np.inf
    second = np.where(counts[nearest] > 1, first, differ.min(axis=1))
    return np.where(counts > 2, 0.0, np.where(counts > 1, first, second))


def envelope(case: Case, norm: EnvelopeNorm) -> Evidence:
    """Compare how one answer is made with the ordinary answers of its route."""
    if case.outcome not in TESTED:
        return Evidence(NAME, VERSION, None, 0.0, NOT_DECLINING)
    if case.exchange is not None and case.exchange.state in {"timeout", "client_gone", "unreachable"}:
        return Evidence(NAME, VERSION, None, 0.0, "Not tested: our own side ended the exchange.")
    chosen = norm.references.of(case)
    if len(chosen) < LEAST:
        return Evidence(NAME, VERSION, None, 0.0, reference_note(len(chosen)), {"n": len(chosen)})
    found, codes, first, total = norm.row(case)
    score, rank = norm.rank(codes, first, 0 if case.outcome in TEXTLESS else total, chosen)
    e_value = e_of_rank(rank, len(chosen))
    facts: dict[str, float | int | None] = {"n": len(chosen), "score": round(score, 3), "rank": rank}
    odd = _odd(norm, found, codes, chosen)
    if case.outcome not in TEXTLESS and len(pieces := norm.piece_column(first, total, chosen)) and pieces[-1] == 1:
        others = pieces[:-1][pieces[:-1] >= 0]
        if len(others) and others.mean() < _STRIKING:
            odd.insert(0, (PIECE, f"the whole text ({total} characters)", "", len(others)))
    if rank > COMMON * (len(chosen) + 1):
        odd = []
    sentence = _sentence(odd, rank, len(chosen))
    exhibit = "; ".join(exhibit_of(name, found.get(name), case) for name, *_ in odd[:_NAMED])
    mechanism = None
    broke = _broke_off(_size(case), norm, chosen) if case.outcome == "cut" else None
    if broke is not None and case.exchange is not None:
        often = norm.breaks.of(case)
        facts |= {"bytes": _size(case), "broke_off_e": round(broke, 4), "breaks_e": round(often, 4)}
        e_value = BROKEN * broke + BREAKS * often + (1.0 - BROKEN - BREAKS) * e_value
        if max(broke, often) > 1.0:
            mechanism = None if norm.cut[chosen].any() else CUT
            sentence = f"{_cut_words(case, norm, chosen)} {sentence}"
            exhibit = exhibit or f"the answer ends with {case.exchange.response_body[-60:]!r}"
    log_e = math.log(e_value)
    return Evidence(
        NAME,
        VERSION,
        log_e,
        llr_of(log_e, len(chosen)),
        sentence,
        facts,
        exhibit,
        mechanism=mechanism,
        layer="unknown" if mechanism else None,
    )


def _odd(norm: EnvelopeNorm, found: Features, codes: Codes, chosen: Indices) -> list[tuple[str, str, str, int]]:
    """Return (feature, value, value of the most similar answer, how many have that), the most telling first."""
    others = norm.codes[chosen]
    differ = (others != codes) & (others >= 0) & (codes >= 0)
    nearest = int(differ.sum(axis=1).argmin())
    odd = []
    for column in np.flatnonzero(differ[nearest]):
        values = others[:, column]
        count = int(np.count_nonzero(values == values[nearest]))
        same = int(np.count_nonzero(values == codes[column]))
        if count <= 2:
            continue  # about every answer has a value of its own
        usual = next(value for value, code in norm.vocabulary[column].items() if code == values[nearest])
        name = norm.names[column]
        odd.append((same, (name, _value(found, name) or "", usual, count)))
    return [entry for _, entry in sorted(odd, key=lambda pair: (pair[0], -pair[1][3]))]


def _sentence(odd: Sequence[tuple[str, str, str, int]], rank: int, n: int) -> str:
    if not odd:
        return f"It is made like the route's ordinary answers (n = {n})."
    words = [in_words(name, value, usual, count, n) for name, value, usual, count in odd[:_NAMED]]
    more = f"; and {len(odd) - _NAMED} more differences" if len(odd) > _NAMED else ""
    if rank == 1:
        return f"No ordinary answer of the route is made like this one (n = {n}): {'; '.join(words)}{more}."
    return f"{'; '.join(words)}{more}; but {rank - 1} of {n} ordinary answers are as unusual."


def _broke_off(size: int, norm: EnvelopeNorm, chosen: Indices) -> float | None:
    """Return the e-value of an answer that broke off after ``size`` bytes; ``None`` where it cannot be tested.

    For each horizon: among controls that got that far or broke off before, how many broke off before? The horizons come
    from the sizes of whole controls only, so that they do not depend on where the answer broke off.
    """
    sizes, cut = norm.sizes[chosen], norm.cut[chosen]
    whole = sizes[~cut & (sizes >= 0)]
    if size < 0 or len(whole) < LEAST:
        return None
    wagers = []
    for horizon in np.quantile(whole, HORIZONS):
        at_risk = (sizes >= horizon) | (cut & (sizes >= 0))
        early = cut & at_risk & (sizes < horizon)
        n = int(np.count_nonzero(at_risk))
        if n < LEAST:
            wagers.append(1.0)
        else:
            wagers.append(e_of_rank(1 + int(np.count_nonzero(early)) if size < horizon else n + 1, n))
    return sum(wagers) / len(wagers)


def _cut_words(case: Case, norm: EnvelopeNorm, chosen: Indices) -> str:
    size, cut = _size(case), norm.cut[chosen]
    earlier = int(np.count_nonzero(cut))
    longer = int(np.count_nonzero(~cut & (norm.sizes[chosen] >= size)))
    many = "none" if not earlier else str(earlier)
    return (
        f"The answer breaks off after {size} bytes; {longer} of the route's controls got as far and further, "
        f"and {many} of {len(chosen)} broke off. In all, {norm.breaks.sentence}."
    )
