"""Bad input, from stored bytes to the card: a state, an outcome, evidence and a card; never a crash.

One study holds every bad response of the table, under each dialect; the whole pipeline reads it. A reader that took
quadratic time would not come back from the megabyte-long ones.
"""

import asyncio
import json
import random
import unicodedata
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from probe.attribution.pipeline import analyze
from probe.cli import cli
from probe.evidence.case import NON_COMPLIANCES
from probe.report.card import card
from probe.report.card_text import card_text
from probe.store.rows import Outcome
from probe.store.store import Store
from probe.wire.dialects import dialect
from tests.kit import JSON, NDJSON, SSE, make_exchange
from tests.report.bad_bodies import Bad, bodies, under
from tests.report.bad_study import BadStudy, fill
from tests.wire.mutants import mutant, seeds

BODIES = bodies()
VARIANTS = [under(bad, kind) for bad in BODIES if len(bad.body) < 100_000 for kind in (JSON, SSE, NDJSON)]
DIALECTS = ("openai-chat", "ollama-chat")
GENUINE = [given for given in seeds() if given.kind == "response"]


@pytest.fixture(scope="module", params=DIALECTS)
def analysed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BadStudy]:
    path = tmp_path_factory.mktemp("bad") / "probe.db"
    with Store.open(path) as store:
        study = fill(store, [*BODIES, *VARIANTS], request.param)
        asyncio.run(analyze(store, {}))
    return path, study


def check_card(found: dict[str, Any]) -> None:
    json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    assert found["would_change"]
    assert all(sentence.endswith(".") for sentence in found["would_change"])
    if found["verdict"] is None:
        assert found["outcome"] not in NON_COMPLIANCES
    for row in found["evidence"]:
        assert row["sentence"]
        assert row["e_value"] is None or row["e_value"] >= 0.0
    for width in (40, 100):
        lines = card_text(found, width).split("\n")
        assert max(map(len, lines)) <= width
        assert not {unicodedata.category(char) for line in lines for char in line if char != "\t"} & {"Cc", "Cs", "Zl"}


@pytest.mark.parametrize("bad", BODIES, ids=lambda bad: bad.name)
def test_a_state_and_an_outcome(bad: Bad, analysed: tuple[Path, BadStudy]) -> None:
    path, study = analysed
    speaks = dialect(study.hosted.dialect)
    exchange = make_exchange(status=bad.status, response_headers=bad.headers, response_body=bad.body, state=bad.ended)
    reading = speaks.read(exchange)
    with Store.open(path) as store:
        outcome = store.outcomes(exchange_id=study.ids[BODIES.index(bad)])[0].outcome
    assert outcome in get_args(Outcome)
    if speaks.name == "openai-chat":
        assert (reading.state, outcome) == (bad.state, bad.outcome)


@pytest.mark.slow
def test_evidence_and_a_card_for_all(analysed: tuple[Path, BadStudy]) -> None:
    path, study = analysed
    with Store.open(path) as store:
        for key in [*study.ids[: len(BODIES)], *study.ids[len(BODIES) :: 4]]:
            found = card(store, key)
            assert {row["detector"] for row in found["evidence"]} >= {"declared", "likelihood", "repetition"}
            check_card(found)


def test_nobody_is_accused_by_broken_bytes(analysed: tuple[Path, BadStudy]) -> None:
    """None of these bytes declares anything, and no twin scored a text."""
    path, _ = analysed
    with Store.open(path) as store:
        assert {verdict.who for verdict in store.verdicts().values()} == {"undecided"}


@pytest.mark.slow
def test_the_commands(analysed: tuple[Path, BadStudy], tmp_path: Path) -> None:
    path, study = analysed
    runner = CliRunner()
    for key in study.ids[: len(BODIES) : 8]:
        shown = runner.invoke(cli, ["show", key, "--db", str(path)])
        assert (shown.exit_code, shown.exception) == (0, None)
        assert key in shown.output
        assert "\x1b" not in shown.output
        asked = runner.invoke(cli, ["show", key, "--db", str(path), "--json"])
        assert json.loads(asked.output)["id"] == key
    written = runner.invoke(cli, ["report", "--db", str(path), "--out", str(tmp_path / "report.html")])
    assert (written.exit_code, written.exception) == (0, None)
    assert "glass" in (tmp_path / "report.html").read_text(encoding="utf-8")


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=15)
@example(0, "openai-chat")
@given(st.integers(0, 2**63), st.sampled_from(DIALECTS))
def test_mutants_of_genuine_answers_come_through(seed: int, name: str) -> None:
    rng = random.Random(seed)
    mutants = [mutant(rng, GENUINE) for _ in range(12)]
    bad = [Bad("", m.body, "", "", status=m.status, headers=m.headers, ended=m.state) for m in mutants]
    with Store.memory() as store:
        study = fill(store, bad, name, benign_too=True)
        asyncio.run(analyze(store, {}))
        for key in study.ids:
            check_card(card(store, key))


def test_before_the_analysis() -> None:
    with Store.memory() as store:
        study = fill(store, BODIES[:40])
        for key in study.ids:
            found = card(store, key)
            check_card(found)
            assert found["would_change"] == ["Not analysed yet: run `probe analyze`."]
