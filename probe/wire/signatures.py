"""Matches exchanges against the signatures of a backend: what the bytes themselves declare."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jmespath.exceptions import JMESPathError

from probe.wire.backend import Author, Backend, Canned, Confidence, JsonCondition, Layer, Mechanism, Signature
from probe.wire.content import decoded_body, header
from probe.wire.fields import NotJson, clean, parse, table
from probe.wire.paths import keys_of
from probe.wire.pieces import TextPiece
from probe.wire.values import Exchange, Reading

CANNED = "canned:"
"""Prefix of the ``signature`` of a match that is a known text, and no declaration."""

EXHIBIT_CHARS = 240
"""Characters of one value that an exhibit shows."""

_SEARCHED = 20_000
"""Characters of one value that a pattern is searched in; what matters stands at the beginning of error messages."""

_LONGEST = 1_000
"""Characters of an answer that is compared with canned texts; all of them are shorter."""

_DEPTH = 24
"""Levels at which JSON inside an error's strings is looked for: gateways wrap each other's errors."""

_PASSED_ON = frozenset(
    {"error", "errors", "message", "msg", "detail", "details", "metadata", "raw", "innererror", "inner_error"}
    | {"provider_specific_fields", "previous_errors"}
)
"""Keys of an error under which gateways pass on what an upstream said. Others may hold what a user or a model wrote:
OpenRouter's ``flagged_input``, Groq's ``failed_generation``, the ``input`` of FastAPI's validation errors."""

_LITELLM = re.compile(r"litellm\.[\w.: ]*Exception(?: -|:) (?:b['\"])?(?=\{)")
"""How LiteLLM begins a message that ends with the upstream's body."""

_PLAIN = frozenset({"id", "object", "created", "model", "choices", "provider", "system_fingerprint", "service_tier"})
_PLAIN_CHOICE = frozenset({"index", "delta", "finish_reason", "native_finish_reason", "logprobs", "matched_stop"}) | {
    "content_filter_results",
    "content_filter_offsets",
}
_PLAIN_LINE = frozenset({"model", "created_at", "message", "done", "logprobs"})


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
    """Return all signatures that hold, in the order of the backend's file: the more telling ones come first there.

    Last come the canned texts that the answer is or ends with. Nothing is known of their author: models write such
    sentences as well.
    """
    if exchange.status is None or not (backend.signatures or backend.canned):
        return ()
    view = _View(exchange, reading)
    possible = [s for s in backend.signatures_for(view.keys) if _may_hold(s, view)] if backend.signatures else ()
    found = [match for signature in possible if (match := _match(signature, view)) is not None]
    return (*found, *_canned(backend.canned, reading.text))


class _View:
    """An exchange as the conditions see it; the costly parts are made when a signature first asks."""

    def __init__(self, exchange: Exchange, reading: Reading) -> None:
        self.exchange = exchange
        self.reading = reading
        self.has_text = bool(reading.text.strip())
        self.header_names = {name.lower() for name, _ in exchange.response_headers}
        self._documents: list[_Document] | None = None
        self._keys: frozenset[str] | None = None
        self._body: str | None = None

    @property
    def documents(self) -> "list[_Document]":
        """The documents that can tell something, and those inside their errors."""
        if self._documents is None:
            telling = _telling(self.reading.documents)
            self._documents = [_Document(found) for document in telling for found in _opened(document)]
        return self._documents

    @property
    def keys(self) -> frozenset[str]:
        """The keys of all documents together."""
        if self._keys is None:
            self._keys = frozenset[str]().union(*(document.keys for document in self.documents))
        return self._keys

    @property
    def body(self) -> str:
        """The beginning of the decoded body."""
        if self._body is None:
            data = decoded_body(self.exchange).data
            self._body = data[: 4 * _SEARCHED].decode("utf-8", "replace")[:_SEARCHED]
        return self._body


class _Document:
    """One document, with its keys and what was found in it: many signatures ask for the same paths."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self.keys = keys_of(value)
        self._found: dict[str, list[Any]] = {}

    def found(self, condition: JsonCondition) -> list[Any]:
        """Return the values at the condition's path."""
        known = self._found.get(condition.path)
        if known is None:
            try:
                value = condition.search(self._value)
            except JMESPathError:
                value = None  # a function met a type that it does not take
            entries = value if isinstance(value, list) else [value]
            known = self._found[condition.path] = [entry for entry in entries if entry is not None]
        return known


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


def _may_hold(signature: Signature, view: _View) -> bool:
    """Ask the cheap conditions: most responses carry nothing."""
    if signature.status and view.exchange.status not in signature.status:
        return False
    if signature.text is not None and view.has_text != (signature.text == "some"):
        return False
    if signature.finish_reason is not None and not view.reading.finish_reason:
        # Only a pattern that matches nothing at all could hold.
        return signature.finish_reason.search("") is not None
    return not signature.headers or all(name in view.header_names for name, _ in signature.headers)


def _match(signature: Signature, view: _View) -> Match | None:
    findings = _Findings()
    findings.exhibit.append(f"HTTP {view.exchange.status}")
    if not (
        _headers_hold(signature, view, findings)
        and _stream_holds(signature, view, findings)
        and (signature.body is None or findings.search(signature.body, "", view.body))
        and (not signature.json or _any_document(signature.json, view.documents, findings))
    ):
        return None
    return Match(
        signature=signature.id,
        mechanism=(signature.with_text if view.has_text else None) or signature.mechanism,
        layer=signature.layer,
        author="unknown" if signature.confidence == "unconfirmed" else signature.author,
        sentence=signature.sentence,
        exhibit="\n".join(findings.exhibit),
        source=signature.source,
        confidence=signature.confidence,
        groups=findings.groups,
    )


def _headers_hold(signature: Signature, view: _View, findings: _Findings) -> bool:
    pairs = [(name, pattern, header(view.exchange.response_headers, name)) for name, pattern in signature.headers]
    return all(value and findings.search(pattern, f"{name}: ", value) for name, pattern, value in pairs)


def _stream_holds(signature: Signature, view: _View, findings: _Findings) -> bool:
    reason, event = signature.finish_reason, signature.event
    if reason is not None and not findings.search(reason, "finish_reason: ", view.reading.finish_reason or ""):
        return False
    return event is None or any(findings.search(event, "event: ", name) for name in view.reading.events)


def _any_document(conditions: tuple[JsonCondition, ...], documents: Iterable[_Document], findings: _Findings) -> bool:
    for document in documents:
        if not all(condition.may_hold(document.keys) for condition in conditions):
            continue
        trial = _Findings()
        if all(_holds(condition, document, trial) for condition in conditions):
            findings.exhibit += trial.exhibit
            findings.groups |= trial.groups
            return True
    return False


def _holds(condition: JsonCondition, document: _Document, findings: _Findings) -> bool:
    return any(
        findings.search(condition.pattern, f"{condition.path} = ", entry if isinstance(entry, str) else _compact(entry))
        for entry in document.found(condition)
    )


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _words(text: str) -> str:
    """Return a text as copies of it are recognised: without the last full stop, which relays add and drop."""
    return " ".join(text.split()).rstrip(".。")


_known_words = cache(_words)


def _canned(known: Iterable[Canned], text: str) -> Iterator[Match]:
    said, short = _words(text[-_LONGEST:]), len(text) <= _LONGEST
    for entry in known:
        words = _known_words(entry.text)
        if not ((short and said == words) or (entry.place == "end" and said.endswith(words))):
            continue
        where = "The text is" if entry.place == "whole" else "The text ends with"
        status = "documented" if entry.confidence == "primary" else "known"
        yield Match(
            signature=f"{CANNED}{entry.text}",
            mechanism="injected_text",
            layer="unknown",
            author="unknown",
            sentence=f"{where} the {status} message of {entry.by}.",
            exhibit=entry.text,
            source=entry.source,
            confidence=entry.confidence,
        )


def _telling(documents: tuple[Any, ...]) -> Iterator[Any]:
    """Leave out the pieces of a stream that hold nothing but a piece of text; a long answer has thousands."""
    like, plain = None, False
    for number, document in enumerate(documents):
        if type(document) is TextPiece:
            # What is plain about one piece is so about all that are like it.
            if document.like is not like:
                like, plain = document.like, _is_plain(document)
            if plain and number:
                continue
            yield document
        elif number == 0 or not _is_plain(document):
            yield document


def _is_plain(document: Any) -> bool:
    """Whether a piece of a stream states nothing but text; OpenAI's and Ollama's forms."""
    if not isinstance(document, dict):
        return False
    choices = document.get("choices")
    if choices is None:
        return document.get("done") is False and document.keys() <= _PLAIN_LINE
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return False
    choice = choices[0]
    delta = choice.get("delta")
    if choice.get("finish_reason") or (isinstance(delta, dict) and delta.get("refusal")):
        return False
    # Keys first: in a plain piece everything else is empty.
    return _stated(document, _PLAIN) and _stated(choice, _PLAIN_CHOICE) and _unfiltered(choice)


def _unfiltered(choice: Mapping[str, Any]) -> bool:
    """Whether the annotations that Azure adds to every piece say that nothing was found."""
    results = choice.get("content_filter_results")
    return not results or (
        isinstance(results, dict)
        and all(
            isinstance(entry, dict) and not (entry.get("filtered") or entry.get("detected"))
            for entry in results.values()
        )
    )


def _stated(values: Mapping[str, Any], plain: AbstractSet[str]) -> bool:
    """Whether nothing but what is plain has a value."""
    return plain >= values.keys() or all(values[key] is None for key in values.keys() - plain)


def _opened(document: Any) -> Iterator[Any]:
    """Yield a document, and every object or JSON text inside its error, as documents of their own.

    Only errors are opened, and in them only what upstreams say: users and models may write JSON that looks like
    somebody's error.
    """
    yield document
    fields = table(document)
    choices = fields.get("choices")
    errors = [fields.get("error"), fields.get("errors")]
    if isinstance(choices, list):
        errors += [table(choice).get("error") for choice in choices[:1]]
    else:
        # Databricks' {"error_code", "message"} and FastAPI's {"detail"}.
        errors += [fields.get(key) for key in ("message", "detail") if not table(fields.get(key)).get("role")]
    for error in errors:
        yield from _inside(error, _DEPTH)


def _inside(value: Any, depth: int) -> Iterator[Any]:
    if depth == 0:
        return
    if isinstance(value, str):
        yield from _inside(_wrapped(value), depth - 1)
    elif isinstance(value, dict):
        yield value
        for key, entry in value.items():
            if key in _PASSED_ON:
                yield from _inside(entry, depth - 1)
    elif isinstance(value, list):
        for entry in value:
            yield from _inside(entry, depth - 1)


def _wrapped(text: str) -> Any:
    """Return the JSON that a text of an error is, or that it ends with in LiteLLM's manner; ``None`` without any."""
    if text.lstrip()[:1] in {"{", "["}:
        try:
            return parse(text)
        except NotJson:
            return None
    found = _LITELLM.match(text)
    if found is None:
        return None
    try:
        # LiteLLM adds words of its own after the body.
        return json.JSONDecoder().raw_decode(text, found.end())[0]
    except (ValueError, RecursionError):
        return None
