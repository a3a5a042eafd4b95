"""What fuzzing found once (``scripts/fuzz-readers``), and mutants of genuine traffic, read by everything that reads."""

import base64
import json
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit import JSON
from tests.wire.mutants import Input, mutant, seeds
from tests.wire.readers import read_everything

CASES = sorted((Path(__file__).parent / "fuzz_cases").glob("*.json"))
GENUINE = seeds()


def case_of(path: Path) -> Input:
    case = json.loads(path.read_text(encoding="utf-8"))
    body = zlib.decompress(base64.b64decode(case["body_zlib_base64"]))
    headers = tuple((name, value) for name, value in case["headers"])
    return Input(case["kind"], body, case["status"], headers, case["state"])


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_fuzzing_found_is_read(path: Path) -> None:
    read_everything(case_of(path))


@pytest.mark.parametrize("number", range(len(GENUINE)))
def test_what_is_mutated_can_be_read(number: int) -> None:
    read_everything(GENUINE[number])


@settings(deadline=None)
@given(st.integers(0, 2**63))
def test_mutants_are_read(seed: int) -> None:
    read_everything(mutant(random.Random(seed), GENUINE))


@settings(deadline=None)
@given(st.sampled_from(GENUINE), st.data())
def test_every_beginning_of_a_body_is_read(genuine: Input, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(genuine.body)))
    read_everything(genuine.with_body(genuine.body[:end]))


@settings(deadline=None)
@given(st.sampled_from(["request", "response"]), st.binary(max_size=200))
def test_any_bytes_are_read(kind: str, body: bytes) -> None:
    read_everything(Input("request" if kind == "request" else "response", body, 200, JSON))


def test_mutants_are_not_the_genuine_ones() -> None:
    rng = random.Random(1)
    made = [mutant(rng, GENUINE) for _ in range(300)]
    assert sum(one not in GENUINE for one in made) > 250
    assert {one.kind for one in made} == {"request", "response"}
