"""Attention: a weighted mean of values, where the weights say how well each key matches the query.

Read from the top:

    attention_weights              softmax(QK^T / sqrt(d)), written out; gives the attention maps
    scaled_dot_product_attention   the same times V in one fused call; all layers use this one
    MultiHeadAttention             queries, keys and values each with a size of their own, from inputs of any width
    SelfAttention                  the common special case: one input, and a cache of its past

Masks are true where a query may attend to a key. A query that may attend to nothing yields zeros.

A `Memory` holds the projected keys and values that a cross-attention attends to, and a `KeyValueCache` those of a
sequence's past; `decoding.caching` has both. Wherever this file calls `fast`, a plainer form gives the same result:
`fast.step_attention` and `fast.attention_by_products` are `scaled_dot_product_attention`, and a `fast.Packing` is a
batch without its padding.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.transformer import fast
from lockdec.transformer.decoding.caching import KeyValueCache, Memory
from lockdec.transformer.masks import causal_mask, mask_bias
from lockdec.transformer.positional import RotaryPositions


def attention_weights(
    query: Float[Tensor, "*b t d"],
    key: Float[Tensor, "*b s d"],
    mask: Bool[Tensor, "*mask"] | None = None,
) -> Float[Tensor, "*b t s"]:
    """softmax(QK^T / sqrt(d)): how much each query attends to each key (Vaswani et al. 2017, 3.2.1).

    Args:
        query, key: of one size d, with the same leading dimensions.
        mask: broadcastable to (*b, t, s), true where a query may attend.
    """
    scores = query @ key.mT / math.sqrt(query.shape[-1])  # (*b, t, s)
    if mask is None:
        return scores.softmax(-1)
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    return weights.masked_fill(~mask.any(-1, keepdim=True), 0.0)  # where all keys are masked: 0/0 so far


def scaled_dot_product_attention(
    query: Float[Tensor, "b heads t d"],
    key: Float[Tensor, "b kv_heads s d"],
    value: Float[Tensor, "b kv_heads s d_v"],
    mask: Bool[Tensor, "b _ s"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b heads t d_v"]:
    """`attention_weights(query, key, mask) @ value` for every head, without storing the weights.

    Args:
        query: its heads are a multiple of kv_heads; neighbouring heads share keys and values.
        mask: true where a query may attend.
        causal: the queries are the last t of s positions, and attend only to themselves and to earlier ones.
    """
    t, s = query.shape[-2], key.shape[-2]
    causal = causal and t > 1  # the last position may attend to all
    if fast.uses_products(query, key):  # the same result, faster for short sequences on a CPU
        return fast.attention_by_products(query, key, value, mask, causal)
    if causal and (mask is not None or t != s):  # torch takes either a mask or is_causal, and the latter only if t = s
        mask, causal = causal_mask(mask, t, s, query.device), False
    heads_mask = None if mask is None else mask.unsqueeze(1)  # (b or 1, 1, t or 1, s)
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=heads_mask, is_causal=causal, enable_gqa=grouped)


def split_heads(x: Float[Tensor, "b t width"], heads: int) -> Float[Tensor, "b heads t d"]:
    """Divide the width among the heads."""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(x: Float[Tensor, "b heads t d"]) -> Float[Tensor, "b t width"]:
    """Concatenate the heads."""
    return x.transpose(1, 2).flatten(-2)


class MultiHeadAttention(nn.Module):
    """Several attentions in parallel, each over projections of its own (Vaswani et al. 2017, 3.2.2).

    A dot product needs equal sizes, so where d_q != d_k a bilinear map of shape (d_q, d_k) per head carries
    the query into key space. Scores are scaled by 1/sqrt(d_k). All weights are initially of variance 1 / fan-in, so
    queries, keys, values and output start at the scale of their inputs however few dimensions a head has.

    Args:
        d_model: width of the output.
        heads: how many attentions.
        d_q, d_k, d_v: sizes of one head's query, key and value.
        query_dim, key_dim, value_dim: widths of the three inputs; d_model where not given.
        bias: whether the four projections have one.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        d_q: int,
        d_k: int,
        d_v: int,
        query_dim: int | None = None,
        key_dim: int | None = None,
        value_dim: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(query_dim or d_model, heads * d_q, bias=bias)
        self.key = nn.Linear(key_dim or d_model, heads * d_k, bias=bias)
        self.value = nn.Linear(value_dim or d_model, heads * d_v, bias=bias)
        self.output = nn.Linear(heads * d_v, d_model, bias=bias)
        self.bilinear = nn.Parameter(torch.empty(heads, d_q, d_k)) if d_q != d_k else None
        self.initialise()

    def initialise(self) -> None:
        """Draw new weights from torch's global generator; biases are zero."""
        for linear in (self.query, self.key, self.value, self.output):
            bound = math.sqrt(3 / linear.in_features)
            nn.init.uniform_(linear.weight, -bound, bound)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        for head in [] if self.bilinear is None else self.bilinear:
            nn.init.orthogonal_(head)

    def forward(
        self,
        query: Float[Tensor, "b t query_dim"],
        key: Float[Tensor, "b s key_dim"],
        value: Float[Tensor, "b s value_dim"],
        mask: Bool[Tensor, "b s"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "b t d_model"]:
        """Let every query attend to all keys that the mask allows (and, if causal, to none after it)."""
        return self._attend_sequences(query, self.remember(key, value, mask), causal)

    def remember(
        self,
        key: Float[Tensor, "b s key_dim"],
        value: Float[Tensor, "b s value_dim"],
        mask: Bool[Tensor, "b s"] | None = None,
    ) -> Memory:
        """Project what will be attended to into keys and values."""
        keys, values = split_heads(self.key(key), self.heads), split_heads(self.value(value), self.heads)
        return Memory(keys, values, mask)

    def queries(
        self, query: Float[Tensor, "_ _ query_dim"], packing: fast.Packing | None = None
    ) -> Float[Tensor, "b heads t d_k"]:
        """Project the input, which may be packed, into queries in key space."""
        projected = self.query(query)
        q = split_heads(projected if packing is None else packing.unpack(projected), self.heads)  # (b, heads, t, d_q)
        return q if self.bilinear is None else q @ self.bilinear  # (b, heads, t, d_k)

    def attend(
        self, query: Float[Tensor, "n t query_dim"], memory: Memory, packing: fast.Packing | None = None
    ) -> Float[Tensor, "n t d_model"]:
        """Attend to a memory.

        Args:
            query: whole sequences, as many as the memory's rows and packed if a packing is given; or one position each
                of a multiple of them, such as the beams of each row side by side.
            packing: how the query is packed.
        """
        if packing is not None:
            return self._attend_packed(query, memory, packing)
        if query.shape[1] == 1:
            return self._attend_step(query, memory)
        return self._attend_sequences(query, memory)

    def _attend_sequences(self, query: Tensor, memory: Memory, causal: bool = False) -> Tensor:
        mixed = scaled_dot_product_attention(self.queries(query), memory.key, memory.value, memory.query_mask, causal)
        return self._silence(self.output(merge_heads(mixed)), memory)

    def _attend_packed(self, query: Tensor, memory: Memory, packing: fast.Packing) -> Tensor:
        queries = self.queries(query, packing)
        mixed = scaled_dot_product_attention(queries, memory.key, memory.value, memory.query_mask)
        return self._silence(self.output(packing.pack(merge_heads(mixed))), memory, packing)

    def _attend_step(self, query: Tensor, memory: Memory) -> Tensor:
        queries = self.queries(query.reshape(len(memory), -1, query.shape[-1]))  # (b, heads, n / b, d_k)
        mask = memory.query_mask
        if mask is None:
            mixed = fast.step_attention(queries, memory.key, memory.value)
        else:
            mixed = fast.step_attention(queries, memory.key, memory.value, mask_bias(mask, queries.dtype))
            mixed = mixed * mask.any(-1)[:, None, :, None]
        return self._silence(self.output(merge_heads(mixed)), memory).view(*query.shape[:-1], -1)

    def _silence(self, out: Tensor, memory: Memory, packing: fast.Packing | None = None) -> Tensor:
        """Zeros for the rows whose memory is all masked, which would otherwise get the output's bias."""
        mask = memory.query_mask
        if mask is None or self.output.bias is None:
            return out
        attends = mask.any(-1, keepdim=True).to(out)  # (b, 1, 1)
        if packing is not None:
            attends = packing.pack(attends.expand(*packing.shape, 1))
        return out * attends

    def weights(self, query: Float[Tensor, "b t query_dim"], memory: Memory) -> Float[Tensor, "b heads t s"]:
        """The attention map: how much each query attends to each remembered state."""
        mask = None if memory.mask is None else memory.mask[:, None, None, :]
        return attention_weights(self.queries(query), memory.key, mask)


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence over itself: one fused projection, and rotary positions if wanted.

    Args:
        d_model: width of input and output.
        heads, kv_heads: of queries, and of keys and values; fewer of the latter is grouped-query attention
            (Ainslie et al. 2023).
        qkv_bias, output_bias: whether the projections have one.
        rotary: rotates queries and keys by their position.
        d_head: size of a head, d_q = d_k = d_v; d_model / heads where not given.
        qk_norm_eps: normalise queries and keys before they are rotated, each head by itself (Henry et al. 2020).
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None = None,
        qkv_bias: bool = True,
        output_bias: bool = True,
        rotary: RotaryPositions | None = None,
        d_head: int | None = None,
        qk_norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.d_head = d_head or d_model // heads
        self.query_key_value = nn.Linear(d_model, (heads + 2 * self.kv_heads) * self.d_head, bias=qkv_bias)
        self.output = nn.Linear(heads * self.d_head, d_model, bias=output_bias)
        self.rotary = rotary
        self.query_norm = None if qk_norm_eps is None else nn.RMSNorm(self.d_head, eps=qk_norm_eps)
        self.key_norm = None if qk_norm_eps is None else nn.RMSNorm(self.d_head, eps=qk_norm_eps)

    def forward(
        self,
        x: Float[Tensor, "b t d_model"],
        mask: Bool[Tensor, "b t"] | None = None,
        causal: bool = False,
        cache: KeyValueCache | None = None,
        packing: fast.Packing | None = None,
    ) -> Float[Tensor, "b t d_model"]:
        """Let every position attend to all that the mask allows (and, if causal, to none after it).

        Args:
            x: the sequence, or, with a cache, its next position.
            mask: true where there is a token; not together with a cache.
            cache: the past; x is added to it.
            packing: how x is packed. Without a mask it has to be causal, so that no token attends to padding.
        """
        projected = self.query_key_value(x)
        parts = split_heads(projected if packing is None else packing.unpack(projected), self.heads + 2 * self.kv_heads)
        heads = [self.heads, self.kv_heads, self.kv_heads]
        query, key, value = torch.split(parts, heads, dim=1)  # (b, heads, t, d)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.rotary is not None:
            start = 0 if cache is None else cache.ancestry.step
            query, key = self.rotary(query, start), self.rotary(key, start)
        if cache is None:
            rows = None if mask is None else mask.unsqueeze(1)  # (b, 1, t)
            mixed = scaled_dot_product_attention(query, key, value, rows, causal)
        else:
            mixed = fast.step_attention(query, *cache.append(key, value))
        merged = merge_heads(mixed)
        return cast(Tensor, self.output(merged if packing is None else packing.pack(merged)))
