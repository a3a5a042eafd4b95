"""What the dialects share in reading: decoding bodies, collecting the pieces of an answer, and its final state."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from probe.wire.content import decoded_body, header
from probe.wire.fields import NotJson, Problems, clean, number, parse, table
from probe.wire.values import Exchange, Reading, ReadingState, TokenLogprob, Usage

ERROR_CHARS = 600
"""Characters of an error message that are kept in a reading; the bytes are in the store."""

_THINK = re.compile(r"\s*<think>(.*?)(?:</think>|\Z)", re.DOTALL)
_UNOPENED = re.compile(r"(?:\A|(.*?)\n)</think>(?=\s*\n|\s*\Z)", re.DOTALL)
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_MARKUP = re.compile(r"\s*<(?:!doctype|html|\?xml|head|body)\b", re.IGNORECASE)


def body_of(exchange: Exchange, problems: Problems) -> bytes:
    """Return the response body without its content coding."""
    decoded = decoded_body(exchange)
    if decoded.problem:
        problems.add(decoded.problem)
    return decoded.data


def content_type(exchange: Exchange) -> str:
    """Return the media type of the response in lower case, without parameters."""
    return header(exchange.response_headers, "content-type").partition(";")[0].strip().lower()


def decoded_text(data: bytes, problems: Problems) -> str:
    """Decode UTF-8; what is none becomes U+FFFD and a problem."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        problems.add("the body is not UTF-8 throughout")
        return data.decode("utf-8-sig", "replace")


@dataclass
class Collected:
    """The pieces of a response while it is read."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    logprobs: list[TokenLogprob] | None = None
    logprobs_broken: bool = False
    timings: dict[str, float] = field(default_factory=dict)
    model: str | None = None
    response_id: str | None = None
    fingerprint: str | None = None
    provider: str | None = None
    error: str | None = None
    completion: bool = False
    streamed: bool = False
    terminated: bool = True
    unread: int = 0
    documents: list[Any] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)

    def document(self, text: str, *, complete: bool = True) -> Any:
        """Parse one document and keep it; ``None`` where it is no JSON."""
        try:
            value = parse(text)
        except NotJson as error:
            self.unread += 1
            if complete:
                self.problems.add(f"not JSON: {error}")
            return None
        self.documents.append(value)
        return value

    def fail(self, error: str) -> None:
        """Note an error that the server reported; the first one counts."""
        self.error = self.error or clean(error)[:ERROR_CHARS] or "an error without a message"

    def merge_usage(self, usage: Usage) -> None:
        """Take newer counts; what the newer report leaves out stays."""
        old = self.usage
        self.usage = Usage(
            usage.prompt_tokens if usage.prompt_tokens is not None else old.prompt_tokens,
            usage.completion_tokens if usage.completion_tokens is not None else old.completion_tokens,
            usage.reasoning_tokens if usage.reasoning_tokens is not None else old.reasoning_tokens,
        )

    def name(self, attribute: str, value: str) -> None:
        """Keep the first name that is not empty; a change within one response is a problem worth a sentence."""
        first = getattr(self, attribute)
        if value and first is None:
            setattr(self, attribute, clean(value))
        elif value and first != clean(value):
            self.problems.add(f"{attribute} changes within the response: {clean(value)[:80]!r}")

    def add_logprobs(self, entries: Any) -> None:
        """Append tokens; one that cannot be read makes the whole list useless, for its places would be wrong."""
        if entries is None:
            return
        self.add_tokens([token_logprob(entry) for entry in entries] if isinstance(entries, list) else [None])

    def add_tokens(self, read: Sequence[TokenLogprob | None]) -> None:
        """Append tokens as they were read; ``None`` for one that could not be."""
        found = [entry for entry in read if entry is not None]
        if len(found) < len(read):
            self.logprobs_broken = True
            self.problems.add("logprobs cannot be read")
        if found:
            self.logprobs = self.logprobs or []
            self.logprobs += found

    def finish(self, native: str, words: Mapping[str, str]) -> None:
        """Keep a dialect's own reason for the end, and what it is in OpenAI's words where these have one for it."""
        if native:
            self.native_finish_reason = native
            self.finish_reason = words.get(native, native)

    def reading(self, exchange: Exchange) -> Reading:
        """Put the pieces together."""
        text, inline = split_thinking(clean("".join(self.text)))
        reasoning = clean("".join(self.reasoning))
        refusal = clean("".join(self.refusal)) or None
        has_words = bool(text or inline or reasoning or refusal)
        state = self._state(exchange, has_words=has_words)
        return Reading(
            state=state,
            text=text,
            reasoning=reasoning + inline,
            refusal=refusal,
            finish_reason=_clean(self.finish_reason),
            native_finish_reason=_clean(self.native_finish_reason),
            usage=self.usage,
            logprobs=None if self.logprobs_broken or self.logprobs is None else tuple(self.logprobs),
            timings=self.timings,
            model=self.model,
            response_id=self.response_id,
            fingerprint=_clean(self.fingerprint),
            provider=self.provider,
            error=self.error,
            streamed=self.streamed,
            terminated=self.terminated,
            documents=tuple(self.documents),
            events=tuple(self.events),
            problems=self.problems.all(),
        )

    def _state(self, exchange: Exchange, *, has_words: bool) -> ReadingState:
        status = exchange.status or 0
        if self.error is None and not 200 <= status < 300:
            if has_words:
                self.problems.add(f"HTTP {status} with an answer")
            else:
                self.fail(f"HTTP {status}")
        if self.error is not None:
            return "error"
        # After the terminator the answer is whole: clients hang up then without waiting for the connection to end.
        if not self.terminated or (self.unread and exchange.state != "complete"):
            return "truncated"
        if has_words:
            return "answer"
        if self.completion:
            return "empty"
        return "malformed"


def _clean(name: str | None) -> str | None:
    return None if name is None else clean(name)


def missing(exchange: Exchange) -> Reading:
    """Return the reading of an exchange without a response."""
    reason = exchange.error or {"timeout": "no answer came in time", "unreachable": "no connection"}.get(
        exchange.state, "the connection ended before an answer"
    )
    return Reading(state="missing", error=clean(reason)[:ERROR_CHARS], terminated=False)


def read_whole(text: str, collected: Collected, exchange: Exchange) -> list[Mapping[str, Any]]:
    """Parse a body that is one document; return its objects. Pages and other texts become an error or a problem."""
    if not text.strip():
        collected.problems.add("the body is empty")
        collected.terminated = exchange.state == "complete"
        return []
    value = collected.document(text)
    if value is None and collected.unread:
        collected.terminated = exchange.state == "complete"
        if _MARKUP.match(text):
            title = _TITLE.search(text)
            collected.fail(f"HTTP {exchange.status}: a page{f' titled {title[1].strip()!r}' if title else ''}")
        elif not 200 <= (exchange.status or 0) < 300:
            collected.fail(f"HTTP {exchange.status}: {text.strip()[:200]}")
        return []
    # Google's endpoints wrap an error object into a list.
    objects: list[Mapping[str, Any]] = [
        entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, dict)
    ]
    if isinstance(value, list):
        collected.documents[-1:] = value
    if not objects:
        collected.problems.add("the body is JSON but no object")
    return objects


def token_logprob(entry: Any) -> TokenLogprob | None:
    """Read one ``{token, logprob, top_logprobs}`` (OpenAI, Ollama); ``None`` where it is anything else."""
    pair = _pair(entry)
    if pair is None:
        return None
    top = table(entry).get("top_logprobs") or []
    alternatives = [_pair(other) for other in top] if isinstance(top, list) else [None]
    if None in alternatives:
        return None
    return TokenLogprob(pair[0], pair[1], tuple(other for other in alternatives if other is not None))


def _pair(entry: Any) -> tuple[str, float] | None:
    token, logprob = table(entry).get("token"), number(table(entry).get("logprob"))
    if not isinstance(token, str) or logprob is None:
        return None
    return clean(token), logprob


def split_thinking(text: str) -> tuple[str, str]:
    """Return (text, reasoning) of a text that begins with a ``<think>`` block.

    Some templates put the opening tag into the prompt; then everything before a closing tag on its own is reasoning. A
    block that is never closed is all reasoning.
    """
    found = _THINK.match(text) or (None if "<think>" in text else _UNOPENED.match(text))
    if found is None:
        return text, ""
    return text[found.end() :], (found[1] or "").strip("\n")


def error_message(error: Any) -> str:
    """Return the words of an error of any shape: a text, an object with a message, or JSON."""
    if isinstance(error, str):
        return error
    fields = table(error)
    message = fields.get("message") or fields.get("msg") or fields.get("detail")
    if isinstance(message, dict):  # LiteLLM puts an object where the text belongs
        message = error_message(message.get("error") or message)
    words = message if isinstance(message, str) else json.dumps(error, ensure_ascii=False, default=str)
    raw = table(fields.get("metadata")).get("raw")
    return f"{words}: {raw[:300]}" if isinstance(raw, str) and raw else words
