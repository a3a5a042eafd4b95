"""Keeps credentials out of everything that is stored (DESIGN §5, 4)."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from probe.wire.values import HeaderPairs

SECRET_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "x-auth-token",
        "x-amz-security-token",
        "ocp-apim-subscription-key",
        "openai-organization",
        "openai-project",
    }
)
"""Header names whose values are never stored, whoever sent them."""

MASK = "[redacted]"
_SHORTEST = 8
"""Shorter values are dummies such as ``sk-1`` or ``ollama``; blotting them out would damage innocent text."""


@dataclass(frozen=True)
class Redactor:
    """Blots out known secret values; replacements in bodies keep the length, so that chunk boundaries stay true."""

    secrets: tuple[bytes, ...] = ()
    header_names: frozenset[str] = SECRET_HEADERS

    @classmethod
    def of(cls, values: Iterable[str | None], header_names: Iterable[str] = ()) -> "Redactor":
        """Make a redactor for these secret values and for these header names besides the usual ones."""
        found = {value.encode() for value in values if value and len(value) >= _SHORTEST}
        # Longest first: a key that contains another one must go as a whole.
        ordered = tuple(sorted(found, key=lambda secret: (-len(secret), secret)))
        return cls(ordered, SECRET_HEADERS | {name.lower() for name in header_names})

    def also(self, values: Iterable[str | None]) -> "Redactor":
        """Return a redactor that knows further values (those that a client sent along)."""
        return Redactor.of([*(s.decode("utf-8", "replace") for s in self.secrets), *values], self.header_names)

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
            text = text.replace(secret.decode("utf-8", "replace"), MASK)
        return text

    def headers(self, pairs: HeaderPairs) -> tuple[HeaderPairs, int]:
        """Return header pairs with secret values masked, and how many were."""
        count = 0
        kept = []
        for name, value in pairs:
            clean = MASK if name.lower() in self.header_names else self.text(value)
            count += clean != value
            kept.append((name, clean))
        return tuple(kept), count


def bearer_values(pairs: HeaderPairs) -> list[str]:
    """Return the credentials that a client sent along, so that an echo of them is not stored either."""
    values = []
    for name, value in pairs:
        if name.lower() in SECRET_HEADERS:
            values.append(value)
            values.extend(part for part in value.split() if len(part) >= _SHORTEST)
    return values


def environment_values(names: Iterable[str | None]) -> list[str]:
    """Return the values of environment variables that are set."""
    return [value for name in names if name and (value := os.environ.get(name))]
