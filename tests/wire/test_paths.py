"""The keys that an expression needs: leaving an expression out must never lose a match."""

from typing import Any

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jmespath.exceptions import JMESPathError

from probe.wire.catalogue import backend_names, load_backend
from probe.wire.paths import first_keys, keys_of, needed_keys

NAMES = ["a", "b", "c", "x"]
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "x", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
PATHS = [
    "a",
    "a.b",
    "[a, b.c]",
    "[a, b][].c",
    "[[a, b], c]",
    "a[0].[b, c][]",
    "a[].b[].c",
    "a.*.b",
    "*.b",
    "a.*[] | [?b && !c].b",
    "a[?b=='x'].c",
    "a || b",
    "a && b",
    "a || 'none'",
    "type(a)",
    "a.type(b)",
    "a | type(@)",
    "[a, b] == `[null, null]`",
    "!a",
    "{x: a}",
    "a[1:].b",
    "@",
    "@.a",
]


def found(path: str, document: Any) -> list[Any]:
    try:
        value = jmespath.search(path, document)
    except JMESPathError:
        return []
    return [entry for entry in (value if isinstance(value, list) else [value]) if entry is not None]


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=150, deadline=None)
@given(document=DOCUMENTS)
def test_what_is_left_out_would_have_found_nothing(path: str, document: Any) -> None:
    needs = needed_keys(jmespath.compile(path).parsed)
    if needs is not None and not any(needed <= keys_of(document) for needed in needs):
        assert found(path, document) == []


@pytest.mark.parametrize(
    ("path", "needs"),
    [
        ("error.metadata.error_type", [{"error", "metadata", "error_type"}]),
        ("[error.code, code]", [{"error", "code"}, {"code"}]),
        ("a[?type=='x' && b.c=='y'].name", [{"a", "name"}]),
        ("choices[0].[message, delta][].refusal", [{"choices", "refusal"}]),
        ("a || b", [{"a"}, {"b"}]),
        ("a || 'none'", None),
        ("type(a)", None),
        ("logprobs.a", None),
        ("@", None),
    ],
)
def test_needed_keys(path: str, needs: list[set[str]] | None) -> None:
    expected = None if needs is None else tuple(frozenset(names) for names in needs)
    assert needed_keys(jmespath.compile(path).parsed) == expected


def test_keys_of_a_document() -> None:
    document = {"a": None, "b": [{"c": 1}, [{"d": {"e": []}}]], "logprobs": {"content": [{"token": "x"}]}}
    assert keys_of(document) == {"b", "c", "d", "e", "logprobs"}
    assert keys_of([1, "x", None]) == set()


def test_nearly_all_shipped_expressions_are_known() -> None:
    conditions = {c.path: c for name in backend_names() for s in load_backend(name).signatures for c in s.json}
    unknown = [path for path, condition in conditions.items() if condition.needs is None]
    assert len(unknown) <= 5, unknown


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=150, deadline=None)
@given(document=DOCUMENTS)
def test_a_document_without_the_first_keys_has_nothing(path: str, document: Any) -> None:
    keys = first_keys(jmespath.compile(path).parsed)
    if keys is not None and isinstance(document, dict) and keys.isdisjoint(document):
        assert found(path, document) == []


@pytest.mark.parametrize(
    ("path", "keys"),
    [("a.b", {"a"}), ("a || b[0].c", {"a", "b"}), ("a[].b | c", {"a"}), ("a || 'x'", None), ("*.a", None), ("@", None)],
)
def test_the_first_keys(path: str, keys: set[str] | None) -> None:
    assert first_keys(jmespath.compile(path).parsed) == keys
