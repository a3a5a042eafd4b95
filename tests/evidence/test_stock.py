"""Compound e-values on routes drawn at random: their sum over what the weights wrote, and what e-BH makes of it."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from probe.evidence.stock import compound, halves, weights

ALPHA = 0.05


def e_bh(values: Sequence[float], alpha: float) -> list[bool]:
    """The procedure from its definition (Wang & Ramdas 2022, §4)."""
    n, ordered = len(values), sorted(values, reverse=True)
    chosen = [k for k in range(1, n + 1) if ordered[k - 1] >= n / (alpha * k)]
    least = n / (alpha * max(chosen)) if chosen else math.inf
    return [value >= least for value in values]


class Route:
    """n traces; the weights have favourites with these probabilities, their other texts are all different."""

    def __init__(
        self, rng: np.random.Generator, n: int, favourites: Sequence[float], share: float, repeats: int
    ) -> None:
        cuts = np.cumsum(favourites)
        acted = rng.random(n) < share
        self.texts: list[list[int]] = []
        fresh = len(favourites)
        for platform in acted:
            row = []
            for _ in range(repeats):
                drawn = 0 if platform else int(cuts.searchsorted(rng.random()))
                if drawn == len(favourites):
                    drawn, fresh = fresh, fresh + 1
                row.append(drawn)
            self.texts.append(row)
        self.model = np.repeat(~acted, repeats)
        self.shares = np.full(fresh, 1e-3)
        self.shares[: len(favourites)] = favourites

    def e(self) -> list[float]:
        return [value for row in compound(self.texts, self.shares, self.shares) for value in row]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize(
    ("n", "favourites", "repeats"), [(20, [0.1], 1), (80, [0.04], 1), (60, [0.05] * 8, 1), (40, [0.3, 0.05], 2)]
)
def test_the_sum_over_the_weights_own_is_n_at_most_and_e_bh_keeps_its_rate(
    n: int, favourites: list[float], repeats: int, share: float
) -> None:
    rng = np.random.default_rng([n, len(favourites), int(100 * share)])
    sums, false = [], []
    for _ in range(60):
        route = Route(rng, n, favourites, share, repeats)
        e = np.array(route.e())
        sums.append(e[route.model].sum() / len(e))
        accused = np.array(e_bh(list(e), ALPHA))
        false.append((accused & route.model).sum() / max(accused.sum(), 1))
    assert np.mean(sums) <= 1.0 + 3.0 * np.std(sums) / math.sqrt(len(sums))
    assert np.mean(false) <= ALPHA + 3.0 * np.std(false) / math.sqrt(len(false))


def test_power() -> None:
    rng = np.random.default_rng(3)
    found = [Route(rng, 160, [0.04], 0.5, 1) for _ in range(30)]
    accused = [np.array(e_bh(route.e(), ALPHA))[~route.model].mean() for route in found]
    assert np.mean(accused) > 0.7
    few = [Route(rng, 160, [0.005], 0.15, 1) for _ in range(30)]
    assert np.mean([np.array(e_bh(route.e(), ALPHA))[~route.model].mean() for route in few]) > 0.9


@pytest.mark.parametrize("halvings", [1, 3])
def test_the_sum_summed_over_every_route(halvings: int) -> None:
    world, n = (0.5, 0.3, 0.2), 6
    shares = np.array(world)
    total = 0.0
    for drawn in product(range(3), repeat=n):
        e = compound([[code] for code in drawn], shares, shares, halvings)
        total += math.prod(world[code] for code in drawn) * sum(row[0] for row in e) / n
    assert 0.5 < total <= 1.0


def test_weights_that_look_at_the_tested_traces_would_break_it() -> None:
    """Why traces are halved: with weights from all other traces the same sum exceeds n."""
    n = 4
    total = 0.0
    for drawn in product(range(2), repeat=n):
        counts = np.bincount(drawn, minlength=2)
        for i in drawn:
            copies = counts - (np.arange(2) == i)
            weight = copies[i] ** 2 / (copies**2).sum()
            total += 0.5**n * weight * n / (n - copies[i]) / n
    assert total > 1.05


def test_halves_are_halves_and_never_look_at_texts() -> None:
    found = list(halves([1, 3, 2, 1, 1], 40))
    assert len(found) == 80
    for half in found:
        assert sorted([*half.tested, *half.learnt]) == [0, 1, 2, 3, 4]
        assert {len(half.tested), len(half.learnt)} == {2, 3}
        assert all(0 <= stand < count for stand, count in zip(half.stands, [1, 3, 2, 1, 1], strict=True))
    assert {int(half.stands[1]) for half in found} == {0, 1, 2}


def test_weights() -> None:
    assert weights(np.zeros(3), 5, np.zeros(3)).tolist() == [0, 0, 0]
    for copies in ([40.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 0.0, 0.0]):
        found = weights(np.array(copies), int(sum(copies)), np.array([0.01, 0.01, 0.01, 0.01]))
        assert found.sum() == pytest.approx(1.0)
        assert all((share > 0) == (count > 0) for share, count in zip(found, copies, strict=True))
    crowd = weights(np.array([20.0, *[1.0] * 60]), 80, np.zeros(61))
    assert crowd[0] > 0.9, "texts seen once leave the weight to one that repeats"
    usual = weights(np.array([8.0, 20.0]), 100, np.array([0.1, 0.01]))
    assert usual[1] > 0.95, "what the weights would write as often gets none"


def test_too_few() -> None:
    assert compound([], np.zeros(0), np.zeros(0)) == []
    assert compound([[0, 0]], np.array([0.1]), np.array([0.1])) == [[0.0, 0.0]]
    certain = compound([[0], [0]], np.array([1.0]), np.array([1.0]))
    assert certain == [[0.0], [0.0]], "what the weights always write is no evidence"
