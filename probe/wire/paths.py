"""Tells from a JMESPath expression which keys a document must have for the expression to find anything in it.

Most responses carry no signature at all, so nearly every expression can be left out without being evaluated.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_UNREAD = frozenset({"logprobs", "top_logprobs", "token_ids", "prompt_token_ids", "prompt_logprobs"})
"""Below these keys stand thousands of values, and none that an expression asks for, through a wildcard either."""

_MAKES_VALUES = frozenset({"function_expression", "literal", "comparator", "not_expression", "multi_select_dict"})
"""Kinds of nodes that have a value even where the document has nothing."""

_CHAINS = frozenset(
    {"subexpression", "index_expression", "projection", "value_projection", "filter_projection", "pipe", "flatten"}
)
"""Kinds of nodes that find something only if all their children do."""

Node = Mapping[str, Any]


def needed_keys(parsed: Node) -> tuple[frozenset[str], ...] | None:
    """Return alternatives, one of which a document must have in full, at any depth; ``None`` where that is not known.

    ``parsed`` is the syntax tree of ``jmespath.compile(…)``.
    """
    kinds, names = zip(*((node["type"], node.get("value")) for node in _nodes(parsed)), strict=True)
    if _MAKES_VALUES & set(kinds) or _UNREAD & {name for name in names if isinstance(name, str)}:
        return None
    found = tuple(dict.fromkeys(_alternatives(parsed, outermost=True)))
    return None if frozenset() in found else found


def first_keys(parsed: Node) -> frozenset[str] | None:
    """Return the keys, one of which a document must have at its top for an expression to find anything in it.

    ``None`` where that is not known.
    """
    if any(node["type"] in _MAKES_VALUES for node in _nodes(parsed)):
        return None
    if parsed["type"] in _CHAINS:
        return first_keys(parsed["children"][0])
    if parsed["type"] == "or_expression":
        found = [first_keys(child) for child in parsed["children"]]
        return None if None in found else frozenset[str]().union(*(keys for keys in found if keys is not None))
    return frozenset({str(parsed["value"])}) if parsed["type"] == "field" else None


def keys_of(document: Any) -> set[str]:
    """Return the keys of all objects in a document that have a value."""
    found: set[str] = set()
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key, entry in value.items():
                if entry is None:
                    continue
                found.add(key)
                if isinstance(entry, dict | list) and key not in _UNREAD:
                    pending.append(entry)
        elif isinstance(value, list):
            pending += [entry for entry in value if isinstance(entry, dict | list)]
    return found


def _children(node: Node) -> list[Node]:
    # A filter's condition chooses among what is there already; the children of a slice are numbers.
    children = node["children"][:2] if node["type"] == "filter_projection" else node["children"]
    return [child for child in children if isinstance(child, dict)]


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in _children(node):
        yield from _nodes(child)


def _alternatives(node: Node, *, outermost: bool) -> list[frozenset[str]]:
    kind, children = node["type"], _children(node)
    if kind in _CHAINS:
        first, *rest = children
        return _together(
            _alternatives(first, outermost=outermost), *(_alternatives(child, outermost=False) for child in rest)
        )
    if kind == "field":
        return [frozenset({node["value"]})]
    if kind == "or_expression" or (kind == "multi_select_list" and outermost):
        return [found for child in children for found in _alternatives(child, outermost=False)]
    if kind == "and_expression":
        return _alternatives(children[0], outermost=False)
    # An index, a slice, the document itself; and a list within a list is there even if it holds nothing.
    return [frozenset()]


def _together(*parts: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    found = [frozenset[str]()]
    for part in parts:
        found = [one | other for one in found for other in part]
    return found
