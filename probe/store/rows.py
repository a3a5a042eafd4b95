"""What the tables hold, as frozen values. Times are Unix seconds (UTC); mappings are JSON objects."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from probe.evidence.base import Evidence
from probe.ids import content_hash, json_hash, new_id

RouteRole = Literal["local", "hosted"]
TrialState = Literal["planned", "answered", "failed", "spared"]
"""``planned``: to be sent (again); ``answered``: an exchange is its answer; ``failed``: given up; ``spared``: not sent,
because the question was answered before its turn came."""

Outcome = Literal["complied", "partial", "refused", "blocked", "cut", "empty", "error", "ungradable"]
Who = Literal["model", "platform", "undecided"]

EXCERPT = 300
"""Characters of a judged text that are kept for people to read."""


@dataclass(frozen=True, slots=True)
class WeightsRow:
    """One set of model parameters; empty text where nobody said. ``id`` is the hash of the fields."""

    name: str
    revision: str = ""
    quantization: str = ""
    file_sha256: str | None = None

    @property
    def id(self) -> str:
        """Content hash of the fields."""
        return json_hash(asdict(self))


@dataclass(frozen=True, slots=True)
class RouteRow:
    """A route's definition; ``weights_id`` is the id of a ``WeightsRow``, ``twin`` the name of a local route."""

    name: str
    backend: str
    dialect: str
    url: str
    model: str
    weights_id: str
    role: RouteRole
    twin: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Content hash of the fields: an edited route is a new route."""
        return json_hash({name: getattr(self, name) for name in self.__slots__} | {"request": dict(self.request)})


@dataclass(frozen=True, slots=True)
class FactRow:
    """What a server said of itself: ``value`` is any JSON value."""

    route_id: str
    at: float
    kind: str
    value: Any
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class PackRow:
    """A file of traces; ``id`` is its content hash, ``source`` its file name."""

    id: str
    name: str
    source: str
    licence: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunRow:
    """One execution of a plan."""

    started_at: float
    seed: int
    manifest: Mapping[str, Any]
    ended_at: float | None = None
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trace over one route once. ``dropped`` names parameters that the backend cannot accept."""

    run_id: str
    trace_id: str
    route_id: str
    repeat: int
    position: int
    state: TrialState = "planned"
    dropped: tuple[str, ...] = ()
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class ExchangeRef:
    """Where an exchange belongs, without its bytes. The last three are ``None`` outside any plan."""

    id: str
    route_id: str
    answered: bool
    attempt: int
    started_at: float
    trial_id: str | None
    run_id: str | None
    trace_id: str | None
    repeat: int | None


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """What the user got, according to one judge; ``confidence`` is the judge's own, 0 to 1."""

    exchange_id: str
    judge: str
    judge_version: str
    outcome: Outcome
    confidence: float
    reason: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    text_hash: str | None = None
    excerpt: str = ""

    @staticmethod
    def of_text(text: str) -> tuple[str | None, str]:
        """Return ``text_hash`` and ``excerpt`` of the text that was judged; none for an empty one."""
        if not text:
            return None, ""
        return content_hash(text.encode("utf-8", "surrogatepass")), text[:EXCERPT]


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """A finding and the exchange it is about."""

    exchange_id: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """Who is behind an exchange; ``probability`` is that of ``platform``, ``log_e`` a natural logarithm."""

    exchange_id: str
    who: Who
    probability: float
    log_e: float
    mechanism: str | None
    layer: str | None
    reason: str
    code_version: str


@dataclass(frozen=True, slots=True)
class GateRow:
    """Whether a hosted route serves the weights of its twin."""

    route_id: str
    twin_id: str
    answer: str
    sentence: str
    code_version: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Content hash of the two routes: asked again, the answer is replaced."""
        return json_hash([self.route_id, self.twin_id])


@dataclass(frozen=True, slots=True)
class EffectRow:
    """A difference between a hosted route and its twin, in fractions; ``None`` where it cannot be estimated."""

    route_id: str
    twin_id: str
    scope: str
    n: int
    missing: int
    undecided: int
    sentence: str
    code_version: str
    hosted_rate: float | None = None
    hosted_low: float | None = None
    hosted_high: float | None = None
    twin_rate: float | None = None
    twin_low: float | None = None
    twin_high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    platform: float | None = None
    platform_low: float | None = None
    platform_high: float | None = None
    serving: float | None = None
    serving_low: float | None = None
    serving_high: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Content hash of the two routes and the scope: estimated again, the row is replaced."""
        return json_hash([self.route_id, self.twin_id, self.scope])
