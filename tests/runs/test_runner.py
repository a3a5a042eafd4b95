"""The runner against routes that fail: what is tried again, what is not, what stops a route, and what it says."""

import gc
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
from runner_kit import Call, LeapClock, hosted, local, reasons, scripted, start, study

from probe.errors import ConfigError
from probe.runs.money.ledger import Totals
from probe.store.rows import TrialRow
from probe.store.store import Store
from probe.store.verify import verify
from tests.network_kit import Silent

PRICE = {"prompt": 1.0, "completion": 2.0}
FAST = {"first_byte_timeout_s": 0.3, "chunk_timeout_s": 0.3, "connect_timeout_s": 2.0}


def first_fails(call: Call, fail: str) -> None:
    """Fail the first request of each message's, in some way."""
    if call.number % 2:
        call.reply()
    elif fail == "429":
        call.reply(429, {"error": {"message": "Slow down"}}, "Retry-After: 7\r\n")
    elif fail == "503":
        call.reply(503, {"error": {"message": "Busy"}})
    elif fail == "in a 200":
        call.reply(200, {"error": {"message": "Provider returned error", "code": 502}})


@pytest.mark.parametrize("fail", ["429", "503", "in a 200"])
def test_what_was_neither_answered_nor_billed_is_tried_again_and_each_attempt_is_kept(
    tmp_path: Path, fail: str
) -> None:
    clock = LeapClock()
    with scripted(lambda call: first_fails(call, fail)) as (server,):
        study(tmp_path, 3, shaky=hosted(server.url, pace={"concurrency": 1}, price=PRICE))
        done = start(tmp_path, clock=clock)
    assert (done.answered, done.open, done.failed) == (3, 0, 0)
    assert reasons(tmp_path, "shaky") == {"answered": 3}
    assert done.summary.routes["shaky"].retries == 3
    with Store.open(tmp_path / "probe.db") as store:
        attempts = sorted((ref.attempt, ref.answered) for ref in store.refs())
        spent = store.spent(done.run.id)
    assert attempts == [(1, False)] * 3 + [(2, True)] * 3
    (route,) = spent.values()
    assert (route.requests, route.prompt_tokens, route.completion_tokens) == (6, 3 * 5, 3 * 3), "failures cost nothing"
    if fail == "429":
        assert max(clock.slept) >= 7 - 0.5, "the route said how long"
    assert verify(tmp_path / "probe.db").sound


def never(call: Call, how: str) -> None:
    if how == "reset":
        call.reset()
    elif how == "head only":
        call.head(200, "Content-Length: 100\r\n")
        call.reset()
    elif how == "timeout":
        threading.Event().wait(1.5)
        call.close()
    elif how == "comments":
        call.head(200, "", "text/event-stream")
        call.raw(b": PROCESSING\n\n")
        threading.Event().wait(1.5)
        call.close()


@pytest.mark.parametrize(
    ("how", "reason"),
    [("reset", "reset"), ("head only", "reset"), ("timeout", "timeout"), ("comments", "timeout")],
)
def test_what_went_out_and_was_never_answered_is_not_sent_again_by_itself(
    tmp_path: Path, how: str, reason: str
) -> None:
    with scripted(lambda call: never(call, how)) as (server,):
        study(tmp_path, 2, mute=hosted(server.url, pace={"concurrency": 2, **FAST}, price=PRICE))
        first = start(tmp_path)
        assert reasons(tmp_path, "mute") == {f"failed {reason}": 2}
        assert (first.open, first.failed, first.states) == (0, 2, {"mute": {reason: 2}})
        assert first.estimated == 2
        assert first.spent.nanousd > 0, "it may have been billed"
        again = start(tmp_path)
        assert (again.resumed, len(server.texts)) == (True, 2), "not without being told"
        server.behave = lambda call: call.reply()
        last = start(tmp_path, again=True)
    assert (last.answered, last.failed, len(server.texts)) == (2, 0, 4)
    assert last.spent.requests == 4


def test_a_local_route_is_asked_again_in_any_case(tmp_path: Path) -> None:
    def behave(call: Call) -> None:
        call.reply() if call.number % 2 else call.reset()

    with scripted(behave, behave) as (own, theirs):
        pace = {"concurrency": 1, "retry_unanswered": True}
        study(tmp_path, 2, own=local(own.url, pace={"concurrency": 1}), theirs=hosted(theirs.url, pace=pace))
        done = start(tmp_path)
    assert (done.answered, done.failed) == (4, 0), "and so is a hosted one where the user wants it"


def half(call: Call, how: str) -> None:
    if how == "half a line":
        call.head(200, "Content-Length: 500\r\n", "text/event-stream")
        call.raw(b'data: {"choices":[{"index":0,"delta":{"content":"A so')
        call.reset()
    elif how == "too short":
        body = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "A song'
        call.head(200, f"Content-Length: {len(body) + 40}\r\n")
        call.raw(body)
        call.close()
    elif how == "stalls":
        call.head(200, "", "text/event-stream")
        call.raw(b'data: {"choices":[{"index":0,"delta":{"content":"A so')
        threading.Event().wait(1.5)
        call.close()


@pytest.mark.parametrize(("how", "state"), [("half a line", "cut"), ("too short", "cut"), ("stalls", "timeout")])
def test_half_an_answer_is_an_answer(tmp_path: Path, how: str, state: str) -> None:
    with scripted(lambda call: half(call, how)) as (server,):
        study(tmp_path, 2, cut=hosted(server.url, pace={"concurrency": 2, **FAST}))
        done = start(tmp_path)
    assert (done.answered, done.failed, len(server.texts)) == (2, 0, 2)
    with Store.open(tmp_path / "probe.db") as store:
        kept = list(store.exchanges(answered=True))
    assert {exchange.state for exchange in kept} == {state}
    assert all(b"A so" in exchange.response_body for exchange in kept)


@pytest.mark.parametrize(
    ("status", "message", "says", "own"),
    [
        (401, "Incorrect API key provided", "refused its key (HTTP 401)", "failed key_refused"),
        (402, "Insufficient credits", "has no credit left (HTTP 402)", "planned credit"),
        (403, "Country, region, or territory not supported", "refuses requests from this region", "failed region"),
        (403, "Your account has been suspended", "refuses this account", "failed account"),
        (404, "The model `toy` does not exist", "does not know the model 'toy'", "failed unknown_model"),
        (404, "page not found", "has nothing at its address", "failed bad_request"),
    ],
)
def test_a_route_that_cannot_be_used_says_why_and_the_other_goes_on(
    tmp_path: Path, status: int, message: str, says: str, own: str
) -> None:
    with scripted(None, lambda call: call.reply(status, {"error": {"message": message}})) as (good, bad):
        study(tmp_path, 30, good=hosted(good.url), bad=hosted(bad.url, pace={"concurrency": 1}))
        done = start(tmp_path)
    (error,) = done.summary.stopped
    assert str(error).startswith("Route 'bad' ")
    assert says in str(error)
    assert f"“{message}”" in str(error), "in the provider's own words"
    assert reasons(tmp_path, "good") == {"answered": 30}
    assert reasons(tmp_path, "bad") == {own: 1, "planned stopped": 29}
    assert len(bad.texts) == 1


def test_a_route_that_understands_nothing_stops_and_one_bad_request_is_only_that(tmp_path: Path) -> None:
    refusal = {"error": {"message": "Unsupported parameter: 'top_k'", "param": "top_k"}}
    with scripted(lambda call: call.reply(400, refusal)) as (server,):
        study(tmp_path, 30, picky=hosted(server.url, pace={"concurrency": 1}))
        done = start(tmp_path)
        assert reasons(tmp_path, "picky") == {"failed bad_request": 5, "planned stopped": 25}
        assert "understood none of its first 5 requests" in str(done.summary.stopped[0])
        server.behave = lambda call: call.reply(400, refusal) if call.number % 2 else call.reply()
        start(tmp_path)
    assert reasons(tmp_path, "picky") == {"failed bad_request": 5 + 13, "answered": 12}


def test_a_declared_block_is_an_answer_and_counted(tmp_path: Path) -> None:
    message = 'toy requires moderation on Y. Your input was flagged for "violence". No credits were charged.'
    block = {"error": {"code": 403, "message": message}}
    with scripted(lambda call: call.reply(403, block)) as (server,):
        study(tmp_path, 3, moderated=hosted(server.url, backend="openrouter"))
        done = start(tmp_path)
    assert (done.answered, done.summary.routes["moderated"].blocked) == (3, 3)


def test_a_daily_limit_ends_its_route_for_today_and_another_start_goes_on_tomorrow(tmp_path: Path) -> None:
    clock = LeapClock()
    with scripted(None, None) as (limited, free):
        pace = {"requests_per_day": 4, "concurrency": 2}
        study(tmp_path, 10, limited=hosted(limited.url, pace=pace), free=hosted(free.url))
        first = start(tmp_path, clock=clock)
        assert reasons(tmp_path, "limited") == {"answered": 4, "planned daily_limit": 6}
        assert reasons(tmp_path, "free") == {"answered": 10}, "the other route goes on"
        assert first.summary.stopped == []
        (note,) = first.summary.notes
        assert "00:00 UTC, or use --wait" in note
        assert start(tmp_path, clock=clock).answered == 0, "it is still the same day"


def test_with_wait_the_run_sleeps_over_a_daily_limit(tmp_path: Path) -> None:
    clock = LeapClock()
    begun = clock.wall()
    with scripted(None) as (limited,):
        study(tmp_path, 10, limited=hosted(limited.url, pace={"requests_per_day": 4, "concurrency": 2}))
        done = start(tmp_path, clock=clock, wait=True)
    assert (done.answered, done.open) == (10, 0)
    assert clock.wall() - begun > 24 * 3600, "two nights"


def test_a_day_that_is_used_up_by_the_routes_own_words(tmp_path: Path) -> None:
    body = {"error": {"message": "Rate limit exceeded: free-models-per-day", "code": 429}}
    with scripted(lambda call: call.reply(429, body) if call.number >= 3 else call.reply()) as (server,):
        study(tmp_path, 8, free=hosted(server.url, backend="openrouter", pace={"concurrency": 1}))
        start(tmp_path)
    assert reasons(tmp_path, "free") == {"answered": 3, "planned daily_limit": 5}
    assert len(server.texts) == 4


def test_money_is_never_overspent_and_a_larger_limit_goes_on(tmp_path: Path) -> None:
    with scripted(None) as (server,):
        study(tmp_path, 20, paid=hosted(server.url, price=PRICE, pace={"concurrency": 4}))
        # Each answer costs 5 + 2 · 3 = 11 millionths of a dollar, and at most a few hundred.
        first = start(tmp_path, totals=Totals.of_usd(usd=0.0004))
        assert 0 < first.answered < 20
        assert first.spent.nanousd == first.answered * 11_000 <= 400_000
        assert first.budget_gone
        assert reasons(tmp_path, "paid")["planned budget"] == 20 - first.answered
        assert "--max-usd" in first.summary.notes[0]
        second = start(tmp_path, totals=Totals.of_usd(usd=1.0))
    assert (second.open, second.spent.nanousd, second.budget_gone) == (0, 20 * 11_000, False)


@pytest.mark.parametrize("pace", [{"max_requests": 7}, {"max_tokens": 400}, {"max_usd": 0.0005}])
def test_a_route_has_limits_of_its_own(tmp_path: Path, pace: dict[str, float]) -> None:
    with scripted(None, None) as (small, large):
        study(tmp_path, 60, small=hosted(small.url, price=PRICE, pace=pace), large=hosted(large.url, price=PRICE))
        done = start(tmp_path)
    assert reasons(tmp_path, "large") == {"answered": 60}
    counted = reasons(tmp_path, "small")
    assert counted["planned budget"] + counted["answered"] == 60
    assert 0 < counted["answered"] < 60
    assert next(iter(pace)) in done.summary.notes[0]


def test_a_limit_in_money_without_a_price_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with scripted(None) as (server,):
        study(tmp_path, 2, paid=hosted(server.url))
        with pytest.raises(ConfigError, match="price = "):
            start(tmp_path, totals=Totals.of_usd(usd=1.0))
        assert server.texts == []


def test_a_slow_route_does_not_hold_the_others_and_pairs_stay_close(tmp_path: Path) -> None:
    order: list[str] = []
    gate = threading.Event()

    def slow(call: Call) -> None:
        gate.wait(10)
        call.reply()

    def fast(call: Call) -> None:
        order.append("fast")
        call.reply()

    def twin(call: Call) -> None:
        order.append("twin")
        if order.count("twin") == 60:
            gate.set()
        call.reply()

    with scripted(twin, fast, slow) as (own, quick, lame):
        study(
            tmp_path,
            60,
            own=local(own.url, pace={"concurrency": 1}),
            quick=hosted(quick.url, twin="own", pace={"concurrency": 1}),
            lame=hosted(lame.url, twin="own", pace={"concurrency": 1}),
        )
        done = start(tmp_path, aa=False)
    assert done.answered == 180, "the slow one answered only when both others had come to their end"
    ahead = list(itertools.accumulate(1 if name == "fast" else -1 for name in order))
    assert max(map(abs, ahead)) <= 8 + 1 + 2, "the twin and its fastest route keep abreast"
    gap = done.summary.routes["quick"]
    assert gap.pairs == 60
    assert gap.gap_s is not None


def test_requests_that_a_kill_cut_off_are_said_counted_and_sent_again(tmp_path: Path) -> None:
    from probe.runs.plan import new_run, plan_trials, store_plan

    with scripted(None) as (server,):
        study(tmp_path, 4, paid=hosted(server.url, price=PRICE))
        from probe.config import load_config
        from probe.ids import new_id
        from probe.runs.execute import load_packs
        from probe.store.rows import AttemptRow
        from probe.store.writer import Writer

        config, packs = load_config(tmp_path / "probe.toml"), load_packs([str(tmp_path / "pack.jsonl")])
        run = new_run(config, packs, seed=1, repeats=1)
        with Store.open(tmp_path / "probe.db") as store:
            store_plan(store, config, packs, run, plan_trials(config, packs, run, repeats=1))
            trial = store.trials(run.id)[2]
        with Writer(tmp_path / "probe.db") as writer:
            writer.begin(AttemptRow(trial.id, trial.route_id, 1, 1.0, 100, 16, 132_000, id=new_id())).result()
        done = start(tmp_path)
        assert (done.resumed, done.summary.in_flight, done.answered) == (True, 1, 4)
        assert done.spent.requests == 5
        assert done.spent.nanousd == 4 * 11_000 + 132_000
        done = start(tmp_path)
    assert done.summary.in_flight == 0
    assert verify(tmp_path / "probe.db").sound


@pytest.mark.parametrize(
    ("url", "reason", "says"),
    [
        pytest.param("http://127.0.0.1:{silent}", "unreachable", "No connection within 0.3 s", marks=pytest.mark.slow),
        ("http://127.0.0.1:{shut}", "unreachable", "Connect call failed"),
        ("http://nobody.invalid", "dns", "The name of the host was not found"),
        ("https://127.0.0.1:{plain}", "tls", "could not be set up: The remote server does not speak TLS"),
    ],
)
def test_a_route_that_cannot_be_reached_says_how_far_it_got(tmp_path: Path, url: str, reason: str, says: str) -> None:
    with Silent() as silent, scripted(None, lambda call: call.reply()) as (good, plain):
        with scripted(None) as (gone,):
            shut = gone.url.rpartition(":")[2]
        where = url.format(silent=silent.port, shut=shut, plain=plain.url.rpartition(":")[2])
        lost = hosted(where, price=PRICE, pace={"concurrency": 1, "connect_timeout_s": 0.3})
        study(tmp_path, 6, good=hosted(good.url), lost=lost)
        done = start(tmp_path)
    (error,) = done.summary.stopped
    assert "Route 'lost' cannot be reached at " in str(error)
    assert says in str(error)
    counted = reasons(tmp_path, "lost")
    assert set(counted) <= {f"planned {reason}", "planned stopped"}
    assert counted[f"planned {reason}"] >= 1
    assert reasons(tmp_path, "good") == {"answered": 6}
    assert done.requests == 6, "what never left is no request"
    assert verify(tmp_path / "probe.db").sound


@pytest.mark.slow
def test_nothing_is_kept_of_a_trial_that_ended(tmp_path: Path) -> None:
    """A run reads its plan page by page: a longer one has no more of its trials in memory."""
    seen: list[int] = []

    def look(summary: Any) -> None:
        if summary.routes["one"].answered % 100 == 50:
            seen.append(count() - before)

    def count() -> int:
        return sum(isinstance(thing, TrialRow) for thing in gc.get_objects())

    gc.collect()
    before = count()
    with scripted(None) as (server,):
        study(tmp_path, 700, one=hosted(server.url, pace={"concurrency": 8}))
        done = start(tmp_path, progress=look)
    assert done.answered == 700
    assert len(seen) >= 5
    assert max(seen) <= 2 * 200 + 8, "a page, the one before it, and what is under way"
