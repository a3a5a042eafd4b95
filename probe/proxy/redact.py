"""Keeps credentials out of everything that is stored (DESIGN §5, 4)."""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

from probe.wire.values import HeaderPairs

SECRET_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "cookie2",
        "set-cookie",
        "set-cookie2",
        "x-api-key",
        "api-key",
        "apikey",
        "x-goog-api-key",
        "x-auth-token",
        "x-amz-security-token",
        "ocp-apim-subscription-key",
        "cf-aig-authorization",
        "helicone-auth",
        "x-portkey-api-key",
        "openai-organization",
        "openai-project",
    }
)
"""Header names whose values are never stored, whoever sent them."""

_SECRET_NAME = re.compile(
    r"(?:^|[-_])(?:authorization|auth|api[-_]?key|secret(?:[-_]?key)?|(?:access|auth|bearer|security|session)[-_]?token)$"
)
"""Names of headers and parameters that gateways make up for credentials. Not every ``…-token``: some are timings."""

MASK = "[redacted]"
_SHORTEST = 8
"""Shorter values are dummies such as ``sk-1`` or ``ollama``; blotting them out would damage innocent text."""

_DUMMY = re.compile(r"[a-z]+([-_ .][a-z]+)*|[A-Z]+([-_ .][A-Z]+)*")
"""What clients send where no key is needed: ``not-needed``, ``sk-no-key-required``. Words, so not blotted out."""


@dataclass(frozen=True)
class Redactor:
    """Blots out known secret values; replacements in bodies keep the length, so that chunk boundaries stay true."""

    secrets: tuple[bytes, ...] = ()
    header_names: frozenset[str] = SECRET_HEADERS

    @classmethod
    def of(cls, values: Iterable[str | None], header_names: Iterable[str] = ()) -> "Redactor":
        """Make a redactor for these secret values and for these header names besides the usual ones."""
        return cls((), SECRET_HEADERS | {name.lower() for name in header_names}).also(values)

    def also(self, values: Iterable[str | None]) -> "Redactor":
        """Return a redactor that knows further values (those that a client sent along)."""
        new = {form for value in values if value and len(value) >= _SHORTEST for form in _forms(value)}
        # Longest first: a key that contains another one must go as a whole.
        ordered = sorted({*self.secrets, *new}, key=lambda secret: (-len(secret), secret))
        return Redactor(tuple(ordered), self.header_names)

    def is_secret(self, name: str) -> bool:
        """Whether a header of this name carries a credential."""
        return name.lower() in self.header_names or _SECRET_NAME.search(name.lower()) is not None

    def body(self, data: bytes) -> tuple[bytes, int]:
        """Return the body without secrets, of the same length, and how many places were blotted out."""
        count = 0
        for secret in self.secrets:
            found = data.count(secret)
            if found:
                count += found
                data = data.replace(secret, b"*" * len(secret))
        return data, count

    def text(self, text: str) -> str:
        """Return a text without secrets, for URLs and error messages."""
        for secret in self.secrets:
            text = text.replace(secret.decode("utf-8", "surrogateescape"), MASK)
        return text

    def latin(self, text: str) -> str:
        """Return a text without secrets whose characters stand for bytes (header values, reason phrases)."""
        for secret in self.secrets:
            text = text.replace(secret.decode("latin-1"), MASK)
        return text

    def headers(self, pairs: HeaderPairs) -> tuple[HeaderPairs, int]:
        """Return header pairs with secret values masked, and how many were."""
        count = 0
        kept = []
        for name, value in pairs:
            clean = MASK if self.is_secret(name) else self.latin(value)
            count += clean != value
            kept.append((self.latin(name), clean))
        return tuple(kept), count


def _forms(value: str) -> set[bytes]:
    """Return a secret as it may stand in a body, a URL or a JSON string."""
    raw = value.encode("utf-8", "surrogateescape")
    in_json = json.dumps(value, ensure_ascii=False)[1:-1].encode("utf-8", "surrogateescape")
    return {raw, quote(raw, safe="").encode(), in_json, in_json.replace(b"/", rb"\/")}


def client_values(pairs: HeaderPairs, redactor: Redactor) -> list[str]:
    """Return the credentials that a client sent along in headers, so that an echo of them is not stored either."""
    values = []
    for name, value in pairs:
        if redactor.is_secret(name):
            parts = re.split(r"[;\s]+", value)
            values += [value, *parts, *(part.partition("=")[2] for part in parts)]
    return [value for value in values if not _DUMMY.fullmatch(value)]


def without_credentials(path: str) -> tuple[str, list[str]]:
    """Return a path without the query parameters that carry credentials (``?key=…``), and their values."""
    plain, mark, query = path.partition("?")
    kept, values = [], []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        name = unquote(name).lower()
        if name == "key" or _SECRET_NAME.search(name):
            values += [value, unquote(value)]
        else:
            kept.append(part)
    if not values:
        return path, []
    return plain + (mark + "&".join(kept) if kept else ""), [value for value in values if not _DUMMY.fullmatch(value)]


def environment_values(names: Iterable[str | None]) -> list[str]:
    """Return the values of environment variables that are set, without the white space around them."""
    return [value for name in names if name and (value := os.environ.get(name, "").strip())]
