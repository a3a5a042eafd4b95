import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_study import Study, exchange_of

from probe.errors import StoreError
from probe.ids import new_id
from probe.store import Store, Writer
from probe.store.merge import merge
from probe.store.rows import AttemptEnd, AttemptRow, Counted, Spent, TrialRow
from probe.store.verify import verify
from probe.store.writer import WAITING


@pytest.fixture
def hosted(study: Study) -> Study:
    """The same study with a hosted route, which ``study.route`` and ``study.trials`` are from then on."""
    study.route = replace(study.route, name="hosted", role="hosted", twin="local")
    study.store.add_route(study.route)
    study.store.add_trials(replace(trial, route_id=study.route.id, id=new_id()) for trial in study.trials)
    study.trials = study.store.trials(study.run.id, route_id=study.route.id)
    return study


@pytest.fixture
def writer(hosted: Study, database: Path) -> Iterator[Writer]:
    with Writer(database) as writer:
        yield writer


def attempt_of(study: Study, number: int, **overrides: Any) -> AttemptRow:
    trial = study.trials[number]
    return replace(AttemptRow(trial.id, trial.route_id, 1, 2000.0 + number, 100, 256, 5000), **overrides)


def test_what_began_is_there_before_anything_is_sent(hosted: Study, writer: Writer) -> None:
    attempt = attempt_of(hosted, 0)
    writer.begin(attempt).result()
    with Store.open(hosted.store.path, readonly=True) as other:
        assert other.in_flight(hosted.run.id) == [attempt]
        assert other.spent(hosted.run.id) == {hosted.route.id: Spent(1, 100, 256, 5000)}
        assert other.counted_since(hosted.route.id, 2000.0) == Counted(1, 356)
        assert other.counted_since(hosted.route.id, 2000.5) == Counted(0, 0)


def test_an_end_and_its_exchange_are_one_commit(hosted: Study, writer: Writer) -> None:
    attempt, exchange = attempt_of(hosted, 0), hosted.exchange(0, started_at=2000.5)
    writer.begin(attempt)
    writer.submit(exchange, "answered", cost=AttemptEnd(attempt.id, 40, 7, 900, "reported")).result()
    assert hosted.store.in_flight(hosted.run.id) == []
    assert hosted.store.spent(hosted.run.id) == {hosted.route.id: Spent(1, 40, 7, 900)}
    assert hosted.store.counted_since(hosted.route.id, 0.0) == Counted(1, 47)
    # The exchange cannot be saved a second time, and then its attempt has not ended either.
    again = attempt_of(hosted, 0, attempt=2)
    writer.begin(again)
    with pytest.raises(StoreError, match="UNIQUE"):
        writer.submit(exchange, "failed", cost=AttemptEnd(again.id, 1, 1, 1, "counted")).result()
    assert hosted.store.in_flight(hosted.run.id) == [again]
    assert verify(hosted.store.path).problems == ()


def test_what_never_left_counts_nowhere_and_what_nobody_knows_counts_in_full(hosted: Study, writer: Writer) -> None:
    first, second = attempt_of(hosted, 0), attempt_of(hosted, 1)
    writer.begin(first)
    writer.begin(second)
    writer.finish(AttemptEnd(first.id, 0, 0, None, "unsent")).result()
    assert hosted.store.spent(hosted.run.id) == {hosted.route.id: Spent(1, 100, 256, 5000)}
    writer.finish(AttemptEnd(second.id, 100, 256, 5000, "reserved")).result()
    writer.finish(AttemptEnd(second.id, 1, 1, 1, "counted")).result()  # too late: the first end holds
    assert hosted.store.spent(hosted.run.id) == {hosted.route.id: Spent(1, 100, 256, 5000)}
    assert hosted.store.in_flight(hosted.run.id) == []


def test_what_had_no_price_is_told_apart(hosted: Study, writer: Writer) -> None:
    for number, money in enumerate((None, 800)):
        attempt = attempt_of(hosted, number, reserved_nanousd=None)
        writer.begin(attempt)
        writer.finish(AttemptEnd(attempt.id, 10, 20, money, "counted")).result()
    assert hosted.store.spent(hosted.run.id) == {hosted.route.id: Spent(2, 20, 40, 800, 1, 10, 20)}


def test_exchanges_from_before_the_journal_count_with_what_they_can_have_cost(hosted: Study, writer: Writer) -> None:
    store, route = hosted.store, hosted.route.id
    store.save_exchange(hosted.exchange(0, request_body=b"q" * 30, response_body=b"a" * 900, started_at=50.0), "failed")
    store.save_exchange(
        hosted.exchange(1, request_body=b"q" * 31, response_body=b"a" * 10, started_at=60.0), "answered"
    )
    unreachable = hosted.exchange(2, request_body=b"q" * 32, response_body=b"", state="unreachable", started_at=70.0)
    store.save_exchange(unreachable, "planned", "unreachable")
    assert store.spent(hosted.run.id) == {route: Spent(3, 61, 256 + 10, 0, 3, 61, 266)}
    assert store.counted_since(route, 55.0) == Counted(2, 41)
    # An exchange whose attempt is under way is of that attempt.
    writer.begin(attempt_of(hosted, 3)).result()
    writer.submit(hosted.exchange(3), "planned").result()
    assert store.spent(hosted.run.id)[route].requests == 4
    store.save_exchange(hosted.exchange(method="GET", started_at=80.0), "answered")  # what a router tells afterwards
    assert store.counted_since(route, 75.0).requests == 1, "the attempt of now"
    local = TrialRow(hosted.run.id, hosted.trials[0].trace_id, store.route_named("local").id, 5, 99)
    store.add_trials([local])
    store.save_exchange(exchange_of(local.route_id, local.id), "answered")
    assert list(store.spent(hosted.run.id)) == [route], "local routes cost nothing"


def test_an_edited_route_shares_the_day_of_the_one_it_was(hosted: Study, writer: Writer) -> None:
    edited = replace(hosted.route, request={"a": [2]})
    other = replace(hosted.route, model="other")
    for route in (edited, other):
        hosted.store.add_route(route)
    writer.begin(attempt_of(hosted, 0)).result()
    assert hosted.store.counted_since(edited.id, 0.0) == Counted(1, 356)
    assert hosted.store.counted_since(other.id, 0.0) == Counted(0, 0)
    assert hosted.store.counted_since("unknown", 0.0) == Counted(0, 0)


def test_a_bad_attempt_fails_alone(hosted: Study, writer: Writer) -> None:
    bad = [
        attempt_of(hosted, 0, trial_id="no trial"),
        attempt_of(hosted, 0, reserved_prompt=-1),
        attempt_of(hosted, 0, reserved_nanousd=2**70),
    ]
    good = attempt_of(hosted, 1)
    futures = [writer.begin(attempt) for attempt in (*bad, good)]
    assert all(isinstance(future.exception(), StoreError) for future in futures[:-1])
    futures[-1].result()
    assert hosted.store.in_flight(hosted.run.id) == [good]


async def test_coroutines_wait_for_their_commits(hosted: Study, writer: Writer) -> None:
    attempts = [attempt_of(hosted, 0, attempt=number) for number in range(1, WAITING + 20)]
    for attempt in attempts:
        await writer.begun(attempt)
    for attempt in attempts:
        await writer.finished(AttemptEnd(attempt.id, 1, 2, 3, "counted"))
    await writer.record(hosted.exchange(0), "failed", reason="timeout")
    assert hosted.store.spent(hosted.run.id)[hosted.route.id].nanousd == 3 * len(attempts)
    writer.close()
    with pytest.raises(StoreError, match=r"attempt .* was closed"):
        await writer.begun(attempt_of(hosted, 1))


def test_the_journal_is_never_rewritten(hosted: Study, writer: Writer) -> None:
    attempt = attempt_of(hosted, 0)
    writer.begin(attempt)
    writer.finish(AttemptEnd(attempt.id, 1, 2, 3, "counted")).result()
    for sql in ("UPDATE attempts SET nanousd = 0", "DELETE FROM attempts"):
        with pytest.raises(sqlite3.IntegrityError, match="an attempt"):
            hosted.store.connection.execute(sql)
    hosted.store.clear_derived()
    assert len(hosted.store.query("SELECT 1 FROM attempts")) == 1


def test_a_trial_says_why_it_has_no_answer(hosted: Study) -> None:
    store, ids = hosted.store, [trial.id for trial in hosted.trials]
    store.save_exchange(hosted.exchange(0, status=429), "planned", "rate_limited")
    store.save_exchange(hosted.exchange(1, status=429), "planned", "rate_limited")
    store.save_exchange(hosted.exchange(1, attempt=2), "answered", "ignored")
    store.mark_trials(ids[1:3], "failed", "timeout")
    assert [trial.reason for trial in store.trials(route_id=hosted.route.id)] == ["rate_limited", "", "timeout", ""]
    of_the_route = [count for count in store.count_reasons(hosted.run.id) if count.route_id == hosted.route.id]
    assert [(count.state, count.reason, count.trials) for count in of_the_route] == [
        ("answered", "", 1),
        ("failed", "timeout", 1),
        ("planned", "", 1),
        ("planned", "rate_limited", 1),
    ]
    store.mark_trials(ids, "planned")
    assert {trial.reason for trial in store.trials(route_id=hosted.route.id)} == {""}


def test_trials_are_read_page_by_page(hosted: Study) -> None:
    store, run, route = hosted.store, hosted.run.id, hosted.route.id
    store.mark_trials([hosted.trials[1].id], "failed")
    first = store.page(run, route, -1, 2)
    assert [trial.position for trial in first] == [0, 2]
    assert store.page(run, route, first[-1].position, 2) == [hosted.trials[3]]
    assert store.page(run, route, 3, 2) == []
    assert [trial.position for trial in store.page(run, route, -1, 9, state="failed")] == [1]
    plan = store.query(
        "EXPLAIN QUERY PLAN SELECT id FROM trials WHERE route_id = ? AND run_id = ? AND state = ? AND position > ? "
        "ORDER BY position LIMIT 5",
        (route, run, "planned", 1),
    )
    assert [row[3] for row in plan] == [
        "SEARCH trials USING INDEX trials_by_route (route_id=? AND run_id=? AND state=? AND position>?)"
    ]
    trace = store.trace(hosted.trials[0].trace_id)
    assert trace.id == hosted.trials[0].trace_id
    with pytest.raises(StoreError, match="no trace x"):
        store.trace("x")


def test_merging_carries_the_journal_over(hosted: Study, writer: Writer, make_study: Callable[..., Study]) -> None:
    done, killed = attempt_of(hosted, 0), attempt_of(hosted, 1)
    writer.begin(done)
    writer.begin(killed)
    writer.submit(hosted.exchange(0), "answered", cost=AttemptEnd(done.id, 1, 2, 3, "counted")).result()
    writer.close()
    path, copy = hosted.store.path, hosted.store.path.with_name("copy.db")
    hosted.store.query("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(path, copy)
    with Writer(path) as here:  # one of the two learns how the attempt ended
        here.finish(AttemptEnd(killed.id, 5, 6, 7, "counted")).result()
    target = make_study(path.with_name("target.db"), 4)
    target.store.close()
    for _ in range(2):
        merge(copy, target.store.path)
        merge(path, target.store.path)
    with Store.open(target.store.path) as store:
        assert store.spent(hosted.run.id) == {hosted.route.id: Spent(2, 6, 8, 10)}
    report = verify(target.store.path)
    assert report.problems == ()
    assert report.checked["attempts"] == 2
    assert merge(path, target.store.path).added["attempts"] == 0


def test_a_journal_that_names_the_wrong_trial_is_a_problem(hosted: Study, writer: Writer) -> None:
    attempt = attempt_of(hosted, 0)
    writer.begin(attempt)
    writer.submit(hosted.exchange(1), "answered", cost=AttemptEnd(attempt.id, 1, 2, 3, "counted")).result()
    writer.begin(attempt_of(hosted, 2, route_id=hosted.store.route_named("local").id)).result()
    problems = verify(hosted.store.path).problems
    assert len(problems) == 2
    assert all("names another trial's route or exchange" in problem for problem in problems)


CHILD = """
import sys
from pathlib import Path
from probe.store import Store, Writer
from probe.store.rows import AttemptEnd, AttemptRow
path, route = Path(sys.argv[1]), sys.argv[2]
with Store.open(path, readonly=True) as store:
    trial = store.trials(route_id=route)[0]
with Writer(path) as writer:
    for number in range(1, 100_000):
        attempt = AttemptRow(trial.id, route, number, 1.0, 100, 20, 3000)
        writer.begin(attempt).result()
        print(attempt.id, flush=True)  # from here on the request is on its way
        if number % 2:
            writer.finish(AttemptEnd(attempt.id, 10, 2, 300, "counted"))
"""


@pytest.mark.parametrize("after", [1, 60, 333])
def test_kill_9_forgets_no_request_that_may_have_left(hosted: Study, after: int) -> None:
    command = [sys.executable, "-c", CHILD, str(hosted.store.path), hosted.route.id]
    told: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line.strip())
            if len(told) == after:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    noted = {row[0]: row[1:] for row in hosted.store.query("SELECT id, ended FROM attempts")}
    assert {line for line in told if len(line) == 36} <= set(noted)
    in_flight = {attempt.id for attempt in hosted.store.in_flight(hosted.run.id)}
    assert in_flight == {key for key, (ended,) in noted.items() if not ended}
    spent = hosted.store.spent(hosted.run.id)[hosted.route.id]
    ended = len(noted) - len(in_flight)
    assert (spent.requests, spent.tokens) == (len(noted), 12 * ended + 120 * len(in_flight))
    assert spent.nanousd == 300 * ended + 3000 * len(in_flight)
    assert verify(hosted.store.path).problems == ()
