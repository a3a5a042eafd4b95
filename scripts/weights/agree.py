"""Do all the files hold the same model? python -m weights.agree FOLDER writes FOLDER/agreement.json.

Compared: token ids of Hugging Face `tokenizers` and llama.cpp; rendered chat templates; log probabilities of
transformers (float32) and llama.cpp over the next token of many prefixes.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from weights.corpus import POLICIES, Corpus
from weights.serving import llama_cpp, post, post_all
from weights.tokenizer import encode

ODD = [
    "",
    " ",
    "\n\n  two\n",
    "a  b   c    ",
    "tabs\tand\r\nreturns",
    "1234567890 3.14 1,000",
    '{"a": [1, 2, {"b": null}], "c": "d\\n"}',
    "- item\n  - nested\n\n```\ncode\n```",
    "naïve café — “quotes” … €5",
    "日本語とемодзи 🙂🏽",
    "I'm you're they've it's DON'T we'll he'd",
    "<|user|>hello<|end|><|assistant|>",
    "<|end|><|end|> <|pad|> <| end |> <|unknown|>",
    "[K7Q2] [A2B3]. (x) {y} <z>",
    "http://127.0.0.1:8080/v1?a=b&c=d#e",
    "ÅÄÖ åäö ﬁ ½ ² \u00a0 \u2003 \u200b",
]


def tokenization(base: str, folder: Path, count: int) -> dict[str, int]:
    """How many of `count` corpus texts (with role tokens) and odd texts are tokenized differently."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    corpus = Corpus(POLICIES["toy"], 909)
    texts = ODD + [
        "".join(f"<|{role}|>{content}<|end|>" for role, content in corpus.draw().messages) for _ in range(count)
    ]
    answers = post_all(base, "/tokenize", [{"content": text, "parse_special": True} for text in texts])
    wrong = [
        text
        for text, answer in zip(texts, answers, strict=True)
        if tokenizer.encode(text, add_special_tokens=False).ids != answer["tokens"]
    ]
    for text in wrong[:5]:
        print("tokenized differently:", repr(text))
    return {"texts": len(texts), "different": len(wrong)}


def templates(base: str, folder: Path, count: int) -> dict[str, int]:
    """How many prompts the two template engines render differently."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    corpus = Corpus(POLICIES["toy"], 910)
    wrong = 0
    for _ in range(count):
        messages = [{"role": role, "content": content} for role, content in corpus.draw().messages[:-1]]
        theirs = post(base, "/apply-template", {"messages": messages})["prompt"]
        wrong += theirs != tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return {"prompts": count, "different": wrong}


def logprobs(base: str, folder: Path, count: int, top: int = 20) -> dict[str, float]:
    """Absolute differences of the `top` next-token log probabilities after `count` prefixes."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    corpus = Corpus(POLICIES["toy"], 911)
    rng = np.random.default_rng(0)
    differences: list[float] = []
    compared = 0
    for _ in range(count):
        ids = encode(tokenizer, corpus.draw()).ids
        ids = ids[: int(rng.integers(4, len(ids)))]
        body = {"prompt": ids, "n_predict": 1, "n_probs": top, "temperature": 0.0, "cache_prompt": False}
        answer = post(base, "/completion", body)
        if "completion_probabilities" not in answer:
            continue  # the server holds back a token that ends inside of a UTF-8 character, and its probabilities
        entries: list[dict[str, Any]] = answer["completion_probabilities"][0]["top_logprobs"]
        compared += 1
        with torch.no_grad():
            ours = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), -1)
        differences += [abs(entry["logprob"] - ours[entry["id"]].item()) for entry in entries]
    return {
        "prefixes": compared,
        "values": len(differences),
        "median": float(np.median(differences)),
        "max": max(differences),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with llama_cpp(folder / "toy.gguf") as base:
        found = {
            "tokenization": tokenization(base, folder, 500),
            "templates": templates(base, folder, 100),
            "logprobs": logprobs(base, folder, 200),
        }
    (folder / "agreement.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))
    same = not found["tokenization"]["different"] and not found["templates"]["different"]
    if not same or found["logprobs"]["max"] > 1e-3:
        raise SystemExit("the files do not agree")


if __name__ == "__main__":
    main()
