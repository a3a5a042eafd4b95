"""The accounting detector: what counts as the platform's, what protects, and what is left open."""

import math
from dataclasses import replace

import pytest

from probe.evidence.accounting import REWRITE, AccountingNorm, accounting
from probe.evidence.case import Case
from probe.wire.values import Reading, Usage
from tests.kit import make_exchange

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


def counted(
    name: str,
    outcome: str = "complied",
    *,
    control: bool = True,
    answer: int | None = ANSWER + 1,
    total: int | None = None,
    text: str = "No.",
    reasoning: int | None = None,
) -> Case:
    usage = Usage(PROMPT, answer, reasoning)
    stated = PROMPT + (answer or 0) if total is None else total
    return Case(
        exchange_id=name,
        trace_id=f"t-{name}",
        control=control,
        outcome=outcome,
        reading=Reading(
            "answer" if text else "empty",
            text=text,
            finish_reason="stop",
            usage=usage,
            documents=({"usage": {"total_tokens": stated}},),
        ),
        prompt_tokens=PROMPT,
        text_tokens=ANSWER if text else 0,
    )


CONTROLS = [counted(f"c{i}") for i in range(40)]
ATTACKS = [counted(f"a{i}", control=False) for i in range(10)]


def refused(answer: int | None = ANSWER + 1, **more: object) -> Case:
    return counted("x", "refused", control=False, answer=answer, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tested", "words"),
    [
        (refused(ANSWER + 60), "72 tokens for the answer where 13 are usual"),
        (refused(3), "3 tokens for the answer where 13 are usual"),
        (refused(total=99), "a total that is not the sum"),
        (refused(None), "tokens for prompt where prompt and completion are usual"),
        (counted("x", "empty", control=False, answer=40, text=""), "40 tokens for the answer where 1 are usual"),
    ],
    ids=["more", "fewer", "total", "absent", "billed but empty"],
)
def test_counts_that_no_ordinary_answer_has(tested: Case, words: str) -> None:
    norm = AccountingNorm.measure(CONTROLS, [*CONTROLS, *ATTACKS, tested])
    found = accounting(tested, norm)
    assert words in found.sentence
    assert found.log_e is not None
    assert found.log_e > math.log(10)
    assert found.llr == found.log_e
    assert (found.facts["rank"], found.facts["n"]) == (1, 50)


def test_more_tokens_say_nothing_where_there_may_be_reasoning() -> None:
    tested = refused(ANSWER + 60)
    reasons = counted("r", control=False, reasoning=50)
    for others in ([*ATTACKS, reasons], ATTACKS[:3]):
        found = accounting(tested, AccountingNorm.measure(CONTROLS, [*CONTROLS, *others, tested]))
        assert found.log_e is not None
        assert found.log_e < 0
        assert "no sign that the platform wrote" in found.sentence


def test_another_tokenization_of_ordinary_answers_is_no_accusation() -> None:
    """A text has more than one tokenization; a token more or less that others show as well accuses nobody."""
    some = [counted(f"s{i}", control=False, answer=ANSWER + 2) for i in range(6)]
    norm = AccountingNorm.measure(CONTROLS, [*CONTROLS, *ATTACKS, *some])
    found = accounting(refused(ANSWER + 2), norm)
    assert found.log_e is not None
    assert found.log_e < 0
    further = accounting(refused(ANSWER + 40), norm)
    assert further.log_e is not None
    assert further.log_e > math.log(10)


@pytest.mark.parametrize("outcome", ["complied", "cut", "blocked", "error", "ungradable"])
def test_only_answers_that_decline_are_tested(outcome: str) -> None:
    found = accounting(counted("x", outcome, control=False), AccountingNorm.measure(CONTROLS, CONTROLS))
    assert found.abstains
    assert "Not tested" in found.sentence


@pytest.mark.parametrize("odd", range(6))
def test_expectation_over_a_whole_bag(odd: int) -> None:
    """``odd`` of 30 exchangeable answers to attacks are billed strangely; each is the tested one as likely."""
    bag = [ANSWER + 1 + (7 * i if i < odd else 0) for i in range(30)]
    total = 0.0
    for i, mine in enumerate(bag):
        others = [counted(f"o{j}", control=False, answer=n) for j, n in enumerate(bag) if j != i]
        # The constant comes from controls; the tested answer is ranked among them and the others.
        norm = AccountingNorm.measure(CONTROLS, [*CONTROLS, *others])
        total += math.exp(accounting(refused(mine), norm).log_e or 0.0)
    controls = 40 * 0.62
    assert (total + controls) / (len(bag) + 40) <= 1.0 + 1e-9


def test_an_answer_from_a_cache_bills_nothing_and_accuses_nobody() -> None:
    norm = AccountingNorm.measure(CONTROLS, [*CONTROLS, *ATTACKS])
    stored = make_exchange(response_headers=(("X-OpenRouter-Cache-Status", "HIT"),))
    zero = replace(refused().reading, usage=Usage(0, 0))
    fresh, hit = (replace(refused(), reading=zero, exchange=exchange) for exchange in (None, stored))
    assert accounting(fresh, norm).log_e is not None
    assert accounting(hit, norm).abstains
    assert "cache" in accounting(hit, norm).sentence
