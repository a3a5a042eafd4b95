"""Declared blocks in the shapes of real providers: their bytes, and where these were read (files ``shapes*.toml``)."""

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from probe.lab.fronts.catalogue import FRONT_NAMES

ShapeMechanism = Literal["declared_block", "cut_stream", "injected_text"]
Streams = Literal["same", "events", "cut"]

_NUMBERS = "created|prompt_tokens|completion_tokens|total_tokens"
_SLOT = re.compile(rf"\{{(model|id|flagged|text|{_NUMBERS})\}}")
_SHORT = 100
"""OpenRouter's limit for the flagged input; beyond it the middle is left out (docs, errors and debugging)."""


@dataclass(frozen=True, slots=True)
class BlockShape:
    """How one provider declares a block.

    ``backend`` is the backend file that a route to it would name, and the lab's front. ``mechanism`` is what a probe
    ought to call it where the answer is not streamed. ``body`` is the JSON of that answer, with slots ``{model}``,
    ``{id}``, ``{created}``, ``{flagged}`` (what the user wrote), ``{text}`` (what was delivered before the block),
    ``{prompt_tokens}``, ``{completion_tokens}`` (pieces of that text) and ``{total_tokens}``.

    ``streams`` tells what a client gets that asked for a stream: ``same`` the same body, for the error comes before the
    stream; ``events`` the ``events`` alone; ``cut`` some pieces of the model's answer, then the events. ``framing`` is
    what stands before each event's data, where the front has no framing of its own. ``headers`` go beside those of
    every answer. ``stream_mechanism`` is what a probe ought to call a stream that its ``streams`` does not tell.
    """

    name: str
    provider: str
    backend: str
    source: str
    status: int
    body: str
    mechanism: ShapeMechanism = "declared_block"
    streams: Streams = "same"
    events: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    framing: str = "data: "
    stream_mechanism: ShapeMechanism | None = None

    def fill(self, values: Mapping[str, Any]) -> bytes:
        """Return the body with its slots filled; texts are escaped for JSON."""
        return _fill(self.body, values)

    def fill_events(self, values: Mapping[str, Any], frame: Callable[[bytes], bytes] | None = None) -> bytes:
        """Return the events as they are sent; ``frame`` is the framing of a front that has one of its own."""
        framed = frame or (lambda data: self.framing.encode() + data + b"\n\n")
        return b"".join(framed(_fill(event, values)) for event in self.events)

    @property
    def needs_count(self) -> bool:
        """Whether the number of the prompt's tokens stands in it."""
        slots = ("{prompt_tokens}", "{total_tokens}")
        return any(slot in part for part in (self.body, *self.events) for slot in slots)

    @property
    def needs_text(self) -> bool:
        """Whether an answer that is not streamed has some of the model's text, too."""
        return "{text}" in self.body

    def mechanism_of(self, *, stream: bool) -> str:
        """Return what a probe ought to call the answer."""
        if stream and self.stream_mechanism is not None:
            return self.stream_mechanism
        return "cut_stream" if stream and self.streams == "cut" else self.mechanism


def shorten(flagged: str) -> str:
    """Return what the user wrote as OpenRouter quotes it: the middle left out beyond 100 characters."""
    return flagged if len(flagged) <= _SHORT else f"{flagged[:48]}...{flagged[-48:]}"


def _fill(template: str, values: Mapping[str, Any]) -> bytes:
    def slot(found: re.Match[str]) -> str:
        value = values[found[1]]
        return json.dumps(value, ensure_ascii=False)[1:-1] if isinstance(value, str) else str(value)

    return _SLOT.sub(slot, template).encode()


def read_shapes(path: Path) -> dict[str, BlockShape]:
    """Read a file of shapes. Raises ``ValueError`` with one sentence where one is not as it should be."""
    found: dict[str, BlockShape] = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["shapes"]:
        name = entry.get("name")
        headers = tuple(entry.pop("headers", {}).items())
        events = tuple(_compact(event, name) for event in entry.pop("events", []))
        try:
            shape = BlockShape(**{**entry, "body": _compact(entry["body"], name)}, headers=headers, events=events)
        except (TypeError, KeyError) as error:
            raise ValueError(f"{path.name}: the shape {name!r} lacks or has an odd key: {error}.") from None
        streamed = shape.stream_mechanism or shape.mechanism
        said = ((shape.mechanism, ShapeMechanism), (streamed, ShapeMechanism), (shape.streams, Streams))
        for value, kind in said:
            if value not in get_args(kind):
                raise ValueError(f"{path.name}: the shape {name!r} says {value!r}, which is none of {get_args(kind)}.")
        if shape.backend not in FRONT_NAMES:
            raise ValueError(f"{path.name}: the shape {name!r} says {shape.backend!r}, which is none of the fronts.")
        if (shape.streams == "same") != (not shape.events):
            raise ValueError(f"{path.name}: the shape {name!r} needs events exactly where it streams its own.")
        if name in found or not shape.source:
            raise ValueError(f"{path.name}: the shape {name!r} stands there twice, or names no source.")
        found[shape.name] = shape
    return found


def _compact(template: str, name: str) -> str:
    """Return a template as servers write JSON, without the line breaks of the file; other texts (``[DONE]``) as is."""
    if not template.startswith("{"):
        return template
    # Numbers that are slots make the template no JSON until they are filled.
    marked = re.sub(rf'(?<!["\w])\{{({_NUMBERS})\}}(?!["\w])', r'"\\u0000{\1}"', template)
    try:
        value = json.loads(marked)
    except ValueError as error:
        raise ValueError(f"shapes: a body of {name!r} is not JSON: {error}.") from None
    dumped = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return re.sub(r'"\\u0000(\{\w+\})"', r"\1", dumped)


def _read_all() -> dict[str, BlockShape]:
    found: dict[str, BlockShape] = {}
    for path in sorted(Path(__file__).parent.glob("shapes*.toml")):
        for name, shape in read_shapes(path).items():
            if name in found:
                raise ValueError(f"{path.name}: the shape {name!r} stands in another file too.")
            found[name] = shape
    return found


BLOCK_SHAPES: Mapping[str, BlockShape] = _read_all()
"""All shapes by name; ``shapes.toml`` has those of OpenRouter and plain chat completions."""
