"""What a backend's file says, for people: every fact with its source and how sure it is."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from probe.traces.values import Sampling
from probe.wire.backend import Backend, Fact, Limits, Report, Signature

Line = tuple[int, str]
"""Depth of indentation and one sentence or entry."""


@dataclass(frozen=True, slots=True)
class Section:
    """One heading with what stands under it."""

    title: str
    lines: tuple[Line, ...]


def sources_of(backend: Backend) -> tuple[str, ...]:
    """Return all sources that the file names, each once, in alphabetical order."""
    return tuple(sorted({entry.source for entry in _sourced(backend)}))


def confidences_of(backend: Backend) -> Mapping[str, int]:
    """Return how many entries have which confidence: facts, reports, signatures and canned texts together."""
    return Counter(entry.confidence for entry in _sourced(backend))


def summary(backend: Backend) -> dict[str, Any]:
    """Return what the list of backends says of one; ``signatures`` are ids, ``sources`` the sources themselves."""
    return {
        "name": backend.name,
        "title": backend.title,
        "kind": backend.kind,
        "dialect": backend.dialect,
        "url": backend.url,
        "key_env": backend.key_env,
        "signatures": [signature.id for signature in backend.signatures],
        "sources": list(sources_of(backend)),
        "confidence": dict(confidences_of(backend)),
    }


def full(backend: Backend) -> dict[str, Any]:
    """Return everything that a file says, as JSON."""
    auth = backend.auth
    return summary(backend) | {
        "auth": None
        if auth is None
        else {name: getattr(auth, name) for name in ("kind", "header", "scheme", "service")},
        "headers": dict(backend.headers),
        "request": dict(backend.request),
        "stream_request": dict(backend.stream_request),
        "streams_by_default": backend.stream_default,
        "parameters": {name: parameter.wire for name, parameter in backend.parameters.by_name.items()},
        "dropped": list(dropped(backend)),
        "logprobs": backend.logprobs,
        "limits": _limits(backend.limits),
        "describe": {"models": backend.describe.models, "version": backend.describe.version},
        "reports": [_report(report) for report in backend.reports],
        "signatures": [_signature(signature) for signature in backend.signatures],
        "canned": [
            {name: getattr(entry, name) for name in ("text", "by", "place", "source", "confidence")}
            for entry in backend.canned
        ],
        "facts": [
            {"about": list(fact.about), "says": fact.says, "source": fact.source, "confidence": fact.confidence}
            for fact in backend.facts
        ],
    }


def dropped(backend: Backend) -> tuple[str, ...]:
    """Return the sampling parameters that the backend does not take, so that trials record them as dropped."""
    return tuple(field.name for field in fields(Sampling) if field.name not in backend.parameters.by_name)


def explain(backend: Backend) -> list[Section]:
    """Return the sections that explain one backend."""
    sections = [
        Section(f"{backend.title} ({backend.name})", tuple(_where(backend))),
        Section("What is added to each request", tuple(_added(backend))),
        Section("Sampling parameters", tuple(_parameters(backend))),
        Section("Limits", tuple(_limit_lines(backend))),
        Section("What an answer reveals beside its text", tuple(_reports(backend))),
        Section(f"Signatures: how an answer shows that somebody acted ({len(backend.signatures)})", _signs(backend)),
        Section(f"Texts that are known to be written in the model's place ({len(backend.canned)})", _texts(backend)),
    ]
    used = {id(fact) for fact in _used(backend)}
    rest = [line for fact in backend.facts if id(fact) not in used for line in _fact(fact, 0)]
    sections.append(Section("Facts", tuple(rest)))
    return [section for section in sections if section.lines]


_TOPICS = frozenset(
    {"url", "key_env", "auth", "describe", "headers", "request", "stream_request", "stream_default"}
) | {
    "parameters",
    "logprobs",
    "limits",
}
"""First words of what facts may be about, and the sections show."""


def _sourced(backend: Backend) -> Sequence[Any]:
    return [*backend.facts, *backend.reports, *backend.signatures, *backend.canned]


def _about(backend: Backend, *topics: str) -> Iterator[Fact]:
    """Yield the facts of whose topics the first one that has a section is one of these."""
    for fact in backend.facts:
        known = [word for word in (key.partition(".")[0] for key in fact.about) if word in _TOPICS]
        if known and known[0] in topics:
            yield fact


def _used(backend: Backend) -> list[Fact]:
    return list(_about(backend, *_TOPICS))


def _fact(fact: Fact, depth: int) -> Iterator[Line]:
    yield depth, fact.says
    yield depth + 1, _evidence(fact)


def _evidence(entry: Any) -> str:
    return f"{entry.confidence}: {entry.source}"


def _facts(backend: Backend, *topics: str) -> Iterator[Line]:
    for fact in _about(backend, *topics):
        yield from _fact(fact, 1)


def _where(backend: Backend) -> Iterator[Line]:
    kind = "A local server" if backend.kind == "local" else "A hosted service"
    yield 0, f"{kind} that speaks the dialect {backend.dialect}."
    yield 0, f"Address: {backend.url}" if backend.url else "Address: each installation has its own; a route states it."
    auth = backend.auth
    if auth is not None and auth.kind == "sigv4":
        yield 0, f"Key: AWS credentials of the environment; requests are signed for the service {auth.service}."
    elif auth is not None and backend.key_env:
        words = " ".join(word for word in (f"{auth.header}:", auth.scheme, "…") if word)
        yield 0, f"Key: taken from {backend.key_env} and sent as `{words}`."
    else:
        yield 0, "Key: none."
    models, version = backend.describe.models, backend.describe.version
    yield 0, f"List of models: {models}." if models else "List of models: none that could be asked."
    if version:
        yield 0, f"Version: {version}."
    yield from _facts(backend, "url", "key_env", "auth", "describe")


def _added(backend: Backend) -> Iterator[Line]:
    for name, value in backend.headers.items():
        yield 0, f"Header {name}: {value}"
    for where, values in (("Body", backend.request), ("Body of streams", backend.stream_request)):
        for key, value in values.items():
            yield 0, f"{where}: {key} = {json.dumps(value, ensure_ascii=False)}"
    if not backend.stream_default:
        yield 0, "Answers are not streamed unless a route asks for it."
    if not (backend.headers or backend.request or backend.stream_request):
        yield 0, "Nothing."
    yield from _facts(backend, "headers", "request", "stream_request", "stream_default")


def _parameters(backend: Backend) -> Iterator[Line]:
    taken = backend.parameters.by_name
    names = [name if name == parameter.wire else f"{name} as {parameter.wire}" for name, parameter in taken.items()]
    yield 0, f"Sent: {', '.join(names) or 'none'}."
    missing = dropped(backend)
    yield 0, f"Not taken, recorded as dropped: {', '.join(missing)}." if missing else "All of them are taken."
    yield 0, f"Log-probabilities {'may' if backend.logprobs else 'cannot'} be asked for."
    yield from _facts(backend, "parameters", "logprobs")


def _limits(limits: Limits) -> dict[str, Any]:
    values = {field.name: getattr(limits, field.name) for field in fields(Limits)}
    return {
        name: value.pattern if isinstance(value, re.Pattern) else value
        for name, value in values.items()
        if value is not None
    }


_LIMITS = {
    "requests_per_minute": "requests a minute",
    "requests_per_day": "requests a day",
    "tokens_per_minute": "tokens a minute",
    "tokens_per_day": "tokens a day",
    "concurrency": "requests at once",
}


def _limit_lines(backend: Backend) -> Iterator[Line]:
    stated = _limits(backend.limits)
    numbers = [f"{stated[name]:,} {words}" for name, words in _LIMITS.items() if name in stated]
    if numbers:
        only = f", for models whose id matches {stated['only']}" if "only" in stated else ""
        yield 0, f"{', '.join(numbers)}{only}. A route's pace goes before them."
    yield from _facts(backend, "limits")


def _report(report: Report) -> dict[str, Any]:
    return {name: getattr(report, name) for name in ("field", "means", "unit", "needs", "source", "confidence")}


def _reports(backend: Backend) -> Iterator[Line]:
    for report in backend.reports:
        where = f"the header {report.header}" if report.header else report.field
        unit = f" ({report.unit})" if report.unit else ""
        unread = "; not read" if report.confidence == "unconfirmed" else ""
        yield 0, f"{report.means.replace('_', ' ')}{unit}: {where}{unread}"
        if report.needs:
            yield 1, f"needs {report.needs}"
        yield 1, _evidence(report)


def _signature(signature: Signature) -> dict[str, Any]:
    names = ("id", "mechanism", "with_text", "layer", "author", "sentence", "source", "confidence")
    return {name: getattr(signature, name) for name in names}


def _signs(backend: Backend) -> tuple[Line, ...]:
    found: list[Line] = []
    for signature in backend.signatures:
        decides = "decides nothing" if signature.confidence == "unconfirmed" else f"written by: {signature.author}"
        words = [signature.mechanism.replace("_", " "), f"layer: {signature.layer.replace('_', ' ')}", decides]
        found += [
            (0, f"{signature.id}: {signature.sentence}"),
            (1, "; ".join(words)),
            (1, _evidence(signature)),
        ]
    return tuple(found)


def _texts(backend: Backend) -> tuple[Line, ...]:
    found: list[Line] = []
    for entry in backend.canned:
        found += [(0, f"“{entry.text}” is the message of {entry.by}."), (1, _evidence(entry))]
    return tuple(found)
