"""The accounting detector: what counts as the platform's, what protects, and what is left open."""

import math

import pytest

from probe.evidence.accounting import REWRITE, AccountingNorm, accounting
from probe.evidence.case import Case
from probe.wire.values import Reading, Usage

PROMPT, ANSWER = 30, 12


def case(
    prompt: int | None = PROMPT,
    answer: int | None = ANSWER + 1,
    *,
    counted: bool = True,
    reading: Reading | None = None,
    reasoning: int | None = None,
) -> Case:
    usage = Usage(prompt, answer, reasoning)
    return Case(
        exchange_id="x",
        trace_id="t",
        control=False,
        outcome="refused",
        reading=reading or Reading("answer", text="No.", finish_reason="stop", usage=usage),
        prompt_tokens=PROMPT if counted else None,
        text_tokens=ANSWER if counted else None,
    )


NORM = AccountingNorm.measure([case()] * 40)


def test_the_norm_is_what_controls_agree_on() -> None:
    assert (NORM.prompt_surplus, NORM.completion_surplus, NORM.controls, NORM.answers) == (0, 1, 40, 40)
    assert NORM.finding is None
    hidden = AccountingNorm.measure([case(PROMPT + 21)] * 39 + [case(PROMPT)])
    assert hidden.prompt_surplus == 21
    assert hidden.prompt_differs
    assert hidden.finding is not None
    assert "21 more prompt tokens" in hidden.finding
    assert "39 of 40 controls" in hidden.finding
    fewer = AccountingNorm.measure([case(PROMPT - 5)] * 10).finding
    assert fewer is not None
    assert "5 fewer" in fewer
    assert AccountingNorm.measure([case()] * 4).prompt_surplus is None, "too few controls"
    assert AccountingNorm.measure([case(PROMPT + i % 3) for i in range(40)]).prompt_surplus is None, "not constant"
    assert AccountingNorm.measure([]).prompt_differs is False


def test_counts_that_fit_say_little() -> None:
    found = accounting(case(), NORM)
    assert found.log_e is not None
    assert -0.5 < found.log_e < 0
    assert found.llr == found.log_e
    assert "fit what was sent and received" in found.sentence


@pytest.mark.parametrize("exchange", [case(answer=0), case(answer=5), case(prompt=0), case(prompt=0, answer=0)])
def test_counts_that_the_text_cannot_have_speak_for_the_platform(exchange: Case) -> None:
    found = accounting(exchange, NORM)
    assert found.log_e is not None
    assert found.log_e > 1.5
    assert "where" in found.sentence
    assert found.mechanism is None


def test_more_tokens_than_are_visible_accuse_nobody() -> None:
    found = accounting(case(answer=126), NORM)
    assert found.log_e is not None
    assert found.log_e < 0
    assert "126 tokens for the answer where 13 are usual" in found.sentence
    assert "no sign that the platform wrote" in found.sentence


@pytest.mark.parametrize("exchange", [case(PROMPT + 40), case(PROMPT - 4), case(PROMPT + 40, answer=0)])
def test_another_prompt_on_one_exchange_protects_it(exchange: Case) -> None:
    found = accounting(exchange, NORM)
    assert found.mechanism == REWRITE
    assert found.llr == 0
    assert found.log_e is not None
    assert found.log_e < 0
    assert "saw another prompt" in found.sentence


def test_a_hidden_prompt_on_all_is_named_and_accuses_nobody() -> None:
    hidden = AccountingNorm.measure([case(PROMPT + 21)] * 40)
    found = accounting(case(PROMPT + 21), hidden)
    assert found.mechanism == REWRITE
    assert found.log_e is not None
    assert found.log_e < 0
    assert "21 more prompt tokens" in found.sentence


@pytest.mark.parametrize("odd", [0, 1, 3, 6])
@pytest.mark.parametrize("n", [5, 10, 60])
def test_expectation_by_exchangeability(n: int, odd: int) -> None:
    """Of n + 1 exchangeable answers ``odd`` are billed too little; each is the tested one with the same probability."""
    for prompt, answer in ((PROMPT, 0), (0, ANSWER + 1), (0, 0)):
        strange = case(prompt, answer)
        norms = [AccountingNorm.measure([case()] * (n - k) + [strange] * k) for k in (odd, max(odd - 1, 0))]
        if norms[0].prompt_surplus is None or norms[0].completion_surplus is None:
            continue
        plain, tested = (accounting(c, norm).log_e for c, norm in zip((case(), strange), norms, strict=True))
        assert plain is not None
        assert tested is not None
        assert ((n + 1 - odd) * math.exp(plain) + odd * math.exp(tested)) / (n + 1) <= 1.0 + 1e-12


@pytest.mark.parametrize(
    ("exchange", "norm", "why"),
    [
        (case(counted=False), NORM, "no tokenizer"),
        (case(None, None), NORM, "reports no token counts"),
        (case(), AccountingNorm(), "no constant relation"),
    ],
)
def test_it_abstains_and_says_why(exchange: Case, norm: AccountingNorm, why: str) -> None:
    found = accounting(exchange, norm)
    assert found.abstains
    assert why in found.sentence


@pytest.mark.parametrize(
    "exchange",
    [
        case(answer=2, reasoning=7),
        case(reading=Reading("answer", text="No.", reasoning="Hm.", finish_reason="stop", usage=Usage(PROMPT, 2))),
        case(reading=Reading("answer", text="No.", finish_reason="length", usage=Usage(PROMPT, 2))),
    ],
)
def test_what_cannot_be_counted_is_not_compared(exchange: Case) -> None:
    found = accounting(exchange, NORM)
    assert found.facts["answer_surplus"] is None
    assert found.log_e is not None
    assert found.log_e < 0
