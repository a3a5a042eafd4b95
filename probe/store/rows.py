"""What the tables hold, as frozen values. Times are Unix seconds (UTC); mappings are JSON objects."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from probe.evidence.base import Evidence
from probe.ids import content_hash, json_hash, new_id

RouteRole = Literal["local", "hosted"]
TrialState = Literal["planned", "answered", "failed", "spared"]

TRIED = ("rate_limited", "overloaded", "unreachable", "dns", "tls", "credit")
"""Reasons of open trials that were tried and got no answer: one is missing there, though a later start may bring it."""
"""``planned``: to be sent (again); ``answered``: an exchange is its answer; ``failed``: given up; ``spared``: not sent,
because the question was answered before its turn came."""

CostSource = Literal["reported", "counted", "reserved"]
"""Where a cost comes from: ``reported`` by the route in money; ``counted`` from the tokens that it reports and from the
price; ``reserved``: the route did not say, so that the most it can have been counts."""

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
    """One trace over one route once. ``dropped`` names parameters that the backend cannot accept.

    ``reason`` is one word that says why there is no answer so far; empty where nobody has said.
    """

    run_id: str
    trace_id: str
    route_id: str
    repeat: int
    position: int
    state: TrialState = "planned"
    dropped: tuple[str, ...] = ()
    id: str = field(default_factory=new_id)
    reason: str = ""

    @property
    def standing(self) -> TrialState:
        """The state as statistics see it: what was tried and got no answer is missing, though it is open."""
        return "failed" if self.state == "planned" and self.reason in TRIED else self.state


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How many trials of a route are in one state for one reason."""

    route_id: str
    state: TrialState
    reason: str
    trials: int


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """A request to a hosted route that is about to leave, and what it may cost at most.

    ``reserved_nanousd`` is in nano-dollars (1e-9 US dollars), ``None`` where no price is known.
    """

    trial_id: str
    route_id: str
    attempt: int
    begun_at: float
    reserved_prompt: int
    reserved_completion: int
    reserved_nanousd: int | None = None
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """What an attempt cost in the end, in tokens and nano-dollars (``None``: no price is known).

    An attempt that is ``unsent`` did not leave and counts nowhere.
    """

    attempt_id: str
    prompt_tokens: int
    completion_tokens: int
    nanousd: int | None
    source: CostSource | Literal["unsent"]


@dataclass(frozen=True, slots=True)
class Spent:
    """What requests to one route have cost. The ``unpriced`` ones are among the others; no price was known for them."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    nanousd: int = 0
    unpriced_requests: int = 0
    unpriced_prompt: int = 0
    unpriced_completion: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of prompts and completions together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Counted:
    """Requests and tokens (of prompts and completions together) since some time."""

    requests: int = 0
    tokens: int = 0


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
