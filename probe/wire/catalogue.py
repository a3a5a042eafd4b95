"""Reads the backend files ``backends/*.toml`` and their shared parts ``backends/common/*.toml``.

A file that says something unknown, ill-typed or without a source is refused: a fact that nobody can check would end in
a verdict about somebody.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, get_args

import jmespath
from jmespath.exceptions import JMESPathError

from probe.errors import CatalogueError
from probe.resources import data_folder
from probe.traces.values import Sampling
from probe.wire.backend import (
    HEADER,
    REPORTED,
    TIMINGS,
    UNITS,
    Auth,
    Author,
    Backend,
    Canned,
    Confidence,
    Describe,
    Fact,
    JsonCondition,
    Kind,
    Layer,
    Limits,
    Listing,
    Mechanism,
    Parameter,
    ParameterMap,
    Place,
    Report,
    Signature,
)
from probe.wire.dialect import DIALECT_NAMES
from probe.wire.paths import first_keys, needed_keys
from probe.wire.tables import Table

__all__ = ["Backend", "backend_names", "load_backend", "read_backend"]

_SAMPLING = tuple(field.name for field in fields(Sampling))


def backend_names(search: Path | None = None) -> tuple[str, ...]:
    """Return the names of all backends, sorted; those in the folder ``search`` come with the shipped ones."""
    return tuple(sorted({path.stem for folder in _folders(search) for path in folder.glob("*.toml")}))


@cache
def load_backend(name: str, search: Path | None = None) -> Backend:
    """Return a backend by name; a file in the folder ``search`` goes before the shipped one.

    Raises ``CatalogueError``.
    """
    for folder in _folders(search):
        path = folder / f"{name}.toml"
        # Names come from users' files: one with a separator must not lead out of the folder.
        if path.parent == folder and path.is_file():
            return read_backend(path)
    near = get_close_matches(name.lower(), backend_names(search), n=3, cutoff=0.5)
    hint = f"; near it are: {', '.join(near)}" if near else ""
    raise CatalogueError(f"There is no backend {name!r}{hint}. `probe backends` lists all of them.")


def _folders(search: Path | None) -> list[Path]:
    return [*([search] if search else []), data_folder("backends")]


def read_backend(path: Path) -> Backend:
    """Read one backend file. Raises ``CatalogueError``."""
    table = _open(path)
    backend = Backend(
        name=path.stem,
        title=table.text("title"),
        kind=table.choice("kind", get_args(Kind)),
        dialect=table.choice("dialect", DIALECT_NAMES),
        describe=_describe(table),
        url=table.get("url", str),
        auth=_auth(table),
        key_env=table.get("key_env", str),
        headers=table.texts("headers"),
        request=table.get("request", dict, {}),
        stream_request=table.get("stream_request", dict, {}),
        parameters=_parameters(table.table("parameters")),
        stream_default=table.get("stream_default", bool, True),
        logprobs=table.get("logprobs", bool, False),
        limits=_limits(table),
        listing=_listing(table),
        **_findings(table, path),
    )
    table.done()
    _check_sources(table, backend)
    return backend


def _open(path: Path) -> Table:
    try:
        return Table(path, "", tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CatalogueError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogueError(f"{path} is not valid TOML: {error}.") from None


def _findings(table: Table, path: Path) -> dict[str, Any]:
    """Read what a backend file and a shared part both hold.

    The parts' signatures come first: what an upstream says of itself tells more than what a router makes of it.
    """
    found: dict[str, list[Any]] = {name: [] for name in _READERS}
    for part in _parts(table, path, set()):
        for name, read in _READERS.items():
            found[name] += [read(entry) for entry in part.tables(name)]
        if part is not table:
            part.done()
    seen: set[str] = set()
    for signature in found["signatures"]:
        if signature.id in seen:
            raise table.wrong("signatures", f"has the id {signature.id!r} twice")
        seen.add(signature.id)
    return {name: tuple(entries) for name, entries in found.items()}


def _parts(table: Table, path: Path, known: set[str]) -> Iterator[Table]:
    """Yield the parts that a file includes, each once and with its own parts before it, and the file itself at last."""
    for name in table.get("include", list, []):
        if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
            raise table.wrong("include", f"must be names of files in common/, not {name!r}")
        if name in known:
            continue
        known.add(name)
        part_path = path.parent / "common" / f"{name}.toml"
        if not part_path.is_file():
            part_path = data_folder("backends") / "common" / f"{name}.toml"
        yield from _parts(_open(part_path), path, known)
    yield table


def _describe(table: Table) -> Describe:
    if "describe" not in table:
        return Describe()
    entry = table.table("describe")
    describe = Describe(models=entry.text("models"), version=entry.get("version", str))
    entry.done()
    return describe


def _auth(table: Table) -> Auth | None:
    if "auth" not in table:
        return None
    entry = table.table("auth")
    if "kind" in entry and entry.choice("kind", ("header", "sigv4")) == "sigv4":
        auth = Auth(kind="sigv4", service=entry.text("service"))
    else:
        auth = Auth(header=entry.text("header"), scheme=entry.get("scheme", str, ""))
    entry.done()
    return auth


def _limits(table: Table) -> Limits:
    if "limits" not in table:
        return Limits()
    entry = table.table("limits")
    found: dict[str, Any] = {"only": entry.pattern("only")}
    for name in ("requests_per_minute", "requests_per_day", "tokens_per_minute", "tokens_per_day", "concurrency"):
        found[name] = entry.get(name, int)
        if found[name] is not None and found[name] < 1:
            raise entry.wrong(name, f"must be 1 or more, not {found[name]}")
    entry.done()
    return Limits(**found)


def _listing(table: Table) -> Listing | None:
    if "listing" not in table:
        return None
    entry = table.table("listing")
    listing = Listing(entry.text("path"), entry.choice("form", ("openrouter",)), entry.get("follow_up", str))
    entry.done()
    return listing


def _parameters(table: Table) -> ParameterMap:
    found: dict[str, Parameter] = {}
    for name in table.keys():  # noqa: SIM118 - a Table is no mapping
        if name not in _SAMPLING:
            raise table.wrong(name, f"is no sampling parameter; expected are {', '.join(_SAMPLING)}")
        found[name] = _parameter(table, name)
    return ParameterMap(found)


def _parameter(table: Table, name: str) -> Parameter:
    if not isinstance(table.raw(name), dict):
        return Parameter(table.text(name))
    entry = table.table(name)
    parameter = Parameter(entry.text("wire"), entry.get("off", int, required=True))
    entry.done()
    return parameter


def _fact(table: Table) -> Fact:
    about = table.get("about", list, required=True)
    if not about or not all(isinstance(key, str) for key in about):
        raise table.wrong("about", "must be a list of keys of this file")
    fact = Fact(tuple(about), table.text("says"), table.text("source"), _confidence(table))
    table.done()
    return fact


def _report(table: Table) -> Report:
    means: str = table.choice("means", REPORTED)
    field = table.text("field")
    unit = table.choice("unit", UNITS) if "unit" in table else None
    if (means in TIMINGS) != (unit is not None):
        raise table.wrong("unit", "stands exactly beside durations" if unit else "is missing: s, ms, us or ns")
    search, keys = None, None
    if not field.startswith(HEADER):
        compiled = _path(table, "field", field)
        search, keys = compiled.search, first_keys(compiled.parsed)
    elif field != field.lower() or not field.removeprefix(HEADER).strip():
        raise table.wrong("field", "must name a header in lower case")
    report = Report(field, means, table.text("source"), _confidence(table), unit, table.get("needs", str), search, keys)
    table.done()
    return report


def _path(table: Table, key: str, path: str) -> Any:
    try:
        return jmespath.compile(path)
    except JMESPathError as error:
        first = str(error).splitlines()[0]
        raise table.wrong(key, f"is not a JMESPath expression: {first}") from None


def _canned(table: Table) -> Canned:
    place: Place = table.choice("place", get_args(Place)) if "place" in table else "whole"
    canned = Canned(table.text("text"), table.text("by"), table.text("source"), _confidence(table), place)
    table.done()
    return canned


def _confidence(table: Table) -> Confidence:
    confidence: Confidence = table.choice("confidence", get_args(Confidence))
    return confidence


def _signature(table: Table) -> Signature:
    text = table.choice("text", ("none", "some")) if "text" in table else None
    signature = Signature(
        id=table.text("id"),
        mechanism=table.choice("mechanism", get_args(Mechanism)),
        layer=table.choice("layer", get_args(Layer)),
        author=table.choice("author", get_args(Author)),
        sentence=table.text("sentence"),
        source=table.text("source"),
        confidence=_confidence(table),
        status=_status(table),
        headers=tuple((name.lower(), table.compiled(name, value)) for name, value in table.texts("headers").items()),
        json=_json(table.table("json")),
        body=table.pattern("body"),
        event=table.pattern("event"),
        finish_reason=table.pattern("finish_reason"),
        text=text,
        with_text=table.choice("with_text", get_args(Mechanism)) if "with_text" in table else None,
    )
    table.done()
    s = signature
    if not (s.status or s.headers or s.json or s.body or s.event or s.finish_reason):
        raise table.wrong("", "states no condition")
    if s.body and not (s.status and min(s.status) >= 400):
        # A model can write any text: only where it wrote nothing may the raw body speak.
        raise table.wrong("body", "needs a status of 400 or above beside it")
    if (s.author == "model") != (s.mechanism == "model_refusal"):
        raise table.wrong("author", 'is "model" exactly where the mechanism is "model_refusal"')
    if s.with_text and (s.text or {s.mechanism, s.with_text} - {"declared_block", "injected_text", "cut_stream"}):
        raise table.wrong("with_text", "tells blocks, cuts and injected texts apart where `text` is not stated")
    if s.mechanism in {"redaction", "prompt_rewrite"} and s.author != "unknown":
        raise table.wrong("author", f'must be "unknown": {s.mechanism} does not tell who wrote the answer')
    return signature


_READERS: Mapping[str, Callable[[Table], Any]] = {
    "signatures": _signature,
    "canned": _canned,
    "facts": _fact,
    "reports": _report,
}
"""What backend files and shared parts both hold."""


def _status(table: Table) -> tuple[int, ...]:
    if "status" not in table:
        return ()
    stated = table.raw("status")
    values = stated if isinstance(stated, list) else [stated]
    if not values or not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise table.wrong("status", "must be a number or a list of numbers")
    return tuple(values)


def _json(table: Table) -> tuple[JsonCondition, ...]:
    found = []
    for path in table.keys():  # noqa: SIM118 - a Table is no mapping
        compiled = _path(table, repr(path), path)
        pattern = table.compiled(path, table.get(path, str))
        found.append(JsonCondition(path, compiled.search, pattern, needed_keys(compiled.parsed)))
    return tuple(found)


def _check_sources(table: Table, backend: Backend) -> None:
    """Every claim about a server needs a fact that says where it was read."""
    claims: Mapping[str, Any] = {
        "auth": backend.auth,
        "describe": backend.describe != Describe(),
        "parameters": backend.parameters.by_name,
        "logprobs": backend.logprobs,
        "limits": backend.limits != Limits(),
        "listing": backend.listing,
        **{f"headers.{key}": True for key in backend.headers},
        **{f"request.{key}": True for key in backend.request},
        **{f"stream_request.{key}": True for key in backend.stream_request},
    }
    sourced = {key for fact in backend.facts for key in fact.about}
    for claim, stated in claims.items():
        if stated and not {claim, claim.partition(".")[0]} & sourced:
            raise table.wrong(claim, "has no source: a [[facts]] entry about it is expected")
