"""The route's sampler as its controls show it, against samplers that are known because we drew with them."""

import math

import numpy as np
import pytest

from probe.evidence.estimate import NEGLIGIBLE, Estimate, estimate
from probe.evidence.sampler import Sampler
from probe.evidence.tilt import TokenTable, log_e_foreign, token_table
from probe.scoring.base import TextScore, TokenScore
from tests.evidence.test_sampler import ORDERS, drawn_from
from tests.evidence.world import END, Text, Weights

WEIGHTS = Weights(11)
REFUSAL = 0.001


def draw(
    rng: np.random.Generator,
    sampler: Sampler,
    *,
    order: str = "vllm",
    weights: Weights = WEIGHTS,
    noise: float = 0.0,
    refusal: float = REFUSAL,
) -> Text:
    """Draw a text with a sampler, from logits that are off by normal ``noise``."""
    found: list[int] = []
    at = weights.first(refusal)
    while len(found) <= 60:
        p = np.exp(at.logs + noise * rng.normal(size=len(at.logs)))
        if sampler.greedy:
            token = int(p.argmax())
        else:
            token = int(np.cumsum(drawn_from(p, sampler, order)).searchsorted(rng.random()))
        if token == END:
            break
        found.append(token)
        at = weights.following(token, len(found))
    return tuple(found)


def controls(seed: int, sampler: Sampler, n: int = 40, **how: object) -> list[TokenTable]:
    rng = np.random.default_rng(seed)
    return [token_table(WEIGHTS.score(draw(rng, sampler, **how), REFUSAL)) for _ in range(n)]  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "asked", [Sampler(), Sampler(0.7), Sampler(1.3), Sampler(0.7, top_p=0.9), Sampler(top_k=20), Sampler(min_p=0.05)]
)
def test_a_route_that_does_what_it_is_asked_is_not_said_to_differ(asked: Sampler, order: str) -> None:
    for seed in range(6):
        found = estimate(controls(seed, asked, order=order), asked)
        assert found is not None
        assert not found.differs
        assert found.filters_kept
        assert found.samplers == (asked,)
        assert found.low <= asked.power / (1 - NEGLIGIBLE)
        assert found.high >= asked.power * (1 - NEGLIGIBLE)


def test_precision_is_no_other_temperature() -> None:
    for seed in range(4):
        found = estimate(controls(seed, Sampler(), noise=0.2), Sampler())
        assert found is not None
        assert not found.differs


@pytest.mark.parametrize("real", [0.5, 0.7, 1.4])
def test_an_overridden_temperature_is_found_and_lies_in_the_interval(real: float) -> None:
    inside = 0
    for seed in range(10):
        found = estimate(controls(seed, Sampler(real), 60), Sampler())
        assert found is not None
        inside += found.low <= 1 / real <= found.high
        assert found.differs
        assert found.fits
        assert not found.greedy
        low, *_, high = found.samplers
        assert low.power == pytest.approx(found.low)
        assert high.power == pytest.approx(found.high)
    assert inside >= 9
    assert found.sentence.startswith(f"asked 1, controls look like {1 / found.power:.2f} [")
    assert found.sentence.endswith("n = 60")


def test_the_estimated_sampler_is_a_null_under_which_genuine_texts_are_no_evidence() -> None:
    found = estimate(controls(1, Sampler(1.4), 60), Sampler())
    assert found is not None
    fresh = controls(2, Sampler(1.4), 200, refusal=1.0)
    e_values = [math.exp(min(log_e_foreign(table, sampler.power) for sampler in found.samplers)) for table in fresh]
    assert np.mean(e_values) <= 1


def test_greedy_answers_are_found_out() -> None:
    for noise in (0.0, 0.05):
        found = estimate(controls(3, Sampler(0.0), 60, noise=noise), Sampler())
        assert found is not None
        assert found.differs
        assert found.high == math.inf
        assert "look like 0.00 [0.00, 0." in found.sentence
        same = estimate(controls(3, Sampler(0.0), 60, noise=noise), Sampler(0.0))
        assert same is not None
        assert not same.differs
    warm = estimate(controls(4, Sampler(1.0), 60), Sampler(0.0))
    assert warm is not None
    assert warm.differs
    assert not warm.greedy
    assert all(not sampler.greedy and not sampler.filters for sampler in warm.samplers)


def test_many_sure_and_open_places_make_it_greedy() -> None:
    top = tuple(map(float, np.log([0.5, 0.4, 0.1])))
    table = token_table(TextScore((TokenScore(0, top[0], top, 1),) * 40, 3))
    found = estimate([table] * 40, Sampler())
    assert found is not None
    assert found.greedy
    assert found.samplers == (Sampler(),)


def test_filters_that_the_host_ignores_are_not_believed() -> None:
    asked = Sampler(top_p=0.7)
    for seed in range(5):
        ignored = estimate(controls(seed, Sampler(), 60), asked)
        kept = estimate(controls(seed, asked, 60), asked)
        assert ignored is not None
        assert kept is not None
        assert not ignored.filters_kept
        assert ignored.samplers == (Sampler(),)
        assert "do not show" in ignored.sentence
        assert kept.filters_kept


def test_other_weights_are_no_temperature_of_these() -> None:
    for seed in range(12, 22):
        found = estimate(controls(seed, Sampler(), weights=Weights(seed)), Sampler())
        assert found is not None
        assert not found.differs, "that would be a null under which their texts look genuine"
        assert found.samplers == (Sampler(),)


def test_a_share_of_foreign_tokens_is_no_temperature_either() -> None:
    rng = np.random.default_rng(5)
    tables = []
    for _ in range(60):
        text = draw(rng, Sampler(1.6))
        mixed = tuple(int(rng.integers(20, 380)) if rng.random() < 0.15 else token for token in text)
        tables.append(token_table(WEIGHTS.score(mixed, REFUSAL)))
    found = estimate(tables, Sampler())
    assert found is not None
    assert not found.differs
    assert not found.fits
    assert "no temperature of these weights" in found.sentence


def test_too_little_is_not_estimated() -> None:
    assert estimate([], Sampler()) is None
    assert estimate(controls(1, Sampler(), 7), Sampler()) is None
    assert estimate([token_table(TextScore((), 9))] * 50, Sampler()) is None
    # Sure of every token: nothing tells temperatures apart.
    sure = token_table(TextScore((TokenScore(0, 0.0, (0.0,), 1),) * 20, 9))
    found = estimate([sure] * 20, Sampler())
    assert isinstance(found, Estimate)
    assert not found.differs
    assert (found.low, found.high) == (0.0, math.inf)
    assert "[0.00, inf]" in found.sentence
