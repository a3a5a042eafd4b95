"""Everything that reads bytes of strangers, on one input; what must hold of any reading is asserted."""

import json
import unicodedata
from dataclasses import replace
from typing import get_args

from probe.errors import WireError
from probe.judge.base import Outcome
from probe.judge.rules import RulesJudge
from probe.report.card_text import exchange_lines
from probe.report.shown import exchange_part
from probe.wire.arrays import JsonArrayParser
from probe.wire.arrivals import document_ends, said_length
from probe.wire.catalogue import backend_names, load_backend
from probe.wire.content import LIMIT, decoded_body
from probe.wire.dialect import DIALECT_NAMES
from probe.wire.dialects import dialect
from probe.wire.eventstream import EventStreamParser
from probe.wire.framing import NdjsonParser, SseParser
from probe.wire.signatures import match_signatures
from probe.wire.values import Exchange, Reading, ReadingState
from tests.kit import make_exchange
from tests.wire.mutants import Input

BACKENDS = tuple(load_backend(name) for name in backend_names())
DIALECTS = tuple(dialect(name) for name in DIALECT_NAMES)
STREAM_URL = "https://example.org/v1beta/models/toy:streamGenerateContent"
"""Where one dialect's streams come from; it reads a list as such only there."""
JUDGE = RulesJudge()
PIECES = 7
"""Pieces that a stream is fed in, to compare with the whole."""

DRIVING = {"Cc", "Cs", "Zl", "Zp"}
"""Kinds of characters that drive a terminal, or end a line for it."""


def read_everything(tried: Input) -> None:
    """Read one input with every reader. Raises where one of them does, or where a reading is none."""
    if tried.kind == "request":
        read_request(tried.body)
        return
    exchange = exchange_of(tried)
    data = decoded_body(exchange).data
    assert len(data) <= LIMIT
    check_framing(data)
    for speaks in DIALECTS:
        reading = speaks.read(exchange)
        check_reading(reading)
        assert all(said_length(document) >= 0 for document in reading.documents)
        for backend in BACKENDS:
            if backend.dialect == speaks.name:
                for match in match_signatures(backend, exchange, reading):
                    match.exhibit.encode()
        for blocked in (False, True):
            judged = JUDGE.judge(reading, exchange.status, blocked=blocked)
            assert judged.outcome in get_args(Outcome)
            assert 0.0 <= judged.confidence <= 1.0
    check_reading(dialect("gemini").read(replace(exchange, url=STREAM_URL)))
    assert all(0 <= end <= len(exchange.response_body) for end in document_ends(exchange))
    part = exchange_part(exchange)
    json.dumps(part, ensure_ascii=False, allow_nan=False).encode()
    for line in exchange_lines(part, 80):
        assert len(line) <= 80
        assert not (DRIVING & {unicodedata.category(char) for char in line if char != "\t"})


def exchange_of(tried: Input) -> Exchange:
    """Return the exchange that an input describes."""
    return make_exchange(
        status=tried.status, response_headers=tried.headers, response_body=tried.body, state=tried.state
    )


def read_request(body: bytes) -> None:
    """Read a request body in every dialect."""
    for speaks in DIALECTS:
        try:
            reading = speaks.read_request(body, STREAM_URL)
        except WireError:
            continue
        else:
            for message in reading.messages:
                message.content.encode()
            json.dumps(dict(reading.sampling), allow_nan=False)
            ", ".join(reading.extra).encode()


def check_framing(data: bytes) -> None:
    """A stream gives the same events whole and in pieces."""
    step = max(len(data) // PIECES, 1)
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    for make in (SseParser, NdjsonParser, JsonArrayParser):
        whole, parts = make(), make()
        first = [*whole.feed(data), *whole.close()]
        assert first == [*(e for piece in pieces for e in parts.feed(piece)), *parts.close()]
    stream = EventStreamParser()
    assert EventStreamParser().feed(data) == [message for piece in pieces for message in stream.feed(piece)]


def check_reading(reading: Reading) -> None:
    """A state, texts that can be stored, counts that are counts."""
    assert reading.state in get_args(ReadingState)
    for text in (reading.text, reading.reasoning, reading.refusal, reading.error, reading.model, *reading.problems):
        (text or "").encode()
    usage = reading.usage
    for count in (usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens):
        assert count is None or (type(count) is int and 0 <= count < 2**53)
    assert all(isinstance(name, str) for name in reading.events)
