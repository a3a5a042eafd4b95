"""Near-copies: one sentence with slots that are filled in each time ("… about {subject}").

Candidates come from MinHash over word pairs (Broder 1997, "On the resemblance and containment of documents"; banded as
in Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets", §3.4), alignment decides: what all members share, in
order, is the template, what lies between is a slot.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

COMMON = 0.6
"""Share of every member that the template must have in common with it."""

LEAST_COMMON = 4
"""Units (words or tokens) that a template must fix; fewer say nothing."""

LONGEST_SLOT = 16
"""Units. Longer differences are not a slot that was filled in."""

_PERMUTATIONS = 64
_SEED = 1
_ALIKE = 0.35
_CANDIDATES = 3

Units = Sequence[Hashable]


@dataclass(frozen=True, slots=True)
class Template:
    """``fixed`` pieces in order, with a slot of 0 … ``slots[k]`` units before piece k, and one after the last."""

    fixed: tuple[tuple[Hashable, ...], ...]
    slots: tuple[int, ...]

    @property
    def length(self) -> int:
        """Number of fixed units."""
        return sum(map(len, self.fixed))

    @property
    def log_slots(self) -> float:
        """Natural log of the number of ways to choose the lengths of the slots; they count as equally probable."""
        return float(sum(np.log(limit + 1.0) for limit in self.slots))

    def match(self, units: Units) -> list[bool] | None:
        """Return which units are fixed ones, or ``None`` where the text does not fit; one of several ways to fit."""
        starts = self._starts(tuple(units), 0, 0, set())
        if starts is None:
            return None
        mask = [False] * len(units)
        for start, piece in zip(starts, self.fixed, strict=True):
            mask[start : start + len(piece)] = [True] * len(piece)
        return mask

    def _starts(self, units: tuple[Hashable, ...], at: int, piece: int, failed: set[tuple[int, int]]) -> Any:
        if piece == len(self.fixed):
            return [] if len(units) - at <= self.slots[piece] else None
        if (at, piece) in failed:
            return None
        wanted = self.fixed[piece]
        for start in range(at, at + self.slots[piece] + 1):
            if units[start : start + len(wanted)] == wanted:
                rest = self._starts(units, start + len(wanted), piece + 1, failed)
                if rest is not None:
                    return [start, *rest]
        failed.add((at, piece))
        return None

    def __str__(self) -> str:
        parts = [" ".join(map(str, piece)) for piece in self.fixed]
        middle = " … ".join(parts)
        return f"{'… ' if self.slots[0] else ''}{middle}{' …' if self.slots[-1] else ''}"


def shared(members: Iterable[Units]) -> tuple[Hashable, ...]:
    """Return units that all members have, in order: common to the first two, of these common to the third, and so on.

    A common subsequence, not always the longest.
    """
    rest = iter(members)
    found = tuple(next(rest, ()))
    for units in rest:
        found = _common(found, units)
    return found


def _common(a: Units, b: Units) -> tuple[Hashable, ...]:
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    return tuple(unit for block in blocks for unit in a[block.a : block.a + block.size])


def template_of(members: Sequence[Units]) -> Template | None:
    """Return the template of texts, or ``None`` where they have none that fixes most of each."""
    common = shared(members)
    if len(common) < LEAST_COMMON or any(len(common) < COMMON * len(units) for units in members):
        return None
    gaps = np.zeros(len(common) + 1, dtype=int)
    for units in members:
        gaps = np.maximum(gaps, _gaps(common, units))
    if gaps.max() > LONGEST_SLOT or not gaps.any():
        return None
    cuts = [0, *(np.flatnonzero(gaps[1:-1]) + 1), len(common)]
    fixed = tuple(common[a:b] for a, b in pairwise(cuts))
    # The next text may fill a slot with more than any of these did.
    slots = tuple(2 * int(gaps[cut]) + 1 if gaps[cut] else 0 for cut in cuts)
    return Template(fixed, slots)


def _gaps(common: Units, units: Units) -> list[int]:
    """Return how many units precede each common one (and follow the last) where each is taken as early as possible."""
    found, at = [], 0
    for unit in common:
        start = at
        while units[at] != unit:
            at += 1
        found.append(at - start)
        at += 1
    return [*found, len(units) - at]


class Sketches:
    """MinHash signatures of texts, made once; ``groups`` clusters any subset of them, always in the same way."""

    def __init__(self, texts: Sequence[str]) -> None:
        from datasketch import MinHash  # type: ignore[import-untyped]

        self.words = {text: tuple(text.split()) for text in texts}
        pairs = [[" ".join(pair).encode() for pair in _pairs(words)] for words in self.words.values()]
        signatures = MinHash.bulk(pairs, num_perm=_PERMUTATIONS, seed=_SEED)
        self._signatures = dict(zip(self.words, signatures, strict=True))

    def groups(self, counts: Mapping[str, int]) -> list[tuple[str, ...]]:
        """Return groups of near-copies among the texts that ``counts`` holds, each text in one group at most.

        A text joins the candidate with the most neighbours that keeps most of every member in common; the most
        frequent texts come first. Depends on ``counts`` only.
        """
        from datasketch import MinHashLSH

        index = MinHashLSH(num_perm=_PERMUTATIONS, params=_bands())
        members: list[list[str]] = []
        common: list[tuple[Hashable, ...]] = []
        longest: list[int] = []
        place: dict[str, int] = {}
        for text in sorted(counts, key=lambda text: (-counts[text], text)):
            words = self.words[text]
            near: dict[int, int] = {}
            for other in index.query(self._signatures[text]):
                near[place[other]] = near.get(place[other], 0) + 1
            for group in sorted(near, key=lambda group: (-near[group], group))[:_CANDIDATES]:
                kept = _common(common[group], words)
                if len(kept) >= max(COMMON * max(len(words), longest[group]), LEAST_COMMON):
                    common[group], place[text] = kept, group
                    longest[group] = max(longest[group], len(words))
                    members[group].append(text)
                    break
            else:
                place[text] = len(members)
                members.append([text])
                common.append(words)
                longest.append(len(words))
            index.insert(text, self._signatures[text])
        return [tuple(group) for group in members if len(group) > 1]


@cache
def _bands() -> tuple[int, int]:
    """Return number and rows of the bands that suit ``_ALIKE``: found by integrating, which takes its time."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=_ALIKE, num_perm=_PERMUTATIONS)
    return index.b, index.r


def _pairs(words: Sequence[str]) -> list[tuple[str, ...]]:
    ends = ("", *words, "")
    return list(pairwise(ends))
