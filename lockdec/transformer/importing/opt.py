"""The OPT family: a GPT with ReLU whose positions are counted from 2 (Zhang et al. 2022)."""

from __future__ import annotations

import torch

from lockdec.transformer.configuration import DecoderConfig
from lockdec.transformer.importing.checkpoint import (
    MOST_POSITIONS,
    MOST_TOKENS,
    Family,
    Named,
    Options,
    Weights,
)

OFFSET = 2  # rows of the table of positions that no position uses


def opt_config(options: Options) -> DecoderConfig:
    """Our config of an OPT."""
    options.only("do_layer_norm_before", True)
    options.only("word_embed_proj_dim", options.get("hidden_size"))
    options.only("enable_bias", True)
    options.only("layer_norm_elementwise_affine", True)
    options.only("_remove_final_layer_norm", False)
    return DecoderConfig(
        vocab_size=options.size("vocab_size", most=MOST_TOKENS),
        max_len=options.size("max_position_embeddings", most=MOST_POSITIONS),
        d_model=options.get("hidden_size"),
        layers=options.get("num_hidden_layers"),
        heads=options.get("num_attention_heads"),
        d_ff=options.get("ffn_dim"),
        activation=options.choose("activation_function", {"relu": "relu", "gelu": "gelu"}),
        dropout=float(options.get("dropout")),
        tied=options.get("tie_word_embeddings"),
    )


def opt_weights(theirs: Weights, config: DecoderConfig) -> Named:
    """OPT's weights by our names; projections that share an input are one matrix here."""
    yield "embedding.tokens.weight", theirs["model.decoder.embed_tokens.weight"]
    yield "embedding.positions.weight", theirs["model.decoder.embed_positions.weight"][OFFSET:]
    parts = {
        "self_attention_norm.norm": ["self_attn_layer_norm"],
        "feed_forward_norm.norm": ["final_layer_norm"],
        "self_attention.query_key_value": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "self_attention.output": ["self_attn.out_proj"],
        "feed_forward.widen": ["fc1"],
        "feed_forward.output": ["fc2"],
    }
    for kind in ("weight", "bias"):
        yield f"decoder.norm.{kind}", theirs[f"model.decoder.final_layer_norm.{kind}"]
        for layer in range(config.layers):
            for here, names in parts.items():
                joined = torch.cat([theirs[f"model.decoder.layers.{layer}.{name}.{kind}"] for name in names])
                yield f"decoder.layers.{layer}.{here}.{kind}", joined


OPT = Family(opt_config, opt_weights)
