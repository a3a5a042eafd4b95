"""Reads packs: one JSON object a line, with a card (a Markdown file of the same name) beside it."""

import codecs
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, overload

from probe.errors import PackError
from probe.ids import content_hash
from probe.resources import data_folder
from probe.traces.values import Message, Sampling, Trace

_KEYS = {"name", "family", "control", "messages", "sampling", "labels"}
_ROLES = {"system", "user", "assistant"}
_SAMPLING = [field.name for field in fields(Sampling)]
_SHOWN = 20
"""Broken lines that an error names before it only counts them."""


def find_pack(name: str) -> Path:
    """Return the file of a pack: a path, or the name of one that ships (``fictional``)."""
    path = Path(name)
    if path.suffix or "/" in name:
        if not path.is_file():
            raise PackError(f"There is no pack file {name}.")
        return path
    shipped = data_folder("scenarios") / f"{name}.jsonl"
    if not shipped.is_file():
        known = ", ".join(sorted(file.stem for file in data_folder("scenarios").glob("*.jsonl")))
        raise PackError(f"There is no pack {name!r}: name a .jsonl file, or one of those that ship: {known}.")
    return shipped


class PackLines(Sequence[Trace]):
    """The traces of a pack that was checked, each made from its line when it is asked for.

    A pack of a hundred thousand traces costs no more memory than its file.
    """

    def __init__(self, data: bytes, lines: Iterable[tuple[int, int]]) -> None:
        """``lines``: where each trace's line begins and ends in ``data``."""
        self._data = data
        self._starts, self._ends = array("Q"), array("Q")
        for start, end in lines:
            self._starts.append(start)
            self._ends.append(end)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Trace: ...

    @overload
    def __getitem__(self, index: slice) -> list[Trace]: ...

    def __getitem__(self, index: int | slice) -> Trace | list[Trace]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return _trace(json.loads(self._data[self._starts[index] : self._ends[index]]))


def read_pack(path: Path) -> tuple[str, list[Trace]]:
    """Return the content hash and the traces of a pack; raises like ``open_pack``."""
    digest, lines = open_pack(path)
    return digest, list(lines)


def open_pack(path: Path) -> tuple[str, PackLines]:
    """Return the content hash and the traces of a pack.

    Raises ``PackError`` that names every broken line with what is wrong in it: a pack is read whole or not at all,
    because a study on what happened to parse is not the study that was planned.
    """
    try:
        data = path.read_bytes()
        data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PackError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    places: list[tuple[int, int]] = []
    wrong: list[str] = []
    names: dict[str, int] = {}
    end = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    # Not splitlines: it also splits at characters that JSON strings may hold.
    for number, line in enumerate(data[end:].split(b"\n"), 1):
        start, end = end, end + len(line) + 1
        if not line.strip():
            continue
        try:
            trace = _trace(json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            wrong.append(f"line {number}: {error}")
            continue
        if trace.name in names:
            wrong.append(f"line {number}: name {trace.name!r} stands on line {names[trace.name]} already")
        names.setdefault(trace.name, number)
        places.append((start, end))
    if wrong:
        more = f"\n  … and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        listed = "\n  ".join(wrong[:_SHOWN])
        raise PackError(f"{path} has {len(wrong)} broken line(s), nothing was read:\n  {listed}{more}")
    if not places:
        raise PackError(f"{path} holds no traces.")
    return content_hash(data), PackLines(data, places)


def _trace(value: Any) -> Trace:
    if not isinstance(value, dict):
        raise TypeError("expected a JSON object")
    unknown = set(value) - _KEYS
    if unknown:
        raise ValueError(f"unknown key {min(unknown)!r}; expected are {', '.join(sorted(_KEYS))}")
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages must be a list of at least one message")
    turns = tuple(_message(message) for message in messages)
    if turns[-1].role != "user":
        raise ValueError("the last message must be the user's")
    name = value.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("name must be a text")
    control, labels, family = value.get("control", False), value.get("labels", {}), value.get("family", "")
    if not isinstance(control, bool) or not isinstance(labels, dict) or not isinstance(family, str):
        raise TypeError("control must be true or false, labels an object, family a text")
    sampling = _sampling(value.get("sampling", {}))
    return Trace(name=name, messages=turns, sampling=sampling, family=family, control=control, labels=labels)


def _message(value: Any) -> Message:
    if not isinstance(value, dict) or set(value) != {"role", "content"}:
        raise ValueError("a message must have role and content and nothing else")
    if value["role"] not in _ROLES or not isinstance(value["content"], str):
        raise ValueError(f"a message's role must be one of {', '.join(sorted(_ROLES))} and its content a text")
    return Message(value["role"], value["content"])


def _sampling(value: Any) -> Sampling:
    if not isinstance(value, Mapping):
        raise TypeError("sampling must be an object")
    values: dict[str, Any] = {}
    for key, number in value.items():
        if key not in _SAMPLING:
            raise ValueError(f"unknown sampling parameter {key!r}; expected are {', '.join(_SAMPLING)}")
        whole = key in {"top_k", "max_tokens", "seed"}
        if key == "seed" and number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, int if whole else (int, float)):
            raise TypeError(f"sampling parameter {key} must be a {'whole ' if whole else ''}number, not {number!r}")
        values[key] = number if whole else float(number)
    return Sampling(**values)
