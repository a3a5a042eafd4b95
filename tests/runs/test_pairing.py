"""Who waits for whom: pairs stay close, no route holds the others, and nobody waits for ever."""

import random
from pathlib import Path

import pytest

from probe.runs.pairing import Pairing, gap_of
from probe.store.rows import PackRow, RouteRow, RunRow, TrialRow, WeightsRow
from probe.store.store import Store
from probe.traces.values import Message, Trace
from tests.kit import make_exchange

TWINS = {"quick": "own", "slow": "own"}


def pairing() -> Pairing:
    made = Pairing(TWINS, window=10)
    made.expect(["own", "quick", "slow"])
    return made


def test_hosted_routes_never_wait_for_each_other() -> None:
    rule = pairing()
    rule.hold("slow", 0)
    for position in range(100):
        rule.begin("own", position)
    assert not rule.waits("quick", 105)


def test_a_twin_keeps_pace_with_its_fastest_route() -> None:
    rule = pairing()
    rule.hold("slow", 3)
    rule.hold("quick", 50)
    assert not rule.waits("own", 60)
    assert rule.waits("own", 61)
    rule.away("quick")
    assert rule.waits("own", 60), "now the slow one is the fastest"
    rule.away("slow")
    assert not rule.waits("own", 10_000), "nobody needs to be waited for"


def test_a_hosted_route_waits_for_a_working_twin_only() -> None:
    rule = pairing()
    rule.hold("own", 5)
    assert not rule.waits("quick", 15)
    assert rule.waits("quick", 16)
    rule.away("own")
    assert not rule.waits("quick", 16)
    rule.away("own", away=False)
    assert rule.waits("quick", 16)


def test_who_has_nothing_to_send_is_not_waited_for() -> None:
    rule = Pairing(TWINS, window=10)
    rule.expect(["own"])
    assert not rule.waits("own", 10_000)


def test_a_route_without_a_twin_waits_for_nobody() -> None:
    assert not pairing().waits("lone", 10_000)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_open_and_whoever_is_slow_all_come_to_their_end(seed: int) -> None:
    """Every route has a random set of open trials, some workers, and a random speed; steps come in random order."""
    chance = random.Random(seed)
    names = ["own", "quick", "slow"]
    open_ = {name: sorted(chance.sample(range(300), chance.randint(0, 120))) for name in names}
    rule = Pairing(TWINS, window=chance.choice([0, 1, 10]))
    rule.expect(name for name in names if open_[name])
    held: dict[str, list[int]] = {name: [] for name in names}
    workers = {name: chance.randint(1, 4) for name in names}

    def refill(name: str) -> None:
        while open_[name] and len(held[name]) < workers[name]:
            position = open_[name].pop(0)
            held[name].append(position)
            rule.hold(name, position)
        if not held[name]:
            rule.away(name)

    for name in names:
        refill(name)
    while any(held.values()):
        ready = [(name, position) for name in names for position in held[name] if not rule.waits(name, position)]
        assert ready, "everybody waits for everybody"
        name, position = chance.choice(ready)
        held[name].remove(position)
        rule.begin(name, position)
        refill(name)


def test_the_gap_is_the_median_over_the_pairs_of_a_run(tmp_path: Path) -> None:
    weights = WeightsRow("toy")
    routes = [
        RouteRow(name, "openai", "openai-chat", "http://x", "toy", weights.id, "local") for name in ("own", "far")
    ]
    traces = [Trace(f"t{number}", (Message("user", f"Number {number}?"),)) for number in range(3)]
    run = RunRow(0.0, 0, {})
    with Store.open(tmp_path / "probe.db") as store:
        store.add_weights(weights)
        for route in routes:
            store.add_route(route)
        store.add_pack(PackRow("p", "p", "p"), traces)
        store.add_run(run)
        own, far = routes
        assert gap_of(store, run.id, far.id, own.id).median_s is None
        for number, (trace, later) in enumerate(zip(traces, (1.0, -5.0, 2.0), strict=True)):
            for route, at in ((own, 100.0), (far, 100.0 + later)):
                trial = TrialRow(run.id, trace.id, route.id, 1, 2 * number + (route is far))
                store.add_trials([trial])
                exchange = make_exchange(
                    id=f"{number}{route.name}", trial_id=trial.id, route_id=route.id, started_at=at
                )
                store.save_exchange(exchange, "answered")
        found = gap_of(store, run.id, far.id, own.id)
    assert (found.pairs, found.median_s) == (3, 2.0)
