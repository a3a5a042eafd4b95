"""Packs: read whole or not at all, every broken line named."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import PackError
from probe.traces.pack import find_pack, read_pack
from probe.traces.values import Message, Sampling, Trace

GOOD = {"name": "a", "family": "direct", "messages": [{"role": "user", "content": "hello"}]}


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_a_pack_gives_traces(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", GOOD, "", {**GOOD, "name": "b", "control": True, "sampling": {"max_tokens": 5}})
    digest, traces = read_pack(path)
    assert len(digest) == 64
    assert [trace.name for trace in traces] == ["a", "b"]
    assert traces[1].control
    assert traces[1].sampling.max_tokens == 5


def test_every_broken_line_is_named(tmp_path: Path) -> None:
    broken = [
        "{not json",
        "[]",
        {**GOOD, "name": "c", "messages": []},
        {**GOOD, "name": "d", "messages": [{"role": "tool", "content": "x"}]},
        {**GOOD, "name": "e", "messages": [{"role": "assistant", "content": "x"}]},
        {**GOOD, "name": "f", "sampling": {"heat": 1}},
        {**GOOD, "name": "g", "sampling": {"top_k": 1.5}},
        {**GOOD, "name": "h", "extra": 1},
        {**GOOD, "name": ""},
        {**GOOD, "name": "i", "control": "yes"},
        GOOD,
    ]
    with pytest.raises(PackError) as caught:
        read_pack(write(tmp_path / "p.jsonl", GOOD, *broken))
    text = str(caught.value)
    assert f"{len(broken)} broken line(s)" in text
    for number in range(2, 2 + len(broken)):
        assert f"line {number}: " in text


def test_hundreds_of_broken_lines_are_counted(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="300 broken line") as caught:
        read_pack(write(tmp_path / "p.jsonl", *(["nonsense"] * 300)))
    assert "and 280 more" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xff\xfe\x00"])
def test_nothing_readable_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(data)
    with pytest.raises(PackError):
        read_pack(path)


def test_an_unknown_pack_names_those_that_ship() -> None:
    with pytest.raises(PackError, match="fictional"):
        find_pack("no-such-pack")


def test_the_shipped_pack_has_every_family_and_enough_controls() -> None:
    _, traces = read_pack(find_pack("fictional"))
    families = {trace.family for trace in traces if not trace.control}
    assert families == {"direct", "format-lock", "persona", "reasoning", "multi-turn"}
    assert sum(trace.control for trace in traces) >= 50
    assert len({trace.id for trace in traces}) == len(traces)


@given(st.text(min_size=1), st.text(), st.floats(0, 2))
def test_names_and_labels_do_not_change_the_id(name: str, content: str, temperature: float) -> None:
    messages, sampling = (Message("user", content),), Sampling(temperature=temperature)
    one = Trace(name, messages, sampling, family="x", labels={"a": 1})
    other = Trace("other", messages, sampling, control=True)
    assert one.id == other.id
    assert one.id != Trace(name, (*messages, Message("user", "more")), sampling).id
