"""Tiny GGUF files, written as llama.cpp's converter writes them: its names, its order of channels, its options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, get_tensor_name_map, quantize
from torch import Tensor, nn

OPTIONS = {  # of a family of transformers: its option by the key of GGUF
    "llama": {
        "context_length": "max_position_embeddings",
        "embedding_length": "hidden_size",
        "block_count": "num_hidden_layers",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    },
    "gpt2": {
        "context_length": "n_positions",
        "embedding_length": "n_embd",
        "block_count": "n_layer",
        "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
}
GREEK = ("<|endoftext|>", *(chr(945 + number) for number in range(30)))  # 31 tokens


def write_gguf(
    path: Path,
    model: nn.Module,
    tokens: Sequence[str] = GREEK,
    merges: Sequence[str] = (),
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    extra: Mapping[str, Tensor] | None = None,
) -> Path:
    """A GGUF file of a Llama, Qwen2, Qwen3 or GPT-2 of transformers.

    Args:
        tokens, merges: of its byte-level BPE; the first token begins and ends texts.
        kind: how matrices are stored.
        extra: more tensors, by their names in the file.
    """
    config: Any = model.config
    family = str(config.model_type)
    options = OPTIONS.get(family, OPTIONS["llama"])
    writer = GGUFWriter(path, family)
    for key, name in options.items():
        value = getattr(config, name)
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{family}.{key}", value)
    if hasattr(config, "rope_parameters"):
        writer.add_float32(f"{family}.rope.freq_base", config.rope_parameters["rope_theta"])
        writer.add_uint32(f"{family}.attention.key_length", config.head_dim if hasattr(config, "head_dim") else 0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(tokens))
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(list(merges))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    arch = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == family)
    names = get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, suffix = name.rpartition(".")
        add_tensor(writer, f"{names.get_name(stem)}.{suffix}", stored(family, name, tensor, config), kind)
    for name, tensor in (extra or {}).items():
        add_tensor(writer, name, tensor, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def stored(family: str, name: str, tensor: Tensor, config: Any) -> Tensor:
    """A tensor as the converter stores it (`permute` of LlamaModel; GPT2Model.modify_tensors)."""
    if family == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        rows, *rest = tensor.shape
        return tensor.reshape(heads, 2, rows // heads // 2, *rest).transpose(1, 2).reshape(tensor.shape)
    if family == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return tensor.T
    return tensor


def add_tensor(writer: Any, name: str, tensor: Tensor, kind: GGMLQuantizationType) -> None:
    """Matrices quantised, vectors in float32."""
    values = tensor.contiguous().numpy()
    if kind == GGMLQuantizationType.F32 or values.ndim < 2:
        writer.add_tensor(name, values)
    else:
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)


def write_gguf_of(path: Path, folder: Path) -> Path:
    """A GGUF file of a folder with a byte-level BPE."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    learned = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = sorted(learned["vocab"], key=learned["vocab"].get)
    merges = [" ".join(pair) for pair in learned["merges"]]
    return write_gguf(path, loader.from_pretrained(folder), tokens, merges)
