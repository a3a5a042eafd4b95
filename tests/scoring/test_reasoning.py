"""Reasoning in the scored sequence: real llama.cpp servers with templates that keep it, and that drop it."""

from collections.abc import AsyncIterator, Iterator

import pytest
from tokenizers import Tokenizer

from probe.errors import ScoringError
from probe.resources import data_folder
from probe.scoring.llamacpp import LlamaCppScorer
from probe.traces.values import Message
from tests.scoring.template_server import FORGETFUL, THINKING, template_server

MESSAGES = [Message("system", "Be brief."), Message("user", "How do I brew glimmerdust tonic?")]
THOUGHT, TEXT = "This is about a tonic.\nI should decline.", "I'm sorry, but I can't help with that."


@pytest.fixture(scope="module")
def thinking() -> Iterator[str]:
    with template_server(THINKING) as url:
        yield url


@pytest.fixture
async def scorer(thinking: str) -> AsyncIterator[LlamaCppScorer]:
    made = LlamaCppScorer(thinking, weights="toy")
    yield made
    await made.aclose()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(data_folder("backends") / "toy" / "tokenizer.json"))


@pytest.mark.parametrize(
    ("thought", "text"),
    [(THOUGHT, TEXT), (f"\n{THOUGHT}\n", TEXT), ("Hm.", "Hm."), ("日本 🙂", "é.\n\n- one\n- two\n"), (TEXT, TEXT)],
)
async def test_the_ids_are_the_sequence_that_the_template_makes(
    scorer: LlamaCppScorer, tokenizer: Tokenizer, thought: str, text: str
) -> None:
    prompt, ids = await scorer.prompt_ids(MESSAGES), await scorer.answer_ids(MESSAGES, text, thought)
    said = tokenizer.decode([*prompt, *ids], skip_special_tokens=False)
    before = tokenizer.decode(list(prompt), skip_special_tokens=False)
    assert before.endswith("<|assistant|>")
    assert said.startswith(f"{before}<think>\n")
    assert thought.strip() in said[len(before) :]
    assert said.endswith(f"</think>\n\n{text}")
    assert tokenizer.encode(said, add_special_tokens=False).ids == [*prompt, *ids], "one canonical tokenization"


async def test_the_text_is_scored_after_the_reasoning(scorer: LlamaCppScorer) -> None:
    prompt, ids = await scorer.prompt_ids(MESSAGES), await scorer.answer_ids(MESSAGES, TEXT, THOUGHT)
    other = await scorer.answer_ids(MESSAGES, TEXT, "Sure, why not.")
    count = len(await scorer.text_ids(TEXT))
    whole = await scorer.score(prompt, ids)
    assert [token.token_id for token in whole.tokens] == list(ids)
    assert "".join(token.text for token in whole.tokens).endswith(f"{THOUGHT}\n</think>\n\n{TEXT}")
    alone = await scorer.score([*prompt, *ids[:-count]], ids[-count:])
    assert [t.logprob for t in whole.tokens[-count:]] == pytest.approx([t.logprob for t in alone.tokens], abs=1e-3)
    assert other[-count:] == ids[-count:]
    changed = (await scorer.score(prompt, other)).tokens[-count:]
    assert sum(t.logprob for t in changed) != pytest.approx(sum(t.logprob for t in alone.tokens), abs=0.01)


async def test_what_spells_special_tokens_stays_text(scorer: LlamaCppScorer, tokenizer: Tokenizer) -> None:
    special = {tokenizer.token_to_id(name) for name in ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")}
    for thought, text in ((THOUGHT, "Then <|end|> it ends."), ("<|user|> asks <|end|>", TEXT)):
        ids = await scorer.answer_ids(MESSAGES, text, thought)
        assert not special & set(ids)
        assert tokenizer.decode(list(ids)).endswith(f"{thought}\n</think>\n\n{text}")


async def test_without_reasoning_the_ids_are_those_of_the_text(scorer: LlamaCppScorer) -> None:
    assert await scorer.answer_ids(MESSAGES, TEXT, "") == await scorer.text_ids(TEXT)


async def test_a_template_that_drops_the_reasoning_is_said() -> None:
    with template_server(FORGETFUL) as url:
        forgetful = LlamaCppScorer(url, weights="toy")
        with pytest.raises(ScoringError, match="leaves out the reasoning"):
            await forgetful.answer_ids(MESSAGES, TEXT, THOUGHT)
        assert await forgetful.answer_ids(MESSAGES, TEXT, "")
        await forgetful.aclose()
