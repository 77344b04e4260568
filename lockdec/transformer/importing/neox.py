"""The GPT-NeoX family, such as Pythia: parallel sublayers, heads rotated in part (Black et al. 2022)."""

from __future__ import annotations

from lockdec.transformer.configuration import DecoderConfig
from lockdec.transformer.importing.checkpoint import Family, Named, Options, Weights


def neox_config(options: Options) -> DecoderConfig:
    """Our config of a GPT-NeoX."""
    options.only("attention_bias", True)
    rope = options.get("rope_parameters")
    options.require("rope_type", rope["rope_type"], "default")
    return DecoderConfig(
        **options.sizes(),
        norm="parallel" if options.get("use_parallel_residual") else "pre",
        position="rope",
        activation=options.choose(
            "hidden_act", {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "relu": "relu"}
        ),
        dropout=float(options.get("hidden_dropout")),
        norm_eps=options.get("layer_norm_eps"),
        rope_theta=float(rope["rope_theta"]),
        rope_share=float(rope.get("partial_rotary_factor", 1.0)),
    )


def neox_weights(theirs: Weights, config: DecoderConfig) -> Named:
    """GPT-NeoX's weights by our names; it interleaves query, key and value of each head."""
    yield "embedding.tokens.weight", theirs["gpt_neox.embed_in.weight"]
    parts = {
        "self_attention_norm.norm": "input_layernorm",
        "feed_forward_norm.norm": "post_attention_layernorm",
        "self_attention.query_key_value": "attention.query_key_value",
        "self_attention.output": "attention.dense",
        "feed_forward.input": "mlp.dense_h_to_4h",
        "feed_forward.output": "mlp.dense_4h_to_h",
    }
    for kind in ("weight", "bias"):
        yield f"decoder.norm.{kind}", theirs[f"gpt_neox.final_layer_norm.{kind}"]
        for layer in range(config.layers):
            for here, there in parts.items():
                tensor = theirs[f"gpt_neox.layers.{layer}.{there}.{kind}"]
                if here.endswith("query_key_value"):
                    heads = tensor.view(config.heads, 3, config.d_head, *tensor.shape[1:])
                    tensor = heads.transpose(0, 1).reshape(tensor.shape)
                yield f"decoder.layers.{layer}.{here}.{kind}", tensor


NEOX = Family(neox_config, neox_weights)
