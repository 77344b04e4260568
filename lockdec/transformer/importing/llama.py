"""The Llama family: rotary positions, RMSNorm, SwiGLU, grouped queries (Touvron et al. 2023); its near relatives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from lockdec.errors import LockdecError
from lockdec.transformer.configuration import DecoderConfig, RopeScaling
from lockdec.transformer.importing.checkpoint import Family, Named, Options, Weights, layer_weights


def llama_config(options: Options) -> DecoderConfig:
    """Our config of a Llama."""
    options.only("attention_bias", options.get("mlp_bias"))
    return config_of(options, bias="all" if options.get("attention_bias") else "none")


def qwen2_config(options: Options) -> DecoderConfig:
    """Our config of a Qwen2: a Llama with biases on queries, keys and values."""
    require_full_attention(options)
    return config_of(options, bias="qkv")


def qwen3_config(options: Options) -> DecoderConfig:
    """Our config of a Qwen3: a Llama that normalises queries and keys."""
    require_full_attention(options)
    options.only("attention_bias", False)
    return config_of(options, bias="none", qk_norm=True)


def mistral_config(options: Options) -> DecoderConfig:
    """Our config of a Mistral: a Llama whose attention reaches back over a window, within which texts have to stay."""
    config = config_of(options, bias="none")
    return replace(config, max_len=min(config.max_len, options.get("sliding_window") or config.max_len))


def smollm3_config(options: Options) -> DecoderConfig:
    """Our config of a SmolLM3: a Llama some of whose layers know no positions (Yang et al. 2025)."""
    require_full_attention(options)
    options.only("attention_bias", False)
    options.only("mlp_bias", False)
    config = config_of(options, bias="none")
    thetas = [config.rope_theta if rotates else 0.0 for rotates in options.get("no_rope_layers")]
    return config if all(thetas) else replace(config, rope_thetas=thetas)


def require_full_attention(options: Options) -> None:
    """Raise LockdecError where attention of some layer reaches back over a window only."""
    options.only("use_sliding_window", False)
    for kind in options.get("layer_types") or ():  # which a SmolLM3 obeys whatever use_sliding_window says
        if kind != "full_attention":
            raise LockdecError(f"{options.source}: {kind} in layer_types is not supported (only full_attention)")


def config_of(options: Options, bias: str, **more: Any) -> DecoderConfig:
    """What the configs of the family have in common."""
    options.only("hidden_act", "silu")
    more["head_size"] = options.head_size()
    theta, scaling = rope(options)
    return DecoderConfig(
        **options.sizes(),
        kv_heads=options.get("num_key_value_heads"),
        position="rope",
        activation="swiglu",
        dropout=0.0,
        norm_kind="rms",
        norm_eps=options.get("rms_norm_eps"),
        bias=bias,
        rope_theta=theta,
        rope_scaling=scaling,
        **more,
    )


def rope(options: Options) -> tuple[float, RopeScaling | None]:
    """The base of the rotary wavelengths, and how they are scaled."""
    rope: dict[str, Any] = options.get("rope_parameters")
    theta = float(rope["rope_theta"])
    if rope["rope_type"] == "default":
        return theta, None
    if rope["rope_type"] != "llama3":
        kind = rope["rope_type"]
        raise LockdecError(f"{options.source}: rope_type={kind} is not supported (only default or llama3)")
    return theta, RopeScaling(
        factor=float(rope["factor"]),
        low_frequency=float(rope["low_freq_factor"]),
        high_frequency=float(rope["high_freq_factor"]),
        original_max_len=int(rope["original_max_position_embeddings"]),
    )


def llama_weights(theirs: Weights, config: DecoderConfig) -> Named:
    """Llama's weights by our names; projections that share an input are one matrix here."""
    yield "embedding.tokens.weight", theirs["model.embed_tokens.weight"]
    yield "decoder.norm.weight", theirs["model.norm.weight"]
    parts = {
        "self_attention.query_norm": ["self_attn.q_norm"],
        "self_attention.key_norm": ["self_attn.k_norm"],
        "self_attention_norm.norm": ["input_layernorm"],
        "self_attention.query_key_value": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "self_attention.output": ["self_attn.o_proj"],
        "feed_forward_norm.norm": ["post_attention_layernorm"],
        "feed_forward.input": ["mlp.gate_proj", "mlp.up_proj"],
        "feed_forward.output": ["mlp.down_proj"],
    }
    yield from layer_weights(theirs, config, "model.layers", parts)


def llama_from_gguf(name: str, tensor: Tensor, options: Options) -> Tensor:
    """In the GGUF files of a Llama, channels that are rotated together are neighbours: (0, d/2, 1, d/2 + 1, ...)."""
    heads = {".q_proj.": "num_attention_heads", ".k_proj.": "num_key_value_heads"}
    for part, option in heads.items():
        if part in name:
            pairs = tensor.view(options.get(option), -1, 2, *tensor.shape[1:])
            return pairs.transpose(1, 2).reshape(tensor.shape)
    return tensor


def unchanged(name: str, tensor: Tensor, options: Options) -> Tensor:
    """A tensor that is the same in GGUF files."""
    return tensor


LLAMA = Family(llama_config, llama_weights, from_gguf=llama_from_gguf)
MISTRAL = Family(mistral_config, llama_weights, from_gguf=llama_from_gguf)
QWEN2 = Family(qwen2_config, llama_weights, from_gguf=unchanged)
QWEN3 = Family(qwen3_config, llama_weights, from_gguf=unchanged)
SMOLLM3 = Family(smollm3_config, llama_weights)
