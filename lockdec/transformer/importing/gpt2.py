"""The GPT-2 family: pre-norm, learned positions, biases everywhere (Radford et al. 2019)."""

from __future__ import annotations

from torch import Tensor

from lockdec.transformer.configuration import CrossAttentionConfig, DecoderConfig
from lockdec.transformer.importing.checkpoint import Family, Named, Options, Weights


def gpt2_config(options: Options) -> DecoderConfig:
    """Our config of a GPT-2."""
    options.only("scale_attn_weights", True)
    options.only("scale_attn_by_inverse_layer_idx", False)
    sizes = options.sizes(max_len="n_positions", d_model="n_embd", layers="n_layer", heads="n_head", d_ff="n_inner")
    sizes["d_ff"] = sizes["d_ff"] or 4 * sizes["d_model"]
    return DecoderConfig(
        **sizes,
        activation=options.choose(
            "activation_function",
            {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"},
        ),
        dropout=float(options.get("resid_pdrop")),
        norm_eps=options.get("layer_norm_epsilon"),
    )


def gpt2_weights(theirs: Weights, config: DecoderConfig) -> Named:
    """GPT-2's weights by our names; it stores its projections transposed."""
    yield "embedding.tokens.weight", theirs["transformer.wte.weight"]
    yield "embedding.positions.weight", theirs["transformer.wpe.weight"]
    for kind in ("weight", "bias"):
        yield f"decoder.norm.{kind}", theirs[f"transformer.ln_f.{kind}"]
    parts = {
        "self_attention_norm.norm": "ln_1",
        "feed_forward_norm.norm": "ln_2",
        "self_attention.query_key_value": "attn.c_attn",
        "self_attention.output": "attn.c_proj",
        "feed_forward.input": "mlp.c_fc",
        "feed_forward.output": "mlp.c_proj",
    }
    for layer in range(config.layers):
        for here, there in parts.items():
            weight, bias = (theirs[f"transformer.h.{layer}.{there}.{kind}"] for kind in ("weight", "bias"))
            yield f"decoder.layers.{layer}.{here}.weight", weight if there.startswith("ln") else weight.T
            yield f"decoder.layers.{layer}.{here}.bias", bias


def gpt2_cross_attention(theirs: Weights, config: DecoderConfig) -> tuple[CrossAttentionConfig, Named]:
    """The cross-attention of a GPT-2 that has one; its heads are as wide as those of its self-attention.

    Before it projects queries, it normalises with a scale g and a shift c of its own. Here W_q absorbs them:
    W_q (g x + c) + b = (W_q g) x + (W_q c + b).
    """
    size, width = config.d_head, config.d_model

    def weights() -> Named:
        for layer in range(config.layers):
            there, here = f"transformer.h.{layer}", f"decoder.layers.{layer}.cross_attention.attention"
            query = theirs[f"{there}.crossattention.q_attn.weight"].T  # (heads * d_q, d_model)
            scale, shift = theirs[f"{there}.ln_cross_attn.weight"], theirs[f"{there}.ln_cross_attn.bias"]
            yield f"{here}.query.weight", query * scale
            yield f"{here}.query.bias", theirs[f"{there}.crossattention.q_attn.bias"] + query @ shift
            for part, columns in (("key", slice(0, width)), ("value", slice(width, 2 * width))):
                yield f"{here}.{part}.weight", theirs[f"{there}.crossattention.c_attn.weight"][:, columns].T
                yield f"{here}.{part}.bias", theirs[f"{there}.crossattention.c_attn.bias"][columns]
            yield f"{here}.output.weight", theirs[f"{there}.crossattention.c_proj.weight"].T
            yield f"{here}.output.bias", theirs[f"{there}.crossattention.c_proj.bias"]

    return CrossAttentionConfig(config.heads, d_q=size, d_k=size, d_v=size, unlock="plain", bias=True), weights()


def gpt2_from_gguf(name: str, tensor: Tensor, options: Options) -> Tensor:
    """In GGUF files the projections are not transposed."""
    return tensor.T if tensor.ndim == 2 and (".attn." in name or ".mlp." in name) else tensor


GPT2 = Family(gpt2_config, gpt2_weights, gpt2_cross_attention, gpt2_from_gguf)
