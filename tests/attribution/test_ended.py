"""The desk asks the twin where answers end: once each, beside their scores, and only for those that are said to."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from probe.attribution.cases import ScoringDesk, Sent
from probe.errors import ScoringError
from probe.evidence.case import Case
from probe.scoring.base import TextScore, TokenScore
from probe.store.rows import OutcomeRow
from probe.store.store import Store
from probe.traces.values import Message
from probe.wire.values import Reading

MESSAGES = (Message("user", "Hello?"),)
READING = Reading("answer", text="Hi there.", finish_reason="stop")


class Scorer:
    """Knows texts by their characters; every end has log-probability -7."""

    name, version, vocabulary = "fake", "1", 300

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
        self.broken = False

    async def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return tuple("".join(m.content for m in messages).encode())

    async def text_ids(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    async def answer_ids(self, messages: Sequence[Message], text: str, reasoning: str) -> tuple[int, ...]:
        return tuple((reasoning + text).encode())

    async def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        self.asked.append(("score", tuple(prompt), tuple(continuation)))
        return TextScore(tuple(TokenScore(token, -0.5, (-0.5,), 1) for token in continuation), 300)

    async def ends(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        self.asked.append(("ends", tuple(prompt), tuple(continuation)))
        if self.broken:
            raise ScoringError("The server does not say.")
        return TextScore((TokenScore(1, -7.0, (-0.1,), None),), 300)

    async def aclose(self) -> None: ...


def sent(reading: Reading = READING, outcome: str = "complied", unscorable: str | None = None) -> Sent:
    row = OutcomeRow("x", "rules", "1", "complied", 1.0, "", {}, "")
    return Sent(Case("x", "t", False, outcome, reading), "r", None, None, MESSAGES, unscorable, row)


async def test_an_ending_is_asked_for_once_and_kept_beside_the_score() -> None:
    with Store.memory() as store:
        for _ in range(2):
            scorer = Scorer()
            desk = ScoringDesk(store, scorer, "w")
            for _ in range(2):
                found = await desk.scored(await desk.ended(sent()))
                assert found.case.ending == -7.0
                assert found.case.score is not None
                assert len(found.case.score.tokens) == len("Hi there.")
            assert desk.failure is None
            store.clear_derived()
        assert not scorer.asked, "both come from the store"
        other = Scorer()
        other.version = "2"
        await ScoringDesk(store, other, "w").ended(sent())
        assert other.asked == [("ends", tuple(b"Hello?"), tuple(b"Hi there."))]


@pytest.mark.parametrize(
    "other",
    [
        sent(outcome="refused"),
        sent(outcome="cut"),
        sent(replace(READING, finish_reason="length")),
        sent(replace(READING, finish_reason=None)),
        sent(replace(READING, reasoning="Hm.")),
        sent(unscorable="there is no text"),
    ],
)
async def test_answers_that_do_not_say_that_they_ended_are_left_alone(other: Sent) -> None:
    with Store.memory() as store:
        scorer = Scorer()
        desk = ScoringDesk(store, scorer, "w")
        assert await desk.ended(other) is other
        assert not scorer.asked
        assert desk.failure is None
        assert (await ScoringDesk(store, None, "w").ended(sent())).case.ending is None


async def test_a_server_that_cannot_tell_is_remembered() -> None:
    with Store.memory() as store:
        scorer = Scorer()
        scorer.broken = True
        desk = ScoringDesk(store, scorer, "w")
        before = sent()
        assert await desk.ended(before) is before
        assert desk.failure == "The server does not say."
        scorer.broken = False
        assert (await desk.ended(before)).case.ending == -7.0, "a failure is not kept"
