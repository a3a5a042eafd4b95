"""The timing detector: its p-values are uniform on transparent routes, and a platform in a hurry is seen."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from probe.evidence.case import Case
from probe.evidence.conformal import References
from probe.evidence.timing import TimingNorm, timing
from probe.evidence.timing_features import CHARACTERS, Times, TimeTable, times_of
from probe.wire.values import Chunk, Reading, Usage
from tests.evidence.wire_world import ALPHA, Host, Route, Wire, answer, simulate, without_chunks
from tests.kit import SSE, delta, make_exchange, sse

Platform = Callable[[np.random.Generator, float, int], Times]


@dataclass(frozen=True)
class Paces:
    """A route of which only the times are simulated: two hosts, bursts of load, refusals that are short."""

    controls: int = 60
    attacks: int = 60
    refused: float = 0.5
    other_host: float = 0.4
    longer: bool = False
    share: float = 0.0
    platform: Platform | None = None


def own_times(rng: np.random.Generator, size: float, pieces: int, host: tuple[float, float]) -> Times:
    slow = rng.lognormal(0, 0.35) * (6.0 if rng.random() < 0.03 else 1.0)
    start = (host[0] + 4e-4 * size) * slow
    gaps = rng.lognormal(np.log(host[1]), 0.35, pieces)
    gaps[rng.random(pieces) < 0.1] = 0.0
    gaps[rng.random(pieces) < 0.03] *= 15.0
    together = tuple(-1 if wanted > 6 * pieces else 0 for wanted in CHARACTERS)
    tail = 3.0 * host[1] * rng.lognormal(0, 0.5) if pieces < 120 else math.nan
    head = start * 0.3 * rng.lognormal(0, 0.05)
    return Times(size, head, 0.9 * start, start, tuple(gaps[:48].tolist()), together, tail)


def paces(route: Paces, rng: np.random.Generator) -> tuple[list[Case], TimingNorm, set[str]]:
    cases, times, written = [], [], set()
    for i in range(route.controls + route.attacks):
        control = i < route.controls
        acted = not control and rng.random() < route.share
        refused = acted or (not control and rng.random() < route.refused)
        size = float(
            rng.integers(200, 900) if control else rng.integers(*((700, 2000) if route.longer else (300, 1100)))
        )
        pieces = int(rng.integers(6, 22)) if refused else int(rng.integers(15, 160))
        host = (0.5, 0.03) if rng.random() < route.other_host else (0.2, 0.012)
        acting = acted and route.platform is not None
        times.append(route.platform(rng, size, pieces) if acting else own_times(rng, size, pieces, host))  # type: ignore[misc]
        reading = Reading("answer", text="Hm.")
        cases.append(Case(f"x{i}", f"t{i}", control, "refused" if refused else "complied", reading))
        if acted:
            written.add(f"x{i}")
    return cases, TimingNorm(References.pick(cases), tuple(times), TimeTable.of(times)), written


@pytest.mark.parametrize(
    "route",
    [
        Paces(),
        Paces(longer=True),
        Paces(attacks=30, refused=1.0),
        Paces(attacks=30, refused=1.0, longer=True),
        Paces(other_host=0.03),
        Paces(controls=14, attacks=14, refused=0.7),
    ],
    ids=["two hosts", "longer attacks", "only controls", "only controls, longer", "a rare host", "few"],
)
def test_ranks_of_a_transparent_route_are_uniform(route: Paces) -> None:
    """Mean e-value at most 1 and p-values at most nominal, within three standard errors over routes."""
    rng = np.random.default_rng(11)
    means, small = [], []
    for _ in range(40):
        cases, norm, _ = paces(route, rng)
        found = [timing(case, norm) for case in cases if case.outcome == "refused"]
        tested = [e for e in found if e.log_e is not None]
        assert len(tested) == len(found)
        means.append(np.mean([math.exp(e.log_e or 0.0) for e in tested]))
        small.append(np.mean([e.facts["rank"] / (e.facts["n"] + 1) <= 0.1 for e in tested]))
    for values, bound in ((means, 1.0), (small, 0.1)):
        assert np.mean(values) <= bound + 3.0 * np.std(values) / math.sqrt(len(values))


def hurried(rng: np.random.Generator, size: float, pieces: int) -> Times:
    usual = own_times(rng, 0.0, pieces, (0.02, 0.012))
    return replace(usual, size=size)


def even(rng: np.random.Generator, size: float, pieces: int) -> Times:
    return Times(size, 0.1, 0.25, 0.35, (0.012,) * min(pieces, 48), (0, -1, -1, -1), 0.036)


def at_once(rng: np.random.Generator, size: float, pieces: int) -> Times:
    return Times(size, 0.1, 0.25, 0.35, (0.0,) * min(pieces, 48), (1, -1, -1, -1), 0.036)


def quick(rng: np.random.Generator, size: float, pieces: int) -> Times:
    return own_times(rng, size, pieces, (0.2, 0.001))


@pytest.mark.parametrize(("platform", "least"), [(hurried, 0.5), (even, 0.35), (quick, 0.5), (at_once, 0.95)])
def test_a_platform_at_another_pace_is_seen(platform: Platform, least: float) -> None:
    rng = np.random.default_rng(3)
    found: list[float] = []
    for _ in range(6):
        cases, norm, written = paces(Paces(refused=0.3, share=0.6, platform=platform), rng)
        found += [timing(case, norm).log_e or 0.0 for case in cases if case.exchange_id in written]
    assert np.mean(np.array(found) > math.log(20)) >= least


def test_bytes_and_times_of_a_stream() -> None:
    pieces = ["", "Sorry,", " no", " brewing", " of tonic today, and none tomorrow."]
    body = sse(*(delta(piece) for piece in pieces), delta(finish_reason="stop"))
    ends = [i + 2 for i in range(len(body)) if body[i : i + 2] == b"\n\n"]
    sizes = np.diff([0, *ends])
    at = [0.2, 0.3, 0.35, 0.35, 0.5, 0.52, 0.53]
    exchange = make_exchange(
        request_body=b"x" * 77,
        response_headers=SSE,
        response_body=body,
        chunks=tuple(Chunk(int(s), t) for s, t in zip(sizes, at, strict=True)),
        sent_at=0.1,
        head_at=0.15,
        ended_at=0.6,
    )
    from probe.wire.openai_chat import OpenAiChat

    case = Case("x", "t", False, "refused", OpenAiChat().read(exchange), exchange=exchange)
    found = times_of(case)
    assert (found.size, found.head, found.byte) == pytest.approx((77, 0.05, 0.1))
    assert found.start == pytest.approx(0.2), "the first text, not the first byte"
    assert found.gaps == pytest.approx((0.05, 0.0, 0.15))
    assert found.together[0] == 0
    assert found.tail == pytest.approx(0.1)
    joined = replace(exchange, chunks=(Chunk(len(body), 0.5),))
    at_one = times_of(replace(case, exchange=joined))
    assert at_one.gaps == (0.0, 0.0, 0.0)
    assert at_one.together[0] == 1


def durations(name: str, control: bool, outcome: str, spent: float, tokens: int) -> Case:
    reading = Reading(
        "answer", text="w " * tokens, timings={"generation": spent, "prompt": 0.1}, usage=Usage(5, tokens)
    )
    return Case(name, f"t-{name}", control, outcome, reading, exchange=make_exchange())


def test_durations_that_the_server_reports() -> None:
    rng = np.random.default_rng(2)
    controls = [
        durations(f"c{i}", True, "complied", 0.02 * n * float(rng.lognormal(0, 0.2)), n)
        for i, n in enumerate(map(int, rng.integers(50, 200, 60)))
    ]
    nothing, usual = durations("a", False, "refused", 0.0, 12), durations("b", False, "refused", 0.03 * 12, 12)
    norm = TimingNorm.measure([*controls, nothing, usual])
    found = timing(nothing, norm)
    assert found.log_e is not None
    assert found.log_e > math.log(20)
    assert "generating took no time" in found.sentence
    ordinary = timing(usual, norm)
    assert ordinary.log_e is not None
    assert ordinary.log_e < 0, "a short text may take somewhat longer per token"


def test_what_is_said_names_the_time() -> None:
    route = Route(
        controls=40, attacks=30, share=0.5, beta=0.0, platform=Host(gap_s=1e-4, prefill_s=0.001, per_byte_s=0)
    )
    cases, written = simulate(route, 2)
    norm = TimingNorm.measure(cases)
    found = timing(next(c for c in cases if c.exchange_id in written), norm)
    assert found.facts["rank"] == 1
    assert "where" in found.sentence
    assert "ms" in found.sentence
    assert found.exhibit
    assert found.mechanism is None


def test_it_abstains_and_says_why() -> None:
    cases, _ = simulate(Route(controls=20, attacks=20, refused=1.0), 1)
    refusal = next(c for c in cases if c.outcome == "refused")
    norm = TimingNorm.measure(cases)
    assert timing(refusal, norm).log_e is not None
    assert "does not decline" in timing(cases[0], norm).sentence
    assert "no times of arrival" in timing(without_chunks(replace(refusal, exchange_id="y")), norm).sentence
    assert "no times of arrival" in timing(replace(refusal, exchange_id="y", exchange=None), norm).sentence
    whole = simulate(Route(controls=20, attacks=20, refused=1.0, stream=False), 1)[0]
    assert "not streamed" in timing(whole[-1], TimingNorm.measure(whole)).sentence
    assert "10 are needed" in timing(refusal, TimingNorm.measure(cases[:5])).sentence
    assert timing(replace(refusal, outcome="cut"), norm).abstains
    for outcome in ("empty", "blocked", "partial", "error"):
        assert timing(Case("z", "t", False, outcome, Reading("missing")), norm).abstains


def test_an_answer_without_text_is_compared_by_its_first_byte() -> None:
    rng = np.random.default_rng(4)
    controls = [answer(rng, ALPHA, Wire("complied", True, 40, 300 + i, f"c{i}", f"t{i}")) for i in range(50)]
    sloppy = answer(rng, Host(prefill_s=0.001, per_byte_s=0), Wire("empty", False, 5, 310, "e", "te"))
    assert sloppy.reading.state == "empty"
    found = timing(sloppy, TimingNorm.measure([*controls, sloppy]))
    assert "byte" in found.facts
    assert found.log_e is not None
    assert found.log_e > math.log(10)
