"""Timings drawn for texts that nobody generated are those of genuine answers: compared as draws, without a clock."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from probe.lab.pacing import ENOUGH, Timeline, TimingPool, ticks

seconds = st.floats(0, 10, allow_nan=False)
timelines = st.builds(
    Timeline,
    size=st.integers(0, 1000),
    finish=st.sampled_from(["stop", "length"]),
    first=seconds,
    gaps=st.lists(seconds, max_size=30).map(tuple),
    end=seconds,
    prompt_ms=seconds,
    predicted_ms=seconds,
)


def genuine(chance: random.Random, *, tokens: int | None = None) -> Timeline:
    """A genuine answer: the first piece waits for the prompt, gaps depend on each other and grow along the answer."""
    size = chance.randint(20, 400)
    pace = chance.lognormvariate(-7, 0.4)
    gaps = tuple(
        pace * (1 + 0.01 * place) * chance.uniform(0.8, 1.2) for place in range(tokens or chance.randint(8, 60))
    )
    first = 0.001 + size * 1e-5 + chance.expovariate(2000)
    return Timeline(size, "stop", first, gaps, pace, 2.0 * size, 1000 * (sum(gaps) + pace) + 5.0)


def filled(number: int, **more: int) -> TimingPool:
    chance, pool = random.Random(number), TimingPool()
    for _ in range(128):
        pool.add(genuine(chance, **more))
    return pool


def kept(pool: TimingPool) -> list[Timeline]:
    return list(pool._kept)


@pytest.mark.parametrize("number", range(3))
def test_what_is_drawn_is_distributed_as_the_pool(number: int) -> None:
    """To prompts as long as those of the pool, texts as long as its answers: the same first pieces, gaps and ends."""
    pool, chance = filled(number), random.Random(number + 100)
    asked = [chance.choice(kept(pool)) for _ in range(600)]
    drawn = [pool.draw(chance, like.size, "stop", len(like.gaps) + 1) for like in asked]
    samples = [
        ([t.first for t in drawn], [t.first for t in kept(pool)]),
        ([t.end for t in drawn], [t.end for t in kept(pool)]),
        ([t.gaps[3] for t in drawn], [t.gaps[3] for t in kept(pool)]),
        ([t.writing / (len(t.gaps) + 1) for t in drawn], [t.writing / (len(t.gaps) + 1) for t in kept(pool)]),
    ]
    for ours, theirs in samples:
        assert ks_2samp(ours, theirs).pvalue > 0.001


def test_the_time_to_the_first_piece_follows_the_length_of_the_prompt() -> None:
    pool, chance = filled(1), random.Random(7)
    short = [pool.draw(chance, 20, "stop", 5).first for _ in range(200)]
    long = [pool.draw(chance, 400, "stop", 5).first for _ in range(200)]
    nearest = sorted(kept(pool), key=lambda t: t.size)
    assert max(short) <= max(t.first for t in nearest[:32])
    assert min(long) >= min(t.first for t in nearest[-32:])
    assert sum(short) < sum(long)


def test_gaps_of_a_short_text_are_the_first_gaps_of_one_genuine_answer() -> None:
    """Neighbouring gaps depend on each other: drawn singly they would be too regular."""
    pool, chance = filled(2), random.Random(8)
    for _ in range(50):
        drawn = pool.draw(chance, 100, "stop", 6)
        assert drawn.gaps in {t.gaps[:5] for t in kept(pool)}


def test_a_long_text_goes_on_from_the_same_place_of_other_answers() -> None:
    pool = TimingPool()
    pool.add(Timeline(10, "stop", 0.1, (1.0, 1.0), 0.5))
    pool.add(Timeline(10, "stop", 0.1, (2.0, 2.0, 2.0, 2.0), 0.5))
    found = {pool.draw(random.Random(number), 10, "stop", 7).gaps for number in range(50)}
    assert {gaps[:4] for gaps in found} == {(1.0, 1.0, 2.0, 2.0), (2.0, 2.0, 2.0, 2.0)}
    assert all(len(gaps) == 6 and set(gaps) <= {1.0, 2.0} for gaps in found)


def test_what_the_server_says_it_took_fits_what_it_took() -> None:
    pool, chance = filled(3), random.Random(9)
    for pieces in (1, 5, 100):
        drawn = pool.draw(chance, 100, "stop", pieces)
        assert drawn.predicted_ms == pytest.approx(1000 * drawn.writing + 5.0)


def test_an_answer_that_ended_the_same_way_is_preferred() -> None:
    pool = TimingPool()
    pool.add(Timeline(10, "stop", 0.1, (), 0.5))
    pool.add(Timeline(10, "length", 0.2, (), 0.0))
    assert {pool.draw(random.Random(n), 10, "length", 1).first for n in range(20)} == {0.2}
    assert {pool.draw(random.Random(n), 10, "other", 1).first for n in range(20)} == {0.1, 0.2}


def test_old_timings_go() -> None:
    pool = TimingPool()
    for number in range(200):
        pool.add(Timeline(number, "stop", 0.0, (), 0.0))
    assert [t.size for t in kept(pool)] == list(range(72, 200))


def test_the_median_lateness_is_learnt() -> None:
    pool, chance = TimingPool(), random.Random(4)
    for _ in range(2000):
        pool.learn(chance.lognormvariate(-6, 0.8) - pool.late_s)
    assert 0.5 < pool.late_s / 0.00248 < 2.0  # exp(-6)


@given(st.lists(timelines, min_size=1, max_size=3 * ENOUGH), st.integers(1, 80), st.integers(), st.integers(0, 2000))
def test_a_draw_has_a_time_for_every_piece(pool_of: list[Timeline], pieces: int, seed: int, size: int) -> None:
    pool = TimingPool()
    for timeline in pool_of:
        pool.add(timeline)
    drawn = pool.draw(random.Random(seed), size, "stop", pieces)
    dues = drawn.dues(100.0)
    assert len(dues) == pieces + 1
    assert dues[0] == 100.0 + drawn.first
    assert all(earlier <= later for earlier, later in pairwise(dues))
    assert drawn.first in {t.first for t in pool_of}
    assert drawn.predicted_ms >= 0


@given(st.lists(seconds, min_size=2, max_size=20))
def test_a_measured_timeline_gives_back_its_arrivals(steps: list[float]) -> None:
    arrivals = [5.0]
    for step in steps:
        arrivals.append(arrivals[-1] + step)
    timeline = Timeline.measured(3, 4.0, arrivals[:-1], arrivals[-1], "stop", {"prompt_ms": 1.5})
    assert timeline.dues(4.0) == pytest.approx(arrivals)
    assert timeline.timings == {"prompt_ms": 1.5, "predicted_ms": 0.0}


async def test_ticks_come_in_order_and_none_before_it_is_due() -> None:
    import time

    start = time.monotonic()
    dues = [start - 1.0, start, start + 0.001, start + 0.001, start + 0.01]
    came = [(due, time.monotonic()) async for due in ticks(dues)]
    assert [due for due, _ in came] == dues
    # A thread wakes late by about as much as its ticks are sent early.
    assert all(at >= due - 0.0005 for due, at in came)


async def test_ticks_may_be_left_early() -> None:
    import time

    async for due in ticks([time.monotonic(), time.monotonic() + 0.01]):
        assert due
        break
