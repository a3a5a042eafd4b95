"""The sequential test against closed forms, against its definition, and in simulation with a look after every pair."""

import math
import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import beta, betaln

from probe.stats.intervals import mcnemar_exact
from probe.stats.sequential import DIFFERENT, SAME, SHAPE, SequentialTest, _bets


def fed(values: Sequence[float], *, alpha: float = 0.05, delta: float = 0.05) -> SequentialTest:
    test = SequentialTest(alpha=alpha, delta=delta)
    for value in values:
        test.add(value)
    return test


def draw(chance: random.Random, up: float, down: float) -> float:
    at = chance.random()
    return 1.0 if at < up else -1.0 if at < up + down else 0.0


@pytest.mark.parametrize(("ups", "downs"), [(0, 0), (1, 0), (0, 6), (5, 5), (30, 2), (70, 57)])
def test_the_e_process_is_that_of_the_beta_mixture(ups: int, downs: int) -> None:
    found = fed([1.0] * ups + [0.0] * 7 + [-1.0] * downs)
    wanted = (ups + downs) * math.log(2) + betaln(ups + SHAPE, downs + SHAPE) - betaln(SHAPE, SHAPE)
    assert found.log_e == pytest.approx(wanted, abs=1e-9)
    assert found.n == ups + downs + 7


def test_fractions_bet_on_the_same_mixture() -> None:
    values = [0.5, -0.25, 1.0, 0.75, 0.5, -1.0, 1 / 3, 0.0, 0.5]
    # A polynomial in the bet, of which the mixture takes the moments; odd ones are 0 by symmetry.
    powers = np.polynomial.polynomial.polyfromroots([-1 / value for value in values if value])
    powers /= powers[0]
    wanted = sum(powers[2 * k] * beta(k + 0.5, SHAPE) / beta(0.5, SHAPE) for k in range((len(powers) + 1) // 2))
    assert math.exp(fed(values).log_e) == pytest.approx(wanted)


def test_six_pairs_that_all_go_one_way_are_needed_as_by_mcnemar() -> None:
    for sign in (1.0, -1.0):
        test = SequentialTest()
        for pairs in range(1, 7):
            test.add(sign)
            assert (test.answer == DIFFERENT) == (mcnemar_exact(pairs, 0) < 0.05)
        assert not test.interval.covers(0.0)


def log_capital(values: npt.NDArray[np.float64], means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ln K at every n (rows) for every mean (columns), as the module's first lines define it."""
    bets, log_weights = (part.reshape(-1, 1, 1) for part in (_bets()[0], _bets()[1]))
    d, m = values[None, :, None], means[None, None, :]
    up = np.cumsum(np.log(1 - bets + bets * (1 + d) / (1 + m)), axis=1)
    down = np.cumsum(np.log(1 - bets + bets * (1 - d) / (1 - m)), axis=1)
    found: npt.NDArray[np.float64] = np.logaddexp(
        np.logaddexp.reduce(up + log_weights, axis=0), np.logaddexp.reduce(down + log_weights, axis=0)
    )
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_sequence_keeps_exactly_the_means_that_no_look_gave_up(seed: int) -> None:
    chance = random.Random(seed)
    choices = ([-1.0, 0.0, 0.0, 1.0], [-1.0, -0.5, 0.0, 0.5, 1.0, 1.0], [0.0], [1.0, 2 / 3, 0.1])[seed]
    values = [chance.choice(choices) for _ in range(80)]
    means = np.linspace(-0.999, 0.999, 1999)
    given_up = np.maximum.accumulate(log_capital(np.array(values), means) >= math.log(20), axis=0)
    test = SequentialTest()
    for value, gone in zip(values, given_up, strict=True):
        test.add(value)
        kept = means[~gone]
        assert test.interval.lo <= kept[0] < test.interval.lo + 0.0011
        assert test.interval.hi - 0.0011 < kept[-1] <= test.interval.hi


def test_the_order_of_the_two_routes_only_turns_the_sign() -> None:
    chance = random.Random(5)
    values = [draw(chance, 0.3, 0.1) for _ in range(60)]
    one, other = fed(values), fed([-value for value in values])
    assert one.log_e == pytest.approx(other.log_e)
    assert (one.interval.lo, one.interval.hi) == pytest.approx((-other.interval.hi, -other.interval.lo))
    assert one.answer == other.answer


def test_no_difference_at_all_is_the_same_within_delta_after_some_time() -> None:
    assert fed([0.0] * 60).answer is None, "sixty pairs leave room for five points"
    test = fed([0.0] * 120)
    assert test.answer == SAME
    assert -0.05 <= test.interval.lo < 0.0 < test.interval.hi <= 0.05
    assert fed([0.0] * 120, delta=0.01).answer is None


def test_the_first_answer_stands() -> None:
    test = fed([1.0] * 6 + [-1.0] * 40)
    assert test.answer == DIFFERENT
    assert test.interval.lo <= test.interval.hi


def test_nothing_is_known_before_the_first_value() -> None:
    test = SequentialTest(alpha=0.1)
    assert (test.n, test.log_e, test.answer) == (0, 0.0, None)
    assert test.interval.to_json() == {
        "estimate": None, "lo": -1.0, "hi": 1.0, "n": 0, "method": "none", "level": 0.9,
    }  # fmt: skip


@pytest.mark.parametrize("value", [1.01, -2.0, math.nan, math.inf])
def test_values_that_are_no_difference_of_rates_are_refused(value: float) -> None:
    test = SequentialTest()
    with pytest.raises(ValueError, match="between -1 and 1"):
        test.add(value)
    assert test.n == 0


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": 1.0}, {"delta": 0.0}, {"delta": 2.0}])
def test_settings_that_are_no_fractions_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        SequentialTest(**settings)


def e_values(pairs: int) -> npt.NDArray[np.float64]:
    """ln K(0) by discordant pairs one way and the other, as the test itself gives it."""
    table = np.zeros((pairs + 1, pairs + 1))
    for downs in range(pairs + 1):
        test = fed([-1.0] * downs)
        table[0, downs] = test.log_e
        for ups in range(1, pairs + 1 - downs):
            test.add(1.0)
            table[ups, downs] = test.log_e
    return table


def test_a_look_after_every_pair_is_wrong_in_five_of_hundred_null_runs_at_most() -> None:
    runs, pairs = 4000, 60
    table, chance = e_values(pairs), np.random.default_rng(20)
    # Concordant pairs leave the e-process as it is: what counts is how many discordant ones a run comes to, and each of
    # these goes either way with probability 1/2. So one set of walks serves every level of discordance.
    ups = np.cumsum(chance.integers(0, 2, size=(runs, pairs)), axis=1)
    downs = np.arange(1, pairs + 1) - ups
    wrong = np.maximum.accumulate(table[ups, downs] >= math.log(20), axis=1)
    for discordance in (0.02, 0.1, 0.3):
        seen = np.minimum(chance.binomial(200, discordance, size=runs), pairs)
        rate = np.mean([walk[count - 1] for walk, count in zip(wrong, seen, strict=True) if count] or [False])
        assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert wrong[:, -1].mean() > 0.01, "a test that never errs was not looked at"


@pytest.mark.parametrize(("up", "down"), [(0.32, 0.02), (0.05, 0.05), (0.3, 0.25)])
def test_the_sequence_holds_the_truth_at_all_looks_together(up: float, down: float) -> None:
    runs, pairs = 2000, 150
    chance = np.random.default_rng(7)
    values = chance.choice([1.0, -1.0, 0.0], p=[up, down, 1 - up - down], size=(runs, pairs))
    # The sequence loses the truth where its capital reaches 20, which the test above compares with the class.
    lost = sum(bool((log_capital(row, np.array([up - down])) >= math.log(20)).any()) for row in values)
    assert lost / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert lost > 0


def test_answers_of_whole_runs_are_wrong_in_five_of_hundred_at_most() -> None:
    runs, chance = 150, random.Random(3)
    # Null, and a difference just beyond delta: "same" would be wrong there.
    for up, down, wrong in ((0.1, 0.1, DIFFERENT), (0.16, 0.0, SAME)):
        errors = 0
        for _ in range(runs):
            test = SequentialTest(delta=0.15)
            while test.answer is None and test.n < 80:
                test.add(draw(chance, up, down))
            errors += test.answer == wrong
        assert errors / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_a_difference_of_thirty_points_is_found_with_few_pairs() -> None:
    chance, used = random.Random(11), []
    for _ in range(60):
        test = SequentialTest()
        while test.answer is None and test.n < 120:
            test.add(draw(chance, 0.32, 0.02))
        assert test.answer in {DIFFERENT, None}
        used.append(test.n)
    # McNemar's exact test needs 42 pairs for a power of 95 %.
    assert sum(used) / len(used) < 33
