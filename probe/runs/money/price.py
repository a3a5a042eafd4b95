"""Prices, the worst that a request can cost, and what it did cost.

Money is counted in whole nano-dollars (1e-9 US dollars), rounded up for every request, so that sums are exact and never
too small.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from probe.config import Price, Route
from probe.routers.listing import Endpoint
from probe.routers.pins import Pin, matches
from probe.store.rows import AttemptEnd, CostSource
from probe.wire.values import Reading, Usage

NANO = 1_000_000_000
"""Nano-dollars in a US dollar."""

MOST = 2**53
"""Counts and sums that a server reports beyond this are nonsense, and JSON cannot write them exactly."""

NO_MAXIMUM = 32_768
"""Completion tokens that are reserved where a request states no maximum."""

_MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "maxTokens", "num_predict")
_HOLDERS = ("options", "generationConfig", "generation_config", "inferenceConfig", "parameters")
"""Objects of a body in which dialects put their parameters: Ollama, Gemini, Bedrock, DashScope."""

_CHOICES = ("n", "best_of", "candidateCount")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a prompt and of its completion."""

    prompt: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request cost; ``nanousd`` is ``None`` where no price is known and the route did not say."""

    prompt_tokens: int
    completion_tokens: int
    nanousd: int | None
    source: CostSource

    @property
    def tokens(self) -> Tokens:
        """Its tokens."""
        return Tokens(self.prompt_tokens, self.completion_tokens)

    @property
    def usd(self) -> float | None:
        """US dollars, for people."""
        return None if self.nanousd is None else self.nanousd / NANO

    def end(self, attempt_id: str) -> AttemptEnd:
        """Return the row that ends an attempt with this cost."""
        return AttemptEnd(attempt_id, self.prompt_tokens, self.completion_tokens, self.nanousd, self.source)


NOTHING = Cost(0, 0, 0, "counted")
"""What a request costs that a server turned away before it did any work: it counts as a request and costs nothing."""


def unsent(attempt_id: str) -> AttemptEnd:
    """Return the row that ends an attempt whose request never left."""
    return AttemptEnd(attempt_id, 0, 0, None, "unsent")


def nanousd_of(usd: float) -> int:
    """Return an amount of US dollars in nano-dollars, rounded down: it is a limit.

    The decimal digits that a user wrote count, not the binary fraction next to them.
    """
    return math.floor(_exact(usd) * NANO)


def charge(price: Price, tokens: Tokens, requests: int = 1) -> int:
    """Return what requests with these tokens cost in nano-dollars, rounded up."""
    per_million = _exact(price.prompt) * tokens.prompt + _exact(price.completion) * tokens.completion
    return math.ceil(per_million * (NANO // 1_000_000) + _exact(price.request) * requests * NANO)


def price_of(route: Route, endpoints: Sequence[Endpoint] = ()) -> Price | None:
    """Return what a route costs: its own price first, then the listing's; ``None`` where nobody says.

    Where several endpoints may serve the route, each part is that of the dearest; where one of them states no price,
    none is known. A local route costs nothing.
    """
    if route.role == "local":
        return Price()
    if route.price is not None:
        return route.price
    prices = [endpoint.price for endpoint in endpoints if _may_serve(Pin.of_request(route.request), endpoint)]
    known = [price for price in prices if price is not None]
    if not known or len(known) < len(prices):
        return None
    return Price(
        prompt=max(price.prompt for price in known),
        completion=max(price.completion for price in known),
        request=max(price.request for price in known),
    )


def _may_serve(pin: Pin, endpoint: Endpoint) -> bool:
    """Whether a route with this pin can end up at an endpoint; rather one too many than one too few."""
    named = pin.only or (() if pin.fallbacks else pin.order)
    if named and not any(matches(slug, endpoint.tag) for slug in named):
        return False
    return not pin.quantizations or endpoint.quantization in pin.quantizations


def worst_case(body: bytes, max_tokens: int | None = None) -> Tokens:
    """Return the most that a request can cost in tokens.

    Its prompt has at most as many tokens as its body has bytes: a token stands for at least one byte of text, and the
    few that a chat template adds to a message are fewer than the bytes of JSON around it. Its completion has at most
    the tokens that the body allows, which goes before ``max_tokens`` (the trace's); times the number of choices it asks
    for. What a platform adds to the prompt by itself is not in this figure; ``Ledger`` learns of it.
    """
    document = _document(body)
    found = [value for name in _MAXIMA for value in _numbers(document, name)]
    completion = max(found) if found else max_tokens if max_tokens is not None else NO_MAXIMUM
    choices = max((value for name in _CHOICES for value in _numbers(document, name)), default=1)
    return Tokens(len(body), completion * max(choices, 1))


def cost_of(price: Price | None, usage: Usage, reading: Reading, worst: Tokens) -> Cost:
    """Return what an answered request cost.

    Money that the route reports goes first (``usage.cost``, in US dollars: OpenRouter, docs use-cases/usage-accounting;
    with one's own key at the provider, what that provider takes is added). Then the reported tokens at ``price``. What
    is not reported counts as in ``worst``, which is what was reserved.
    """
    prompt = _count(usage.prompt_tokens)
    completion = _count(usage.completion_tokens)
    if completion is not None:
        # A server that counts thoughts apart bills them all the same; one that counts them in reports no more of them.
        completion = max(completion, _count(usage.reasoning_tokens) or 0)
    known = prompt is not None and completion is not None
    tokens = Tokens(
        worst.prompt if prompt is None else prompt,
        worst.completion if completion is None else completion,
    )
    reported = _reported(reading)
    if reported is not None:
        return Cost(tokens.prompt, tokens.completion, reported, "reported")
    money = None if price is None else charge(price, tokens)
    return Cost(tokens.prompt, tokens.completion, money, "counted" if known else "reserved")


def _reported(reading: Reading) -> int | None:
    """Return the money that the last document with such a figure reports, in nano-dollars."""
    for document in reversed(reading.documents):
        usage = document.get("usage") if isinstance(document, Mapping) else None
        if not isinstance(usage, Mapping):
            continue
        cost = _amount(usage.get("cost"))
        if cost is None:
            continue
        details = usage.get("cost_details")
        own_key = usage.get("is_byok") is True and isinstance(details, Mapping)
        upstream = _amount(details.get("upstream_inference_cost")) if own_key and isinstance(details, Mapping) else None
        return math.ceil((cost + (upstream or 0)) * NANO)
    return None


def _amount(value: Any) -> Fraction | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value < MOST // NANO:  # false for NaN, too
        return None
    return _exact(value)


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < MOST else None


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _numbers(document: Any, name: str) -> Iterator[int]:
    if not isinstance(document, Mapping):
        return
    for holder in (document, *(document.get(holder) for holder in _HOLDERS)):
        value = _count(holder.get(name)) if isinstance(holder, Mapping) else None
        if value is not None:
            yield value


def _exact(value: float) -> Fraction:
    """Return the decimal number that a float was written as."""
    return Fraction(str(value))
