"""How much a run may still spend: in requests, tokens and money, for each route and over all hosted ones.

What a request can cost at most is reserved before it is sent and settled after. What is spent, and what is reserved,
and the next request at its worst, together never exceed a limit: so the limit holds, whatever order answers come in and
wherever the run is killed. The journal in the store keeps the reservations; a request whose end nobody knows stays
spent in full. Only a bill above the worst case can break a limit (a platform that adds a prompt of its own and charges
for it): that is seen when it is settled, and what is reserved from then on is larger by that much.

Local routes cost nothing and count nowhere.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from probe.config import Price, Route
from probe.errors import ConfigError
from probe.ids import new_id
from probe.runs.money.price import NANO, Cost, Tokens, charge, nanousd_of
from probe.store.rows import AttemptRow, Spent

Unit = Literal["requests", "tokens", "nanousd"]
UNITS: tuple[Unit, ...] = ("requests", "tokens", "nanousd")


@dataclass(frozen=True, slots=True)
class Amount:
    """Something in all three units."""

    requests: int = 0
    tokens: int = 0
    nanousd: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.requests + other.requests, self.tokens + other.tokens, self.nanousd + other.nanousd)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.requests - other.requests, self.tokens - other.tokens, self.nanousd - other.nanousd)

    def of(self, unit: Unit) -> int:
        """Return the amount in one unit."""
        value: int = getattr(self, unit)
        return value


@dataclass(frozen=True, slots=True)
class Totals:
    """Limits over all hosted routes of a run and all of its starts; ``None`` for none. Money in nano-dollars."""

    requests: int | None = None
    tokens: int | None = None
    nanousd: int | None = None

    @classmethod
    def of_usd(cls, requests: int | None = None, tokens: int | None = None, usd: float | None = None) -> "Totals":
        """Make limits with money in US dollars, as a command takes them."""
        return cls(requests, tokens, None if usd is None else nanousd_of(usd))

    def of(self, unit: Unit) -> int | None:
        """Return the limit in one unit."""
        value: int | None = getattr(self, unit)
        return value


@dataclass(frozen=True, slots=True)
class RouteLimits:
    """What the ledger needs of a route: its name, whether it costs anything, its price and its own limits."""

    name: str
    hosted: bool
    price: Price | None = None
    limits: Totals = field(default_factory=Totals)

    @classmethod
    def of_route(cls, route: Route, price: Price | None) -> "RouteLimits":
        """Take the limits from a route's ``pace``; ``price`` is that of ``price_of``."""
        pace = route.pace
        own = Totals.of_usd(pace.max_requests, pace.max_tokens, pace.max_usd)
        return cls(route.name, route.role == "hosted", price, own)


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether a route may send a request now.

    ``later``: others' requests or shares are in the way, so that it may be possible when one of them has ended.
    ``gone``: never again; ``sentence`` says which limit is in the way.
    """

    answer: Literal["yes", "later", "gone"]
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is put aside for one request: the most that it can cost. ``nanousd`` is ``None`` without a price."""

    route_id: str
    tokens: Tokens
    nanousd: int | None
    id: str = field(default_factory=new_id)

    @property
    def amount(self) -> Amount:
        """It in all units."""
        return Amount(1, self.tokens.total, self.nanousd or 0)

    @property
    def in_full(self) -> Cost:
        """The cost of a request whose end nobody knows: all that was put aside."""
        return Cost(self.tokens.prompt, self.tokens.completion, self.nanousd, "reserved")

    def attempt(self, trial_id: str, attempt: int, begun_at: float) -> AttemptRow:
        """Return the row for the journal; its id is the reservation's."""
        tokens = self.tokens
        return AttemptRow(
            trial_id, self.route_id, attempt, begun_at, tokens.prompt, tokens.completion, self.nanousd, id=self.id
        )


@dataclass(slots=True)
class _Account:
    """One hosted route. ``surplus`` is by how much a bill exceeded the worst case so far, ``need`` its next request."""

    limits: RouteLimits
    spent: Amount
    reserved: Amount = field(default_factory=Amount)
    surplus: Tokens = field(default_factory=Tokens)
    surcharge: int = 0
    need: Amount = field(default_factory=lambda: Amount(requests=1))
    open: bool = True

    @property
    def used(self) -> Amount:
        return self.spent + self.reserved


class Ledger:
    """Asked before every request, told after it. Any thread may call it.

    The run's totals are shared out evenly between the routes that still want some. What a route leaves over, because
    its question is answered or it has nothing more to send, goes to the others. So a quick route cannot spend what a
    slow one needs.
    """

    def __init__(self, totals: Totals, routes: Mapping[str, RouteLimits], spent: Mapping[str, Spent]) -> None:
        """``routes`` and ``spent`` (so far, over all starts) by route id.

        Raises ``ConfigError`` where money is limited and a route's price is unknown.
        """
        self._totals = totals
        self._lock = threading.Lock()
        self._refused = ""
        self._under_way: dict[str, Reservation] = {}
        self._accounts: dict[str, _Account] = {}
        for route_id, limits in routes.items():
            if not limits.hosted:
                continue
            if limits.price is None and (totals.nanousd is not None or limits.limits.nanousd is not None):
                raise ConfigError(
                    f"Route {limits.name!r} has a limit in US dollars and no known price: write "
                    f"price = {{ prompt = …, completion = … }} (US dollars per million tokens) into "
                    f"[routes.{limits.name}]."
                )
            self._accounts[route_id] = _Account(limits, _amount_of(spent.get(route_id, Spent()), limits.price))

    @property
    def spent(self) -> Amount:
        """What hosted requests have cost so far, without those under way."""
        with self._lock:
            return self._sum(lambda account: account.spent)

    @property
    def under_way(self) -> Amount:
        """What is reserved for requests that have not ended."""
        with self._lock:
            return self._sum(lambda account: account.reserved)

    def spent_on(self, route_id: str) -> Amount:
        """Return what a route has cost so far; nothing for a local one."""
        with self._lock:
            account = self._accounts.get(route_id)
            return account.spent if account else Amount()

    @property
    def gone(self) -> bool:
        """Whether a limit of the whole run is used up, or too little is left for a request that was asked for."""
        return bool(self.sentence)

    @property
    def sentence(self) -> str:
        """Which limit of the whole run is used up, in words; empty where none is."""
        with self._lock:
            if self._refused:
                return self._refused
            spent = self._sum(lambda account: account.spent)
            return self._exceeded(self._totals, spent + Amount(requests=1), spent, "The run")

    def counts(self, route_id: str) -> bool:
        """Whether requests of this route count at all: those of local routes cost nothing."""
        return route_id in self._accounts

    def may(self, route_id: str, tokens: Tokens) -> Permission:
        """Say whether a route may send a request that costs at most ``tokens`` (``worst_case``)."""
        with self._lock:
            return self._may(route_id, tokens)

    def reserve(self, route_id: str, tokens: Tokens) -> Reservation:
        """Put aside the most that a request can cost. Raises ``ValueError`` unless ``may`` says yes."""
        with self._lock:
            answer = self._may(route_id, tokens)
            if answer.answer != "yes":
                raise ValueError(f"not allowed now: {answer.answer}")
            account = self._accounts.get(route_id)
            if account is None:
                return Reservation(route_id, tokens, 0)
            reservation = _reservation(route_id, account, tokens)
            account.reserved += reservation.amount
            self._under_way[reservation.id] = reservation
            return reservation

    def settle(self, reservation: Reservation, cost: Cost | None) -> None:
        """Turn a reservation into what the request cost; ``None``: it never left, and all is given back.

        A request whose end nobody knows costs ``reservation.in_full``. Settling twice changes nothing.
        """
        with self._lock:
            known = self._under_way.pop(reservation.id, None)
            if known is None:
                return
            account = self._accounts[known.route_id]
            account.reserved -= known.amount
            if cost is None:
                return
            account.spent += Amount(1, cost.tokens.total, cost.nanousd or 0)
            account.surplus = Tokens(
                account.surplus.prompt + max(0, cost.prompt_tokens - known.tokens.prompt),
                account.surplus.completion + max(0, cost.completion_tokens - known.tokens.completion),
            )
            account.surcharge += max(0, (cost.nanousd or 0) - (known.nanousd or 0) if known.nanousd is not None else 0)

    def leave(self, route_id: str) -> None:
        """Note that a route sends nothing more: what is left of its share goes to the others."""
        with self._lock:
            if route_id in self._accounts:
                self._accounts[route_id].open = False

    def _may(self, route_id: str, tokens: Tokens) -> Permission:
        account = self._accounts.get(route_id)
        if account is None:
            return Permission("yes")
        account.need = _reservation(route_id, account, tokens).amount
        spent = self._sum(lambda other: other.spent)
        used = self._sum(lambda other: other.used)
        name, own = account.limits.name, account.limits.limits
        if sentence := self._exceeded(own, account.spent + account.need, account.spent, f"Route {name!r}"):
            return Permission("gone", sentence)
        if sentence := self._exceeded(self._totals, spent + account.need, spent, "The run"):
            self._refused = self._refused or sentence
            return Permission("gone", sentence)
        if _over(own, account.used + account.need) or _over(self._totals, used + account.need):
            return Permission("later")
        # The last few, which do not divide evenly, go to whoever comes first once all have had their share.
        if self._has_its_share(account) and not all(map(self._has_its_share, self._open())):
            return Permission("later")
        return Permission("yes")

    def _has_its_share(self, account: _Account) -> bool:
        """Whether a route's next request no longer fits into its share, or into its own limits."""
        if _over(account.limits.limits, account.spent + account.need):
            return True
        closed = self._sum(lambda other: Amount() if other.open else other.used)
        routes = max(1, len(self._open()))
        return any(
            limit is not None and (account.used + account.need).of(unit) > (limit - closed.of(unit)) // routes
            for unit, limit in ((unit, self._totals.of(unit)) for unit in UNITS)
        )

    def _open(self) -> list[_Account]:
        return [account for account in self._accounts.values() if account.open]

    def _sum(self, what: Callable[[_Account], Amount]) -> Amount:
        return sum((what(account) for account in self._accounts.values()), start=Amount())

    @staticmethod
    def _exceeded(limits: Totals, wanted: Amount, spent: Amount, who: str) -> str:
        for unit in UNITS:
            limit = limits.of(unit)
            if limit is not None and wanted.of(unit) > limit:
                return f"{who} has {_words(unit, spent.of(unit), limit)}: {_way_out(unit, who)}"
        return ""


def _reservation(route_id: str, account: _Account, tokens: Tokens) -> Reservation:
    worst = Tokens(tokens.prompt + account.surplus.prompt, tokens.completion + account.surplus.completion)
    price = account.limits.price
    return Reservation(route_id, worst, None if price is None else charge(price, worst) + account.surcharge)


def _amount_of(spent: Spent, price: Price | None) -> Amount:
    """Return what was spent; requests of a time when no price was known are priced now."""
    money = spent.nanousd
    if price is not None and spent.unpriced_requests:
        money += charge(price, Tokens(spent.unpriced_prompt, spent.unpriced_completion), spent.unpriced_requests)
    return Amount(spent.requests, spent.tokens, money)


def _over(limits: Totals, wanted: Amount) -> bool:
    return any(limit is not None and wanted.of(unit) > limit for unit, limit in ((u, limits.of(u)) for u in UNITS))


def _words(unit: Unit, spent: int, limit: int) -> str:
    if unit == "nanousd":
        return f"spent {spent / NANO:.4f} of {limit / NANO:.4f} US dollars, and the next request could cost more"
    if unit == "requests":
        return f"used {spent:,} of {limit:,} requests"
    return f"used {spent:,} of {limit:,} tokens, and the next request could need more"


def _way_out(unit: Unit, who: str) -> str:
    option = {"requests": "max_requests", "tokens": "max_tokens", "nanousd": "max_usd"}[unit]
    if who == "The run":
        return f"start it again with a larger --{option.replace('_', '-')} to go on."
    return f"raise its pace.{option} and start again to go on."
