"""What a provider says when it does not answer: its own words, and which named reason they give.

Words decide only where the HTTP status does not. They are looked for in the fields of an error that a provider writes
itself (message, code, type and the like, also inside a wrapped upstream's error), never in fields that quote a prompt
or a model. Sources: the providers' pages of error codes (developers.openai.com/docs/guides/error-codes;
platform.minimax.io/docs/api-reference/errorcode; openrouter.ai/docs errors-and-debugging) and recorded bodies; a word
that was missed makes an answer of an error, which is counted as such, and never the other way round.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from probe.wire.content import decoded_body
from probe.wire.fields import NotJson, parse
from probe.wire.values import Exchange, Reading

SHOWN = 200
"""Characters of a provider's words that a message quotes."""

_SEARCHED = 4_000
_DEPTH = 8
_MESSAGES = frozenset({"message", "msg", "detail", "error", "error_msg", "status_msg", "error_description", "title"})
_CODES = frozenset({"code", "type", "status", "error_type", "error_code", "name", "__type", "reason", "status_code"})
_INNER = frozenset({"error", "errors", "metadata", "raw", "innererror", "inner_error", "base_resp", "availability"}) | {
    "detail",
    "details",
    "message",
    "choices",
    "response",
    "provider_specific_fields",
}
_TAG = re.compile(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>")

REGION = re.compile(
    r"(?i)unsupported_country|unsupported_location|region_restricted|country, region,? or territory"
    r"|not (available|supported|offered) in (your|this) (country|region|location|territory)"
    r"|location is not supported|geo[- ]?(graphic(al)?(ally)?)?[- ]?(restrict|block)"
)
ACCOUNT = re.compile(
    r"(?i)data policy|privacy_restricted|account_deactivated|organi[sz]ation_restricted|member of an organization"
    r"|account\b.{0,60}\b(suspended|deactivated|disabled|restricted|banned|terminated|on hold|under review)"
    r"|organi[sz]ation\b.{0,60}\b(restricted|disabled|suspended|must be verified|is not verified|not enabled)"
    r"|\bip not authorized|verify your (account|organi[sz]ation)"
)
CREDIT = re.compile(
    r"(?i)insufficient[_ ](quota|balance|credits?|funds|user[_ ]quota)|credit[_ ]balance|exceeded_current_quota"
    r"|out of credits|requires more credits|billing_hard_limit|billing hard limit|payment[_ ]required|arrearage"
    r"|n[o']t have any credits|key limit exceeded|余额不足|欠费"
)
KEY = re.compile(
    r"(?i)(invalid|incorrect|missing|wrong|expired|bad|revoked|no)\b.{0,20}\b(api[ _-]?key|credentials?|auth\w*"
    r"|token|subscription key)|api[_ -]?key\w*.{0,24}(invalid|not valid|expired|incorrect|missing|not found|disabled)"
    r"|un(authorized|authenticated|recognizedclient)|authentication|not authorized|security token|login fail"
    r"|signature (we calculated|does not match|expired)|token not match|permission[_ ]?denied|access ?denied"
)
MODEL = re.compile(
    r"(?i)models?\b[^\n]{0,120}(not found|not exist|unknown|decommissioned|deprecated|no longer (available|supported))"
    r"|not a valid model|unknown model|no such model|model_(not_found|not_available|decommissioned|deprecated)"
    r"|deployment ?not ?found|no[_ ]endpoints|free_variant_ended|wrong_endpoint|n[o']t have access to (the )?model"
    r"|not_found_error|invalid model|model identifier is invalid"
)
POLICY = re.compile(
    r"(?i)polic(y|ies)|moderat|flagged|filter|inappropriate|sensitive|unsafe|safety|harmful|prohibited|\brisk|violat"
    r"|guardrail|guidelines|blocked|censor|disallowed|inspection|jailbreak|prompt injection|\bpii\b"
    r"|敏感|违规|安全|不适当"
)
BUSY = re.compile(
    r"(?i)overloaded|capacity|temporarily|unavailable|busy|try again|internal|upstream|time[d_ -]?out|bad gateway"
    r"|insufficient_system_resource|server[_ ]error"
)
RATE = re.compile(
    r"(?i)rate[-_ ]?limit|too many requests|throttl|requests per|tokens per|resource[_ ]?exhausted|quota|concurren"
)
REQUEST = re.compile(
    r"(?i)context[_ ](length|window)|maximum context|too (long|large|many tokens)|max_(completion_|output_)?tokens"
    r"|(invalid|unsupported|unknown|unrecognized|unexpected|missing|extra)"
    r"[_ ](param(eter)?|argument|value|field|json|type|property|keyword|body|input)"
    r"|n[o']t supported|not permitted|must be|is required|field required|validation|unprocessable|malformed"
    r"|string_too_long|payload_too_large|token_limit_exceeded|constraint_filtered|requested param"
)


@dataclass(frozen=True, slots=True)
class Words:
    """What an error says. ``message`` is the innermost sentence, ``codes`` all its codes and types, joined.

    ``status`` is the HTTP status that stands inside the body, if one does; ``page``: the body is no JSON. ``param``
    names the parameter that the provider objects to.
    """

    message: str = ""
    codes: str = ""
    status: int | None = None
    page: bool = False
    param: str = ""
    everything: str = ""

    def say(self, pattern: re.Pattern[str]) -> bool:
        """Whether message or codes match."""
        return pattern.search(self.everything) is not None

    @property
    def short(self) -> str:
        """The message for people: one line, no control characters, not too long."""
        line = " ".join("".join(c if c.isprintable() else " " for c in self.message or self.codes).split())
        return line if len(line) <= SHOWN else line[: SHOWN - 1].rstrip() + "…"


def words_of(exchange: Exchange, reading: Reading) -> Words:
    """Return what an exchange's error says. Never raises."""
    messages: list[str] = []
    codes: list[str] = []
    params: list[str] = []
    for document in reading.documents:
        for key, value in _walk(document, 0):
            if key == "param":
                params.append(value)
            else:
                (messages if key in _MESSAGES else codes).append(value)
    page = not reading.documents
    if page:
        text = decoded_body(exchange).data[: 8 * _SEARCHED].decode("utf-8", "replace")
        messages = [_TAG.sub(" ", text)[:_SEARCHED]]
    numbers = [int(code) for code in codes if code.isdigit() and 400 <= int(code) <= 599]
    message = messages[-1] if messages else reading.error or ""
    everything = "\n".join([*messages, *codes, reading.error or ""])[:_SEARCHED]
    param = next((value for value in params if value not in {"", "None", "null", "prompt", "messages", "input"}), "")
    return Words(message, " ".join(dict.fromkeys(codes)), numbers[-1] if numbers else None, page, param, everything)


def _walk(value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the messages and codes of an error, the outer ones first."""
    if depth > _DEPTH:
        return
    if isinstance(value, list):
        for entry in value[:20]:
            yield from _walk(entry, depth + 1)
    if not isinstance(value, Mapping):
        return
    for key, inner in value.items():
        yield from _field(key, inner, depth)
    for key, inner in value.items():
        if key in _INNER and isinstance(inner, Mapping | list):
            yield from _walk(inner, depth + 1)


def _field(key: str, inner: Any, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(inner, str) and key in _MESSAGES | _INNER:
        wrapped = _json(inner)
        if wrapped is not None:
            yield from _walk(wrapped, depth + 1)
        elif key in _MESSAGES:
            yield key, inner[:_SEARCHED]
    elif isinstance(inner, str | int) and not isinstance(inner, bool) and key in _CODES:
        yield key, str(inner)[:_SEARCHED]
    elif key == "param" and isinstance(inner, str):
        yield key, inner[:SHOWN]


def _json(text: str) -> Any:
    """Return the JSON object that a text holds: gateways pass an upstream's body on as a string."""
    start = text.find("{")
    if start < 0 or not text.rstrip().endswith("}"):
        return None
    try:
        return parse(text[start:])
    except (NotJson, json.JSONDecodeError):
        return None
