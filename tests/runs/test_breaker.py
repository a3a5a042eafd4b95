from hypothesis import given
from hypothesis import strategies as st

from probe.runs.pacing.breaker import FAULTS, LONGEST_WAIT_S, Breaker
from probe.runs.pacing.concurrency import FIRST, Window


def test_it_opens_after_faults_in_a_row_only() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(FAULTS - 1):
            breaker.fail(0.0, probe=breaker.take(), hopeless=True)
        assert breaker.state(0.0) == "closed"
        breaker.succeed()
    for _ in range(FAULTS):
        breaker.fail(10.0, probe=breaker.take(), hopeless=True)
    assert breaker.state(10.0) == "open"
    assert breaker.wait_s(12.0) == 3.0
    assert breaker.state(15.0) == "half-open"
    assert breaker.take()
    assert breaker.wait_s(15.0) is None
    breaker.succeed()
    assert breaker.state(15.0) == "closed"


def test_faults_of_requests_that_were_under_way_do_not_open_it_for_longer() -> None:
    breaker = Breaker()
    breaker.succeed()
    for _ in range(FAULTS + 4):
        breaker.fail(10.0, probe=False, hopeless=True)
    assert breaker.wait_s(10.0) == 5.0


def test_an_overload_from_the_start_is_waited_for_and_a_route_that_is_not_there_is_not() -> None:
    for hopeless, state in ((False, "open"), (True, "given up")):
        breaker = Breaker()
        for _ in range(FAULTS):
            breaker.fail(0.0, probe=False, hopeless=hopeless)
        assert breaker.state(0.0) == state


@given(st.lists(st.sampled_from(["fail", "succeed", "forget"]), max_size=60), st.booleans())
def test_it_always_comes_to_an_end(moves: list[str], hopeless: bool) -> None:
    breaker, now = Breaker(), 0.0
    for move in moves:
        wait = breaker.wait_s(now)
        assert wait is not None, "nothing is under way"
        assert 0 <= wait <= LONGEST_WAIT_S
        now += wait
        probe = breaker.take()
        if move == "fail":
            breaker.fail(now, probe=probe, hopeless=hopeless)
        elif move == "succeed":
            breaker.succeed()
        else:
            breaker.forget(probe=probe)
    for _ in range(FAULTS + 10):
        now += breaker.wait_s(now) or 0.0
        breaker.fail(now, probe=breaker.take(), hopeless=hopeless)
    assert breaker.state(now) == "given up"


@given(st.integers(1, 64), st.lists(st.booleans(), max_size=300))
def test_the_window_stays_within_its_bounds(most: int, answers: list[bool]) -> None:
    window = Window(most)
    assert window.size == min(FIRST, most)
    for number, answered in enumerate(answers):
        before = window.size
        if answered:
            window.grow()
            assert window.size in {before, before + 1}
        else:
            window.shrink(float(number), float(number))
            assert window.size == max(1, before // 2) or window.size == int(max(1.0, before / 2 + 0.5))
        assert 1 <= window.size <= most
    for _ in range(most * most + most):
        window.grow()
    assert window.size == most
