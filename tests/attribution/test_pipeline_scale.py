"""One process or two, bytes kept or let go, answers alike or not: the rows of an analysis are the same."""

import asyncio
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probe.attribution import pipeline
from probe.attribution.cases import read_cases
from probe.attribution.pipeline import Analysis, analyze
from probe.config import load_config
from probe.errors import ScoringError
from probe.evidence.made import lean, made
from probe.evidence.shapes import text_lengths
from probe.judge.rules import RulesJudge
from probe.lab.platform_spec import Platform, Screen
from probe.lab.server import LabServer
from probe.runs.execute import execute, load_packs
from probe.runs.plan import Pack
from probe.scoring.llamacpp import LlamaCppScorer
from probe.serve.llamacpp import LlamaCppServer
from probe.store.rows import RouteRow, WeightsRow
from probe.store.store import Store
from probe.wire.framing import SseParser, plain_events
from probe.wire.openai_chat import OpenAiChat
from probe.wire.pieces import Piece, TextPiece
from tests.kit import make_exchange
from tests.study_kit import CANNED, hosted_route, local_route, write_config

CONTROLS, ATTACKS = 16, 30
TABLES = ("outcomes", "evidence", "verdicts", "gates", "effects", "served")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, toy_server: LlamaCppServer) -> tuple[Path, str]:
    """A recorded study of a twin and two hosted routes that was analysed once; and the twin's address."""
    assert toy_server.info is not None
    folder = tmp_path_factory.mktemp("scale")
    pack = load_packs(["fictional"])[0]
    attacks = [trace for trace in pack.traces if not trace.control][:ATTACKS]
    controls = [trace for trace in pack.traces if trace.control][:CONTROLS]
    subjects = tuple(sorted({str(t.labels["subject"]) for t in attacks if t.labels.get("subject")}))
    silent = Platform("silent", screen=Screen(words=subjects, rate=0.6), action="injected_text", texts=(CANNED,))
    with LabServer([Platform("transparent"), silent], toy_server.info.url, "toy", seed=4) as lab:
        hosted = {name: hosted_route(f"{lab.url}/{name}") for name in ("transparent", "silent")}
        config = load_config(write_config(folder / "probe.toml", {"local": local_route(toy_server.info.url), **hosted}))
        execute(config, folder / "probe.db", [Pack(pack.row, (*attacks, *controls))], seed=1, repeats=1)
    analysed(folder / "probe.db", toy_server.info.url, workers=1)
    return folder / "probe.db", toy_server.info.url


def analysed(database: Path, url: str, *, workers: int) -> tuple[Analysis, dict[str, int]]:
    """Analyse with the real scorer; return what was found and how many exchanges each route has."""

    async def go() -> Analysis:
        scorer = LlamaCppScorer(url, weights="toy")
        try:
            with Store.open(database) as store:
                found = await analyze(store, {"local": scorer}, workers=workers)
                counts.update({key: len(cases) for key, cases in found.cases.items()})
                judged.update({s.case.exchange_id: s.case.outcome for cases in found.cases.values() for s in cases})
                return found
        finally:
            await scorer.aclose()

    counts: dict[str, int] = {}
    judged: dict[str, str] = {}
    found = asyncio.run(go())
    rows = sqlite3.connect(database).execute("SELECT exchange_id, outcome FROM outcomes").fetchall()
    assert judged == dict(rows), "cases that are read again are those that were judged"
    return found, counts


def rows_of(database: Path) -> Mapping[str, list[Any]]:
    connection = sqlite3.connect(database)
    try:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall() for table in TABLES}
    finally:
        connection.close()


def test_one_process_and_two_give_the_same_rows(recorded: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    database, url = recorded
    first = rows_of(database)
    assert all(first.values())
    _, counts = analysed(database, url, workers=2)
    assert rows_of(database) == first
    monkeypatch.setattr(pipeline, "SMALL", 1)
    found, again = analysed(database, url, workers=1)
    assert rows_of(database) == first
    assert counts == again
    assert found.exchanges == len(first["outcomes"]) == sum(counts.values())


def test_workers_leave_to_the_first_process_what_only_a_server_can_tell(
    recorded: tuple[Path, str], capfd: pytest.CaptureFixture[str]
) -> None:
    database, url = recorded
    first = rows_of(database)
    with Store.open(database) as store:
        store.clear_scores()
    found, _ = analysed(database, url, workers=2)
    assert not any(route.unscored for route in found.routes)
    assert "Traceback" not in capfd.readouterr().err
    # Scores that are made again under load may differ in the last digits: what was decided does not.
    who = [[row[:2] for row in rows["verdicts"]] for rows in (first, rows_of(database))]
    assert len(who[0]) == len(who[1])


class Absent:
    """A scorer whose server is gone."""

    name, version, vocabulary = "llamacpp-grammar", "1/toy/top64", 300

    async def _gone(self, *_: object) -> Any:
        raise ScoringError("Nobody answers.")

    prompt_ids = text_ids = answer_ids = score = ends = _gone

    async def aclose(self) -> None: ...


def test_a_server_that_is_gone_is_said_whoever_asks(recorded: tuple[Path, str], tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with sqlite3.connect(recorded[0]) as old, sqlite3.connect(copy) as new:
        old.backup(new)
    with Store.open(copy) as store:
        for workers in (1, 2):
            found = asyncio.run(analyze(store, {"local": Absent()}, workers=workers))
            assert {route.unscored for route in found.routes} == {"Nobody answers."}


def test_bytes_can_go_once_they_are_read(recorded: tuple[Path, str]) -> None:
    with Store.open(recorded[0]) as store:
        for key, route in store.routes().items():
            refs, traces = store.refs(route_id=key), store.traces()
            whole = read_cases(store, route, refs, traces, RulesJudge())
            small = read_cases(store, route, refs, traces, RulesJudge(), lean=True)
            assert len(whole) == CONTROLS + ATTACKS or route.role == "local"
            for one, other in zip(whole, small, strict=True):
                # By what they show: times that are unknown are not equal to themselves.
                assert repr(other.case) == repr(lean(one.case))
                assert repr(made(other.case)) == repr(made(replace(one.case, made=None)))
                assert not other.case.reading.documents
                assert (other.outcome, other.messages) == (one.outcome, one.messages)


def _stream(*texts: str, finish: str = "stop") -> bytes:
    documents: list[Any] = [{"id": "x", "choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    documents.append({"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return b"".join(b"data: " + json.dumps(d).encode() + b"\n\n" for d in documents) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "texts",
    [
        ("Hello", " there", "", '"quoted"', "back\\slash", "tab\tnew\nline", "naïve", "日本", "\ud83d", "\ude00"),
        ('","x":"', "}}", '"content":"', "\\", "\\\\", '"'),
        ("a",),
    ],
)
def test_pieces_that_are_alike_are_read_like_any_others(texts: tuple[str, ...]) -> None:
    body = _stream(*texts)
    quick = OpenAiChat().read(_exchange(body))
    # A comment of two lines is nothing that the quick way takes.
    slow = OpenAiChat().read(_exchange(b": one\n: two\n\n" + body))
    assert plain_events(b": one\n: two\n\n" + body) is None
    assert quick == slow
    assert text_lengths(quick.documents) == text_lengths(slow.documents)
    assert any(isinstance(d, TextPiece) for d in quick.documents) == (len(texts) > 1)


def test_what_is_not_only_text_is_read_in_full() -> None:
    same = {"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}}]}
    others = [
        {"id": "x", "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}]},
        {"id": "x", "choices": [{"index": 0, "delta": {"content": "b", "reasoning": "c"}}]},
        {"id": "x", "choices": [{"index": 0, "delta": {"content": "b"}}, {"index": 1, "delta": {"content": "z"}}]},
        {"id": "y", "choices": [{"index": 0, "delta": {"content": "b"}}]},
        {"id": "x", "error": {"message": "bad"}, "choices": [{"index": 0, "delta": {"content": "b"}}]},
    ]
    piece = Piece.of(json.dumps(same), same)
    assert piece is not None
    assert all(piece.text_of(json.dumps(other)) is None for other in others)
    adding = {"id": "x", "choices": [{"index": 0, "delta": {"content": "a", "reasoning": "b"}}]}
    assert Piece.of(json.dumps(adding), adding) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"data: a",
        b"data: a\n\n\n",
        b"data: a\r\n\r\n",
        b"data:a\n\n",
        b"\xef\xbb\xbfdata: a\n\n",
        b"data: \xff\n\n",
    ],
)
def test_odd_streams_are_left_to_the_parser(body: bytes) -> None:
    assert plain_events(body) is None


def test_plain_streams_are_split_like_the_parser_does() -> None:
    body = b": hello\n\ndata: a\n\ndata: \n\ndata:  b \n\n: x\n\ndata: [DONE]\n\n"
    assert plain_events(body) == [event.data for event in SseParser().feed(body)]


def test_one_body_under_other_headers_or_status_is_another_answer() -> None:
    """Bodies are stored once per content: nothing that is remembered of one answer may be taken for another."""
    body = json.dumps({"error": {"message": "Request blocked by content filter: x", "code": 403}})
    with Store.memory() as store:
        weights = WeightsRow("w")
        store.add_weights(weights)
        route = RouteRow("r", "openrouter", "openai-chat", "http://x", "m", weights.id, "hosted")
        store.add_route(route)
        headers = (("content-type", "application/json"),)
        for number, (status, more) in enumerate([(403, ()), (200, ()), (403, (("server", "x"),)), (500, ())]):
            store.save_exchange(
                _exchange(body.encode(), id=f"e{number}", route_id=route.id, status=status, headers=(*headers, *more)),
                "planned",
            )
        found = read_cases(store, route, store.refs(), {}, RulesJudge())
    assert len({json.dumps(sorted(sent.case.reading.error or "")) for sent in found}) == 1
    assert [sent.case.made.features["status"] for sent in found if sent.case.made] == ["403", "200", "403", "500"]
    assert [sent.case.made.features["header server"] for sent in found if sent.case.made][2] == "x"
    assert [sent.case.outcome for sent in found] == ["blocked", "error", "blocked", "error"]


def _exchange(body: bytes, *, headers: Any = (("content-type", "text/event-stream"),), **more: Any) -> Any:
    return make_exchange(**{"response_body": body, "response_headers": headers, "trial_id": None, **more})
