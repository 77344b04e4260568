"""The GPT-2 family: pre-norm, learned positions, biases everywhere (Radford et al. 2019)."""

from __future__ import annotations

from torch import Tensor

from lockdec.transformer.configuration import CrossAttentionConfig, DecoderConfig
from lockdec.transformer.importing.checkpoint import Family, Options, Weights


def gpt2_config(options: Options) -> DecoderConfig:
    """Our config of a GPT-2."""
    options.only("scale_attn_weights", True)
    options.only("scale_attn_by_inverse_layer_idx", False)
    width = options.get("n_embd")
    return DecoderConfig(
        vocab_size=options.get("vocab_size"),
        max_len=options.get("n_positions"),
        d_model=width,
        layers=options.get("n_layer"),
        heads=options.get("n_head"),
        d_ff=options.get("n_inner") or 4 * width,
        activation=options.choose(
            "activation_function",
            {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"},
        ),
        dropout=float(options.get("resid_pdrop")),
        norm_eps=options.get("layer_norm_epsilon"),
        tied=options.get("tie_word_embeddings"),
    )


def gpt2_weights(theirs: Weights, config: DecoderConfig) -> dict[str, Tensor]:
    """GPT-2's weights by our names; it stores its projections transposed."""
    ours = {
        "embedding.tokens.weight": theirs["transformer.wte.weight"],
        "embedding.positions.weight": theirs["transformer.wpe.weight"],
    }
    names = {"transformer.ln_f": "decoder.norm"}
    transposed = set()
    for layer in range(config.layers):
        here, there = f"decoder.layers.{layer}", f"transformer.h.{layer}"
        names[f"{there}.ln_1"] = f"{here}.self_attention_norm.norm"
        names[f"{there}.ln_2"] = f"{here}.feed_forward_norm.norm"
        projections = {
            f"{there}.attn.c_attn": f"{here}.self_attention.query_key_value",
            f"{there}.attn.c_proj": f"{here}.self_attention.output",
            f"{there}.mlp.c_fc": f"{here}.feed_forward.widen",
            f"{there}.mlp.c_proj": f"{here}.feed_forward.output",
        }
        names |= projections
        transposed |= set(projections)
    for name, our in names.items():
        weight = theirs[f"{name}.weight"]
        ours[f"{our}.weight"] = weight.T if name in transposed else weight
        ours[f"{our}.bias"] = theirs[f"{name}.bias"]
    return ours


def gpt2_cross_attention(theirs: Weights, config: DecoderConfig) -> tuple[CrossAttentionConfig, dict[str, Tensor]]:
    """The cross-attention of a GPT-2 that has one; its heads are as wide as those of its self-attention.

    Before it projects queries, it normalises with a scale g and a shift c of its own. Here W_q absorbs them:
    W_q (g x + c) + b = (W_q g) x + (W_q c + b).
    """
    size, width = config.d_head, config.d_model
    weights = {}
    for layer in range(config.layers):
        there, here = f"transformer.h.{layer}", f"decoder.layers.{layer}.cross_attention.attention"
        query = theirs[f"{there}.crossattention.q_attn.weight"].T  # (heads * d_q, d_model)
        scale, shift = theirs[f"{there}.ln_cross_attn.weight"], theirs[f"{there}.ln_cross_attn.bias"]
        weights[f"{here}.query.weight"] = query * scale
        weights[f"{here}.query.bias"] = theirs[f"{there}.crossattention.q_attn.bias"] + query @ shift
        for part, columns in (("key", slice(0, width)), ("value", slice(width, 2 * width))):
            weights[f"{here}.{part}.weight"] = theirs[f"{there}.crossattention.c_attn.weight"][:, columns].T
            weights[f"{here}.{part}.bias"] = theirs[f"{there}.crossattention.c_attn.bias"][columns]
        weights[f"{here}.output.weight"] = theirs[f"{there}.crossattention.c_proj.weight"].T
        weights[f"{here}.output.bias"] = theirs[f"{there}.crossattention.c_proj.bias"]
    shape = CrossAttentionConfig(config.heads, d_q=size, d_k=size, d_v=size, unlock="plain", bias=True)
    return shape, weights


GPT2 = Family(gpt2_config, gpt2_weights, gpt2_cross_attention)
