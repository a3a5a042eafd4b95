"""Plain words for features of an envelope, and the bytes that show them."""

from probe.evidence.case import Case

_SHORT = 70

_WORDS = {
    "id": "the id looks like",
    "model": "the model is named",
    "provider": "the provider is named",
    "fingerprint": "the system fingerprint is",
    "status": "the HTTP status is",
    "object": "the object is called",
    "finish": "the finish reason is",
    "native finish": "the native finish reason is",
    "logprobs": "log-probabilities are there:",
    "streamed": "the answer is streamed:",
    "role again": "every delta names the role:",
    "order at the start": "before the text come",
    "order at the end": "after the text come",
    "spaces in JSON": "a JSON key is written like",
    "lines of the stream": "an event is written like",
    "first event": "the first event is",
    "last event": "the last event is",
    "service tier": "the service tier is",
    "HTTP version": "the HTTP version is",
}

_PATHS = {
    "id": "id",
    "model": "model",
    "provider": "provider",
    "fingerprint": "system_fingerprint",
    "object": "object",
    "finish": "choices[0].finish_reason",
    "native finish": "choices[0].native_finish_reason",
    "service tier": "service_tier",
}


def in_words(name: str, value: str, usual: str, count: int, n: int) -> str:
    """Say what is odd: ``the id looks like 'chatcmpl-9' where 164 of 164 ordinary answers have 'gen-9{10}-x{20}'``."""
    if name == "pieces":
        return f"{value} came in one piece, where others of that length come in several (n = {count})"
    where = f"where {'all' if count == n else f'{count} of'} {n} ordinary answers have"
    if name in {"header names", "header order", "first keys", "text keys", "last keys", "usage"}:
        what = {
            "header names": "the set of header fields differs",
            "header order": "the header fields have another order or spelling",
            "first keys": "the first document has other keys",
            "text keys": "the documents with text have other keys",
            "last keys": "the last document has other keys",
            "usage": "the usage report has other keys",
        }[name]
        return f"{what}: {_difference(value, usual)} ({count} of {n} ordinary answers agree)"
    if name.startswith("header "):
        return f"the header {name.removeprefix('header ')} is {_quoted(value)} {where} {_quoted(usual)}"
    if name.startswith("key "):
        return f"the key {name.removeprefix('key ')} is {value} {where} {_quoted(usual)}"
    return f"{_WORDS.get(name, name)} {_quoted(value)} {where} {_quoted(usual)}"


def _difference(value: str, usual: str) -> str:
    mine, theirs = value.split(), usual.split()
    missing = [word for word in theirs if word not in mine]
    extra = [word for word in mine if word not in theirs]
    parts = []
    if missing:
        parts.append(f"without {_listed(missing)}")
    if extra:
        parts.append(f"with {_listed(extra)}")
    return " and ".join(parts) or f"{_listed(mine)} instead of {_listed(theirs)}"


def _listed(words: list[str]) -> str:
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def _quoted(value: str) -> str:
    return f"'{value[:_SHORT]}{'…' if len(value) > _SHORT else ''}'"


def exhibit_of(name: str, value: str | None, case: Case) -> str:
    """Return the bytes that a feature was read from: a header line, or a JSON path with its value."""
    reading, exchange = case.reading, case.exchange
    raw = {"id": reading.response_id, "finish": reading.finish_reason, "native finish": reading.native_finish_reason}
    if name in _PATHS:
        return f"{_PATHS[name]} = {raw.get(name, value)!r}"
    if exchange is not None and name == "status":
        return f"{exchange.http_version or ''} {exchange.status} {exchange.reason or ''}".strip()
    if exchange is not None and name in {"header names", "header order"}:
        return "header fields: " + ", ".join(key for key, _ in exchange.response_headers)[:200]
    if exchange is not None and name.startswith("header "):
        wanted = name.removeprefix("header ")
        lines = [f"{key}: {text}" for key, text in exchange.response_headers if key.lower() == wanted]
        return lines[0][:160] if lines else f"no header {wanted}"
    return f"{name} = {(value or 'absent')[:160]}"
