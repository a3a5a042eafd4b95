"""Convert a trained folder to GGUF: python -m weights.to_gguf FOLDER FILE [--type f32|f16|q8_0|q4_0] [--name NAME].

The float32 file holds exactly the float16 values of model.safetensors, so that llama.cpp and vLLM, both computing in
float32, score a text alike to rounding. The quantized files are made from the same values: they are the "same weights,
quantized" of the lab.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a query or key matrix from halves (Hugging Face) to pairs (GGUF) of rotated dimensions."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def describe(writer: gguf.GGUFWriter, config: dict, name: str, file_type: gguf.LlamaFileType) -> None:
    """State the model's shape as llama.cpp wants it."""
    head = config["hidden_size"] // config["num_attention_heads"]
    writer.add_name(name)
    writer.add_license("apache-2.0")
    writer.add_file_type(file_type)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    """Keep the same merges, the same splitting (`gpt-2`), no BOS, and `<|end|>` as the end of a turn."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)
    special = {entry["content"] for entry in tokenizer["added_tokens"]}
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in vocabulary]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(vocabulary.index(settings["eos_token"]))
    writer.add_eot_token_id(vocabulary.index(settings["eos_token"]))
    writer.add_pad_token_id(vocabulary.index(settings["pad_token"]))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(settings["chat_template"])


def convert(folder: Path, target: Path, kind: str, name: str) -> None:
    """Write one GGUF file."""
    config = json.loads((folder / "config.json").read_text())
    tensor_type, file_type = TYPES[kind]
    writer = gguf.GGUFWriter(target, "llama")
    describe(writer, config, name, file_type)
    add_tokenizer(writer, folder)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for source, stored in load_file(folder / "model.safetensors").items():
        values = stored.astype(np.float32)
        if source.endswith(("q_proj.weight", "k_proj.weight")):
            values = interleave(values, config["num_attention_heads"])
        target_name = names.get_name(source, try_suffixes=(".weight",))
        own_type = tensor_type if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(target_name, gguf.quants.quantize(values, own_type), raw_dtype=own_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--type", choices=sorted(TYPES), default="f32")
    parser.add_argument("--name", default="toy")
    args = parser.parse_args()
    convert(args.folder, args.target, args.type, args.name)


if __name__ == "__main__":
    main()
