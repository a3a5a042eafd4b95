"""Matches exchanges against the signatures of a backend: what the bytes themselves declare."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jmespath.exceptions import JMESPathError

from probe.wire.backend import Author, Backend, Confidence, JsonCondition, Layer, Mechanism, Signature
from probe.wire.content import decoded_body, header
from probe.wire.fields import NotJson, clean, parse, table
from probe.wire.values import Exchange, Reading

EXHIBIT_CHARS = 240
"""Characters of one value that an exhibit shows."""

_SEARCHED = 20_000
"""Characters of one value that a pattern is searched in; what matters stands at the beginning of error messages."""

_DEPTH = 8
"""Levels at which JSON inside an error's strings is looked for: gateways wrap each other's errors."""

_PLAIN = frozenset({"id", "object", "created", "model", "choices", "provider", "system_fingerprint", "service_tier"})
_PLAIN_CHOICE = frozenset({"index", "delta", "finish_reason", "native_finish_reason", "logprobs", "matched_stop"})


@dataclass(frozen=True, slots=True)
class Match:
    """A signature that an exchange carries.

    ``author`` is who wrote what the client got; it is ``unknown`` for a signature that is unconfirmed, whatever that
    says. ``exhibit`` are the bytes matched: status, header line, JSON path with its value. ``groups`` are the named
    groups of its patterns.
    """

    signature: str
    mechanism: Mechanism
    layer: Layer
    author: Author
    sentence: str
    exhibit: str
    source: str
    confidence: Confidence
    groups: Mapping[str, str] = field(default_factory=dict)


def match_signatures(backend: Backend, exchange: Exchange, reading: Reading) -> tuple[Match, ...]:
    """Return all signatures that hold, in the order of the backend's file: the more telling ones come first there."""
    if not backend.signatures or exchange.status is None:
        return ()
    view = _View(exchange, reading)
    return tuple(match for signature in backend.signatures if (match := _match(signature, view)) is not None)


class _View:
    """An exchange as the conditions see it; the costly parts are made when a signature first asks."""

    def __init__(self, exchange: Exchange, reading: Reading) -> None:
        self.exchange = exchange
        self.reading = reading
        self._documents: list[Any] | None = None
        self._body: str | None = None

    @property
    def documents(self) -> list[Any]:
        """The documents that can tell something, and those inside their errors."""
        if self._documents is None:
            self._documents = [found for document in _telling(self.reading.documents) for found in _opened(document)]
        return self._documents

    @property
    def body(self) -> str:
        """The beginning of the decoded body."""
        if self._body is None:
            data = decoded_body(self.exchange).data
            self._body = data[: 4 * _SEARCHED].decode("utf-8", "replace")[:_SEARCHED]
        return self._body


class _Findings:
    """What held so far for one signature."""

    def __init__(self) -> None:
        self.exhibit: list[str] = []
        self.groups: dict[str, str] = {}

    def search(self, pattern: re.Pattern[str], label: str, value: str) -> bool:
        """Search a pattern; keep the line for the exhibit and the named groups."""
        found = pattern.search(value[:_SEARCHED])
        if found is None:
            return False
        self.groups |= {key: clean(text) for key, text in found.groupdict().items() if text is not None}
        shown = clean(value)
        if len(shown) > EXHIBIT_CHARS:
            shown = shown[:EXHIBIT_CHARS] + "…"
        self.exhibit.append(f"{label}{shown}")
        return True


def _match(signature: Signature, view: _View) -> Match | None:
    findings = _Findings()
    findings.exhibit.append(f"HTTP {view.exchange.status}")
    # The cheap conditions first: most responses carry nothing.
    if not (
        _state_holds(signature, view)
        and _headers_hold(signature, view, findings)
        and _stream_holds(signature, view, findings)
        and (signature.body is None or findings.search(signature.body, "", view.body))
        and (not signature.json or _any_document(signature.json, view.documents, findings))
    ):
        return None
    return Match(
        signature=signature.id,
        mechanism=signature.mechanism,
        layer=signature.layer,
        author="unknown" if signature.confidence == "unconfirmed" else signature.author,
        sentence=signature.sentence,
        exhibit="\n".join(findings.exhibit),
        source=signature.source,
        confidence=signature.confidence,
        groups=findings.groups,
    )


def _state_holds(signature: Signature, view: _View) -> bool:
    if signature.status and view.exchange.status not in signature.status:
        return False
    return signature.text is None or bool(view.reading.text.strip()) == (signature.text == "some")


def _headers_hold(signature: Signature, view: _View, findings: _Findings) -> bool:
    pairs = [(name, pattern, header(view.exchange.response_headers, name)) for name, pattern in signature.headers]
    return all(value and findings.search(pattern, f"{name}: ", value) for name, pattern, value in pairs)


def _stream_holds(signature: Signature, view: _View, findings: _Findings) -> bool:
    reason, event = signature.finish_reason, signature.event
    if reason is not None and not findings.search(reason, "finish_reason: ", view.reading.finish_reason or ""):
        return False
    return event is None or any(findings.search(event, "event: ", name) for name in view.reading.events)


def _any_document(conditions: tuple[JsonCondition, ...], documents: Iterable[Any], findings: _Findings) -> bool:
    for document in documents:
        trial = _Findings()
        if all(_holds(condition, document, trial) for condition in conditions):
            findings.exhibit += trial.exhibit
            findings.groups |= trial.groups
            return True
    return False


def _holds(condition: JsonCondition, document: Any, findings: _Findings) -> bool:
    try:
        value = condition.search(document)
    except JMESPathError:
        return False  # a function met a type that it does not take
    return any(
        findings.search(condition.pattern, f"{condition.path} = ", entry if isinstance(entry, str) else _compact(entry))
        for entry in (value if isinstance(value, list) else [value])
        if entry is not None
    )


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _telling(documents: tuple[Any, ...]) -> Iterator[Any]:
    """Leave out the pieces of a stream that hold nothing but a piece of text; a long answer has thousands."""
    for number, document in enumerate(documents):
        if number == 0 or not _is_plain(document):
            yield document


def _is_plain(document: Any) -> bool:
    choices = table(document).get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return False
    choice = choices[0]
    # Keys first: in a plain piece everything else is empty.
    return _stated(document) <= _PLAIN and _stated(choice) <= _PLAIN_CHOICE and not choice.get("finish_reason")


def _stated(values: Mapping[str, Any]) -> set[str]:
    return {key for key, value in values.items() if value is not None}


def _opened(document: Any) -> Iterator[Any]:
    """Yield a document, and every object or JSON text inside its error, as documents of their own.

    Only errors are opened: a model may write JSON that looks like somebody's error.
    """
    yield document
    fields = table(document)
    choices = fields.get("choices")
    errors = [fields.get("error")]
    if isinstance(choices, list):
        errors += [table(choice).get("error") for choice in choices[:1]]
    for error in errors:
        yield from _inside(error, _DEPTH)


def _inside(value: Any, depth: int) -> Iterator[Any]:
    if depth == 0:
        return
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        try:
            inner = parse(value)
        except NotJson:
            return
        yield from (entry for entry in (inner if isinstance(inner, list) else [inner]) if isinstance(entry, dict))
        yield from _inside(inner, depth - 1)
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _inside(entry, depth - 1)
    elif isinstance(value, list):
        for entry in value:
            yield from _inside(entry, depth - 1)
