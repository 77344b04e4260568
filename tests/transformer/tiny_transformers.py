"""Tiny transformers, inputs and weights for the tests in this folder."""

from __future__ import annotations

from typing import Any, cast

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from lockdec.transformer.layers import LockingDecoderLayer
from lockdec.transformer.models import (
    CrossAttentionConfig,
    DecoderConfig,
    Encoded,
    EncoderConfig,
    LockingDecoderModel,
    StackedModel,
)

VOCAB = 23
ENCODER_DIM = 10
BOS, EOS, PAD = 1, 2, 0
IDS: dict[str, Any] = {"bos_id": BOS, "eos_id": EOS, "pad_id": PAD}
CHOICES = st.fixed_dictionaries(
    {
        "norm": st.sampled_from(["pre", "post"]),
        "position": st.sampled_from(["learned", "sinusoidal", "rope"]),
        "norm_kind": st.sampled_from(["layer", "rms"]),
        "activation": st.sampled_from(["relu", "gelu", "gelu_tanh", "swiglu"]),
        "bias": st.sampled_from(["all", "qkv", "none"]),
        "kv_heads": st.sampled_from([None, 1]),
        "tied": st.booleans(),
        "layers": st.integers(1, 3),
    }
)


def decoder_config(**changes: Any) -> DecoderConfig:
    """Two layers of width 12, without dropout."""
    sizes: dict[str, Any] = {
        "vocab_size": VOCAB,
        "max_len": 16,
        "d_model": 12,
        "layers": 2,
        "heads": 3,
        "d_ff": 20,
        "dropout": 0.0,
    }
    return DecoderConfig(**(sizes | changes))


def encoder_config(**changes: Any) -> EncoderConfig:
    """An encoder of the same sizes."""
    return EncoderConfig(**vars(decoder_config(**changes)))


def cross_attention_config(**changes: Any) -> CrossAttentionConfig:
    """Two heads, all three sizes different."""
    return CrossAttentionConfig(**({"heads": 2, "d_q": 3, "d_k": 2, "d_v": 4} | changes))


def shake(module: nn.Module, seed: int = 7) -> None:
    """Give every parameter a random value, so that no zero, one or tie hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + 0.1)


def locking_model(seed: int = 0, **changes: Any) -> LockingDecoderModel:
    """A locked model with random weights, in evaluation mode."""
    model = LockingDecoderModel(decoder_config(**changes)).eval()
    shake(model, seed)
    return model


def force_open(model: LockingDecoderModel, seed: int = 3) -> None:
    """Random cross-attention weights and gates, as if long trained."""
    shake(model.decoder, seed)


def make_talkative(table: Tensor, norm: nn.LayerNorm | nn.RMSNorm, eos: int, seed: int) -> None:
    """Make all tokens about as likely and the end a little more, so that sequences vary and some end.

    Args:
        table: the tied token embedding.
        norm: the one before the logits.
    """
    with torch.no_grad():
        drawn = torch.randn(table.shape, generator=torch.Generator().manual_seed(seed))
        table.copy_(nn.functional.normalize(drawn, dim=-1))
        table[eos] *= 1.8
        nn.init.ones_(norm.weight)


def token_batch(rows: int = 3, length: int = 7, seed: int = 1) -> Tensor:
    """Random tokens."""
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def encoded_batch(rows: int = 3, states: int = 5, seed: int = 2, dim: int = ENCODER_DIM) -> Encoded:
    """Random states; the first row is full, every other one lacks one more state than the row before it."""
    generator = torch.Generator().manual_seed(seed)
    lengths = states - torch.arange(rows).clamp(max=states - 1)
    return Encoded(torch.randn(rows, states, dim, generator=generator), torch.arange(states) < lengths.unsqueeze(1))


def captioner(seed: int = 0, attending: str = "all", **changes: Any) -> LockingDecoderModel:
    """An unlocked model, as if long trained, that ends some sequences early and others not at all."""
    model = locking_model(seed, **changes)
    model.attach(cross_attention_config(bias=True, layers=attending), ENCODER_DIM)
    force_open(model, seed)
    make_talkative(model.embedding.tokens.weight, final_norm(model), EOS, seed)
    model.unlock()
    return model


def final_norm(model: StackedModel) -> nn.LayerNorm | nn.RMSNorm:
    """The norm before the logits."""
    last = cast(LockingDecoderLayer, model.decoder.layers[-1])
    norm = model.decoder.norm if model.config.norm == "pre" else last.feed_forward_norm.norm
    return cast("nn.LayerNorm | nn.RMSNorm", norm)


def close(ours: Tensor, theirs: Tensor) -> None:
    """Equal but for the order of summation."""
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-4)
