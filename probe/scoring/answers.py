"""Where reasoning and text stand in a rendered conversation."""

from probe.errors import ScoringError


def cut_answer(prompt: str, whole: str, text: str, reasoning: str) -> tuple[str, str, str, str]:
    """Return what was generated, in order: the template's mark, the reasoning, its mark, the text.

    ``prompt`` is the conversation up to where the answer begins, ``whole`` the same with the answer. Servers trim
    reasoning when they part it from the text, so that it is looked for without the white space around it. Raises
    ``ScoringError`` where the template drops or changes one of them.
    """
    if not whole.startswith(prompt):
        raise ScoringError("The chat template renders an answer with reasoning unlike the prompt that asks for one.")
    answer, thought = whole[len(prompt) :], reasoning.strip()
    begin = answer.find(thought)
    if not thought or begin < 0:
        raise ScoringError(
            "The chat template leaves out the reasoning of an answer, so that the text cannot be scored."
        )
    end = begin + len(thought)
    place = answer.rfind(text)
    if not text or place < end:
        raise ScoringError("The chat template changes or leaves out the text that follows the reasoning.")
    return answer[:begin], thought, answer[end:place], text
