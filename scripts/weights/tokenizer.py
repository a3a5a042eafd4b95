"""Byte-level BPE with the GPT-2 splitting, the one that llama.cpp and Hugging Face implement alike (`pre = gpt-2`)."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from weights.corpus import Conversation

PAD, END = "<|pad|>", "<|end|>"
SPECIAL = (PAD, END, "<|system|>", "<|user|>", "<|assistant|>")
VOCABULARY = 768

# Nothing stands between a role token and the text: what the model says is tokenized alike alone and in its context, so
# that a text can be scored by appending its own tokens to those of the prompt.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CONTEXT = 2048


def train(conversations: Iterable[Conversation], count: int) -> Tokenizer:
    """Learn the merges from `count` conversations."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(islice(conversations, count)), trainer)
    return tokenizer


def _texts(conversations: Iterable[Conversation]) -> Iterator[str]:
    for conversation in conversations:
        for _, content in conversation.messages:
            yield content


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json as transformers and vLLM read them."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": END,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


class Encoded(NamedTuple):
    """A conversation as tokens: ids, which the assistant said, and which are the inside of a copied tag or name."""

    ids: list[int]
    said: list[bool]
    copied: list[bool]


def encode(tokenizer: Tokenizer, conversation: Conversation) -> Encoded:
    """Tokenize a conversation; the `<|end|>` after a reply counts as said."""
    out = Encoded([], [], [])
    name = conversation.subject.text if conversation.subject else None
    for role, content in conversation.messages:
        own = role == "assistant"
        text = tokenizer.encode(content, add_special_tokens=False)
        inside = [_inside(start, content, (name, conversation.nonce)) for start, _ in text.offsets]
        out.ids.extend([tokenizer.token_to_id(f"<|{role}|>"), *text.ids, tokenizer.token_to_id(END)])
        out.said.extend([False, *([own] * (len(text.ids) + 1))])
        out.copied.extend([False, *(own and flag for flag in inside), False])
    return out


def _inside(start: int, content: str, copies: tuple[str | None, ...]) -> bool:
    """Whether a token that starts here continues one of the strings that have to be copied."""
    for copy in copies:
        if copy:
            at = content.rfind(copy, 0, start + len(copy))
            if at >= 0 and at < start < at + len(copy):
                return True
    return False
