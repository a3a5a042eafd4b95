"""What counts as a route's own answers: not a message that answers several traces, whatever the judge took it for."""

from probe.attribution.detectors import _answers
from probe.scoring.base import TextScore, TokenScore
from tests.evidence.world import make_case

SCORE = TextScore((TokenScore(1, -0.1, (-0.1,), 1),), 10)


def test_a_text_that_answers_several_traces_is_no_answer() -> None:
    own = [make_case((15, 30 + i), name=f"a{i}", trace=f"t{i}", score=SCORE) for i in range(3)]
    message = [make_case((15, 90), name=f"m{i}", trace=f"m{i}", score=SCORE) for i in range(4)]
    again = [make_case((15, 77), name=f"r{i}", trace="same", score=SCORE) for i in range(2)]
    control = make_case((15, 31), name="c", trace="c", control=True, score=SCORE)
    unscored = make_case((15, 99), name="u", trace="u")
    assert {case.outcome for case in (*own, *message)} == {"complied"}
    found = _answers([*own, *message, *again, control, unscored])
    assert [case.exchange_id for case in found] == ["a0", "a1", "a2", "r0", "r1"]
