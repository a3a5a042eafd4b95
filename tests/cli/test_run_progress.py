"""What a run shows while it goes on: a table on a terminal, lines elsewhere."""

import io
from collections import Counter

import pytest
from rich.console import Console

from probe.cli.progress import RunProgress, route_lines, run_table
from probe.errors import RouteError
from probe.runs.summary import RouteProgress, RunSummary


def summary() -> RunSummary:
    hosted = RouteProgress(
        planned=100,
        hosted=True,
        answered=40,
        blocked=7,
        retries=3,
        nanousd=12_300_000,
        reasons=Counter({"timeout": 2, "rate_limited": 1}),
        look=lambda: "waiting 12 s: told by the route",
    )
    stopped = RouteProgress(planned=100, hosted=True, stopped=RouteError("no"))
    paused = RouteProgress(planned=100, hosted=True, note="tomorrow")
    local = RouteProgress(planned=100, answered=100, finished=True)
    return RunSummary({"hosted": hosted, "stopped": stopped, "paused": paused, "local": local})


def shown(state: RunSummary) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(run_table(state))
    return out.getvalue()


def test_the_table_has_a_line_per_route_with_counts_money_and_pace() -> None:
    head, hosted, stopped, paused, local = shown(summary()).splitlines()
    assert head.split()[:2] == ["route", "done"]
    for part in ("43/100", "40", "7", "3", "2 timeout, 1 rate limited", "0.0123", "told by the route"):
        assert part in hosted
    assert stopped.rstrip().endswith("stopped")
    assert paused.rstrip().endswith("pauses")
    assert local.rstrip().endswith("done")
    assert "0.0000" not in local, "a local route costs nothing"


def test_rate_and_time_left_follow_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("probe.runs.summary.time.monotonic", lambda: now)
    route = RouteProgress(planned=3661)
    assert (route.per_minute, route.left_s) == (None, None)
    for _ in range(61):
        route.answered += 1
        route.tick()
        now += 1.0
    now -= 1.0
    assert route.per_minute == pytest.approx(60.0)
    assert route.left_s == pytest.approx(3600.0)
    assert "1 h 0 min" in shown(RunSummary({"r": route}))
    now += 60.0
    assert route.per_minute == pytest.approx(30.0), "a route that hangs slows down"


def test_without_a_terminal_there_is_a_line_per_route_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("probe.cli.progress.time.monotonic", lambda: now)
    state = summary()
    with RunProgress(quiet=False) as progress:
        progress(state)
        assert capsys.readouterr().err == ""
        now = 6.0
        progress(state)
        first, *others = capsys.readouterr().err.splitlines()
        assert len(others) == 3
        for part in ("hosted: 43 of 100", "40 answered", "7 blocked", "no answer: 2 timeout", "0.0123 US dollars"):
            assert part in first
        state.interrupted = 2
        progress(state)
        progress(state)
        assert capsys.readouterr().err.count("the same signal once more leaves at once") == 1


def test_lines_leave_out_routes_that_have_nothing_to_send() -> None:
    assert list(route_lines(RunSummary({"done": RouteProgress(planned=0)}))) == []


def test_nothing_is_shown_where_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress(quiet=True) as progress:
        progress(summary())
        progress.analysis("reading", 3)
    assert capsys.readouterr() == ("", "")


def test_lines_say_once_that_a_route_has_come_to_its_end_and_a_rate_stands_still_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("probe.runs.summary.time.monotonic", lambda: now)
    route = RouteProgress(planned=2, answered=2)
    for _ in range(2):
        route.tick()
        now += 1.0
    route.finished = True
    now += 3600.0
    state, over = RunSummary({"r": route, "other": RouteProgress(planned=5)}), set[str]()
    assert list(route_lines(state, over)) == ["r: 2 of 2, 60 a minute, 2 answered, done", "other: 0 of 5, 0 answered"]
    assert list(route_lines(state, over)) == ["other: 0 of 5, 0 answered"]


def test_a_narrow_terminal_gets_a_table_that_can_be_read() -> None:
    out = io.StringIO()
    Console(file=out, width=70).print(run_table(summary(), narrow=True))
    head, *rows = out.getvalue().splitlines()
    assert head.split() == ["route", "done", "answered", "left", "pace"]
    assert [row.split()[:3] for row in rows] == [
        ["hosted", "43/100", "40"],
        ["stopped", "0/100", "0"],
        ["paused", "0/100", "0"],
        ["local", "100/100", "100"],
    ]
    assert "told by the route" in rows[0]


def test_a_rate_over_an_instant_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("probe.runs.summary.time.monotonic", lambda: now)
    route = RouteProgress(planned=2)
    for _ in range(2):
        route.tick()
        now += 0.001
    assert route.per_minute is None
