import json
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.store.columns import from_json, plain, to_json

# A pair of lone surrogates that would read as one character is no text that any decoder yields.
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.just("lone \udcff")
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_json_comes_back(value: object) -> None:
    text = to_json(value)
    text.encode()
    assert from_json(text) == value


def test_what_json_does_not_know_is_said_in_words() -> None:
    assert from_json(to_json({"a": [float("inf"), -float("inf")], "b": MappingProxyType({"c": float("nan")})})) == {
        "a": ["Infinity", "-Infinity"],
        "b": {"c": "NaN"},
    }
    numbers = {"i": np.int64(3), "f": np.float64(0.5), "b": np.bool_(True), "s": {2, 1}, "m": MappingProxyType({})}
    assert json.loads(to_json(numbers)) == {"i": 3, "f": 0.5, "b": True, "s": [1, 2], "m": {}}
    with pytest.raises(TypeError, match="object is not a JSON value"):
        to_json(object())


def test_text_that_is_not_unicode_becomes_an_escape() -> None:
    assert plain("/path\udcff") == "/path\\udcff"
    assert plain("ü\x00") == "ü\x00"
