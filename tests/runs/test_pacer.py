"""The pace of a route, in a time of its own (``pacing_kit``)."""

import asyncio
import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.config import Route
from probe.runs.pacing.backoff import CAP_S, full_jitter
from probe.runs.pacing.clock import SystemClock
from probe.runs.pacing.route_pace import Left, PausedForDay, RouteGivenUp, RoutePace, Slot, limits_for
from probe.runs.pacing.told import Told
from probe.store.rows import Counted
from probe.wire.backend import Limits
from probe.wire.catalogue import load_backend
from tests.runs.pacing_kit import MORNING, LoopClock, make_pace, run

OK = Left("answered")
BIG = 1_000_000


async def send_all(
    pace: RoutePace, clock: LoopClock, tokens: list[int], *, took_s: float = 0.5, used: list[int] | None = None
) -> list[float]:
    """Send requests with so many tokens, all at once, and return when each of them left."""
    sent: dict[int, float] = {}

    async def one(number: int) -> None:
        slot = await pace.enter(tokens[number])
        result = Left("cancelled")
        try:
            sent[number] = clock.monotonic()
            await clock.sleep(took_s)
            result = Left("answered", tokens=used[number] if used else None)
        finally:
            pace.leave(slot, result)

    async with asyncio.TaskGroup() as group:
        for number in range(len(tokens)):
            group.create_task(one(number))
    assert list(sent) == sorted(sent), "who came first went first"
    return [sent[number] for number in range(len(tokens))]


def most_in_a_minute(times: list[float], amounts: list[int]) -> int:
    """Return the most that lies in any window of 60 seconds: one that begins at one of the times."""
    return max(
        sum(amount for at, amount in zip(times, amounts, strict=True) if start <= at < start + 60) for start in times
    )


@settings(deadline=None, max_examples=60)
@given(st.floats(0.5, 300), st.integers(1, 60), st.integers(1, 20))
def test_no_minute_has_more_requests_than_allowed(per_minute: float, count: int, concurrency: int) -> None:
    async def main(clock: LoopClock) -> list[float]:
        pace = make_pace(clock, requests_per_minute=per_minute, concurrency=concurrency)
        return await send_all(pace, clock, [1] * count)

    times = run(main)
    assert most_in_a_minute(times, [1] * count) <= math.ceil(per_minute)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 1000), st.lists(st.tuples(st.integers(0, 400), st.floats(0, 1)), min_size=1, max_size=40))
def test_no_minute_has_more_tokens_than_allowed(per_minute: int, wanted: list[tuple[int, float]]) -> None:
    asked = [tokens for tokens, _ in wanted]
    used = [int(tokens * part) for tokens, part in wanted]

    async def main(clock: LoopClock) -> list[float]:
        pace = make_pace(clock, tokens_per_minute=per_minute, concurrency=8)
        return await send_all(pace, clock, asked, used=used)

    times = run(main)
    small = [amount if tokens <= per_minute else 0 for amount, tokens in zip(used, asked, strict=True)]
    assert most_in_a_minute(times, small) <= per_minute
    for at, tokens in zip(times, asked, strict=True):
        if tokens > per_minute:  # one that could never be sent is sent alone
            before = [n for t, n in zip(times, used, strict=True) if at - 60 < t < at]
            assert sum(before) == 0


def test_what_was_not_needed_makes_room() -> None:
    async def main(clock: LoopClock) -> list[float]:
        pace = make_pace(clock, tokens_per_minute=100, concurrency=1)
        return await send_all(pace, clock, [60, 60, 60], used=[10, 10, 10])

    assert run(main)[-1] - run(main)[0] == pytest.approx(1.0)


def test_without_limits_only_the_concurrency_holds() -> None:
    async def main(clock: LoopClock) -> int:
        pace = make_pace(clock, concurrency=3)
        most = 0

        async def one() -> None:
            nonlocal most
            slot = await pace.enter(BIG)
            most = max(most, pace.in_flight)
            await clock.sleep(0.1)
            pace.leave(slot, OK)

        await asyncio.gather(*(one() for _ in range(20)))
        assert pace.in_flight == 0
        return most

    assert run(main) == 3


def test_the_documented_limits_hold_where_the_route_states_none() -> None:
    limits = Limits(requests_per_minute=30, concurrency=2, requests_per_day=5)

    async def main(clock: LoopClock) -> None:
        assert make_pace(clock, limits=limits, concurrency=8).concurrency == 2
        pace = make_pace(clock, limits=limits, requests_per_minute=6, requests_per_day=50)
        times = await send_all(pace, clock, [1] * 8)
        assert times[-1] - times[0] >= 70

    run(main)
    free = load_backend("openrouter").limits
    route = Route("r", load_backend("openrouter"), "u", "m", "w", "hosted")
    assert limits_for(route) == (free if free.only is None else Limits())


@settings(deadline=None, max_examples=60)
@given(st.floats(0.001, 3000), st.integers(1, 6))
def test_a_told_wait_is_obeyed_exactly_and_by_everybody(wait: float, waiters: int) -> None:
    async def main(clock: LoopClock) -> tuple[float, list[float]]:
        pace = make_pace(clock, concurrency=waiters)
        slot = await pace.enter(1)
        told_at = clock.monotonic()
        pace.leave(slot, Left("limited", Told(retry_after_s=wait)))
        assert pace.backoff_s(1, Told(retry_after_s=wait)) == wait
        assert "told by the route" in pace.state
        return told_at, await send_all(pace, clock, [1] * waiters)

    told_at, times = run(main)
    assert all(at >= told_at + wait for at in times)
    assert times[0] == pytest.approx(told_at + wait, abs=0.002)


def test_a_route_that_goes_on_refusing_is_asked_less_and_less() -> None:
    async def main(clock: LoopClock) -> list[float]:
        pace, times = make_pace(clock, seed=3), []
        for _ in range(40):
            slot = await pace.enter(1)
            times.append(clock.monotonic())
            await clock.sleep(0.1)
            pace.leave(slot, Left("limited", Told(retry_after_s=0.0)))
        return times

    times = run(main)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert sum(gaps[-10:]) > 100, "told to come at once and refused, it backs off by itself"
    assert max(gaps) <= CAP_S + 0.2


def test_what_is_left_of_a_limit_is_not_exceeded() -> None:
    async def main(clock: LoopClock) -> list[float]:
        pace = make_pace(clock)
        slot = await pace.enter(1)
        pace.leave(slot, Left("answered", Told(requests_left=2, requests_reset_s=30.0)))
        return [at - clock.monotonic() for at in await send_all(pace, clock, [1] * 3, took_s=0.0)]

    times = run(main)
    assert times[1] - times[0] == 0
    assert times[2] - times[0] == pytest.approx(30, abs=0.002)

    async def tokens(clock: LoopClock) -> float:
        pace = make_pace(clock)
        slot = await pace.enter(1)
        pace.leave(slot, Left("answered", Told(tokens_left=100, tokens_reset_s=20.0)))
        before = clock.monotonic()
        await pace.enter(101)
        return clock.monotonic() - before

    assert run(tokens) == pytest.approx(20, abs=0.002)


def test_what_is_left_for_a_long_time_waits_for_newer_words_before_it_pauses() -> None:
    async def main(clock: LoopClock) -> None:
        pace = make_pace(clock)
        first, second = [await pace.enter(1) for _ in range(2)]
        pace.leave(first, Left("answered", Told(requests_left=1, requests_reset_s=36_000.0)))
        waiting = asyncio.ensure_future(pace.enter(1))
        await clock.sleep(1)
        assert not waiting.done()
        pace.leave(second, Left("answered", Told(requests_left=1, requests_reset_s=36_000.0)))
        pace.leave(await waiting, Left("answered", Told(requests_left=0, requests_reset_s=36_000.0)))
        with pytest.raises(PausedForDay) as caught:
            await pace.enter(1)
        assert caught.value.until == pytest.approx(clock.wall() + 36_000)

    run(main)


def test_a_storm_of_refusals_leaves_one_at_a_time_and_answers_bring_the_rest_back() -> None:
    async def main(clock: LoopClock) -> list[int]:
        pace = make_pace(clock, concurrency=16)
        seen: list[int] = []

        async def one(kind: str) -> None:
            slot = await pace.enter(1)
            await clock.sleep(1.0)
            pace.leave(slot, Left(kind))  # type: ignore[arg-type]
            seen.append(pace.concurrency)

        for kind, count in (("answered", 60), ("limited", 60), ("answered", 300)):
            await asyncio.gather(*(one(kind) for _ in range(count)))
            seen.append(-pace.concurrency)
        return [size for size in seen if size < 0]

    assert run(main) == [-16, -1, -16]


def test_refusals_of_one_flight_halve_the_window_once() -> None:
    async def main(clock: LoopClock) -> list[int]:
        pace = make_pace(clock, concurrency=4)
        slots = [await pace.enter(1) for _ in range(4)]
        sizes = []
        for slot in slots:
            await clock.sleep(0.1)
            pace.leave(slot, Left("limited"))
            sizes.append(pace.concurrency)
        return sizes

    assert run(main) == [2, 2, 2, 2]


def test_the_day_pauses_until_midnight_and_goes_on() -> None:
    async def main(clock: LoopClock) -> None:
        pace = make_pace(clock, requests_per_day=5, today=Counted(requests=3))
        assert len(await send_all(pace, clock, [1, 1])) == 2
        with pytest.raises(PausedForDay, match="its 5 requests of the day are used up") as caught:
            await pace.enter(1)
        assert caught.value.until == MORNING - 6 * 3600 + 86_400
        await clock.sleep(caught.value.until - clock.wall())
        assert len(await send_all(pace, clock, [1] * 5)) == 5
        with pytest.raises(PausedForDay):
            await pace.enter(1)

    run(main)


def test_tokens_of_the_day_wait_for_those_under_way_and_then_pause() -> None:
    async def main(clock: LoopClock) -> None:
        pace = make_pace(clock, tokens_per_day=100, today=Counted(tokens=10))
        slot = await pace.enter(80)
        waiting = asyncio.ensure_future(pace.enter(40))
        await clock.sleep(1)
        assert not waiting.done(), "what is under way may need less"
        pace.leave(slot, Left("answered", tokens=30))
        second = await waiting
        pace.leave(second, OK)
        with pytest.raises(PausedForDay, match="its 100 tokens of the day"):
            await pace.enter(40)
        fresh = make_pace(clock, tokens_per_day=100)
        fresh.leave(await fresh.enter(500), OK)  # it could never be sent otherwise

    run(main)


def test_a_request_that_crosses_midnight_belongs_to_the_day_it_was_sent_on() -> None:
    async def main(clock: LoopClock) -> None:
        pace = make_pace(clock, requests_per_day=2, tokens_per_day=100)
        slot = await pace.enter(90)
        await clock.sleep(18 * 3600 + 1)
        second = await pace.enter(100)
        pace.leave(slot, Left("answered", tokens=5))
        pace.leave(second, Left("cancelled"))
        pace.leave(await pace.enter(60), OK)
        with pytest.raises(PausedForDay, match="tokens"):
            await pace.enter(41)
        pace.leave(await pace.enter(40), OK)
        with pytest.raises(PausedForDay, match="requests"):
            await pace.enter(0)

    run(main)


def test_a_limit_of_the_day_that_the_route_tells_of_pauses_it() -> None:
    async def main(clock: LoopClock) -> None:
        pace = make_pace(clock)
        told = Told(until_tomorrow=True, requests_left=0, requests_reset_s=18 * 3600.0)
        slots = [await pace.enter(1) for _ in range(2)]
        waiting = asyncio.ensure_future(send_all(pace, clock, [1] * 9))
        await clock.sleep(0.1)
        for slot in slots:
            pace.leave(slot, Left("limited", told))
        with pytest.raises(ExceptionGroup) as caught:
            await waiting
        assert caught.group_contains(PausedForDay)
        assert pace.state.startswith("paused until")
        with pytest.raises(PausedForDay) as first:
            await pace.enter(1)
        assert first.value.until == pytest.approx(MORNING - 6 * 3600 + 86_400, abs=1)
        # Its day begins somewhere else: it is tried every hour, and not again tomorrow only.
        await clock.sleep(first.value.until - clock.wall())
        for _ in range(3):
            pace.leave(await pace.enter(1), Left("limited", Told(until_tomorrow=True)))
            with pytest.raises(PausedForDay) as again:
                await pace.enter(1)
            assert again.value.until == pytest.approx(clock.wall() + 3600)
            await clock.sleep(3600)
        pace.leave(await pace.enter(1), OK)
        pace.leave(await pace.enter(1), Left("limited", Told(until_tomorrow=True)))
        with pytest.raises(PausedForDay) as last:
            await pace.enter(1)
        assert last.value.until == MORNING - 6 * 3600 + 2 * 86_400

    run(main)


def test_a_wait_of_more_than_an_hour_is_a_pause() -> None:
    async def main(clock: LoopClock) -> None:
        pace = make_pace(clock)
        pace.leave(await pace.enter(1), Left("limited", Told(retry_after_s=7200.0)))
        with pytest.raises(PausedForDay, match="more than an hour") as caught:
            await pace.enter(1)
        assert caught.value.until == pytest.approx(MORNING + 7200)
        await clock.sleep(7200 - 1800)
        assert pace.state == "waiting 1800 s: told by the route"
        await pace.enter(1)
        assert clock.wall() == pytest.approx(MORNING + 7200, abs=0.01)

    run(main)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_cancelled_waiters_take_nothing_and_starve_nobody(seed: int) -> None:
    chance = random.Random(seed)

    async def main(clock: LoopClock) -> None:
        pace = make_pace(clock, concurrency=2, requests_per_minute=600, tokens_per_minute=5000)

        async def one() -> None:
            slot = await pace.enter(chance.randint(1, 400))
            try:
                await clock.sleep(chance.random())
            except asyncio.CancelledError:
                pace.leave(slot, Left("cancelled"))
                raise
            pace.leave(slot, Left(chance.choice(["answered", "answered", "limited"]), tokens=1))

        tasks = [asyncio.ensure_future(one()) for _ in range(30)]
        for task in tasks:
            if chance.random() < 0.4:
                await clock.sleep(chance.random() * 0.2)
                task.cancel()
                if chance.random() < 0.5:
                    await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
        assert pace.in_flight == 0
        pace.leave(await pace.enter(1), OK)

    run(main)


@pytest.mark.parametrize("ticks", range(10))
def test_a_waiter_that_is_cancelled_when_its_turn_comes_passes_it_on(ticks: int) -> None:
    async def main(clock: LoopClock) -> None:
        pace = make_pace(clock, concurrency=1)
        slot = await pace.enter(1)
        first, second, third = [asyncio.ensure_future(pace.enter(1)) for _ in range(3)]
        await clock.sleep(1)
        pace.leave(slot, OK)
        for _ in range(ticks):
            await asyncio.sleep(0)
        second.cancel()
        pace.leave(await first, OK)
        try:
            pace.leave(await second, OK)
        except asyncio.CancelledError:
            assert second.cancelled()
        pace.leave(await third, OK)
        assert pace.in_flight == 0

    run(main)


def test_leaving_twice_is_once() -> None:
    async def main(clock: LoopClock) -> None:
        pace = make_pace(clock)
        slot: Slot = await pace.enter(1)
        pace.leave(slot, OK)
        pace.leave(slot, Left("fault"))
        assert pace.in_flight == 0
        assert pace.state == "open"

    run(main)


def test_a_route_that_is_not_there_is_given_up_with_a_sentence() -> None:
    async def main(clock: LoopClock) -> None:
        pace = make_pace(clock)
        for _ in range(5):
            pace.leave(await pace.enter(1), Left("fault"))
        with pytest.raises(RouteGivenUp, match=r"Route 'hosted' failed 5 times in a row .* next start"):
            await pace.enter(1)
        assert pace.state == "given up"

    run(main)


def test_a_route_that_breaks_down_is_tried_with_one_request_at_growing_intervals() -> None:
    async def main(clock: LoopClock) -> None:
        pace = make_pace(clock)
        pace.leave(await pace.enter(1), OK)
        for slot in [await pace.enter(1) for _ in range(3)]:
            pace.leave(slot, Left("fault"))
        for slot in [await pace.enter(1) for _ in range(3)]:
            pace.leave(slot, Left("fault"))
        assert pace.state == "failed 6 times in a row, next try in 5 s"
        waits = []
        for _ in range(7):
            before = clock.monotonic()
            slot = await pace.enter(1)
            waits.append(clock.monotonic() - before)
            others = [asyncio.ensure_future(pace.enter(1)) for _ in range(3)]
            await clock.sleep(0.5)
            assert pace.in_flight == 1, "half-open: only one"
            assert pace.state == "trying with one request"
            for other in others:
                other.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            pace.leave(slot, Left("fault"))
        assert [round(wait) for wait in waits] == [5, 10, 20, 40, 80, 160, 300]
        with pytest.raises(RouteGivenUp):
            await pace.enter(1)

    run(main)


def test_one_answer_closes_the_breaker_and_a_cancelled_try_says_nothing() -> None:
    async def main(clock: LoopClock) -> None:
        pace = make_pace(clock)
        for _ in range(5):
            pace.leave(await pace.enter(1), Left("overloaded"))
        pace.leave(await pace.enter(1), Left("cancelled"))
        assert pace.state == "trying with one request"
        pace.leave(await pace.enter(1), OK)
        assert pace.state in {"open", "slow"}
        for _ in range(4):
            pace.leave(await pace.enter(1), Left("fault"))
            pace.leave(await pace.enter(1), Left("limited", Told(retry_after_s=1.0)))
        assert "told by the route" in pace.state, "a route that refuses is there"

    run(main)


def test_backoff_is_jittered_up_to_a_cap() -> None:
    chance = random.Random(5)
    for attempt in (1, 2, 3, 10, 5000):
        waits = [full_jitter(attempt, chance) for _ in range(400)]
        top = min(CAP_S, 2.0 ** min(attempt - 1, 30))
        assert 0 <= min(waits) < 0.1 * top
        assert 0.9 * top < max(waits) <= top


async def test_the_real_clock_is_the_real_one() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0.0)
    assert clock.monotonic() >= before
    assert clock.wall() > MORNING - 10 * 365 * 86_400
