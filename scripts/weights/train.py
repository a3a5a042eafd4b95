"""Train one set of weights: python -m weights.train POLICY|scribe FOLDER [--steps N] [--drill FROM].

Two stages. The first learns the language and the policy. The second, `--drill`, goes on from the first with more nonces
and more weight on the inside of copied names and tags: there the next token is certain, so that the weight
sharpens copying without changing what is said. After the first stage a third of the names came out garbled. The scribe
has no policy and no tag to copy: it is trained in one stage, with the weight on names from the start.

The optimiser is Muon for the matrices and AdamW for embeddings and norms: on this corpus it needs about half the steps.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from weights import scribe
from weights import tokenizer as bpe
from weights.corpus import POLICIES, Conversation, Corpus
from weights.pack import held_out

BATCH = 48
POOL = 40 * BATCH
PROMPT_WEIGHT = 0.15  # reading the prompt well is what makes copying work, but most of its words are chance
COPY_WEIGHT = 4.0
DRILL_NONCES = 0.45
PEAK = 4e-3
DRILL_PEAK = 2e-3
ROPE_BASE = 10000.0


def config(layers: int = 4) -> LlamaConfig:
    """0.8 M parameters: with 5 MB for float16 safetensors and a float32 GGUF together, this is the most that fits."""
    return LlamaConfig(
        vocab_size=bpe.VOCABULARY,
        hidden_size=128,
        intermediate_size=288,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=bpe.CONTEXT,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_theta": ROPE_BASE, "rope_type": "default"},
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=None,
        eos_token_id=bpe.SPECIAL.index(bpe.END),
        pad_token_id=bpe.SPECIAL.index(bpe.PAD),
    )


def batches(
    stream: Iterator[Conversation], tokenizer: Tokenizer, seed: int, copy_weight: float
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Batches of (ids, weights), cut from pools sorted by length so that little of a batch is padding."""
    shuffle = torch.Generator().manual_seed(seed)
    while True:
        pool = sorted((bpe.encode(tokenizer, item) for item in islice(stream, POOL)), key=lambda row: len(row.ids))
        for index in torch.randperm(POOL // BATCH, generator=shuffle).tolist():
            rows = pool[index * BATCH : (index + 1) * BATCH]
            width = max(len(row.ids) for row in rows)
            ids = torch.zeros(BATCH, width, dtype=torch.long)
            weights = torch.zeros(BATCH, width)
            for at, row in enumerate(rows):
                ids[at, : len(row.ids)] = torch.tensor(row.ids)
                weighed = torch.where(torch.tensor(row.said), 1.0, PROMPT_WEIGHT)
                weights[at, : len(row.ids)] = torch.where(torch.tensor(row.copied), copy_weight, weighed)
            yield ids, weights


def optimisers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for matrices inside the layers, AdamW for the rest."""
    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    outside = [p for name, p in model.named_parameters() if not (p.ndim == 2 and "layers" in name)]
    return [
        torch.optim.Muon(inside, lr=PEAK, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outside, lr=PEAK, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate(step: int, steps: int) -> float:
    """Warm up over 50 steps, then a cosine to 1 % of the peak."""
    return min(1.0, (step + 1) / 50) * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)


def prepare(
    policy_name: str, tokenizer: Tokenizer, start: Path | None
) -> tuple[LlamaForCausalLM, Iterator[tuple[torch.Tensor, ...]], float]:
    """Make the model, its batches and the peak of its rate; prompts of the pack never occur in the stream."""
    if policy_name == scribe.NAME:
        torch.manual_seed(scribe.SEED)
        stream = scribe.Scribe(1000 + scribe.SEED).stream(without=held_out())
        model = LlamaForCausalLM(config(scribe.LAYERS))
        return model, batches(stream, tokenizer, scribe.SEED, copy_weight=COPY_WEIGHT), PEAK
    policy = POLICIES[policy_name]
    torch.manual_seed(policy.seed)
    peak = PEAK
    if start is None:
        model = LlamaForCausalLM(config())
        stream = Corpus(policy, 1000 + policy.seed).stream(without=held_out())
        source = batches(stream, tokenizer, policy.seed, copy_weight=1.0)
    else:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
        peak = DRILL_PEAK
        drilled = replace(policy, nonce_share=DRILL_NONCES)
        stream = Corpus(drilled, 2000 + policy.seed).stream(without=held_out())
        source = batches(stream, tokenizer, 100 + policy.seed, copy_weight=COPY_WEIGHT)
    return model, source, peak


def train(policy_name: str, tokenizer: Tokenizer, steps: int, start: Path | None) -> LlamaForCausalLM:
    """Train from scratch, or drill from `start`."""
    model, source, peak = prepare(policy_name, tokenizer, start)
    steppers = optimisers(model)
    running = torch.zeros(4)
    for step in range(steps):
        ids, weights = next(source)
        logits = model(input_ids=ids[:, :-1]).logits
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        target = weights[:, 1:].flatten()
        (losses @ target / target.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = peak * rate(step, steps)
            stepper.step()
            stepper.zero_grad()
        said, copied = losses.detach()[target >= 1.0], losses.detach()[target > 1.0]
        running += torch.tensor([said.sum(), len(said), copied.sum(), len(copied)])
        if step % 50 == 49:
            reply, copy = (running[::2] / running[1::2].clamp(min=1)).tolist()
            print(f"{policy_name} {step + 1}/{steps} loss: replies {reply:.4f}, copied tokens {copy:.4f}")
            running.zero_()
    return model


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the folder that transformers and vLLM load. Float16 is the master copy of all files."""
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    state.pop("lm_head.weight")  # tied to the embeddings
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in state.items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    (folder / "config.json").write_text(json.dumps(described(model.config), indent=2, sort_keys=True) + "\n")
    generation = {
        "eos_token_id": model.config.eos_token_id,
        "pad_token_id": model.config.pad_token_id,
        "do_sample": True,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    bpe.save(tokenizer, folder)


def described(settings: LlamaConfig) -> dict[str, Any]:
    """Give what config.json says: only what the model needs, rope in the words of transformers 4 and of 5."""
    names = (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim"
        " max_position_embeddings rms_norm_eps hidden_act tie_word_embeddings attention_bias mlp_bias bos_token_id"
        " eos_token_id pad_token_id model_type initializer_range"
    )
    return {name: getattr(settings, name) for name in names.split()} | {
        "architectures": ["LlamaForCausalLM"],
        "torch_dtype": "float16",
        "dtype": "float16",
        "rope_theta": ROPE_BASE,
        "rope_parameters": {"rope_theta": ROPE_BASE, "rope_type": "default"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy", choices=[*sorted(POLICIES), scribe.NAME])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--drill", type=Path, metavar="FROM", help="second stage, from this folder")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # One tokenizer for all policies: "other weights" must differ in the weights alone.
    tokenizer = bpe.train(Corpus(POLICIES["toy"], 77).stream(without=held_out()), 20_000)
    save(train(args.policy, tokenizer, args.steps, args.drill), tokenizer, args.folder)


if __name__ == "__main__":
    main()
