"""``probe plan``: known numbers, a study's own rates and pace, and mistakes in one sentence."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from probe.attribution.pipeline import analyze
from probe.attribution.planning import Shares, Traffic, Wish, assumed, duration, observed, plan
from probe.cli import cli
from probe.errors import ProbeError
from probe.ids import new_id
from probe.stats.intervals import wilson
from probe.stats.power import mcnemar_power
from probe.store.rows import RouteRow, RunRow, TrialRow, WeightsRow
from probe.store.store import Store
from probe.traces.values import Message, Trace
from tests.kit import completion, make_exchange
from tests.study_kit import hosted_route, local_route, write_config

REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Stir it slowly for an hour."


def run(folder: Path, *arguments: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return CliRunner().invoke(cli, ["plan", *arguments])


def planned(folder: Path, *arguments: str) -> dict[str, object]:
    result = run(folder, *arguments, "--json")
    assert (result.exit_code, result.exception) == (0, None), result.output
    found = json.loads(result.output)
    assert isinstance(found, dict)
    return found


def test_nothing_in_ten(tmp_path: Path) -> None:
    found = planned(tmp_path, "--observed", "0/10")
    assert found["wilson"] == [0, 0.278]
    assert found["n"] == 10
    wide = planned(tmp_path, "--observed", "0/10", "--width", "10%")
    assert wide["more"] == 25
    n = wide["n_needed"]
    assert isinstance(n, int)
    assert wilson(0, n).hi <= 0.1 < wilson(0, n - 1).hi
    # If the rate is what the interval's upper limit says, it takes far more.
    assert wide["more_at_most"] > 10 * 25  # type: ignore[operator]
    shown = run(tmp_path, "--observed", "0/10", "--width", "0.1").output
    assert "[0 %, 27.8 %]" in shown
    assert "25 more" in shown


def test_nothing_observed_and_enough_observed() -> None:
    nothing = observed(0, 0, Wish(width=0.1))
    assert (nothing.to_json()["wilson"], nothing.n_at_most) == ([0.0, 1.0], 381)
    assert "Nothing was observed" in nothing.sentence
    assert observed(0, 0, Wish()).to_json()["observed"] is None
    enough = observed(50, 500, Wish(width=0.2)).to_json()
    assert enough["more"] == 0
    all_of_them = observed(10, 10, Wish(width=0.1)).to_json()
    assert all_of_them["more"] == 25
    assert observed(1, 2, Wish(width=0.00001)).n_needed is None


def test_ten_points(tmp_path: Path) -> None:
    found = planned(tmp_path, "--discordant", "0.12,0.02")
    assert (found["pairs"], found["pairs_by_formula"]) == (114, 107)
    assert (found["requests_hosted"], found["requests_twin"]) == (114, 228)
    assert mcnemar_power(114, 0.12, 0.02) >= 0.8 > mcnemar_power(113, 0.12, 0.02)
    assert planned(tmp_path, "--discordant", "12%, 2 %")["pairs"] == 114
    assert planned(tmp_path, "--discordant", "6%,1%")["pairs_by_formula"] == 217
    early = found["sequential"]
    assert isinstance(early, dict)
    assert early["expected"] < 114 < early["at_most"]
    said = " ".join(found["assumptions"])  # type: ignore[arg-type]
    for word in ("A/A", "McNemar", "Connor", "assumed"):
        assert word in said
    shown = run(tmp_path, "--discordant", "12%,2%").output
    assert "114" in shown
    assert "about 107" in " ".join(shown.split())


def test_rates_of_independent_refusals(tmp_path: Path) -> None:
    shares = assumed(0.45, 0.35)
    assert (shares.up, shares.down) == pytest.approx((0.45 * 0.65, 0.35 * 0.55))
    by_points = planned(tmp_path, "--twin", "0.35", "--points", "10")
    by_rates = planned(tmp_path, "--twin", "35%", "--hosted", "45%")
    assert by_points["pairs"] == by_rates["pairs"]
    assert planned(tmp_path, "--twin", "0.35", "--points", "-10")["pairs"] is not None


def test_requests_tokens_money_and_days(tmp_path: Path) -> None:
    arguments = ["--discordant", "12%,2%", "--tokens", "100,300", "--price-in", "0.5", "--price-out", "2"]
    found = planned(tmp_path, *arguments, "--per-minute", "20", "--repeats", "3")
    assert (found["requests_hosted"], found["requests_twin"]) == (3 * 114, 4 * 114)
    assert found["money"] == pytest.approx(342 * (100 * 0.5 + 300 * 2) / 1e6, abs=1e-4)
    assert found["days"] == pytest.approx(342 / 20 / 1440, abs=1e-3)
    alone = planned(tmp_path, *arguments, "--no-aa")
    assert alone["requests_twin"] == 114
    assert alone["days"] is None


def test_waiting_for_answers_may_take_longer_than_the_limit() -> None:
    shares, wish = Shares(0.12, 0.02, "assumed"), Wish()
    slow = Traffic(seconds=60.0, per_minute=60.0, concurrency=2)
    assert plan(shares, wish, slow).days == pytest.approx(114 * 60 / 2 / 86400)
    fast = replace(slow, seconds=0.1)
    assert plan(shares, wish, fast).days == pytest.approx(114 / 60 / 1440)
    missing = plan(replace(shares, missing=0.5), wish, fast)
    assert missing.requests_hosted == 228


def test_a_width_and_no_difference(tmp_path: Path) -> None:
    both = planned(tmp_path, "--discordant", "12%,2%", "--width", "0.05")
    assert both["pairs"] == both["pairs_for_width"] > both["pairs_for_power"]  # type: ignore[operator]
    none = planned(tmp_path, "--discordant", "0.1,0.1")
    assert none["pairs"] is None
    assert "equal" in str(none["sentence"])
    narrow = planned(tmp_path, "--discordant", "0.1,0.1", "--width", "0.1")
    assert narrow["pairs"] == narrow["pairs_for_width"]
    never = planned(tmp_path, "--discordant", "0.0101,0.01")
    assert never["pairs"] is None
    assert "More than a million" in str(never["sentence"])
    assert run(tmp_path, "--discordant", "0.1,0.1").exit_code == 0


def test_times_are_in_their_unit() -> None:
    assert [duration(days) for days in (0.0, 1 / 1440, 0.5, 3.0)] == ["0.1 minutes", "1 minutes", "12 hours", "3 days"]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """40 traces and 4 controls over both routes: the hosted one refuses 12, the twin 3, one pair is missing."""
    pace = {"concurrency": 2, "requests_per_minute": 30}
    routes = {"local": local_route("http://127.0.0.1:1"), "glass": hosted_route("http://127.0.0.1:2", pace=pace)}
    write_config(tmp_path / "probe.toml", routes)
    weights = WeightsRow("toy")
    local = RouteRow("local", "llamacpp", "openai-chat", "http://127.0.0.1:1/v1", "toy", weights.id, "local")
    glass = RouteRow(
        "glass", "openrouter", "openai-chat", "http://127.0.0.1:2/v1", "toy", weights.id, "hosted", "local"
    )
    traces = [Trace(f"t{n}", (Message("user", f"Question {n}?"),), family="a", control=n >= 40) for n in range(44)]
    with Store.open(tmp_path / "probe.db") as store:
        store.add_weights(weights)
        for route in (local, glass):
            store.add_route(route)
        store.add_traces(traces)
        for kind in ("", "gate"):
            answers(store, traces, (local, glass), kind)
        asyncio.run(analyze(store, {}))
    return tmp_path


def answers(store: Store, traces: list[Trace], routes: tuple[RouteRow, RouteRow], kind: str) -> None:
    run_row = RunRow(0.0, 0, {"kind": kind} if kind else {})
    store.add_run(run_row)
    for number, trace in enumerate(traces):
        for route in routes:
            trial = TrialRow(run_row.id, trace.id, route.id, 1, 2 * number + (route is routes[1]))
            store.add_trials([trial])
            if number == 39 and route is routes[1]:
                store.mark_trials([trial.id], "failed")
                continue
            refuses = (number < 12 if route is routes[1] else 9 <= number < 12) and not kind
            body = completion(REFUSAL if refuses else ANSWER)
            body["usage"] = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
            made = make_exchange(id=new_id(), route_id=route.id, trial_id=trial.id, response_body=body, ended_at=0.4)
            store.save_exchange(made, "answered")


def test_a_study_s_own_rates_tokens_and_pace(study: Path) -> None:
    found = planned(study, "--route", "glass", "--price-in", "1", "--price-out", "1")
    shares = found["shares"]
    assert isinstance(shares, dict)
    # Of 39 graded pairs (the gate's run and the controls left out) nine are refused by the hosted route only.
    assert (shares["n"], shares["up"], shares["down"]) == (39, pytest.approx(9 / 39), 0.0)
    assert shares["missing"] == pytest.approx(1 / 40)
    pairs = found["pairs"]
    assert isinstance(pairs, int)
    hosted = found["requests_hosted"]
    assert isinstance(hosted, int)
    assert hosted == -(-pairs * 40 // 39)
    assert (found["tokens_in"], found["tokens_out"]) == (20 * hosted, 10 * hosted)
    assert found["money"] == pytest.approx(30 * hosted / 1e6, abs=1e-4)
    assert found["days"] == pytest.approx(hosted / 30 / 1440, abs=1e-3)
    assumed_ = planned(study, "--route", "glass", "--discordant", "12%,2%")
    assert (assumed_["pairs"], assumed_["tokens_in"]) == (114, 114 * 20)
    assert run(study, "--route", "glass", "--width", "0.1").exit_code == 0
    # From another folder, without its probe.toml, the study still says all but the pace it was set.
    elsewhere = study / "elsewhere"
    elsewhere.mkdir()
    assert planned(elsewhere, "--route", "glass", "--db", str(study / "probe.db"))["pairs"] == pairs


def test_a_route_without_answers_has_its_pace_only(study: Path) -> None:
    (study / "probe.db").unlink()
    found = planned(study, "--route", "glass", "--discordant", "12%,2%")
    assert (found["tokens_in"], found["days"]) == (None, pytest.approx(114 / 30 / 1440, abs=1e-3))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "Say what to plan for"),
        (["--observed", "11/10"], "more than all"),
        (["--observed", "-1/5"], "whole numbers"),
        (["--observed", "a/b"], "whole numbers"),
        (["--observed", "5"], "whole numbers"),
        (["--observed", "1/2.5"], "whole numbers"),
        (["--observed", "1/5", "--width", "0"], "--width"),
        (["--observed", "1/5", "--width", "nan"], "--width"),
        (["--observed", "1/5", "--route", "glass"], "--observed is about one rate"),
        (["--discordant", "0.1,0.05", "--power", "1"], "--power"),
        (["--discordant", "0.1,0.05", "--alpha", "0"], "--alpha"),
        (["--discordant", "0.7,0.5"], "add up to 1.2"),
        (["--discordant", "12,2"], "Did you mean 12%?"),
        (["--discordant", "0.1"], "two shares"),
        (["--discordant", "0.1,0.2", "--twin", "0.1"], "not both"),
        (["--hosted", "0.1"], "--twin RATE"),
        (["--twin", "0.95", "--points", "10"], "does not exist"),
        (["--twin", "0.95", "--points", "nan"], "does not exist"),
        (["--discordant", "0.1,0.2", "--tokens", "1"], "--tokens"),
        (["--discordant", "0.1,0.2", "--tokens", "1,-2"], "--tokens"),
        (["--discordant", "0.1,0.2", "--price-in", "-1"], "--price-in"),
        (["--discordant", "0.1,0.2", "--per-minute", "0"], "--per-minute"),
        (["--route", "glass", "--db", "nowhere.db"], "There is no database"),
        (["--route", "glass", "--discordant", "0.1,0.2", "--config", "nowhere.toml"], "There is no nowhere.toml"),
        (["--route", "nowhere"], "There is no route 'nowhere'"),
        (["--route", "nowhere", "--discordant", "0.1,0.2"], "There is no route 'nowhere'"),
        (["--route", "local"], "no hosted route with a twin"),
    ],
)
def test_mistakes_are_one_sentence(study: Path, arguments: list[str], expected: str) -> None:
    result = run(study, *arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, ProbeError)
    assert expected in str(result.exception)


def test_a_study_that_was_not_analysed_says_so(study: Path) -> None:
    with Store.open(study / "probe.db") as store:
        store.clear_derived()
    result = run(study, "--route", "glass")
    assert isinstance(result.exception, ProbeError)
    assert "probe analyze" in str(result.exception)


def test_the_price_of_the_route_is_used_unless_another_is_given(study: Path) -> None:
    file = study / "probe.toml"
    before = planned(study, "--route", "glass")
    assert before["money"] is None
    text = file.read_text()
    file.write_text(text.replace("[routes.glass]", "[routes.glass]\nprice = { prompt = 2, completion = 4 }"))
    found = planned(study, "--route", "glass")
    hosted = found["requests_hosted"]
    assert isinstance(hosted, int)
    assert found["money"] == pytest.approx((2 * 20 + 4 * 10) * hosted / 1e6, abs=1e-4)
    other = planned(study, "--route", "glass", "--price-out", "0")
    assert other["money"] == pytest.approx(2 * 20 * hosted / 1e6, abs=1e-4)
