"""Attention agrees with its formula, with torch.nn.MultiheadAttention and with its own numerical gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lockdec.transformer.attention import (
    MultiHeadAttention,
    SelfAttention,
    attention_weights,
    scaled_dot_product_attention,
)
from lockdec.transformer.fast import Packing
from lockdec.transformer.fast.products import SHORT
from lockdec.transformer.masks import look_ahead_mask
from tests.transformer.tiny_transformers import shake

SIZES = st.integers(1, 5)


def normal(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    """Standard normal, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def some_mask(*shape: int, seed: int = 0) -> Tensor:
    """Random; some rows may be empty."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def agree(ours: Tensor, theirs: Tensor) -> None:
    """To 1e-9, absolutely."""
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


def gradients(output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Of a fixed random function of the output."""
    return list(torch.autograd.grad((output * normal(*output.shape, seed=99)).sum(), inputs))


@settings(max_examples=60, deadline=None)
@given(
    rows=SIZES,
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    t=SIZES,
    past=st.integers(0, 3),
    d=SIZES,
    d_v=SIZES,
    masked=st.booleans(),
    causal=st.booleans(),
    short=st.sampled_from([0, SHORT]),
    seed=st.integers(0, 9),
)
def test_both_ways_of_attention_are_the_explicit_one(
    rows: int,
    kv_heads: int,
    group: int,
    t: int,
    past: int,
    d: int,
    d_v: int,
    masked: bool,
    causal: bool,
    short: int,
    seed: int,
) -> None:
    s = t + past
    query = normal(rows, kv_heads * group, t, d, seed=seed, grad=True)
    key = normal(rows, kv_heads, s, d, seed=seed + 1, grad=True)
    value = normal(rows, kv_heads, s, d_v, seed=seed + 2, grad=True)
    mask = some_mask(rows, t, s, seed=seed) if masked else None
    with patch("lockdec.transformer.fast.products.SHORT", short):  # torch's fused kernel where 0
        fast = scaled_dot_product_attention(query, key, value, mask, causal)

    allowed = torch.ones(rows, t, s, dtype=torch.bool) if mask is None else mask
    if causal:
        positions = torch.arange(s)
        allowed = allowed & (positions <= positions[past:, None])
    shared = [part.repeat_interleave(group, dim=1) for part in (key, value)]
    weights = attention_weights(query, shared[0], allowed.unsqueeze(1))
    agree(fast, weights @ shared[1])
    agree(weights.sum(-1), allowed.any(-1).unsqueeze(1).expand(weights.shape[:-1]).double())
    for ours, theirs in zip(
        gradients(fast, [query, key, value]),
        gradients(weights @ shared[1], [query, key, value]),
        strict=True,
    ):
        agree(ours, theirs)


def test_attention_weights_are_the_softmax_of_scaled_scores() -> None:
    query, key = normal(2, 3), normal(4, 3, seed=1)
    for i in range(2):
        scores = [math.exp(sum(float(query[i, c] * key[j, c]) for c in range(3)) / math.sqrt(3)) for j in range(4)]
        expected = torch.tensor([score / sum(scores) for score in scores], dtype=torch.float64)
        agree(attention_weights(query, key)[i], expected)


@pytest.mark.parametrize(("fast", "short"), [(True, SHORT), (True, 0), (False, SHORT)])
def test_a_query_that_may_attend_to_nothing_yields_zeros_and_no_nan(
    fast: bool, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockdec.transformer.fast.products.SHORT", short)
    for d_v in (2, 3):  # equal sizes and unequal ones take different kernels
        query, key, value = (normal(2, 1, 3, size, seed=size, grad=True) for size in (2, 2, d_v))
        mask = torch.tensor([[[True, False, True]], [[False, False, False]]])
        if fast:
            out = scaled_dot_product_attention(query, key, value, mask.expand(2, 3, 3))
        else:
            out = attention_weights(query, key, mask.unsqueeze(1)) @ value
        assert out[1].eq(0).all()
        assert out[0].ne(0).all()
        for gradient in gradients(out, [query, key, value]):
            assert gradient[1].eq(0).all()
            assert gradient[0].isfinite().all()


def torch_attention(attention: MultiHeadAttention | SelfAttention, widths: tuple[int, int, int]) -> Any:
    """torch.nn.MultiheadAttention with the same weights."""
    width, key_dim, value_dim = widths
    biased = attention.output.bias is not None
    theirs = nn.MultiheadAttention(
        width,
        attention.heads,
        bias=biased,
        kdim=key_dim,
        vdim=value_dim,
        batch_first=True,
        dtype=torch.float64,
    )
    with torch.no_grad():
        theirs.out_proj.weight.copy_(attention.output.weight)
        if isinstance(attention, SelfAttention):
            theirs.in_proj_weight.copy_(attention.query_key_value.weight)
            biases: list[Tensor] = [attention.query_key_value.bias]
        else:
            parts = (attention.query, attention.key, attention.value)
            if theirs.in_proj_weight is not None:
                theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            else:
                slots = (theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight)
                for slot, part in zip(slots, parts, strict=True):
                    slot.copy_(part.weight)
            biases = [part.bias for part in parts]
        if biased:
            theirs.in_proj_bias.copy_(torch.cat(biases))
            theirs.out_proj.bias.copy_(attention.output.bias)
    return theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("widths", [(12, 12, 12), (12, 5, 5), (12, 7, 3)])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_multi_head_attention_is_that_of_torch(
    heads: int, widths: tuple[int, int, int], causal: bool, bias: bool
) -> None:
    width, key_dim, value_dim = widths
    d = width // heads
    ours = MultiHeadAttention(width, heads, d, d, d, key_dim=key_dim, value_dim=value_dim, bias=bias).double()
    shake(ours)
    theirs = torch_attention(ours, widths)
    query, key, value = (normal(2, 6, size, seed=i, grad=True) for i, size in enumerate(widths))
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    expected, weights = theirs(
        query,
        key,
        value,
        key_padding_mask=~mask,
        attn_mask=~look_ahead_mask(6, 6, mask.device) if causal else None,
        average_attn_weights=False,
    )
    output = ours(query, key, value, mask, causal)
    agree(output, expected)
    if not causal:
        agree(ours.weights(query, ours.remember(key, value, mask)), weights)
    pairs = [(query, query), (key, key), (value, value), (ours.output.weight, theirs.out_proj.weight)]
    ours_gradients = gradients(output, [pair[0] for pair in pairs])
    for mine, reference in zip(ours_gradients, gradients(expected, [pair[1] for pair in pairs]), strict=True):
        agree(mine, reference)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
def test_self_attention_is_that_of_torch(heads: int, causal: bool) -> None:
    ours = SelfAttention(12, heads).double()
    shake(ours)
    theirs = torch_attention(ours, (12, 12, 12))
    x = normal(2, 6, 12, grad=True)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    expected, _ = theirs(
        x,
        x,
        x,
        key_padding_mask=~mask,
        attn_mask=~look_ahead_mask(6, 6, mask.device) if causal else None,
    )
    output = ours(x, mask, causal)
    agree(output, expected)
    mine = gradients(output, [x, ours.query_key_value.weight, ours.query_key_value.bias])
    for gradient, reference in zip(
        mine, gradients(expected, [x, theirs.in_proj_weight, theirs.in_proj_bias]), strict=True
    ):
        agree(gradient, reference)


def by_hand(attention: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Every head on its own: softmax(q B k / sqrt(d_k)) v, then W_o over all."""

    def part(linear: nn.Linear, x: Tensor, head: int) -> Tensor:
        size = linear.out_features // attention.heads
        rows = slice(head * size, (head + 1) * size)
        return x @ linear.weight[rows].T + linear.bias[rows]

    mixed = []
    for head in range(attention.heads):
        q, k, v = (
            part(linear, x, head)
            for linear, x in ((attention.query, query), (attention.key, key), (attention.value, value))
        )
        if attention.bilinear is not None:
            q = q @ attention.bilinear[head]
        scores = (q @ k.mT / math.sqrt(k.shape[-1])).masked_fill(~mask.unsqueeze(1), -math.inf)
        mixed.append(scores.softmax(-1) @ v)
    output: Tensor = attention.output(torch.cat(mixed, dim=-1))
    return output


@settings(max_examples=40, deadline=None)
@given(
    heads=SIZES,
    d_q=SIZES,
    d_k=SIZES,
    d_v=SIZES,
    widths=st.tuples(SIZES, SIZES, SIZES, SIZES),
    t=SIZES,
    s=SIZES,
)
def test_all_sizes_are_independent(
    heads: int, d_q: int, d_k: int, d_v: int, widths: tuple[int, int, int, int], t: int, s: int
) -> None:
    d_model, query_dim, key_dim, value_dim = widths
    ours = MultiHeadAttention(d_model, heads, d_q, d_k, d_v, query_dim, key_dim, value_dim).double()
    shake(ours)
    query, key, value = (
        normal(2, t, query_dim),
        normal(2, s, key_dim, seed=1),
        normal(2, s, value_dim, seed=2),
    )
    mask = torch.ones(2, s, dtype=torch.bool)
    mask[1, 1:] = False
    output = ours(query, key, value, mask)
    assert output.shape == (2, t, d_model)
    agree(output, by_hand(ours, query, key, value, mask))
    assert (ours.bilinear is None) == (d_q == d_k)
    weights = heads * (query_dim * d_q + key_dim * d_k + value_dim * d_v + d_v * d_model)
    biases = heads * (d_q + d_k + d_v) + d_model
    bilinear = heads * d_q * d_k if d_q != d_k else 0
    assert sum(p.numel() for p in ours.parameters()) == weights + biases + bilinear


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 1, 1, 1), (2, 3, 2, 1), (1, 1, 3, 2), (3, 2, 2, 2)])
def test_gradients_are_the_numerical_ones(sizes: tuple[int, int, int, int]) -> None:
    attention = MultiHeadAttention(4, *sizes, key_dim=3, value_dim=2).double()
    shake(attention)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    names, parameters = zip(*attention.named_parameters(), strict=True)

    def run(query: Tensor, key: Tensor, value: Tensor, *weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        output: Tensor = torch.func.functional_call(attention, given, (query, key, value, mask))
        return output

    inputs = (
        normal(2, 2, 4, grad=True),
        normal(2, 3, 3, seed=1, grad=True),
        normal(2, 3, 2, seed=2, grad=True),
    )
    check: Callable[..., bool] = torch.autograd.gradcheck
    assert check(run, (*inputs, *parameters), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("d", [1, 2, 8, 64])
def test_attention_starts_at_the_scale_of_its_inputs_however_small_it_is(d: int) -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(192, 6, d, d, d, key_dim=320, value_dim=320, bias=False)
    x, states = torch.randn(64, 8, 192), torch.randn(64, 16, 320)
    with torch.no_grad():
        queries, memory = attention.queries(x), attention.remember(states, states)
        out = attention.output(torch.randn(512, 6 * d))
        for tensor in (queries, memory.key, memory.value, out):
            assert 0.7 < float(tensor.std()) < 1.4


@pytest.mark.parametrize("bias", [False, True])
def test_a_step_that_may_attend_to_nothing_yields_zeros(bias: bool) -> None:
    attention = MultiHeadAttention(12, 2, 3, 3, 4, key_dim=5, value_dim=5, bias=bias)
    shake(attention)
    states, mask = normal(2, 5, 5).float(), torch.tensor([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()
    yielded = attention.attend(normal(2, 1, 12).float(), attention.remember(states, states, mask))
    assert yielded[0].any()
    assert not yielded[1].any()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("beams", [1, 3, 6])
def test_a_step_and_packed_sequences_attend_as_whole_sequences_do(beams: int, bias: bool, masked: bool) -> None:
    attention = MultiHeadAttention(12, 2, 3, 2, 4, key_dim=5, value_dim=5, bias=bias).double()
    shake(attention)
    states, query = normal(3, 4, 5), normal(3, beams, 12, seed=1)
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]]).bool() if masked else None
    memory = attention.remember(states, states, mask)
    expected = attention(query, states, states, mask)
    # One position each of all beams, side by side; each attends as if it were a position of one sequence.
    agree(attention.attend(query.flatten(0, 1).unsqueeze(1), memory), expected.flatten(0, 1).unsqueeze(1))
    packing = Packing(torch.arange(beams) < torch.tensor([[beams], [1], [beams]]))
    agree(attention.attend(packing.pack(query), memory, packing), packing.pack(expected))
