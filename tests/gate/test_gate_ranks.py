"""Places in the twin's ranking: even where the twin wrote, for every sampler; uneven where it did not."""

import numpy as np
import pytest
from scipy.stats import kstest

from probe.attribution.gate.ranks import Places, ranks_test
from probe.attribution.gate.texts import Text, Texts
from probe.evidence.sampler import Sampler
from probe.evidence.tilt import token_table
from probe.scoring.base import TextScore, TokenScore
from tests.evidence.test_estimate import WEIGHTS, draw
from tests.evidence.test_sampler import ORDERS
from tests.gate.gate_world import OTHER, REFUSAL, answer, answers, twin


def text_from(sampler: Sampler, rng: np.random.Generator, order: str = "vllm") -> Text:
    text = draw(rng, sampler, order=order)
    return Text(answer(text, 0, 1.0), token_table(WEIGHTS.score(text, REFUSAL)), sampler)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sampler", [Sampler(), Sampler(0.7), Sampler(1.5), Sampler(1.0, 0.9), Sampler(0.8, 0.95, 20)])
def test_places_of_the_twins_own_tokens_are_even_whatever_the_sampler(sampler: Sampler, order: str) -> None:
    rng = np.random.default_rng(1)
    drawn = [Places.of(text_from(sampler, rng, order)).drawn(rng) for _ in range(150)]
    # A text's end is drawn too and not scored; that bends the places by less than this many tokens show.
    assert kstest(np.concatenate(drawn), "uniform").pvalue > 1e-3


def test_every_place_has_its_stretch() -> None:
    top = tuple(np.log([0.5, 0.2, 0.2, 0.05]))
    tokens = [TokenScore(i, float(np.log(p)), top, None) for i, p in enumerate((0.5, 0.2, 0.05, 0.01))]
    text = Text(answer((1, 2), 0, 1.0), token_table(TextScore(tuple(tokens), 30)), Sampler())
    found = Places.of(text)
    assert found.low == pytest.approx([0.0, 0.5, 0.9, 0.95])
    assert found.width == pytest.approx([0.5, 0.4, 0.05, 0.05])
    assert found.first == pytest.approx([0.5] * 4)
    filtered = Places.of(text, Sampler(1.0, top_k=2))
    assert len(filtered.low) <= 3, "what a filter may forbid is left out"


def test_surprise_has_expectation_zero_and_the_variance_it_claims() -> None:
    rng = np.random.default_rng(2)
    texts = [Places.of(text_from(Sampler(), rng)) for _ in range(250)]
    z = np.array([p.surprise.sum() for p in texts]) / np.sqrt(np.mean([p.variance.sum() for p in texts]))
    # Texts end where their writer ends them, and the end is not scored: a martingale that is stopped a little early.
    assert abs(z.mean()) < 0.25
    assert 0.7 < z.std() < 1.3


def test_size_and_power_on_weights_that_can_be_computed_with() -> None:
    def p_of(seed: int, **how: object) -> float:
        texts = Texts.of(answers(seed, 60, **how))  # type: ignore[arg-type]
        found = ranks_test(texts.hot, twin(seed, 60), alpha=0.05, delta=0.05, seed=seed)
        assert found.p is not None
        assert found.distance is not None
        assert found.limit is not None
        assert 0 <= found.distance < found.limit <= 1
        return found.p

    assert sum(p_of(seed) <= 0.05 for seed in range(40)) < 7
    assert all(p_of(seed, weights=OTHER) <= 0.01 for seed in range(3))
    assert sum(p_of(seed, real=Sampler(0.6)) <= 0.05 for seed in range(6)) >= 4


def test_the_limit_covers_the_true_distance() -> None:
    large = Texts.of(answers(500, 1000, weights=OTHER))
    true = ranks_test(large.hot, (), alpha=0.05, delta=0.05, seed=0).distance
    assert true is not None
    covered = 0
    for seed in range(40):
        found = ranks_test(Texts.of(answers(seed, 40, weights=OTHER)).hot, (), alpha=0.05, delta=0.05, seed=seed)
        covered += (found.limit or 0.0) >= true
    assert covered >= 34


def test_the_rank_among_the_twins_own_is_asked_where_these_are_scored() -> None:
    hot = Texts.of(answers(3, 30)).hot
    assert set(ranks_test(hot, (), alpha=0.05, delta=0.05, seed=0).detail["parts"]) == {"places", "surprise"}
    found = ranks_test(hot, twin(3, 30), alpha=0.05, delta=0.05, seed=0)
    assert found.detail["parts"]["texts"]["n"] == 30
    assert "30 prompts" in found.sentence


def test_too_few_tokens_are_not_tested() -> None:
    found = ranks_test(Texts.of(answers(4, 4)).hot, (), alpha=0.05, delta=0.05, seed=0)
    assert found.p is None
    assert found.sentence.startswith("Not asked: 4 scored answers")
    assert ranks_test((), (), alpha=0.05, delta=0.05, seed=0).n == 0
