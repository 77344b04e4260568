"""Attention as matrix products is the explicit attention; few queries are multiplied by the faster library."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lockdec.transformer.attention import attention_weights
from lockdec.transformer.fast.products import (
    FEW,
    SHORT,
    VECTOR,
    attention_by_products,
    padded_softmax,
    step_attention,
    uses_products,
)
from lockdec.transformer.masks import mask_bias
from tests.transformer.test_attention import agree, gradients, normal, some_mask

SIZES = st.integers(1, 5)


@settings(max_examples=60, deadline=None)
@given(
    rows=SIZES,
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    t=SIZES,
    past=st.integers(0, 20),
    masked=st.booleans(),
    causal=st.booleans(),
    seed=st.integers(0, 9),
)
def test_products_give_the_explicit_attention_and_its_gradients(
    rows: int, kv_heads: int, group: int, t: int, past: int, masked: bool, causal: bool, seed: int
) -> None:
    s = t + past
    query = normal(rows, kv_heads * group, t, 4, seed=seed, grad=True)
    key = normal(rows, kv_heads, s, 4, seed=seed + 1, grad=True)
    value = normal(rows, kv_heads, s, 3, seed=seed + 2, grad=True)
    mask = some_mask(rows, t, s, seed=seed) if masked else None
    allowed = torch.ones(rows, t, s, dtype=torch.bool) if mask is None else mask
    if causal:
        allowed = allowed & torch.ones(t, s, dtype=torch.bool).tril(past)
    shared = [part.repeat_interleave(group, dim=1) for part in (key, value)]
    expected = attention_weights(query, shared[0], allowed.unsqueeze(1)) @ shared[1]
    fast = attention_by_products(query, key, value, mask, causal)
    agree(fast, expected)
    inputs = [query, key, value]
    for ours, theirs in zip(gradients(fast, inputs), gradients(expected, inputs), strict=True):
        agree(ours, theirs)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("beams", range(1, FEW + 3))
@pytest.mark.parametrize(("heads", "kv_heads"), [(3, 3), (4, 2), (4, 1)])
def test_a_step_of_all_beams_is_the_explicit_attention_of_each(
    heads: int, kv_heads: int, beams: int, masked: bool
) -> None:
    query, key, value = normal(3 * beams, heads, 1, 4), normal(3, kv_heads, 5, 4, seed=1), normal(3, kv_heads, 5, 6)
    mask = some_mask(3, beams, 5) | torch.eye(5, dtype=torch.bool)[1] if masked else None  # each has something
    shared = [part.repeat_interleave(heads // kv_heads, dim=1) for part in (key, value)]
    for row in range(3):
        for beam in range(beams):
            allowed = None if mask is None else mask[row, beam]
            one = attention_weights(query[row * beams + beam], shared[0][row], allowed) @ shared[1][row]
            bias = None if mask is None else mask_bias(mask, key.dtype)
            agree(step_attention(query, key, value, bias)[row * beams + beam], one)


@pytest.mark.parametrize(("queries", "expected"), [(FEW, "highest"), (FEW + 1, "medium")])
def test_few_queries_are_multiplied_by_mkl_and_the_choice_is_put_back(queries: int, expected: str) -> None:
    query, key = normal(2 * queries, 3, 1, 4), normal(2, 3, 5, 4, seed=1)  # beams of two rows
    found: list[str] = []

    def softmax(scores: Tensor) -> Tensor:
        found.append(torch.get_float32_matmul_precision())
        if len(found) > 1:
            raise RuntimeError("on purpose")
        return scores.softmax(-1)

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with patch("lockdec.transformer.fast.products.padded_softmax", softmax):
            step_attention(query, key, key)
            with pytest.raises(RuntimeError, match="on purpose"):
                step_attention(query, key, key)
        after = torch.get_float32_matmul_precision()
    finally:
        torch.set_float32_matmul_precision(before)
    assert (found, after) == ([expected] * 2, "medium")


@pytest.mark.parametrize("s", [1, 2, VECTOR - 1, VECTOR, VECTOR + 1])
def test_the_padded_softmax_is_softmax(s: int) -> None:
    scores = normal(3, 2, s, seed=s, grad=True)
    ours, theirs = padded_softmax(scores), scores.softmax(-1)
    agree(ours, theirs)
    agree(gradients(ours, [scores])[0], gradients(theirs, [scores])[0])


def test_products_are_used_for_few_keys_on_a_cpu_only() -> None:
    short, long = torch.zeros(1, 1, SHORT, 2), torch.zeros(1, 1, SHORT + 1, 2)
    assert uses_products(short, short)
    assert not uses_products(long, long)
    assert not uses_products(short.to("meta"), short.to("meta"))
