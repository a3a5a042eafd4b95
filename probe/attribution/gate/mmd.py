"""``mmd``: are the route's texts and the twin's drawn from one distribution, prompt by prompt?

Maximum mean discrepancy with the Hamming string kernel (Gao, Liang & Guestrin 2024, "Model Equality Testing",
arXiv 2410.20247, §3): texts are rows of Unicode code points, padded to the longest with a character of its own, and the
kernel is the share of places where two rows agree; texts of different prompts have kernel 0. The p-value comes from
exchanging the labels within each prompt, which is exact whenever both routes answer a prompt alike. It needs no scores,
but at least one answer of the route and two of the twin to the same prompt (or the other way round).

The statistic is that of ``mmd_hamming`` in the authors' package (``model-equality-testing`` 0.0.2), to rounding. Where
no prompt has two answers of one route, its own term does not exist and is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probe.attribution.gate.values import GateTest
from probe.evidence.case import Case
from probe.evidence.sampler import Sampler

PERMUTATIONS = 999

LONGEST = 2000
"""Characters of a text that are compared."""

LEAST_PROMPTS = 5
"""Prompts answered by both below which the test is not asked."""

Array = npt.NDArray[np.float64]
_Key = tuple[str, Sampler]


@dataclass(frozen=True, slots=True)
class _Group:
    """Prompts with the same numbers of answers: ``kernels`` (prompts, h + t, h + t), diagonals 0, the route's first."""

    kernels: Array
    hosted: int

    @property
    def twin(self) -> int:
        return int(self.kernels.shape[1]) - self.hosted


def mmd_test(hosted: Sequence[Case], twin: Sequence[Case], seed: int) -> GateTest:
    """Compare texts that were asked for alike, at temperatures where texts vary."""
    ours, theirs = _by_prompt(hosted), _by_prompt(twin)
    shared = sorted((key for key in ours if key in theirs), key=repr)
    pairs = [(ours[key], theirs[key]) for key in shared if len(ours[key]) + len(theirs[key]) > 2]
    n = len(pairs)
    if n < LEAST_PROMPTS:
        said = "no answer" if not ours else f"{len(shared)} prompts" if not shared else f"{n} prompts"
        why = (
            f"Not asked: it needs {LEAST_PROMPTS} prompts that route and twin answered at the same temperature above 0,"
            f" one of them at least twice; there are {said}."
        )
        return GateTest(None, None, n, "prompts", why)
    groups = _groups(pairs)
    rng = np.random.default_rng([seed, 0x4D4D44])
    found = float(_statistics(groups, [_as_they_are(group) for group in groups])[0])
    drawn = _statistics(groups, [_exchanged(group, rng) for group in groups])
    # Equal arrangements must count as equal in spite of rounding.
    p = (1 + int((drawn >= found - 1e-12).sum())) / (PERMUTATIONS + 1)
    texts = sum(len(a) for a, _ in pairs), sum(len(b) for _, b in pairs)
    sentence = (
        f"Texts of route and twin to the same {n} prompts ({texts[0]} and {texts[1]}): MMD {found:.4f}, Hamming "
        f"kernel, reached in {100 * p:.1f} % of {PERMUTATIONS} exchanges of who wrote which."
    )
    detail = {"hosted_texts": texts[0], "twin_texts": texts[1], "permutations": PERMUTATIONS}
    return GateTest(found, p, n, "prompts", sentence, detail=detail)


def mmd_hamming(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> float:
    """Return the statistic for texts of two routes, one pair of lists per prompt."""
    groups = _groups(pairs)
    return float(_statistics(groups, [_as_they_are(group) for group in groups])[0])


def _by_prompt(cases: Sequence[Case]) -> Mapping[_Key, list[str]]:
    found: dict[_Key, list[str]] = {}
    for case in cases:
        sampler = Sampler.of(case.sampling)
        if sampler is not None and not sampler.greedy and case.outcome in _ANSWERED and case.text:
            found.setdefault((case.trace_id, sampler), []).append(case.text)
    return found


_ANSWERED = frozenset({"complied", "partial", "refused"})


def _groups(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[_Group]:
    longest = max((len(text[:LONGEST]) for pair in pairs for texts in pair for text in texts), default=0)
    sorted_out: dict[tuple[int, int], list[Array]] = {}
    for hosted, twin in pairs:
        sorted_out.setdefault((len(hosted), len(twin)), []).append(_kernel([*hosted, *twin], max(longest, 1)))
    return [_Group(np.stack(found), sizes[0]) for sizes, found in sorted(sorted_out.items())]


def _kernel(texts: Sequence[str], longest: int) -> Array:
    rows = np.full((len(texts), longest), -1, dtype=np.int32)
    for row, text in zip(rows, texts, strict=True):
        cut = text[:LONGEST]
        row[: len(cut)] = [ord(character) for character in cut]
    kernel = (rows[:, None, :] == rows[None, :, :]).mean(axis=2)
    np.fill_diagonal(kernel, 0.0)
    return np.asarray(kernel)


def _statistics(groups: Sequence[_Group], labels: Sequence[Array]) -> Array:
    """Return the statistic for every arrangement; ``labels`` per group: (arrangements, prompts, h + t), 1 = hosted."""
    sums, pairs = np.zeros((3, len(labels[0]))), np.zeros(3)
    for group, own in zip(groups, labels, strict=True):
        count = len(group.kernels)
        toward = np.einsum("pij,bpj->bpi", group.kernels, own)
        within = (own * toward).sum(axis=(1, 2))
        across = toward.sum(axis=(1, 2)) - within
        sums += np.stack([within, across, group.kernels.sum() - within - 2.0 * across])
        h, t = group.hosted, group.twin
        pairs += np.array([h * (h - 1), h * t, t * (t - 1)]) * count
    means = sums[pairs > 0] / pairs[pairs > 0, None]
    return np.asarray((means * np.array([1.0, -2.0, 1.0])[pairs > 0, None]).sum(axis=0))


def _as_they_are(group: _Group) -> Array:
    own = np.zeros((1, len(group.kernels), group.hosted + group.twin))
    own[:, :, : group.hosted] = 1.0
    return own


def _exchanged(group: _Group, rng: np.random.Generator) -> Array:
    """Return labels exchanged within each prompt, ``PERMUTATIONS`` times."""
    return rng.permuted(np.repeat(_as_they_are(group), PERMUTATIONS, axis=0), axis=2)
