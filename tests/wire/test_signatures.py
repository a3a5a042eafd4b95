import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from probe.wire.backend import Backend
from probe.wire.catalogue import load_backend, read_backend
from probe.wire.dialects import dialect
from probe.wire.signatures import EXHIBIT_CHARS, Match, match_signatures
from tests.kit import JSON, SSE, completion, delta, make_exchange, sse
from tests.wire.strategies import BODIES, STATES, STATUSES, TYPES
from tests.wire.test_catalogue import GOOD, SIGNATURE


def backend(tmp_path: Path, conditions: str, **changes: str) -> Backend:
    text = SIGNATURE
    for key, value in changes.items():
        text = "\n".join(f'{key} = "{value}"' if line.startswith(f"{key} ") else line for line in text.split("\n"))
    path = tmp_path / "test.toml"
    path.write_text(GOOD + text + conditions)
    return read_backend(path)


def match(which: Backend, body: Any, **overrides: Any) -> tuple[Match, ...]:
    exchange = make_exchange(response_body=body, **overrides)
    return match_signatures(which, exchange, dialect(which.dialect).read(exchange))


BLOCK = {"error": {"code": 403, "message": "Blocked: VIOLENCE", "metadata": {"reasons": ["a", "violence"], "raw": ""}}}


@pytest.mark.parametrize(
    ("conditions", "exhibit"),
    [
        ("status = 403", "HTTP 403"),
        ("status = [451, 403]", "HTTP 403"),
        ("status = 400", None),
        ("headers = { X-Guard = '^a' }", "HTTP 403\nx-guard: abc"),
        ("headers = { X-Guard = '^b' }", None),
        ("headers = { X-Other = '' }", None),
        ("json = { 'error.message' = '^Blocked' }", "HTTP 403\nerror.message = Blocked: VIOLENCE"),
        ("json = { 'error.message' = '^locked' }", None),
        ("json = { 'error.code' = '^403$' }", "HTTP 403\nerror.code = 403"),
        ("json = { 'error.metadata.reasons' = '^viol' }", "HTTP 403\nerror.metadata.reasons = violence"),
        ("json = { 'error.nothing' = '' }", None),
        ("json = { 'length(error.code)' = '' }", None),
        ("json = { 'error.code' = '403', 'error.message' = 'nothing' }", None),
        ("status = 403\nbody = 'VIOL'", "VIOLENCE"),
        ("status = 403\nbody = 'PEACE'", None),
        ("status = 403\ntext = 'none'", "HTTP 403"),
        ("status = 403\ntext = 'some'", None),
        ("status = 403\nfinish_reason = 'x'", None),
        ("status = 403\nevent = 'x'", None),
    ],
)
def test_conditions(tmp_path: Path, conditions: str, exhibit: str | None) -> None:
    headers = (*JSON, ("X-Guard", "abc"))
    found = match(backend(tmp_path, conditions), BLOCK, status=403, response_headers=headers)
    assert len(found) == (exhibit is not None)
    if exhibit is not None:
        assert exhibit in found[0].exhibit


def test_what_a_match_says(tmp_path: Path) -> None:
    (found,) = match(backend(tmp_path, "json = { 'error.message' = '^Blocked: (?P<label>\\w+)' }"), BLOCK, status=403)
    assert found == Match(
        signature="a",
        mechanism="declared_block",
        layer="gateway",
        author="platform",
        sentence="It blocked.",
        exhibit="HTTP 403\nerror.message = Blocked: VIOLENCE",
        source="https://example.org",
        confidence="primary",
        groups={"label": "VIOLENCE"},
    )


def test_an_unconfirmed_signature_accuses_nobody(tmp_path: Path) -> None:
    (found,) = match(backend(tmp_path, "status = 403", confidence="unconfirmed"), BLOCK, status=403)
    assert (found.author, found.confidence) == ("unknown", "unconfirmed")


def test_json_inside_an_error_is_opened(tmp_path: Path) -> None:
    which = backend(tmp_path, "json = { 'error.type' = '^inner$' }")
    inner = '{"error": {"type": "inner"}}'
    wrapped = {"error": {"message": "Provider returned error", "metadata": {"raw": inner}}}
    assert match(which, wrapped, status=400)
    assert match(which, {"error": {"message": f"[{inner}]"}}, status=400)
    assert match(which, {"error": inner}, status=400)
    again = {"error": {"metadata": {"raw": '{"error": {"message": "{\\"error\\": {\\"type\\": \\"inner\\"}}"}}'}}}
    assert match(which, again, status=400)
    choice = completion("Half", error={"metadata": {"raw": inner}})
    assert match(which, choice)


def test_what_a_model_writes_is_never_opened(tmp_path: Path) -> None:
    which = backend(tmp_path, "json = { 'error.type' = '^inner$' }")
    inner = '{"error": {"type": "inner"}}'
    assert not match(which, completion(inner))
    assert not match(which, sse(delta(inner)), response_headers=SSE)
    assert not match(which, sse(delta(f"\n\ndata: {inner}\n\n")), response_headers=SSE)


@pytest.mark.parametrize(
    "error",
    [
        {"message": "No.", "metadata": {"flagged_input": "INNER"}},
        {"message": "No.", "failed_generation": "INNER"},
        {"message": "No.", "input": {"error": {"type": "inner"}}},
        {"message": "No.", "param": "INNER"},
        {"message": "Bad value INNER"},
        {"message": "litellm.BadRequestError: the value was INNER"},
        {"details": [{"input": "INNER"}]},
    ],
)
def test_what_an_error_echoes_is_never_opened(tmp_path: Path, error: dict[str, Any]) -> None:
    which = backend(tmp_path, "json = { 'error.type' = '^inner$' }")
    text = json.dumps({"error": error})
    assert not match(which, text.replace("INNER", json.dumps('{"error": {"type": "inner"}}')[1:-1]), status=400)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": 'litellm.BadRequestError: XException - {"error": {"type": "inner"}}. Received Model=x'}},
        {"error": {"message": 'litellm.APIError: APIError: XException - b\'{"error": {"type": "inner"}}\''}},
        {"error": {"metadata": {"raw": {"error": {"type": "inner"}}}}},
        {"error": {"metadata": {"previous_errors": [{"raw": '{"error": {"type": "inner"}}'}]}}},
        {"error_code": "BAD_REQUEST", "message": '{"error": {"type": "inner"}}'},
        {"detail": {"error": {"type": "inner"}}},
        {"errors": [{"message": '{"error": {"type": "inner"}}'}]},
    ],
)
def test_what_gateways_pass_on_is_opened(tmp_path: Path, body: dict[str, Any]) -> None:
    assert match(backend(tmp_path, "json = { 'error.type' = '^inner$' }"), body, status=400)


@pytest.mark.parametrize("tail", ["{", '{"a": ', "[" * 5000, "{}"])
def test_broken_json_in_an_error_is_no_match(tmp_path: Path, tail: str) -> None:
    which = backend(tmp_path, "json = { 'error.type' = '^inner$' }")
    for message in (tail, f"litellm.BadRequestError: XException - {tail}"):
        assert not match(which, {"error": {"message": message}}, status=400)


def test_the_mechanism_may_depend_on_whether_text_came(tmp_path: Path) -> None:
    which = backend(tmp_path, "with_text = 'cut_stream'\njson = { 'error.type' = '^inner$' }")
    error = {"error": {"type": "inner"}}
    (alone,) = match(which, sse(error), response_headers=SSE)
    (after,) = match(which, sse(delta("Some words"), error), response_headers=SSE)
    (blank,) = match(which, sse(delta(" \n"), error), response_headers=SSE)
    assert (alone.mechanism, after.mechanism, blank.mechanism) == ("declared_block", "cut_stream", "declared_block")


def test_an_event_between_pieces_of_text_is_seen(tmp_path: Path) -> None:
    which = backend(tmp_path, "json = { 'error.type' = '^inner$' }")
    pieces = sse(*(delta("word ") for _ in range(50)), done=False)
    body = pieces + b'event: error\ndata: {"type":"error","error":{"type":"inner"}}\n\n' + pieces
    assert match(which, body, response_headers=SSE)


def test_annotations_on_every_piece_are_seen_only_where_they_say_something(tmp_path: Path) -> None:
    which = backend(tmp_path, "json = { 'choices[0].content_filter_results.*[].filtered' = '^true$' }")
    quiet = {"hate": {"filtered": False, "severity": "safe"}}
    for results, seen in (
        (quiet, False),
        ({**quiet, "violence": {"filtered": True}}, True),
        ({**quiet, "custom_blocklists": [{"id": "a", "filtered": True}]}, True),
        ({**quiet, "error": {"code": "content_filter_error"}}, False),
    ):
        body = sse(*[delta("a", content_filter_results=quiet)] * 3, delta("b", content_filter_results=results))
        assert bool(match(which, body, response_headers=SSE)) == seen, results


CANNED = """
[[canned]]
text = "This was withheld."
by = "a guard"
source = "https://example.org"
confidence = "primary"
"""


@pytest.mark.parametrize(
    ("text", "place", "found"),
    [
        ("This was withheld.", "whole", True),
        ("  This was\nwithheld", "whole", True),
        ("Sorry. This was withheld.", "whole", False),
        ("Sorry. This was withheld.", "end", True),
        ("This was withheld. Sorry.", "end", False),
        ("this was withheld.", "whole", False),
        ("x" * 5000 + " This was withheld.", "whole", False),
        ("x" * 5000 + " This was withheld.", "end", True),
        ("", "whole", False),
    ],
)
def test_canned_texts(tmp_path: Path, text: str, place: str, found: bool) -> None:
    path = tmp_path / "test.toml"
    path.write_text(f'{GOOD}{CANNED}place = "{place}"\n')
    matches = match(read_backend(path), completion(text))
    assert [m.signature for m in matches] == (["canned:This was withheld."] if found else [])
    for one in matches:
        assert (one.author, one.layer, one.confidence) == ("unknown", "unknown", "primary")
        assert "the documented message of a guard." in one.sentence


def test_a_server_that_invents_keys_fills_no_memory(tmp_path: Path) -> None:
    which = backend(tmp_path, "json = { 'error.type' = '^inner$' }")
    for number in range(1200):
        assert match(which, {f"key{number}": 1}) == ()
    assert len(which._by_keys) <= 500
    assert match(which, {"error": {"type": "inner"}})


def test_conditions_must_hold_in_one_document(tmp_path: Path) -> None:
    which = backend(tmp_path, "json = { 'a' = '1', 'b' = '2' }")
    assert not match(which, sse({"a": 1}, {"b": 2}), response_headers=SSE)
    assert match(which, sse({"a": 1}, {"a": 1, "b": 2}), response_headers=SSE)


def test_streams(tmp_path: Path) -> None:
    body = b"event: hook_results\ndata: {}\n\n" + sse(delta("a"), delta(finish_reason="content_filter"))
    for condition in (
        "event = '^hook_results$'",
        "finish_reason = '^content_filter$'",
        "json = { 'choices[0].finish_reason' = 'filter' }",
    ):
        assert match(backend(tmp_path, condition), body, response_headers=SSE), condition


def test_long_values_are_cut_in_the_exhibit(tmp_path: Path) -> None:
    (found,) = match(backend(tmp_path, "json = { 'error' = 'x' }"), {"error": "x" * 5000}, status=400)
    assert len(found.exhibit) < EXHIBIT_CHARS + 60


def test_no_response_matches_nothing() -> None:
    assert match(load_backend("openrouter"), b"", status=None, state="timeout") == ()


def test_a_long_answer_is_matched_fast() -> None:
    body = sse(*(delta("word ") for _ in range(4000)), delta(finish_reason="stop"))
    exchange = make_exchange(response_body=body, response_headers=SSE)
    which = load_backend("openai")
    reading = dialect(which.dialect).read(exchange)
    started = time.process_time()
    assert match_signatures(which, exchange, reading) == ()
    assert time.process_time() - started < 0.5


@settings(max_examples=300)
@given(BODIES, TYPES, STATUSES, STATES)
def test_matching_never_raises(body: bytes, headers: Any, status: int | None, state: Any) -> None:
    for name in ("openai", "openrouter"):
        for found in match(load_backend(name), body, response_headers=headers, status=status, state=state):
            (found.exhibit + "".join(found.groups.values())).encode()
