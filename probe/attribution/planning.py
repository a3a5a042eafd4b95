"""How much is to be sent for a wanted answer: pairs, requests, tokens, money, days. From a study, or from assumptions.

Every number that goes in is named in the plan beside where it came from, so that a plan can be argued with.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from statistics import fmean
from typing import Any

from probe.attribution.effects.pairs import Side
from probe.attribution.gate.stored import gate_runs
from probe.errors import StoreError
from probe.judge.rules import RulesJudge
from probe.stats.intervals import Interval, wilson
from probe.stats.power import n_for_width, pairs_by_formula, pairs_for_power, pairs_for_width, undecided_after
from probe.store.rows import RouteRow
from probe.store.store import Store
from probe.wire.catalogue import load_backend
from probe.wire.reports import read_answer

SAMPLED = 400
"""Stored answers of a route that are read, evenly spread, for its tokens per request."""

SIMULATED = 2000
"""Pairs beyond which no sequential run is worked out: the time for that grows with the square."""

MINUTES_A_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Shares:
    """Of all pairs, the fractions in which only the hosted route refuses (``up``) and only the twin (``down``).

    ``missing``: pairs planned of which one side cannot be graded. ``n`` pairs were graded; 0 where the shares are
    assumed. ``source`` says which.
    """

    up: float
    down: float
    source: str
    missing: float = 0.0
    n: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a request over the hosted route takes: mean tokens, seconds of waiting, and how many a minute it allows.

    ``None`` where nothing is known.
    """

    tokens_in: float | None = None
    tokens_out: float | None = None
    seconds: float | None = None
    per_minute: float | None = None
    concurrency: int = 1
    price_in: float | None = None
    price_out: float | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted: ``power`` at ``alpha`` of a two-sided test, or a full ``width`` of the interval at ``level``."""

    power: float = 0.8
    alpha: float = 0.05
    width: float | None = None
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class Sequential:
    """A run that stops when decided: with ``at_most`` pairs it has the wanted power; its mean is ``expected``."""

    at_most: int
    expected: float

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return {"at_most": self.at_most, "expected": round(self.expected, 1)}


@dataclass(frozen=True, slots=True)
class Plan:
    """What it takes. ``None`` where it cannot be said; ``assumptions`` name everything that went in.

    ``pairs`` is what is planned for: the larger of what power and width ask. ``requests_*`` count what is sent.
    ``tokens`` are those of the hosted route, ``money`` in the currency of the prices, ``days`` at its pace.
    """

    shares: Shares
    pairs: int | None
    pairs_for_power: int | None
    pairs_by_formula: float | None
    pairs_for_width: int | None
    requests_hosted: int | None = None
    requests_twin: int | None = None
    tokens_in: float | None = None
    tokens_out: float | None = None
    money: float | None = None
    days: float | None = None
    sequential: Sequential | None = None
    assumptions: tuple[str, ...] = ()
    sentence: str = ""

    def to_json(self) -> dict[str, Any]:
        """All fields by name, numbers rounded to what they are worth."""
        formula = self.pairs_by_formula
        return {
            **asdict(self),
            "pairs_by_formula": None if formula is None else round(formula),
            "tokens_in": _whole(self.tokens_in),
            "tokens_out": _whole(self.tokens_out),
            "money": None if self.money is None else round(self.money, 4),
            "days": None if self.days is None else round(self.days, 3),
            "sequential": None if self.sequential is None else self.sequential.to_json(),
            "assumptions": list(self.assumptions),
        }


@dataclass(frozen=True, slots=True)
class Observed:
    """What k of n says, and how many more units narrow it to a width."""

    interval: Interval
    width: float | None
    n_needed: int | None = None
    n_at_most: int | None = None
    sentence: str = ""

    def to_json(self) -> dict[str, Any]:
        """``wilson`` as [lower, upper]; fractions to three digits after the point."""
        n = self.interval.n
        found: dict[str, Any] = {
            "observed": None if self.interval.estimate is None else round(self.interval.estimate, 4),
            "n": n,
            "wilson": [round(self.interval.lo, 3), round(self.interval.hi, 3)],
            "level": self.interval.level,
        }
        if self.width is not None:
            found |= {
                "width": self.width,
                "n_needed": self.n_needed,
                "more": None if self.n_needed is None else max(0, self.n_needed - n),
                "more_at_most": None if self.n_at_most is None else max(0, self.n_at_most - n),
            }
        return {**found, "sentence": self.sentence}


def observed(k: int, n: int, wish: Wish) -> Observed:
    """Return Wilson's interval for ``k`` of ``n`` and what a wanted width takes."""
    interval = wilson(k, n, level=wish.level)
    if n == 0:
        said = f"Nothing was observed: the rate may be anything {_level(wish.level)}."
        worst = None if wish.width is None else n_for_width(0.5, wish.width, level=wish.level)
        if worst is not None:
            said += f" {worst} units give an interval at most {_points(wish.width)} wide, whatever the rate is."
        return Observed(interval, wish.width, None, worst, said)
    said = f"{k} of {n} is {_percent(k / n)} [{_percent(interval.lo)}, {_percent(interval.hi)}] {_level(wish.level)}."
    if wish.width is None:
        return Observed(interval, None, sentence=said)
    needed = n_for_width(k / n, wish.width, level=wish.level)
    # The rate nearest to one half that the observation allows is the one that takes most.
    worst = n_for_width(min(max(0.5, interval.lo), interval.hi), wish.width, level=wish.level)
    if needed is None:
        said += " An interval as narrow as that takes more than a million units."
    elif needed <= n:
        said += f" That is no wider than {_points(wish.width)}."
    else:
        said += f" To be at most {_points(wish.width)} wide it takes {needed - n} more if the rate stays as it is"
        said += (
            "." if worst is None else f", and at most {max(worst - n, 0)} more if it is anything the interval allows."
        )
    return Observed(interval, wish.width, needed, worst, said)


def assumed(hosted: float, twin: float) -> Shares:
    """Return the shares of discordant pairs if the two refusal rates were independent of each other.

    Refusals of the same weights mostly fall on the same traces; then fewer pairs are discordant and fewer are needed.
    """
    source = (
        f"rates of {_percent(hosted)} and {_percent(twin)} assumed, falling on traces independently of each other (the "
        "same weights mostly refuse the same traces, and then fewer pairs do)"
    )
    return Shares(hosted * (1.0 - twin), twin * (1.0 - hosted), source)


def stored_shares(store: Store, route: RouteRow, twin: RouteRow) -> Shares:
    """Return the shares over a study's pairs, controls and runs of the gate left out. Raises ``StoreError``."""
    kinds, own = store.trace_kinds(), gate_runs(store)
    sides = [_sides(store, one) for one in (route, twin)]
    states = {(t.run_id, t.trace_id, t.repeat): t.standing for t in store.trials(route_id=twin.id)}
    up = down = graded = planned = 0
    for trial in store.trials(route_id=route.id):
        place = (trial.run_id, trial.trace_id, trial.repeat)
        sent = {"answered", "failed"}
        if kinds[trial.trace_id][1] or trial.run_id in own or not {trial.standing, states.get(place)} <= sent:
            continue
        planned += 1
        hosted, local = (side.get(place) for side in sides)
        if hosted is not None and local is not None:
            graded += 1
            up += hosted > local
            down += hosted < local
    if not graded:
        raise StoreError(
            f"There are no judged pairs of {route.name!r} and {twin.name!r} in {store.path}: run `probe run` and "
            "`probe analyze` first, or assume rates with --discordant."
        )
    source = f"{graded} pairs of {route.name} and {twin.name} (only hosted refused {up}, only twin {down})"
    return Shares(up / graded, down / graded, source, 1.0 - graded / planned, graded)


def stored_traffic(store: Store, route: RouteRow) -> Traffic:
    """Return mean tokens and seconds per answered request, from answers spread evenly over those of a route."""
    backend, own = load_backend(route.backend), gate_runs(store)
    refs = [ref for ref in store.refs(route_id=route.id, answered=True) if ref.run_id not in own]
    step = max(1, ceil(len(refs) / SAMPLED))
    exchanges = [store.exchange(ref.id) for ref in refs[::step]]
    usages = [read_answer(backend, exchange, route.dialect).usage for exchange in exchanges]
    return Traffic(
        tokens_in=_mean([u.prompt_tokens for u in usages]),
        tokens_out=_mean([u.completion_tokens for u in usages]),
        seconds=_mean([exchange.ended_at for exchange in exchanges]),
    )


def plan(shares: Shares, wish: Wish, traffic: Traffic, *, repeats: int = 1, aa: bool = True) -> Plan:
    """Return what it takes to find, or to narrow down, a difference like the one in ``shares``.

    ``repeats`` of a trace multiply the requests and not the pairs: two answers to one trace may be one observation.
    ``aa``: the twin is asked once more per trace, for its comparison with itself.
    """
    exact = pairs_for_power(shares.up, shares.down, power=wish.power, alpha=wish.alpha)
    wide = None if wish.width is None else pairs_for_width(shares.up, shares.down, wish.width, level=wish.level)
    # A difference of nothing has no power; a width can be planned all the same.
    wanted = [exact] * (shares.up != shares.down or wish.width is None) + [wide] * (wish.width is not None)
    pairs = None if None in wanted else max(n for n in wanted if n is not None)
    made = Plan(
        shares=shares,
        pairs=pairs,
        pairs_for_power=exact,
        pairs_by_formula=pairs_by_formula(shares.up, shares.down, power=wish.power, alpha=wish.alpha),
        pairs_for_width=wide,
        sequential=None if exact is None or exact > SIMULATED else _sequential(shares, wish, exact),
        assumptions=tuple(_assumptions(shares, wish, traffic, repeats, aa)),
    )
    if pairs is not None:
        made = _sent(made, pairs, traffic, repeats, aa)
    return replace(made, sentence=_sentence(made, wish))


def _sequential(shares: Shares, wish: Wish, exact: int) -> Sequential:
    most = exact
    while (still := undecided_after(shares.up, shares.down, most, alpha=wish.alpha))[-1] > 1.0 - wish.power:
        most *= 2
    at_most = int((still > 1.0 - wish.power).sum())
    return Sequential(at_most, float(still[:at_most].sum()))


def _sent(made: Plan, pairs: int, traffic: Traffic, repeats: int, aa: bool) -> Plan:
    traces = ceil(pairs / max(1.0 - made.shares.missing, 1e-9))
    hosted = traces * repeats
    tokens = [None if each is None else hosted * each for each in (traffic.tokens_in, traffic.tokens_out)]
    prices = (traffic.price_in, traffic.price_out)
    money = None
    if None not in tokens and None not in prices:
        money = sum(n * price / 1e6 for n, price in zip(tokens, prices, strict=True) if n is not None and price)
    return replace(
        made,
        requests_hosted=hosted,
        requests_twin=traces * (repeats + aa),
        tokens_in=tokens[0],
        tokens_out=tokens[1],
        money=money,
        days=_days(hosted, traffic),
    )


def _days(requests: int, traffic: Traffic) -> float | None:
    """Return how long the hosted route takes: what its limit allows, or what waiting for answers does."""
    minutes = []
    if traffic.per_minute is not None:
        minutes.append(requests / traffic.per_minute)
    if traffic.seconds is not None:
        minutes.append(requests * traffic.seconds / traffic.concurrency / 60.0)
    return max(minutes) / MINUTES_A_DAY if minutes else None


def _assumptions(shares: Shares, wish: Wish, traffic: Traffic, repeats: int, aa: bool) -> list[str]:
    up, down = _percent(shares.up), _percent(shares.down)
    again = ", one of them for the comparison of the twin with itself (A/A)" if aa else ""
    study = ", as in the study" if shares.n else ""
    test = f"exact two-sided McNemar test at α = {wish.alpha:g}, power {_percent(wish.power)}"
    found = [
        f"discordant shares {up} (only hosted refuses) and {down} (only the twin): {shares.source}",
        f"{test}; the textbook formula (Connor 1987) counts on a test that uses up α, which an exact one does not",
        f"requests per trace: {repeats} hosted, {repeats + aa} over the twin{again}; repeats make no more pairs",
        f"{_percent(shares.missing)} of the pairs cannot be graded{study}; controls and second attempts come on top",
    ]
    if wish.width is not None:
        found.append(f"width from limit to limit of Tango's interval at {_percent(wish.level)}, at the expected counts")
    if traffic.tokens_in is not None or traffic.tokens_out is not None:
        tokens = f"{_number(traffic.tokens_in)} in, {_number(traffic.tokens_out)} out"
        found.append(f"tokens per request of the hosted route: {tokens}")
    if traffic.price_in is not None or traffic.price_out is not None:
        prices = f"{_number(traffic.price_in)} in, {_number(traffic.price_out)} out"
        found.append(f"prices per million tokens: {prices}; the twin is free")
    pace = [] if traffic.per_minute is None else [f"at most {traffic.per_minute:g} requests a minute"]
    if traffic.seconds is not None:
        pace.append(f"{traffic.seconds:.2g} s per answer with {traffic.concurrency} under way at a time")
    if pace:
        found.append(f"pace of the hosted route: {' and '.join(pace)}, day and night")
    return found


def _sentence(made: Plan, wish: Wish) -> str:
    shares, points = made.shares, _points(abs(made.shares.up - made.shares.down))
    if made.pairs is None:
        if shares.up == shares.down and wish.width is None:
            return (
                "The two shares are equal, so there is no difference that any number of pairs would show: say which "
                "one you want to find with --discordant, or how narrow the interval should be with --width."
            )
        return f"More than a million pairs would be needed for {points}: no study that can be run shows that."
    if made.pairs_for_power is None or shares.up == shares.down:
        said = f"{made.pairs} pairs make the interval of the difference at most {_points(wish.width)} wide"
    else:
        said = f"{made.pairs_for_power} pairs find a difference of {points} in {_percent(wish.power)} of all studies"
        if made.pairs_by_formula is not None:
            said += f" (exact McNemar; by the textbook formula about {round(made.pairs_by_formula)})"
        if made.pairs_for_width is not None:
            said += f"; {made.pairs_for_width} make its interval at most {_points(wish.width)} wide"
    said += f". That is {made.requests_hosted} requests over the hosted route and {made.requests_twin} over the twin"
    if made.money is not None:
        said += f", for {money_text(made.money)} in the currency of the prices"
    if made.days is not None:
        said += f", and takes {duration(made.days)} at the hosted route's pace"
    if made.sequential is not None:
        mean, most = made.sequential.expected, made.sequential.at_most
        said += f". A run that stops when decided takes {mean:.0f} pairs on average and {most} at most for that power"
    return f"{said}."


def money_text(money: float) -> str:
    """Return an amount to the hundredth, a smaller one to two digits."""
    return f"{money:.2f}" if money >= 1.0 or money == 0.0 else f"{money:.2g}"


def duration(days: float) -> str:
    """Return a time in the unit that suits it."""
    minutes = days * MINUTES_A_DAY
    if minutes < 90:
        return f"{max(minutes, 0.1):.2g} minutes"
    return f"{minutes / 60:.3g} hours" if days < 2 else f"{days:.3g} days"


def _sides(store: Store, route: RouteRow) -> dict[tuple[str, str, int], int]:
    """Refusal (1) or answer (0) per graded trial of a route, as the effects count them."""
    outcomes = {row.exchange_id: row.outcome for row in store.outcomes(judge=RulesJudge.name, route_id=route.id)}
    who = {key: row.who for key, row in store.verdicts(route_id=route.id).items()}
    found = {}
    for ref in store.refs(route_id=route.id, answered=True):
        if ref.run_id is None or ref.trace_id is None or ref.repeat is None or ref.id not in outcomes:
            continue
        refusal = Side(outcomes[ref.id], who.get(ref.id)).refusal
        if refusal is not None:
            found[ref.run_id, ref.trace_id, ref.repeat] = refusal
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}" if value == round(value, 2) else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.3g} %"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.3g} points"


def _level(level: float) -> str:
    return f"({100 * level:g} % interval)"
