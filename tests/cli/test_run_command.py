"""`probe run` from outside: what it says of trials without an answer, of money and of limits, and its exit status."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "runs"))  # for runner_kit, in whatever way pytest imports

from runner_kit import Call, hosted, local, scripted, study

from probe.cli import cli

PRICE = {"prompt": 1.0, "completion": 2.0}


def probe_run(folder: Path, *arguments: str) -> Result:
    where = ["--config", str(folder / "probe.toml"), "--pack", str(folder / "pack.jsonl")]
    return CliRunner().invoke(cli, ["run", *where, *arguments])


def resets(call: Call) -> None:
    call.reset()


def test_failed_trials_are_named_and_sent_again_only_when_told(tmp_path: Path) -> None:
    with scripted(resets) as (server,):
        study(tmp_path, 3, mute=hosted(server.url, price=PRICE))
        first = probe_run(tmp_path)
        assert first.exit_code == 1
        assert "0 trials answered, 0 open, 3 failed" in first.stdout
        assert "mute: 3 were sent and never answered, and may have been billed" in first.stdout
        assert "3 trials failed: `probe run --again`" in first.stderr
        assert "Spent in all starts: 3 hosted requests" in first.stdout
        assert "3 of them count with the most that they can have cost" in first.stdout
        server.behave = lambda call: call.reply()
        assert probe_run(tmp_path).exit_code == 1
        assert len(server.texts) == 3
        last = probe_run(tmp_path, "--again", "--json")
    document = json.loads(last.stdout)
    assert last.exit_code == 0
    assert (document["answered"], document["open"], document["failed"], document["states"]) == (3, 0, 0, {})
    assert document["spent"]["requests"] == 6
    assert document["spent"]["by_route"]["mute"]["usd"] == document["spent"]["usd"] > 3 * 11e-6


def test_the_json_says_why_trials_have_no_answer_and_how_far_apart_pairs_are(tmp_path: Path) -> None:
    def wrong_key(call: Call) -> None:
        call.reply(401, {"error": {"message": "Incorrect API key provided"}})

    with scripted(None, None, wrong_key) as (own, good, shut):
        study(
            tmp_path,
            6,
            own=local(own.url),
            good=hosted(good.url, twin="own"),
            shut=hosted(shut.url, twin="own", pace={"concurrency": 1}),
        )
        done = probe_run(tmp_path, "--json", "--no-aa")
    document = json.loads(done.stdout)
    assert done.exit_code == 1
    assert document["states"] == {"shut": {"key_refused": 1, "stopped": 5}}
    assert (document["answered"], document["open"], document["failed"]) == (12, 5, 1)
    assert "refused its key (HTTP 401)" in document["stopped"][0]
    assert set(document["pair_gap_s"]) == {"good"}


def test_errors_that_nobody_can_explain_are_shown(tmp_path: Path) -> None:
    with scripted(lambda call: call.reply(403, {"error": {"message": "Computer says no"}})) as (server,):
        study(tmp_path, 2, odd=hosted(server.url))
        said = probe_run(tmp_path)
    assert said.exit_code == 0
    assert "odd: 2 of its answers are HTTP errors" in said.stdout
    assert "“HTTP 403 Computer says no”" in said.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--max-usd", "0"], "--max-usd must be more than 0"),
        (["--max-tokens", "0"], "--max-tokens must be 1 or more"),
        (["--max-usd", "1"], "price = "),
    ],
)
def test_limits_that_mean_nothing_are_one_sentence(tmp_path: Path, arguments: list[str], named: str) -> None:
    with scripted(None) as (server,):
        study(tmp_path, 2, paid=hosted(server.url))
        said = probe_run(tmp_path, *arguments)
        assert named in str(said.exception)
        assert server.texts == []


def test_a_budget_is_said_with_the_option_that_goes_on(tmp_path: Path) -> None:
    with scripted(None) as (server,):
        study(tmp_path, 9, paid=hosted(server.url, price=PRICE))
        said = probe_run(tmp_path, "--max-requests", "4")
        assert said.exit_code == 1
        assert "4 trials answered, 5 open" in said.stdout
        assert "paid: 5 wait for a larger budget" in said.stdout
        assert "--max-requests" in said.stderr
        assert probe_run(tmp_path).exit_code == 0
    assert len(server.texts) == 9


def test_what_was_said_of_a_trial_without_an_answer_is_quoted_in_the_order_of_the_study(tmp_path: Path) -> None:
    def refuses(call: Call) -> None:
        call.reply(400, {"error": {"message": "Unsupported parameter: 'max_tokens'.", "param": "max_tokens"}})

    def page(call: Call) -> None:
        call.head(200, "Content-Length: 11\r\n", "text/html")
        call.raw(b"<p>Hello</p"[:11])

    with scripted(refuses, page) as (first, second):
        study(tmp_path, 1, zebra=hosted(first.url), ape=hosted(second.url))
        done = probe_run(tmp_path)
    lines = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert lines[0] == (
        "  zebra: 1 was not understood by its route (the last one: HTTP 400 “Unsupported parameter: 'max_tokens'.”)"
    )
    assert lines[1].startswith("  ape: 1 got something that is no answer (the last one: HTTP 200 “Hello")
    assert done.exit_code == 1


def test_a_route_that_has_moved_is_told_without_words_that_nobody_said(tmp_path: Path) -> None:
    def moved(call: Call) -> None:
        call.reply(308, {}, "Location: https://elsewhere.example/v1?api_key=sk-lab-0123456789abcdef\r\n")

    with scripted(moved) as (server,):
        study(tmp_path, 2, old=hosted(server.url))
        done = probe_run(tmp_path)
    assert "Route 'old' sends its requests elsewhere (HTTP 308)" in done.stderr
    assert "It said" not in done.stderr
    assert server.paths == ["/v1/chat/completions"] * len(server.paths), "nothing followed"
