import sqlite3
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_study import Study, exchange_of

from probe.errors import StoreError
from probe.ids import new_id
from probe.store import Store
from probe.wire.values import Chunk, Exchange

LATIN = st.text(st.characters(codec="latin-1"), max_size=20)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PAIRS = st.lists(st.tuples(LATIN, LATIN), max_size=5).map(tuple)
MICRO = st.integers(0, 10**10).map(lambda n: n / 1e6)


@st.composite
def exchanges(draw: st.DrawFn) -> dict[str, Any]:
    body = draw(st.binary(max_size=3000) | st.binary(max_size=20).map(lambda b: b * 200))
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=6)))
    edges = [0, *cuts, len(body)]
    sizes = [after - before for before, after in pairwise(edges)]
    return {
        "attempt": draw(st.integers(1, 9)),
        "started_at": draw(st.integers(10**15, 2 * 10**15)) / 1e6,
        "method": draw(WORDS),
        "url": draw(WORDS),
        "request_headers": draw(PAIRS),
        "request_body": draw(st.binary(max_size=500)),
        "http_version": draw(st.none() | st.just("HTTP/2.0")),
        "status": draw(st.none() | st.integers(100, 599)),
        "reason": draw(st.none() | LATIN),
        "response_headers": draw(PAIRS),
        "response_body": body,
        "chunks": tuple(Chunk(size, draw(MICRO)) for size in sizes),
        "sent_at": draw(st.none() | MICRO),
        "head_at": draw(st.none() | MICRO),
        "ended_at": draw(st.none() | MICRO),
        "state": draw(st.sampled_from(["complete", "cut", "timeout", "unreachable", "client_gone"])),
        "error": draw(st.none() | WORDS),
        "redactions": draw(st.integers(0, 9)),
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(exchanges())
def test_any_exchange_comes_back_as_it_was(study: Study, values: dict[str, Any]) -> None:
    exchange = study.exchange(None, **values)
    study.store.save_exchange(exchange, "answered")
    assert study.store.exchange(exchange.id) == exchange


def test_times_are_kept_to_the_microsecond_and_in_order(study: Study) -> None:
    exchange = study.exchange(
        0, chunks=(Chunk(1, 0.12345649), Chunk(44, 0.1234564999)), ended_at=0.12345650001, started_at=1.23456789
    )
    study.store.save_exchange(exchange, "answered")
    got = study.store.exchange(exchange.id)
    assert [c.at for c in got.chunks] == [0.123456, 0.123456]
    assert got.ended_at == 0.123457
    assert got.started_at == 1.234568


def test_bodies_are_stored_once_and_small(study: Study) -> None:
    for number in range(4):
        study.store.save_exchange(study.exchange(number, request_body=b"a" * 5000, response_body=b""), "answered")
    rows = study.store.query("SELECT codec, size, length(data) FROM blobs ORDER BY size")
    assert rows[0] == ("raw", 0, 0)
    assert rows[1][:2] == ("zstd", 5000)
    assert rows[1][2] < 100
    assert len(rows) == 2


def test_text_that_utf8_cannot_say_does_not_lose_the_exchange(study: Study) -> None:
    exchange = study.exchange(0, url="http://x/\udcff", reason="\udcfe", request_headers=(("a", "\xff"),))
    study.store.save_exchange(exchange, "answered")
    got = study.store.exchange(exchange.id)
    assert got == replace(exchange, url="http://x/\\udcff", reason="\\udcfe")


def test_chunks_that_do_not_add_up_do_not_lose_the_exchange(study: Study) -> None:
    exchange = study.exchange(0, chunks=(Chunk(1, 0.5),))
    study.store.save_exchange(exchange, "answered")
    assert study.store.exchange(exchange.id) == exchange


def test_an_answer_makes_its_trial_answered(study: Study) -> None:
    store, run = study.store, study.run.id
    store.save_exchange(study.exchange(0, attempt=1, status=429), "planned")
    assert store.count_trials(run) == {"planned": 4, "answered": 0, "failed": 0, "spared": 0}
    store.save_exchange(study.exchange(0, attempt=2), "answered")
    store.save_exchange(study.exchange(1, status=500), "failed")
    assert store.count_trials(run) == {"planned": 2, "answered": 1, "failed": 1, "spared": 0}
    assert [t.id for t in store.trials(run, state="answered")] == [study.trials[0].id]
    assert [e.attempt for e in store.exchanges(answered=True)] == [2]
    assert [e.attempt for e in store.exchanges(trial_id=study.trials[0].id)] == [1, 2]


def test_the_first_answer_stays_the_answer(study: Study) -> None:
    first, second, late = study.exchange(0), study.exchange(0, attempt=2), study.exchange(0, attempt=3)
    study.store.save_exchange(first, "answered")
    study.store.save_exchange(second, "answered")
    study.store.save_exchange(late, "failed")
    assert [e.id for e in study.store.exchanges(answered=True)] == [first.id]
    assert len(list(study.store.exchanges())) == 3
    assert study.store.count_trials(study.run.id)["answered"] == 1


def test_refs_say_where_an_exchange_belongs(study: Study) -> None:
    inside, outside = study.exchange(2), study.exchange()
    study.store.save_exchange(inside, "answered")
    study.store.save_exchange(outside, "answered")
    trial = study.trials[2]
    ref, other = study.store.refs()
    assert (ref.id, ref.run_id, ref.trace_id, ref.repeat) == (inside.id, study.run.id, trial.trace_id, 0)
    assert (other.id, other.trial_id, other.run_id, other.trace_id) == (outside.id, None, None, None)
    assert ref.answered is True
    assert study.store.refs(run_id=study.run.id) == [ref]
    assert study.store.refs(trace_id=trial.trace_id, route_id=study.route.id, answered=True) == [ref]
    assert study.store.refs(answered=False) == []


def test_one_is_found_by_the_beginning_of_its_id(study: Study) -> None:
    ids = ["01890000-aaaa-7000-8000-000000000000", "01890000-aaab-7000-8000-000000000000"]
    for key in ids:
        study.store.save_exchange(study.exchange(id=key), "answered")
    assert study.store.exchange_by_prefix("01890000-AAAB").id == ids[1]
    assert study.store.exchange_by_prefix(ids[0]).id == ids[0]
    with pytest.raises(StoreError, match="More than one"):
        study.store.exchange_by_prefix("0189")
    for nothing in ("%", "018a", "01890000-aaac"):
        with pytest.raises(StoreError, match="No exchange"):
            study.store.exchange_by_prefix(nothing)
    with pytest.raises(StoreError, match="no exchange 0189 in"):
        study.store.exchange("0189")


def test_what_it_refers_to_must_be_there(study: Study) -> None:
    with pytest.raises(StoreError, match="refuses a row: FOREIGN KEY"):
        study.store.save_exchange(exchange_of("no route"), "answered")
    with pytest.raises(StoreError, match="refuses a row: FOREIGN KEY"):
        study.store.save_exchange(exchange_of(study.route.id, new_id()), "answered")
    assert study.store.query("SELECT count(*) FROM blobs") == [(0,)]


def test_exchanges_and_bodies_cannot_be_changed(study: Study) -> None:
    study.store.save_exchange(study.exchange(0), "answered")
    for sql in ("UPDATE exchanges SET status = 1", "DELETE FROM exchanges", "UPDATE blobs SET data = x'00'"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            study.store.connection.execute(sql)


def test_reading_goes_on_while_others_write(study: Study) -> None:
    for number in range(3):
        study.store.save_exchange(study.exchange(number), "answered")
    seen: list[Exchange] = []
    for exchange in study.store.exchanges():
        seen.append(exchange)
        study.store.save_exchange(study.exchange(), "answered")
    assert len(seen) == 3
    assert len(study.store.refs()) == 6


def test_damage_is_a_sentence(study: Study) -> None:
    exchange = study.exchange(0, response_body=b"a" * 1000)
    study.store.save_exchange(exchange, "answered")
    study.store.connection.execute("DROP TRIGGER blobs_never_change")
    for damage, words in (("data = x'00'", "is damaged"), ("codec = 'raw'", "bytes instead of 1000")):
        study.store.connection.execute(f"UPDATE blobs SET {damage} WHERE codec = 'zstd'")
        with pytest.raises(StoreError, match=words):
            study.store.exchange(exchange.id)
    study.store.connection.execute("PRAGMA foreign_keys = OFF")
    study.store.connection.execute("DELETE FROM blobs WHERE size = 1000")
    with pytest.raises(StoreError, match="is missing"):
        study.store.exchange(exchange.id)


def test_a_store_in_memory_does_the_same() -> None:
    with Store.memory() as store:
        study = Study(store)
        exchange = study.exchange(0)
        store.save_exchange(exchange, "answered")
        assert list(store.exchanges()) == [exchange]
