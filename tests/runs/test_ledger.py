import random
import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.config import Price
from probe.errors import ConfigError
from probe.runs.money.ledger import Amount, Ledger, Reservation, RouteLimits, Totals
from probe.runs.money.price import NOTHING, Cost, Tokens, charge
from probe.store.rows import Spent

FREE = Tokens(0, 0)
PRICE = Price(prompt=0.5, completion=2.0, request=0.0001)


def hosted(name: str, price: Price | None = PRICE, **limits: int) -> RouteLimits:
    return RouteLimits(name, hosted=True, price=price, limits=Totals(**limits))


def spend(ledger: Ledger, route: str, tokens: Tokens = FREE) -> Reservation:
    reservation = ledger.reserve(route, tokens)
    ledger.settle(reservation, Cost(tokens.prompt, tokens.completion, charge(PRICE, tokens), "counted"))
    return reservation


def exhaust(ledger: Ledger, route: str, tokens: Tokens = FREE) -> int:
    sent = 0
    while ledger.may(route, tokens).answer == "yes":
        spend(ledger, route, tokens)
        sent += 1
    return sent


def test_requests_are_shared_and_what_one_leaves_goes_to_the_others() -> None:
    routes = {"a": hosted("a"), "b": hosted("b"), "local": RouteLimits("local", hosted=False)}
    ledger = Ledger(Totals(requests=11), routes, {"a": Spent(1)})
    exhaust(ledger, "a")
    assert ledger.spent.requests == 5, "half of eleven, with the one of an earlier start"
    assert ledger.may("a", FREE).answer == "later"
    spend(ledger, "b")
    ledger.leave("b")
    exhaust(ledger, "a")
    assert ledger.spent.requests == 11
    assert ledger.gone
    assert "11 of 11 requests" in ledger.sentence
    assert "--max-requests" in ledger.sentence
    assert ledger.may("local", Tokens(10**9, 10**9)).answer == "yes", "only hosted requests count"
    assert not ledger.counts("local")
    ledger.settle(ledger.reserve("local", FREE), None)
    ledger.leave("local")
    assert ledger.spent_on("local") == Amount()


def test_what_does_not_divide_goes_to_whoever_comes_first_after_all_had_their_share() -> None:
    ledger = Ledger(Totals(requests=3), {"a": hosted("a"), "b": hosted("b")}, {})
    for route in ("a", "b"):
        spend(ledger, route)
    spend(ledger, "b")
    assert ledger.gone
    assert ledger.may("a", FREE).answer == "gone"


def test_money_and_tokens_are_shared_as_well() -> None:
    demand = Tokens(100, 100)
    each = charge(PRICE, demand)
    ledger = Ledger(Totals(nanousd=10 * each), {"a": hosted("a"), "b": hosted("b")}, {})
    assert exhaust(ledger, "a", demand) == 5
    ledger.leave("b")
    assert exhaust(ledger, "a", demand) == 5
    assert "US dollars" in ledger.sentence
    ledger = Ledger(Totals(tokens=1000), {"a": hosted("a", None), "b": hosted("b", None)}, {})
    assert exhaust(ledger, "a", demand) == 2
    assert exhaust(ledger, "b", demand) == 3, "both have had what fits into their shares, and the rest is free"
    assert ledger.may("a", demand).answer == "gone"
    assert ledger.may("b", demand).answer == "gone"
    assert ledger.may("b", Tokens(0, 0)).answer == "yes", "a request that needs nothing still fits"


def test_the_limits_of_a_route_hold_by_themselves() -> None:
    ledger = Ledger(Totals(), {"a": hosted("a", requests=2, tokens=500), "b": hosted("b")}, {})
    assert exhaust(ledger, "a", Tokens(1, 1)) == 2
    refused = ledger.may("a", Tokens(1, 1))
    assert refused.answer == "gone"
    assert refused.sentence.startswith("Route 'a' has used 2 of 2 requests: raise its pace.max_requests")
    assert not ledger.gone, "the run may go on"
    assert ledger.may("b", Tokens(10**6, 0)).answer == "yes"
    tight = Ledger(Totals(), {"a": hosted("a", tokens=500)}, {})
    assert "of 500 tokens" in tight.may("a", Tokens(501, 0)).sentence


def test_what_is_under_way_is_in_the_way_until_it_ends() -> None:
    ledger = Ledger(Totals(tokens=100), {"a": hosted("a")}, {})
    first = ledger.reserve("a", Tokens(60, 0))
    assert ledger.may("a", Tokens(60, 0)).answer == "later"
    with pytest.raises(ValueError, match="not allowed now: later"):
        ledger.reserve("a", Tokens(60, 0))
    ledger.settle(first, None)
    assert ledger.spent == Amount()
    second = ledger.reserve("a", Tokens(60, 0))
    ledger.settle(second, second.in_full)
    ledger.settle(second, None)  # twice
    assert ledger.spent == Amount(1, 60, charge(PRICE, Tokens(60, 0)))
    assert ledger.may("a", Tokens(60, 0)).answer == "gone"
    assert ledger.under_way == Amount()


def test_a_server_that_turned_the_request_away_costs_a_request_and_nothing_else() -> None:
    ledger = Ledger(Totals(requests=2), {"a": hosted("a")}, {})
    ledger.settle(ledger.reserve("a", Tokens(60, 9)), NOTHING)
    assert ledger.spent == Amount(1, 0, 0)


def test_an_unknown_price_with_a_limit_in_money_is_refused_before_anything_is_sent() -> None:
    for totals, limits in ((Totals(nanousd=1), {}), (Totals(), {"nanousd": 1})):
        with pytest.raises(ConfigError, match=r"Route 'dear' .* price = .*\[routes\.dear\]"):
            Ledger(totals, {"x": hosted("dear", None, **limits)}, {})
    Ledger(Totals(nanousd=1), {"x": RouteLimits("local", hosted=False)}, {})


def test_requests_of_a_time_without_a_price_are_priced_now() -> None:
    spent = Spent(5, 300, 200, 7_000, unpriced_requests=2, unpriced_prompt=100, unpriced_completion=50)
    ledger = Ledger(Totals(nanousd=10**9), {"a": hosted("a")}, {"a": spent})
    assert ledger.spent == Amount(5, 500, 7_000 + charge(PRICE, Tokens(100, 50), 2))


def test_a_bill_above_the_worst_case_is_counted_and_learnt_from() -> None:
    ledger = Ledger(Totals(tokens=10_000), {"a": hosted("a")}, {})
    first = ledger.reserve("a", Tokens(100, 50))
    ledger.settle(first, Cost(900, 50, charge(PRICE, Tokens(900, 50)) + 5, "reported"))
    second = ledger.reserve("a", Tokens(200, 50))
    assert second.tokens == Tokens(1000, 50), "a prompt that the platform adds comes with every request"
    assert second.nanousd is not None
    assert second.nanousd >= charge(PRICE, second.tokens)
    ledger.settle(second, Cost(1000, 50, 1, "reported"))
    assert ledger.reserve("a", Tokens(1, 1)).tokens == Tokens(801, 1)


def test_threads_never_reserve_more_than_there_is() -> None:
    ledger = Ledger(Totals(requests=50), {"a": hosted("a"), "b": hosted("b")}, {})
    taken: list[Reservation] = []

    def work(route: str) -> None:
        for _ in range(100):
            try:
                taken.append(ledger.reserve(route, FREE))
            except ValueError:
                continue

    threads = [threading.Thread(target=work, args=(route,)) for route in "abab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 50
    assert ledger.under_way.requests == 50


@dataclass
class Journal:
    """What a store would keep: ended attempts with their cost, the others with their reservation."""

    ended: dict[str, list[Cost]] = field(default_factory=dict)
    open: dict[str, Reservation] = field(default_factory=dict)
    billed: dict[str, tuple[str, Amount]] = field(default_factory=dict)

    def spent(self) -> dict[str, Spent]:
        found: dict[str, Spent] = {}
        costs = [(route, cost) for route, all_of in self.ended.items() for cost in all_of]
        costs += [(reservation.route_id, reservation.in_full) for reservation in self.open.values()]
        for route, cost in costs:
            old = found.get(route, Spent())
            found[route] = Spent(
                old.requests + 1,
                old.prompt_tokens + cost.prompt_tokens,
                old.completion_tokens + cost.completion_tokens,
                old.nanousd + (cost.nanousd or 0),
            )
        return found


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_no_order_of_answers_and_kills_breaks_a_limit(seed: int, count: int) -> None:
    """Whatever is answered, lost, given back or killed: what was billed stays within every limit."""
    chance = random.Random(seed)

    def limit(most: int) -> int | None:
        return chance.choice([None, chance.randint(0, most)])

    totals = Totals(limit(40), limit(20_000), limit(30_000_000))
    names = "abcd"[:count]
    prices = {name: Price(chance.random() * 5, chance.random() * 9, chance.random() * 1e-4) for name in names}
    own = {name: Totals(limit(20), limit(10_000), limit(10_000_000)) for name in names}
    routes = {name: RouteLimits(name, hosted=True, price=prices[name], limits=own[name]) for name in names}
    journal = Journal()
    ledger = Ledger(totals, routes, {})
    for _ in range(200):
        move = chance.random()
        name = chance.choice(names)
        if move < 0.55:
            demand = Tokens(chance.randint(0, 600), chance.randint(0, 300))
            if ledger.may(name, demand).answer == "yes":
                reservation = ledger.reserve(name, demand)
                journal.open[reservation.id] = reservation
                # The server may bill anything up to the worst case, whether or not we ever hear of it.
                actual = Tokens(chance.randint(0, demand.prompt), chance.randint(0, demand.completion))
                bill = Amount(1, actual.total, charge(prices[name], actual))
                journal.billed[reservation.id] = (name, bill)
        elif move < 0.93 and journal.open:
            reservation = journal.open.pop(chance.choice(list(journal.open)))
            _, bill = journal.billed[reservation.id]
            end = chance.random()
            if end < 0.1:  # it never left
                del journal.billed[reservation.id]
                ledger.settle(reservation, None)
                continue
            known = Cost(bill.tokens, 0, bill.nanousd, "counted")
            cost = reservation.in_full if end < 0.4 else known
            journal.ended.setdefault(reservation.route_id, []).append(cost)
            ledger.settle(reservation, cost)
        elif move < 0.97:
            ledger.leave(name)
        else:  # kill -9, and a new start from the journal
            ledger = Ledger(totals, routes, journal.spent())
            for reservation in journal.open.values():
                journal.ended.setdefault(reservation.route_id, []).append(reservation.in_full)
            journal.open.clear()
        for limits, owner in ((totals, None), *((own[each], each) for each in names)):
            bills = [bill for route, bill in journal.billed.values() if owner in {None, route}]
            billed = sum(bills, start=Amount())
            assert limits.requests is None or billed.requests <= limits.requests
            assert limits.tokens is None or billed.tokens <= limits.tokens
            assert limits.nanousd is None or billed.nanousd <= limits.nanousd
