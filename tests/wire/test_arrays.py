import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.wire.arrays import JsonArrayParser
from probe.wire.framing import JsonLine
from tests.wire.strategies import JSON

ARRAYS = st.builds(
    lambda values, indent, ascii_only: json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode(
        "utf-8", "surrogatepass"
    ),
    st.lists(JSON, max_size=5),
    st.none() | st.integers(0, 3),
    st.booleans(),
)


def elements(data: bytes, cuts: Any = ()) -> list[JsonLine]:
    parser, found, start = JsonArrayParser(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += parser.feed(data[start:cut])
        start = max(start, cut)
    return [*found, *parser.close()]


@given(
    st.lists(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
)
def test_the_elements_of_any_array(values: list[Any]) -> None:
    for indent in (None, 2):
        data = json.dumps(values, indent=indent).encode()
        found = elements(data)
        assert [json.loads(element.data) for element in found] == values
        assert all(element.complete for element in found)
        for element in found:
            assert data[: element.end].decode().rstrip().endswith(element.data)


@given(ARRAYS | st.binary(max_size=60), st.data())
def test_the_same_elements_however_the_bytes_arrive(data: bytes, drawn: st.DataObject) -> None:
    cuts = drawn.draw(st.lists(st.integers(0, len(data)), max_size=8))
    assert elements(data, cuts) == elements(data)


@given(ARRAYS, st.data())
def test_the_beginning_of_an_array_has_its_first_elements(data: bytes, drawn: st.DataObject) -> None:
    whole = elements(data)
    part = elements(data[: drawn.draw(st.integers(0, len(data)))])
    full = [element for element in part if element.complete]
    assert full == whole[: len(full)]
    assert len(part) <= len(full) + 1


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"", []),
        (b"[]", []),
        (b"\xef\xbb\xbf[1]", ["1"]),
        (b"x [1, 2] y", ["x", "1", "2", "y"]),
        (b'["a\\"],[", {"b": "}"}]', ['"a\\"],["', '{"b": "}"}']),
        (b"[1", ["1"]),
        (b"]", []),
        (b"[,]", []),
        (b'[{"a": 1}}, 2]', ['{"a": 1}', ", 2]"]),
    ],
)
def test_odd_ones(data: bytes, texts: list[str]) -> None:
    assert [element.data for element in elements(data)] == texts
