"""Layers agree with those of torch, and their weights start as those of GPT-2."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from lockdec.transformer.attention import MultiHeadAttention, SelfAttention
from lockdec.transformer.layers import AddNorm, DecoderLayer, EncoderLayer, TransformerLayer
from lockdec.transformer.models import Encoded, LockingDecoderModel
from tests.transformer.test_attention import agree, gradients, normal
from tests.transformer.tiny_transformers import decoder_config, shake

MASK = torch.arange(6) < torch.tensor([[6], [4]])


def copy_attention(ours: SelfAttention | MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    """Give torch's attention our weights."""
    parts = [ours.query_key_value] if isinstance(ours, SelfAttention) else [ours.query, ours.key, ours.value]
    theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())


def copy_layer(ours: EncoderLayer | DecoderLayer, theirs: Any) -> None:
    """Give torch's layer our weights."""
    norms: list[AddNorm] = [ours.self_attention_norm, ours.feed_forward_norm]
    with torch.no_grad():
        copy_attention(ours.self_attention, theirs.self_attn)
        if isinstance(ours, DecoderLayer):
            norms.insert(1, ours.cross_attention_norm)
            copy_attention(ours.cross_attention, theirs.multihead_attn)
        for number, norm in enumerate(norms, start=1):
            getattr(theirs, f"norm{number}").load_state_dict(norm.norm.state_dict())
        theirs.linear1.load_state_dict(ours.feed_forward.input.state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward.output.state_dict())


def same_gradients(ours: TransformerLayer, theirs: nn.Module, outputs: list[Tensor], inputs: list[Tensor]) -> None:
    """The inputs' gradients agree, and so do those of the first and the last weights."""
    mine = [*inputs, ours.self_attention.query_key_value.weight, ours.feed_forward.output.weight]
    reference = cast(Any, theirs)
    yours = [*inputs, reference.self_attn.in_proj_weight, reference.linear2.weight]
    for gradient, expected in zip(gradients(outputs[0], mine), gradients(outputs[1], yours), strict=True):
        agree(gradient, expected)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_an_encoder_layer_is_that_of_torch(norm: str, activation: str) -> None:
    ours = EncoderLayer(decoder_config(norm=norm, activation=activation)).double()
    shake(ours)
    theirs = nn.TransformerEncoderLayer(
        12, 3, 20, 0.0, activation, batch_first=True, norm_first=norm == "pre", dtype=torch.float64
    )
    copy_layer(ours, theirs)
    x = normal(2, 6, 12, grad=True)
    output, expected = ours(x, MASK), theirs(x, src_key_padding_mask=~MASK)
    agree(output[MASK], expected[MASK])
    same_gradients(ours, theirs, [output[MASK], expected[MASK]], [x])


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_decoder_layer_is_that_of_torch(norm: str, activation: str) -> None:
    ours = DecoderLayer(decoder_config(norm=norm, activation=activation), encoder_dim=12).double()
    shake(ours)
    theirs = nn.TransformerDecoderLayer(
        12, 3, 20, 0.0, activation, batch_first=True, norm_first=norm == "pre", dtype=torch.float64
    )
    copy_layer(ours, theirs)
    x, states = normal(2, 5, 12, grad=True), normal(2, 6, 12, seed=1, grad=True)
    ahead = ~torch.ones(5, 5, dtype=torch.bool).tril()
    output = ours(x, ours.remember(Encoded(states, MASK)))
    expected = theirs(x, states, tgt_mask=ahead, memory_key_padding_mask=~MASK)
    agree(output, expected)
    same_gradients(ours, theirs, [output, expected], [x, states])


def test_weights_start_as_in_gpt2() -> None:
    torch.manual_seed(0)
    model = LockingDecoderModel(decoder_config(d_model=96, d_ff=384, layers=8, vocab_size=900))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert parameter.eq(0).all(), name
        elif "norm" in name:
            assert parameter.eq(1).all(), name
        else:
            expected = 0.02 / math.sqrt(16) if name.endswith("output.weight") else 0.02
            assert math.isclose(parameter.std().item(), expected, rel_tol=0.1), name
