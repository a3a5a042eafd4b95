"""Declared blocks in the shapes of real providers: their bytes, and where these were read (files ``shapes*.toml``)."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

ShapeMechanism = Literal["declared_block", "cut_stream", "injected_text"]
Streams = Literal["same", "events", "cut"]

_SLOT = re.compile(r"\{(model|id|created|flagged|prompt_tokens)\}")
_SHORT = 100
"""OpenRouter's limit for the flagged input; beyond it the middle is left out (docs, errors and debugging)."""


@dataclass(frozen=True, slots=True)
class BlockShape:
    """How one provider declares a block.

    ``backend`` is the backend file that a route to it would name, and the lab's front. ``mechanism`` is what a probe
    ought to call it where the answer is not streamed. ``body`` is the JSON of that answer, with slots ``{model}``,
    ``{id}``, ``{created}``, ``{flagged}`` (what the user wrote) and ``{prompt_tokens}``.

    ``streams`` tells what a client gets that asked for a stream: ``same`` the same body, for the error comes before the
    stream; ``events`` the ``events`` alone; ``cut`` some pieces of the model's answer, then the events. ``framing`` is
    what stands before each event's data. ``headers`` go beside those of every answer.
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

    def fill(self, values: Mapping[str, Any]) -> bytes:
        """Return the body with its slots filled; texts are escaped for JSON."""
        return _fill(self.body, values)

    def fill_events(self, values: Mapping[str, Any]) -> bytes:
        """Return the events as they are sent."""
        return b"".join(self.framing.encode() + _fill(event, values) + b"\n\n" for event in self.events)

    @property
    def needs_count(self) -> bool:
        """Whether the number of the prompt's tokens stands in it."""
        return any("{prompt_tokens}" in part for part in (self.body, *self.events))

    def mechanism_of(self, *, stream: bool) -> str:
        """Return what a probe ought to call the answer."""
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
        for value, kind in ((shape.mechanism, ShapeMechanism), (shape.streams, Streams)):
            if value not in get_args(kind):
                raise ValueError(f"{path.name}: the shape {name!r} says {value!r}, which is none of {get_args(kind)}.")
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
    marked = re.sub(r'(?<!["\w])\{(created|prompt_tokens)\}(?!["\w])', r'"\\u0000{\1}"', template)
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
