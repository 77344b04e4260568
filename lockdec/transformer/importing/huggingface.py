"""Decoders that somebody else pretrained: the GPT-2 and Llama families, read from safetensors only.

Both are our own decoder with other choices, so importing one is two tables: what its options are called
here, and what its weights are called here. An option that has no counterpart is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lockdec.errors import LockdecError
from lockdec.transformer.configuration import CrossAttentionConfig, DecoderConfig, RopeScaling
from lockdec.transformer.models import LockingDecoderModel

Weights = Mapping[str, Tensor]


def import_decoder(source: nn.Module | str | Path) -> LockingDecoderModel:
    """See `LockingDecoderModel.from_huggingface`.

    The cross-attention of a GPT-2 that has one comes along: it is attached and unlocked.
    """
    model = source if isinstance(source, nn.Module) else load(str(source))
    name = type(model).__name__ if isinstance(source, nn.Module) else str(source)
    options: Any = getattr(model, "config", None)
    family = FAMILIES.get(getattr(options, "model_type", ""))
    if family is None or not hasattr(model, "lm_head"):
        raise LockdecError(f"{name}: not a language model of a family that can be imported ({', '.join(FAMILIES)})")
    read_config, read_weights = family
    theirs = model.state_dict()
    config = read_config(Options(name, options))
    ours = LockingDecoderModel(config)
    weights = read_weights(theirs, config.layers)
    if not config.tied:
        weights["embedding.untied.weight"] = theirs["lm_head.weight"]
    ours.load_state_dict(weights)
    if getattr(options, "add_cross_attention", False):
        import_cross_attention(ours, theirs)
    return ours.to(theirs["lm_head.weight"].dtype)


def load(source: str) -> nn.Module:
    """A `transformers` language model from a folder or hub id, in float32, running no code of its own."""
    try:
        from transformers import AutoModelForCausalLM
    except ModuleNotFoundError as error:
        raise LockdecError(f"{source}: importing a decoder needs transformers (pip install transformers)") from error
    safely = {"use_safetensors": True, "trust_remote_code": False}
    loader: Any = AutoModelForCausalLM
    try:
        model, report = loader.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **safely)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise LockdecError(f"{source}: no decoder in safetensors can be read from it ({reason})") from error
    if report["missing_keys"]:
        raise LockdecError(f"{source}: the checkpoint lacks {', '.join(sorted(report['missing_keys']))}")
    loaded: nn.Module = model
    return loaded


class Options:
    """The options of a checkpoint, each refused by name where it cannot be had here."""

    def __init__(self, source: str, config: Any) -> None:
        self.source = source
        self.config = config

    def get(self, name: str) -> Any:
        """The option's value."""
        return getattr(self.config, name)

    def only(self, name: str, *supported: object) -> None:
        """Refuse the option unless it has one of these values."""
        if self.get(name) not in supported:
            allowed = " or ".join(str(value) for value in supported)
            raise LockdecError(f"{self.source}: {name}={self.get(name)} is not supported (only {allowed})")

    def choose(self, name: str, names: Mapping[str, str]) -> str:
        """What the option's value is called here."""
        self.only(name, *names)
        return names[self.get(name)]


def gpt2_config(options: Options) -> DecoderConfig:
    """The GPT-2 family: pre-norm, learned positions, biases everywhere (Radford et al. 2019)."""
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


def gpt2_weights(theirs: Weights, layers: int) -> dict[str, Tensor]:
    """GPT-2's weights by our names; its projections are stored the other way round."""
    ours = {
        "embedding.tokens.weight": theirs["transformer.wte.weight"],
        "embedding.positions.weight": theirs["transformer.wpe.weight"],
    }
    names = {"transformer.ln_f": "decoder.norm"}
    turned = set()
    for layer in range(layers):
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
        turned |= set(projections)
    for name, our in names.items():
        weight = theirs[f"{name}.weight"]
        ours[f"{our}.weight"] = weight.T if name in turned else weight
        ours[f"{our}.bias"] = theirs[f"{name}.bias"]
    return ours


def import_cross_attention(model: LockingDecoderModel, theirs: Weights) -> None:
    """Attach and unlock the cross-attention of a GPT-2; its heads are as wide as those of its self-attention.

    It norms with a scale g and a shift c of its own before projecting queries; here W_q takes them up:
    W_q (g x + c) + b = (W_q g) x + (W_q c + b).
    """
    size, width = model.config.d_head, model.config.d_model
    shape = CrossAttentionConfig(model.config.heads, size, size, size, unlock="plain", bias=True)
    model.attach(shape, encoder_dim=width)
    weights = {}
    for layer in range(model.config.layers):
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
    with torch.no_grad():
        for name, parameter in model.cross_attention_parameters().items():
            parameter.copy_(weights[name])
    model.unlock()


def llama_config(options: Options) -> DecoderConfig:
    """The Llama family: rotary positions, RMSNorm, SwiGLU, grouped queries (Touvron et al. 2023)."""
    width, heads = options.get("hidden_size"), options.get("num_attention_heads")
    if options.get("model_type") == "qwen2":
        options.only("use_sliding_window", False)
        bias = "qkv"
    else:
        options.only("head_dim", width // heads)
        options.only("attention_bias", options.get("mlp_bias"))
        bias = "all" if options.get("attention_bias") else "none"
    options.only("hidden_act", "silu")
    theta, scaling = rope(options)
    return DecoderConfig(
        vocab_size=options.get("vocab_size"),
        max_len=options.get("max_position_embeddings"),
        d_model=width,
        layers=options.get("num_hidden_layers"),
        heads=heads,
        kv_heads=options.get("num_key_value_heads"),
        d_ff=options.get("intermediate_size"),
        position="rope",
        activation="swiglu",
        dropout=0.0,
        norm_kind="rms",
        norm_eps=options.get("rms_norm_eps"),
        bias=bias,
        tied=options.get("tie_word_embeddings"),
        rope_theta=theta,
        rope_scaling=scaling,
    )


def rope(options: Options) -> tuple[float, RopeScaling | None]:
    """The base of the rotary wavelengths, and how they are stretched."""
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


def llama_weights(theirs: Weights, layers: int) -> dict[str, Tensor]:
    """Llama's weights by our names; projections that share an input are one matrix here."""
    ours = {
        "embedding.tokens.weight": theirs["model.embed_tokens.weight"],
        "decoder.norm.weight": theirs["model.norm.weight"],
    }
    parts = {
        "self_attention_norm.norm": ["input_layernorm"],
        "self_attention.query_key_value": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "self_attention.output": ["self_attn.o_proj"],
        "feed_forward_norm.norm": ["post_attention_layernorm"],
        "feed_forward.widen": ["mlp.gate_proj", "mlp.up_proj"],
        "feed_forward.output": ["mlp.down_proj"],
    }
    for layer in range(layers):
        for here, there in parts.items():
            for kind in ("weight", "bias"):
                found = [theirs.get(f"model.layers.{layer}.{name}.{kind}") for name in there]
                present = [tensor for tensor in found if tensor is not None]
                if present:
                    ours[f"decoder.layers.{layer}.{here}.{kind}"] = torch.cat(present)
    return ours


FAMILIES: dict[str, tuple[Callable[[Options], DecoderConfig], Callable[[Weights, int], dict[str, Tensor]]]] = {
    "gpt2": (gpt2_config, gpt2_weights),
    "llama": (llama_config, llama_weights),
    "qwen2": (llama_config, llama_weights),
}
