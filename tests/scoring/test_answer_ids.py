import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import ScoringError
from probe.scoring.answers import cut_answer

PLAIN = st.text(alphabet="ab<>/ \n", min_size=1, max_size=12)


@given(prompt=PLAIN, reasoning=PLAIN.filter(str.strip), text=PLAIN, end=st.sampled_from(["", "<|end|>", "\n"]))
def test_the_pieces_are_the_answer_up_to_the_end_of_the_text(prompt: str, reasoning: str, text: str, end: str) -> None:
    whole = f"{prompt}<think>\n{reasoning}\n</think>\n\n{text}{end}"
    pieces = cut_answer(prompt, whole, text, reasoning)
    assert whole.startswith(prompt + "".join(pieces))
    assert pieces[1] == reasoning.strip()
    assert pieces[3] == text


@pytest.mark.parametrize(
    ("whole", "sentence"),
    [
        ("<|user|>other", "unlike the prompt"),
        ("<|user|>hi<|bot|>Text.", "leaves out the reasoning"),
        ("<|user|>hi<|bot|><think>Thought.</think>TEXT.", "changes or leaves out the text"),
        ("<|user|>hi<|bot|>Text.<think>Thought.</think>", "changes or leaves out the text"),
    ],
)
def test_a_template_that_drops_something_is_said(whole: str, sentence: str) -> None:
    with pytest.raises(ScoringError, match=sentence):
        cut_answer("<|user|>hi<|bot|>", whole, "Text.", "Thought.")
    with pytest.raises(ScoringError):
        cut_answer("<|user|>hi<|bot|>", whole, "Text.", "  ")
