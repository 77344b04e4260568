"""The OPT family: a GPT with ReLU whose positions are counted from 2 (Zhang et al. 2022)."""

from __future__ import annotations

from lockdec.transformer.configuration import DecoderConfig
from lockdec.transformer.importing.checkpoint import Family, Named, Options, Weights, layer_weights

OFFSET = 2  # rows of the table of positions that no position uses


def opt_config(options: Options) -> DecoderConfig:
    """Our config of an OPT."""
    options.only("do_layer_norm_before", True)
    options.only("word_embed_proj_dim", options.get("hidden_size"))
    options.only("enable_bias", True)
    options.only("layer_norm_elementwise_affine", True)
    options.only("_remove_final_layer_norm", False)
    return DecoderConfig(
        **options.sizes(d_ff="ffn_dim"),
        activation=options.choose("activation_function", {"relu": "relu", "gelu": "gelu"}),
        dropout=float(options.get("dropout")),
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
        "feed_forward.input": ["fc1"],
        "feed_forward.output": ["fc2"],
    }
    for kind in ("weight", "bias"):
        yield f"decoder.norm.{kind}", theirs[f"model.decoder.final_layer_norm.{kind}"]
    yield from layer_weights(theirs, config, "model.decoder.layers", parts)


OPT = Family(opt_config, opt_weights)
