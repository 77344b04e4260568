"""Gemma 3, text only: scaled embeddings, a norm before and after each sublayer, local layers (Gemma Team 2025)."""

from __future__ import annotations

from torch import Tensor

from lockdec.transformer.configuration import DecoderConfig
from lockdec.transformer.importing.checkpoint import (
    MOST_POSITIONS,
    Family,
    Named,
    Options,
    Weights,
    layer_weights,
)


def gemma3_config(options: Options) -> DecoderConfig:
    """Our config of a Gemma 3. Texts have to stay within the window that its local layers look back over."""
    options.only("attention_bias", False)
    options.only("hidden_activation", "gelu_pytorch_tanh")
    options.only("attn_logit_softcapping", None)
    options.only("final_logit_softcapping", None)
    options.only("query_pre_attn_scalar", options.get("head_dim"))
    options.only("use_bidirectional_attention", False, None)
    rope, kinds = options.get("rope_parameters"), options.get("layer_types")
    for kind in set(kinds):
        options.require(f"rope_type of {kind}", rope[kind]["rope_type"], "default")
    sizes = options.sizes()
    if "sliding_attention" in kinds:
        sizes["max_len"] = min(sizes["max_len"], options.size("sliding_window", most=MOST_POSITIONS))
    return DecoderConfig(
        **sizes,
        kv_heads=options.get("num_key_value_heads"),
        norm="sandwich",
        position="rope",
        activation="geglu_tanh",
        dropout=0.0,
        norm_kind="rms",
        norm_eps=options.get("rms_norm_eps"),
        bias="none",
        rope_thetas=[float(rope[kind]["rope_theta"]) for kind in kinds],
        head_size=options.get("head_dim"),
        qk_norm=True,
        scaled_embedding=True,
    )


def gemma3_weights(theirs: Weights, config: DecoderConfig) -> Named:
    """Gemma 3's weights by our names. Its norms scale by 1 + w, so 1 is added, in float32."""
    yield "embedding.tokens.weight", theirs["model.embed_tokens.weight"]
    yield "decoder.norm.weight", 1 + theirs["model.norm.weight"].float()
    norms = {
        "self_attention.query_norm": "self_attn.q_norm",
        "self_attention.key_norm": "self_attn.k_norm",
        "self_attention_norm.norm": "input_layernorm",
        "self_attention_norm.after": "post_attention_layernorm",
        "feed_forward_norm.norm": "pre_feedforward_layernorm",
        "feed_forward_norm.after": "post_feedforward_layernorm",
    }
    projections = {
        "self_attention.query_key_value": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "self_attention.output": ["self_attn.o_proj"],
        "feed_forward.input": ["mlp.gate_proj", "mlp.up_proj"],
        "feed_forward.output": ["mlp.down_proj"],
    }
    for layer in range(config.layers):
        here, there = f"decoder.layers.{layer}", f"model.layers.{layer}"
        for ours, name in norms.items():
            yield f"{here}.{ours}.weight", 1 + theirs[f"{there}.{name}.weight"].float()
    yield from layer_weights(theirs, config, "model.layers", projections)


def gemma3_from_gguf(name: str, tensor: Tensor, options: Options) -> Tensor:
    """In GGUF files the norms' 1 has been added."""
    return tensor - 1 if name.endswith("norm.weight") else tensor


GEMMA3 = Family(gemma3_config, gemma3_weights, from_gguf=gemma3_from_gguf)
