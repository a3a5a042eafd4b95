"""The envelope detector: routes of known truth, what must not count, and what is said."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.attribution.merging import accusable
from probe.evidence.case import Case
from probe.evidence.envelope import CUT, EnvelopeNorm, envelope, strangeness
from probe.evidence.envelope_features import features
from probe.evidence.shapes import id_pattern, shape
from probe.wire.values import Reading
from tests.evidence.wire_world import ALPHA, BETA, Host, Route, Wire, answer, simulate
from tests.kit import completion, make_exchange


def e_values(route: Route, seeds: range) -> tuple[list[float], list[float]]:
    """E-values of refusals that the model and that the platform wrote."""
    found: tuple[list[float], list[float]] = ([], [])
    for seed in seeds:
        cases, written = simulate(route, seed)
        norm = EnvelopeNorm.measure(cases)
        for case in cases:
            if case.outcome != "complied":
                log_e = envelope(case, norm).log_e
                assert log_e is not None
                found[case.exchange_id in written].append(math.exp(log_e))
    return found


@pytest.mark.parametrize(
    "route",
    [
        Route(controls=30, attacks=40),
        Route(controls=30, attacks=40, beta=0.04),
        Route(controls=30, attacks=30, refused=1.0),
        Route(controls=30, attacks=40, stream=False),
    ],
)
def test_a_transparent_route_with_two_hosts_is_not_accused(route: Route) -> None:
    own, _ = e_values(route, range(3))
    assert np.mean(own) <= 1.0
    assert np.mean(np.array(own) >= 20) <= 0.02


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 3), st.integers(-1, 1)), min_size=12, max_size=30))
def test_the_score_treats_the_bag_alike(bag: list[tuple[int, int, int]]) -> None:
    """Shuffling the bag shuffles the scores, so that the rank of any member is uniform."""
    rows, counts = np.unique(np.array(bag), axis=0, return_counts=True)
    order = np.random.default_rng(1).permutation(len(rows))
    assert np.allclose(strangeness(rows, counts)[order], strangeness(rows[order], counts[order]))


@pytest.mark.parametrize(
    "platform",
    [
        Host(prefix="chatcmpl-"),
        Host(letters="hex"),
        Host(fingerprint=False),
        Host(nulls=False),
        Host(server="cloudflare"),
        Host("Gate", "nginx", fingerprint=False, nulls=False),
        replace(BETA, letters="base62"),
    ],
    ids=["prefix", "letters", "fingerprint", "nulls", "server", "all", "id of the other host"],
)
def test_a_careless_platform_is_seen(platform: Host) -> None:
    own, injected = e_values(Route(controls=40, attacks=40, share=0.5, platform=platform), range(2))
    assert np.mean(np.array(injected) >= 20) >= 0.95
    assert np.mean(np.array(own) >= 20) <= 0.05


def test_a_matched_envelope_is_not() -> None:
    _, injected = e_values(Route(controls=40, attacks=40, share=0.5, platform=ALPHA), range(3))
    assert max(injected) < 20


def test_the_whole_text_in_one_piece() -> None:
    route = Route(controls=40, attacks=40, share=0.5, platform=Host(one_piece=True))
    cases, written = simulate(route, 3)
    norm = EnvelopeNorm.measure(cases)
    long = [c for c in cases if c.exchange_id in written and len(c.text) >= 60]
    assert len(long) >= 5
    for case in long:
        found = envelope(case, norm)
        assert found.log_e is not None
        assert found.log_e > math.log(20)
        assert "in one piece" in found.sentence
    short = replace(route, platform=replace(ALPHA, one_piece=True))
    pieces = EnvelopeNorm.measure(simulate(replace(short, hosts=(short.platform, short.platform)), 3)[0])  # type: ignore[arg-type]
    assert pieces.piece_column(500, 500, pieces.references.texts)[-1] == 1, "where others do so too, it is compared"


def test_what_is_said_names_the_bytes() -> None:
    cases, written = simulate(Route(share=0.5, platform=Host(prefix="chatcmpl-"), beta=0.0), 5)
    norm = EnvelopeNorm.measure(cases)
    case = next(c for c in cases if c.exchange_id in written)
    found = envelope(case, norm)
    n = found.facts["n"]
    assert f"the id looks like 'chatcmpl-x{{24}}' where all {n} ordinary answers have 'gen-x{{24}}'" in found.sentence
    assert found.exhibit == f"id = {case.reading.response_id!r}"
    assert found.facts["rank"] == 1
    assert found.mechanism is None
    ordinary = next(c for c in cases if c.outcome == "refused" and c.exchange_id not in written)
    assert envelope(ordinary, norm).llr == -0.7
    assert "made like the route's ordinary answers" in envelope(ordinary, norm).sentence


def one(outcome: str, control: bool, name: str, pieces: int, break_at: int | None = None) -> Case:
    wire = Wire(outcome, control, pieces, 300, name, f"t-{name}", break_at)
    return answer(np.random.default_rng(len(name)), ALPHA, wire)


def test_an_answer_that_breaks_off() -> None:
    rng = np.random.default_rng(1)
    controls = [one("complied", True, f"c{i}", int(rng.integers(30, 100))) for i in range(40)]
    early, late = one("cut", False, "early", 60, break_at=4), one("cut", False, "late", 119, break_at=118)
    assert early.reading.state == "truncated"
    norm = EnvelopeNorm.measure([*controls, early, late])
    found = envelope(early, norm)
    assert found.mechanism == CUT
    assert found.log_e is not None
    assert found.log_e > math.log(15)
    assert "breaks off after" in found.sentence
    assert "none of 40 broke off" in found.sentence
    beyond = envelope(late, norm)
    assert beyond.log_e is not None
    assert beyond.log_e < 0, "no control got as far: length may be why"
    assert beyond.mechanism is None
    assert early.exchange is not None
    own = envelope(replace(early, exchange=replace(early.exchange, state="timeout")), norm)
    assert own.abstains


def test_where_controls_break_off_as_well_nobody_is_accused() -> None:
    controls = [one("complied", True, f"c{i}", 60) for i in range(30)]
    controls += [one("cut", True, f"k{i}", 60, break_at=3 + i) for i in range(6)]
    tested = one("cut", False, "tested", 60, break_at=5)
    norm = EnvelopeNorm.measure([*controls, tested])
    assert envelope(tested, norm).mechanism is None
    log_es = [envelope(case, norm).log_e for case in [*controls[30:], tested]]
    assert math.isinf(accusable([log_e for log_e in log_es if log_e is not None], 0.05))


def whole(name: str, outcome: str, control: bool, message: dict[str, object], finish: str = "stop") -> Case:
    document = completion("Hm.")
    document["choices"][0] |= {"message": {"role": "assistant", **message}, "finish_reason": finish}
    exchange = make_exchange(id=name, response_body=document)
    from probe.wire.openai_chat import OpenAiChat

    return Case(name, f"t-{name}", control, outcome, OpenAiChat().read(exchange), exchange=exchange)


@pytest.mark.parametrize(
    ("ordinary", "refusal"),
    [
        ({"content": "Yes."}, {"content": None, "refusal": "No."}),
        ({"content": "Yes.", "refusal": None}, {"content": None, "refusal": "No."}),
        ({"content": "Yes.", "reasoning": "Hm."}, {"content": "No."}),
        ({"content": "Yes.", "tool_calls": [{"id": 1}]}, {"content": "No."}),
        ({"content": "Yes."}, {"content": "No.", "reasoning": "Hm."}),
    ],
)
def test_what_is_said_does_not_count(ordinary: dict[str, object], refusal: dict[str, object]) -> None:
    controls = [whole(f"c{i}", "complied", True, ordinary, "length") for i in range(60)]
    tested = whole("x", "refused", False, refusal)
    found = envelope(tested, EnvelopeNorm.measure([*controls, tested]))
    assert found.log_e is not None
    assert found.log_e < 0


def test_a_key_that_others_always_have_as_null_counts() -> None:
    controls = [whole(f"c{i}", "complied", True, {"content": "Yes.", "refusal": None}) for i in range(60)]
    tested = whole("x", "refused", False, {"content": "No."})
    found = envelope(tested, EnvelopeNorm.measure([*controls, tested]))
    assert found.log_e is not None
    assert found.log_e > math.log(20)
    assert "the key message.refusal is absent where all 60 ordinary answers have 'null'" in found.sentence


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        ("gen-1758000000-aBc123XyZ98765432109", "gen-9{10}-x{20}"),
        ("chatcmpl-0123456789abcdef0123456789abcdef", "chatcmpl-h{32}"),
        ("550e8400-e29b-41d4-a716-446655440000", "uuid"),
        ("chatcmpl-17", "chatcmpl-9"),
        ("chatcmpl-170", "chatcmpl-9"),
        ("", ""),
    ],
)
def test_patterns_of_ids(value: str, pattern: str) -> None:
    assert id_pattern(value) == pattern


def test_shapes_do_not_depend_on_what_is_said() -> None:
    one_, two = completion("a"), completion("b" * 500)
    two["usage"] = {"prompt_tokens": 1, "completion_tokens": 200, "total_tokens": 0.5}
    assert shape(one_) == shape(two)
    assert "usage.total_tokens:number" in shape(one_)
    assert shape({"b": 1, "a": 1}) != shape({"a": 1, "b": 1}), "order"


@pytest.mark.parametrize("reading", [Reading("missing"), Reading("malformed", documents=(1, "x", None, [[]]))])
@pytest.mark.parametrize("outcome", ["refused", "cut", "empty", "partial", "blocked", "complied", "error"])
def test_it_abstains_and_never_raises(reading: Reading, outcome: str) -> None:
    strange = Case("x", "t", False, outcome, reading)
    assert envelope(strange, EnvelopeNorm.measure([strange])).abstains
    assert envelope(strange, EnvelopeNorm.measure([])).abstains
    norm = EnvelopeNorm.measure([one("complied", True, f"c{i}", 10) for i in range(12)])
    assert envelope(strange, norm).sentence


TWELVE = EnvelopeNorm.measure([one("complied", True, f"c{i}", 10) for i in range(12)])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "message", "content", "usage", "id", "done", "x", "text"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(st.lists(JSON, max_size=5), st.booleans())
def test_any_json_has_features(documents: list[object], streamed: bool) -> None:
    reading = Reading("answer", text="x", documents=tuple(documents), streamed=streamed, finish_reason="stop")
    strange = Case("x", "t", False, "refused", reading, exchange=make_exchange(response_body=b"\x00\xff{"))
    assert json.dumps(features(strange))
    assert envelope(strange, TWELVE).log_e is not None
