"""The worked case in small: four worlds of known truth through the real pipeline, each with its right conclusion."""

import http.client
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from probe.lab.busy import BusyServer
from probe.lab.worked_case import FULL

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    script = ROOT / "scripts" / "worked-case"
    if not script.is_file():
        pytest.skip("needs the checkout: scripts are not part of the wheel")
    folder = tmp_path_factory.mktemp("worked")
    command = [sys.executable, str(script), "--quick", "--json", "--seed", "31", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout, done.stderr
    value: Mapping[str, Any] = json.loads(done.stdout)
    return value


def case(found: Mapping[str, Any], number: str) -> Mapping[str, Any]:
    chosen: Mapping[str, Any] = next(one for one in found["cases"] if one["case"] == number)
    return chosen


def test_the_rates_look_alike_in_all_worlds(found: Mapping[str, Any]) -> None:
    for one in found["cases"]:
        naive = one["naive"]
        assert naive["hosted"]["hi"] < naive["local"]["lo"], one["case"]


@pytest.mark.parametrize(
    ("number", "conclusion"), [("i", "model"), ("ii", "platform"), ("iii", "both"), ("iv", "undecided")]
)
def test_each_world_gets_its_own_conclusion(found: Mapping[str, Any], number: str, conclusion: str) -> None:
    one = case(found, number)
    assert one["conclusion"] == conclusion, one["sentence"]
    assert one["right"]


def test_a_platform_is_accused_only_where_there_is_one(found: Mapping[str, Any]) -> None:
    added = {one["case"]: one["effect"]["platform_added"] for one in found["cases"]}
    n = found["sizes"]["routed"]
    # In truth 33 % and 10 % of the pairs. Three refusals are what it takes to accuse a route.
    assert added["ii"] > 0.15 * n
    assert added["iii"] >= 3
    # One wrong verdict may happen among hundreds.
    assert max(added["i"], added["iv"]) <= 1


def test_the_gate_tells_the_other_weights_from_the_same(found: Mapping[str, Any]) -> None:
    answers = {one["case"]: one["gate"]["answer"] for one in found["cases"]}
    assert answers["i"] == answers["iii"] == "different"
    assert "different" not in {answers["ii"], answers["iv"]}


def test_small_n_states_no_rate_and_says_what_is_missing(found: Mapping[str, Any]) -> None:
    one = case(found, "iv")
    effect = one["effect"]
    assert effect["n_pairs"] < 20
    assert effect["n_pairs"] + effect["n_missing"] == one["naive"]["hosted"]["n"]
    assert "%" not in one["sentence"].split("gate")[0]
    assert str(effect["n_missing"]) in one["sentence"]


def test_the_full_size_is_that_of_the_seed_study() -> None:
    """The legacy trials, those of the twin beside the hosted ones, and as many A/A controls."""
    assert FULL.traces * FULL.repeats + 2 * FULL.routed == 23_206
    assert FULL.routed == 178


HELD = "http://127.0.0.1:1"
"""A server that nobody is asked to be: a redirect only names it."""


def served(busy: BusyServer, count: int) -> list[int]:
    """Which of ``count`` questions are served."""
    host, numbers = busy.url.removeprefix("http://"), []
    for number in range(count):
        connection = http.client.HTTPConnection(host, timeout=10)
        body = json.dumps({"messages": [{"role": "user", "content": str(number)}]})
        connection.request("POST", "/v1/chat/completions", body)
        response = connection.getresponse()
        said = response.read()
        connection.close()
        if response.status == 307:
            assert response.headers["location"] == f"{HELD}/v1/chat/completions"
            numbers.append(number)
        else:
            assert response.status == json.loads(said)["error"]["code"] == 429
    return numbers


def test_a_busy_provider_serves_its_share_whatever_is_asked() -> None:
    with BusyServer(HELD, answers=0.3, seed=5) as busy:
        first = served(busy, 100)
    with BusyServer(HELD, answers=0.3, seed=5) as busy:
        assert served(busy, 100) == first, "the same seed, the same requests, the same draws"
    assert 15 <= len(first) <= 45
