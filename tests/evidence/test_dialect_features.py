"""Times and envelopes of answers in every dialect: what the detectors that compare answers see of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.evidence.case import Case
from probe.evidence.envelope_features import features
from probe.evidence.shapes import text_lengths
from probe.evidence.timing_features import times_of
from probe.wire.dialects import dialect
from probe.wire.values import Chunk
from tests.kit import make_exchange
from tests.wire.dialects_kit import ANSWERS, Said

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1, max_size=12)
PIECES = st.lists(WORDS, min_size=2, max_size=8).map(tuple)


def answered(name: str, said: Said, *, stream: bool = True) -> Case:
    answers = ANSWERS[name]
    body = answers.stream(said) if stream else answers.whole(said)
    changes = {"response_headers": answers.headers} if stream else {}
    exchange = make_exchange(response_body=body, **changes)
    # Every byte comes by itself, a hundredth of a second after the one before.
    size = len(exchange.response_body)
    chunks = tuple(Chunk(1, 1 + at / 100) for at in range(size))
    exchange = make_exchange(response_body=exchange.response_body, chunks=chunks, ended_at=2 + size / 100, **changes)
    return Case("x", "t", control=True, outcome="complied", reading=dialect(name).read(exchange), exchange=exchange)


@pytest.mark.parametrize("name", ANSWERS)
def test_pieces_are_timed_by_the_chunk_that_completed_them(name: str) -> None:
    said = Said(("one ", "two ", "three ", "four"))
    case = answered(name, said)
    times = times_of(case)
    assert len(times.gaps) == 3
    assert all(gap > 0.2 for gap in times.gaps)
    assert times.start > times.byte
    assert times.start + sum(times.gaps) <= len(case.exchange.response_body) / 100 + 1 if case.exchange else False
    assert times.tail > 0


@pytest.mark.parametrize("name", ANSWERS)
@given(PIECES, PIECES)
def test_the_characters_of_a_stream_are_those_of_its_text(
    name: str, pieces: tuple[str, ...], thoughts: tuple[str, ...]
) -> None:
    case = answered(name, Said(pieces, thoughts))
    lengths = text_lengths(case.reading.documents)
    assert sum(lengths) == len(case.reading.text) + len(case.reading.reasoning)
    assert sum(map(bool, lengths)) == len(pieces) + len(thoughts)
    whole = answered(name, Said(pieces, thoughts), stream=False)
    assert sum(text_lengths(whole.reading.documents)) == sum(lengths)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ANSWERS)
@given(PIECES, PIECES, st.integers(1, 500), st.integers(1, 500))
def test_what_is_said_changes_no_feature_of_the_envelope(
    name: str, stream: bool, one: tuple[str, ...], other: tuple[str, ...], prompt: int, generated: int
) -> None:
    first = features(answered(name, Said(one), stream=stream))
    second = features(answered(name, Said(other, prompt=prompt, generated=generated), stream=stream))
    assert first == second
    thought = features(answered(name, Said(one, other, reasoned=1), stream=stream))
    known = {key for key in first.keys() & thought.keys() if first[key] is not None and thought[key] is not None}
    assert {key for key in known if first[key] != thought[key]} == set()


def test_no_times_without_a_stream() -> None:
    assert math.isnan(times_of(answered("gemini", Said(), stream=False)).start)
