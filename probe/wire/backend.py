"""A backend as its TOML file describes it. Frozen values; ``probe.wire.catalogue`` reads the files."""

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from probe.traces.values import Sampling

Kind = Literal["local", "hosted"]
Mechanism = Literal[
    "declared_block",
    "injected_text",
    "cut_stream",
    "redaction",
    "prompt_rewrite",
    "other_weights",
    "model_refusal",
]
Layer = Literal["gateway", "host_input", "host_output", "vendor_classifier", "unknown"]
Author = Literal["platform", "model", "unknown"]
Place = Literal["whole", "end"]
Confidence = Literal["primary", "recorded", "unconfirmed"]
"""``primary``: official documentation, specification or the server's code; ``recorded``: a real sample from the wire;
``unconfirmed``: neither, so that nothing is decided by it."""

TIMINGS = ("prompt", "generation", "inference", "queue", "total", "load", "first_token", "moderation")
"""Durations on the server's side: reading the prompt, writing the answer, both together, waiting, all of it, loading
the weights, until the first token, judging the content.
"""

COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cached_tokens",
    "native_prompt_tokens",
)
"""Numbers of tokens; the native ones are counted with the weights' own tokenizer where the others are not."""

TOKEN_IDS = ("prompt_token_ids", "completion_token_ids")
"""Lists of token ids, of the weights' own tokenizer."""

OTHERS = (
    "prompt_text",
    "raw_text",
    "upstream_request",
    "logprobs",
    "prompt_logprobs",
    "provider",
    "served_model",
    "cloud_model",
    "host",
    "region",
    "cost",
    "cache",
    "filter",
    "guardrail",
    "native_finish_reason",
    "stop_reason",
    "fingerprint",
    "request_id",
    "concurrent_requests",
)
"""Whatever else an answer may reveal: the prompt as the weights got it, the output before it was parsed, the body that
a router sent on, who served it, what filters and guardrails say, what it cost, …
"""

REPORTED = (*TIMINGS, *COUNTS, *TOKEN_IDS, *OTHERS)
"""All words for ``Report.means``."""

UNITS: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Units of durations, in seconds."""

_KEY_SETS = 500
"""Sets of keys that a backend remembers; a server that invents keys must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Auth:
    """How a credential is sent.

    ``header``: as ``header: scheme key``. ``sigv4``: the request is signed for the AWS service ``service`` (AWS
    Signature Version 4), with the credentials that AWS's own tools would take from the environment.
    """

    header: str = "Authorization"
    scheme: str = ""
    kind: Literal["header", "sigv4"] = "header"
    service: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider allows by its documents, ``None`` where they do not say; a route's ``pace`` goes before it.

    A day begins at 00:00 UTC. ``only`` is a pattern of the model ids that the limits hold for (``:free$``).
    """

    requests_per_minute: float | None = None
    requests_per_day: int | None = None
    tokens_per_minute: float | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None
    only: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Where a router lists the endpoints that serve a model, below the route's URL, with ``{model}`` in the path.

    ``form`` names the reader of the answer.
    """

    path: str
    form: Literal["openrouter"]
    follow_up: str | None = None
    """Path of what the router tells afterwards of one generation, with ``{id}`` in it."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One sampling parameter that a backend takes: its name on the wire, and its value there for "off" (our 0)."""

    wire: str
    off: int | float | None = None


@dataclass(frozen=True, slots=True)
class ParameterMap:
    """The sampling parameters that a backend takes, by the names of ``Sampling``."""

    by_name: Mapping[str, Parameter] = field(default_factory=dict)

    def to_wire(self, sampling: Sampling) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the parameters as they are sent, and the names of those that the backend cannot take.

        Every parameter is sent, also at its default. A ``seed`` of ``None`` is no parameter: neither sent nor dropped.
        """
        sent: dict[str, Any] = {}
        dropped: list[str] = []
        for name, value in asdict(sampling).items():
            if value is None:
                continue
            parameter = self.by_name.get(name)
            if parameter is None:
                dropped.append(name)
            else:
                sent[parameter.wire] = parameter.off if parameter.off is not None and value == 0 else value
        return sent, tuple(dropped)


@dataclass(frozen=True, slots=True)
class Describe:
    """Where a server tells about itself, as paths below its root (the route's URL without ``/v1``).

    Without ``models`` there is no list that could be asked.
    """

    models: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What an answer reveals beside its text, and where.

    ``field`` is a JMESPath expression into the documents, or ``header:NAME`` with a name in lower case; ``search`` is
    the compiled path, ``keys`` are those that it may begin with (``None`` where that is not known).
    ``means`` is one of ``REPORTED``; durations have a ``unit``. ``needs`` tells what makes it appear.
    """

    field: str
    means: str
    source: str
    confidence: Confidence
    unit: str | None = None
    needs: str | None = None
    search: Any = None
    keys: frozenset[str] | None = None

    @property
    def header(self) -> str | None:
        """The name of the header field, ``None`` for a path."""
        return self.field.removeprefix(HEADER) if self.field.startswith(HEADER) else None


HEADER = "header:"
"""Prefix of a report's ``field`` that is a header field of the response."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One statement of a backend file, with where it was read. ``about`` are keys of the file (``request.plugins``)."""

    about: tuple[str, ...]
    says: str
    source: str
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class Canned:
    """A text that a platform is known to write in the model's place. Alone it is no proof: models say such things.

    ``by`` completes "the message of …". ``place``: the text is the whole answer, or stands at its end.
    """

    text: str
    by: str
    source: str
    confidence: Confidence
    place: Place = "whole"


@dataclass(frozen=True, slots=True)
class JsonCondition:
    """A JMESPath expression whose value, or an element of it, must match a regular expression (``re.search``).

    ``search`` is the compiled path. Strings are matched as they are, everything else as compact JSON; ``null`` never.
    ``needs`` are sets of keys, one of which a document must have in full; ``None`` where that is not known.
    """

    path: str
    search: Any
    pattern: re.Pattern[str]
    needs: tuple[frozenset[str], ...] | None = None

    def may_hold(self, keys: AbstractSet[str]) -> bool:
        """Whether documents with these keys are worth a search."""
        return self.needs is None or any(needed <= keys for needed in self.needs)


@dataclass(frozen=True, slots=True)
class Signature:
    """How a backend shows that somebody acted on an exchange. All stated conditions must hold.

    ``author`` is who wrote what the client got. A redacted or rewritten prompt says nothing of that: its author is
    ``unknown``. ``json`` conditions must hold in one and the same document. ``text`` tells whether text was delivered;
    ``with_text`` is the mechanism where it was, if that is another one.
    """

    id: str
    mechanism: Mechanism
    layer: Layer
    author: Author
    sentence: str
    source: str
    confidence: Confidence
    status: tuple[int, ...] = ()
    headers: tuple[tuple[str, re.Pattern[str]], ...] = ()
    json: tuple[JsonCondition, ...] = ()
    body: re.Pattern[str] | None = None
    event: re.Pattern[str] | None = None
    finish_reason: re.Pattern[str] | None = None
    text: Literal["none", "some"] | None = None
    with_text: Mechanism | None = None


@dataclass(frozen=True)
class Backend:
    """A kind of server or provider.

    ``url`` is the fixed address, ``None`` where each installation has its own. ``headers`` go onto every request,
    ``request`` is merged into every body, ``stream_request`` into the bodies of streamed requests only. ``logprobs``
    tells whether log-probabilities may be asked for.
    """

    name: str
    title: str
    kind: Kind
    dialect: str
    describe: Describe
    url: str | None = None
    auth: Auth | None = None
    key_env: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    stream_request: Mapping[str, Any] = field(default_factory=dict)
    parameters: ParameterMap = field(default_factory=ParameterMap)
    stream_default: bool = True
    logprobs: bool = False
    signatures: tuple[Signature, ...] = ()
    canned: tuple[Canned, ...] = ()
    facts: tuple[Fact, ...] = ()
    reports: tuple[Report, ...] = ()
    limits: Limits = field(default_factory=Limits)
    listing: Listing | None = None

    def signatures_for(self, keys: frozenset[str]) -> tuple[Signature, ...]:
        """Return the signatures that documents with these keys may carry, in order.

        The answers of a route have few different sets of keys, so the choice is remembered.
        """
        found = self._by_keys.get(keys)
        if found is None:
            if len(self._by_keys) >= _KEY_SETS:
                self._by_keys.clear()
            found = tuple(s for s in self.signatures if all(condition.may_hold(keys) for condition in s.json))
            self._by_keys[keys] = found
        return found

    @cached_property
    def _by_keys(self) -> dict[frozenset[str], tuple[Signature, ...]]:
        return {}
