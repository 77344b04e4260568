"""Attention as two batched matrix products: faster than torch's fused kernel where there are few scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from lockdec.transformer.masks import causal_mask, mask_bias

# On a CPU the products are faster with up to this many keys. The fused kernel works block by block, which pays off
# where all scores together would take much memory.
SHORT = 256
FEW = 4  # queries that share keys: MKL multiplies up to this many faster than oneDNN does
VECTOR = 16  # 32-bit numbers in the widest registers of a CPU


def uses_products(query: Tensor, key: Float[Tensor, "*b s d"]) -> bool:
    """Whether `attention_by_products` is faster than the fused kernel for these tensors."""
    return query.device.type == "cpu" and key.shape[-2] <= SHORT


def attention_by_products(
    query: Float[Tensor, "b heads t d"],
    key: Float[Tensor, "b kv_heads s d"],
    value: Float[Tensor, "b kv_heads s d_v"],
    mask: Bool[Tensor, "b _ s"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b heads t d_v"]:
    """The same as `lockdec.transformer.attention.scaled_dot_product_attention`."""
    seen = causal_mask(mask, query.shape[-2], key.shape[-2], query.device) if causal else mask
    if seen is None:
        return products(query, key, value)
    mixed = products(query, key, value, mask_bias(seen, query.dtype))
    # By the look-ahead mask alone, every query attends at least to itself.
    return mixed if mask is None else mixed * seen.any(-1)[:, None, :, None]


def products(
    query: Float[Tensor, "n heads t d"],
    key: Float[Tensor, "b kv_heads s d"],
    value: Float[Tensor, "b kv_heads s d_v"],
    bias: Float[Tensor, "_ _ s"] | None = None,
) -> Float[Tensor, "n heads t d_v"]:
    """softmax(QK^T / sqrt(d) + bias)V by two batched products.

    Args:
        query: n / b beams, side by side, for each row of the keys.
        bias: made by `mask_bias`, for each row or for all of them. Its second dimension is 1 for all queries of a row,
            its beams, or its t positions. What a query that may attend to nothing yields is undefined.
    """
    (n, heads, t, d), (b, kv_heads, s, _) = query.shape, key.shape
    # Heads and beams that share keys become rows of one product: (b * kv_heads, heads / kv_heads * beams * t, d)
    shared = query.view(b, n // b, heads, t, d).transpose(1, 2).reshape(b * kv_heads, -1, d)
    keys, values = key.flatten(0, 1), value.flatten(0, 1)
    scores = torch.baddbmm(shared.new_empty(1), shared, keys.mT, beta=0, alpha=1 / math.sqrt(d))
    if bias is not None:
        scores = (scores.view(b, -1, bias.shape[1], s) + bias.unsqueeze(1)).view_as(scores)
    mixed = padded_softmax(scores) @ values
    return mixed.view(b, heads, n // b, t, value.shape[-1]).transpose(1, 2).flatten(0, 1)


def step_attention(
    query: Float[Tensor, "n heads t d"],
    key: Float[Tensor, "b kv_heads s d"],
    value: Float[Tensor, "b kv_heads s d_v"],
    bias: Float[Tensor, "_ _ s"] | None = None,
) -> Float[Tensor, "n heads t d_v"]:
    """`products` for one decoding step, by the library that is faster with few queries."""
    queries_per_key_head = query.numel() // (query.shape[-1] * key.shape[0] * key.shape[1])
    if query.device.type != "cpu" or queries_per_key_head > FEW or torch.compiler.is_compiling():
        return products(query, key, value, bias)
    with mkl():
        return products(query, key, value, bias)


@contextmanager
def mkl() -> Iterator[None]:
    """Multiply by MKL within this context, and not by oneDNN.

    torch's setting for the library is named for a precision, but none changes here: a process multiplies by oneDNN only
    where that keeps 32 bits as well (see `lockdec.runtime.acceleration.exact_products`). Where it does not, MKL is the
    one that multiplies anyway, and nothing is set.
    """
    setting = torch.get_float32_matmul_precision()
    if setting == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(setting)


def padded_softmax(scores: Float[Tensor, "*b s"]) -> Float[Tensor, "*b s"]:
    """scores.softmax(-1), padded to a full vector: torch's own handles fewer numbers one at a time."""
    missing = VECTOR - scores.shape[-1] if scores.device.type == "cpu" else 0
    if missing <= 0:
        return scores.softmax(-1)
    return F.pad(scores, (0, missing), value=-math.inf).softmax(-1)[..., :-missing]
