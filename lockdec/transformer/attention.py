"""Attention: a weighted mean of values, the weights saying how well each key answers the query.

Read from the top: scaled dot-product attention, twice (the explicit one to read, the fused one to run);
multi-head attention, whose queries, keys and values may each have a size of their own and come from inputs
of different widths; self-attention, the common special case with one input and a cache of its past; and
multi-head attention that can be locked, which yields zeros and has no parameters until it is given some.

Masks are true where attention may look. A query that may look nowhere gets zeros.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.errors import LockdecError
from lockdec.transformer.configuration import CrossAttentionConfig
from lockdec.transformer.decoding.caching import KeyValueCache, Memory, mask_bias
from lockdec.transformer.positional import RotaryPositions

# With up to so many keys, plain products are faster on a CPU than torch's fused kernel, which multiplies block by block
# and gains by never keeping all scores.
SHORT = 256
MULTIPLE = 8  # packed positions
FEW = 4  # queries that meet the same keys; in products of so few, MKL is faster than oneDNN
VECTOR = 16  # numbers of 32 bits in the widest registers of a CPU


def attention_weights(
    query: Float[Tensor, "*b t d"],
    key: Float[Tensor, "*b s d"],
    mask: Bool[Tensor, "*mask"] | None = None,
) -> Float[Tensor, "*b t s"]:
    """softmax(QK^T / sqrt(d)): how much each query looks at each key (Vaswani et al. 2017, 3.2.1).

    Args:
        query, key: of one size d, with the same leading dimensions.
        mask: broadcastable to (*b, t, s), true where a query may look.
    """
    scores = query @ key.mT / math.sqrt(query.shape[-1])  # (*b, t, s)
    if mask is None:
        return scores.softmax(-1)
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    return weights.masked_fill(~mask.any(-1, keepdim=True), 0.0)  # where all is masked: 0/0 so far


def look_ahead_mask(t: int, s: int, device: torch.device) -> Bool[Tensor, "t s"]:
    """True where one of the last t of s positions may look: at itself and at what came before it."""
    return torch.ones(t, s, dtype=torch.bool, device=device).tril(s - t)


def scaled_dot_product_attention(
    query: Float[Tensor, "b heads t d"],
    key: Float[Tensor, "b kv_heads s d"],
    value: Float[Tensor, "b kv_heads s d_v"],
    mask: Bool[Tensor, "b _ s"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b heads t d_v"]:
    """`attention_weights(query, key, mask) @ value` for every head, by whichever is fastest here.

    Args:
        query: its heads are a multiple of kv_heads; neighbouring heads share keys and values.
        mask: true where a query may look.
        causal: the queries are the last t of s positions, and look only at themselves and back.
    """
    t, s = query.shape[-2], key.shape[-2]
    causal = causal and t > 1  # the last position sees everything
    short = query.device.type == "cpu" and s <= SHORT
    seen = mask
    if causal and (short or mask is not None or t != s):
        ahead = look_ahead_mask(t, s, query.device).unsqueeze(0)
        seen, causal = ahead if mask is None else mask & ahead, False
    if short:
        mixed = plain_attention(query, key, value, None if seen is None else mask_bias(seen, query.dtype))
        return mixed if mask is None or seen is None else mixed * seen.any(-1)[:, None, :, None]
    heads_mask = None if seen is None else seen.unsqueeze(1)  # (b or 1, 1, t, s)
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=heads_mask, is_causal=causal, enable_gqa=grouped)


def plain_attention(
    query: Float[Tensor, "n heads t d"],
    key: Float[Tensor, "b kv_heads s d"],
    value: Float[Tensor, "b kv_heads s d_v"],
    bias: Float[Tensor, "_ _ s"] | None = None,
) -> Float[Tensor, "n heads t d_v"]:
    """The same by two plain products, for as few scores as a step of writing or a short sequence has.

    Args:
        query: its rows are n / b beams of each row of the keys, side by side.
        bias: of each row or of all; added to the scores of all its queries, of each of its beams, or of each of its t
            positions: see `mask_bias`. A query that may look nowhere gets anything.
    """
    (n, heads, t, d), (b, kv_heads, s, _) = query.shape, key.shape
    # Heads that share keys, and beams, side by side: (b, kv_heads, heads / kv_heads * beams * t, d)
    shared = query.view(b, n // b, heads, t, d).transpose(1, 2).reshape(b * kv_heads, -1, d)
    keys, values = key.flatten(0, 1), value.flatten(0, 1)
    scores = torch.baddbmm(shared.new_empty(1), shared, keys.mT, beta=0, alpha=1 / math.sqrt(d))
    if bias is not None:
        scores = (scores.view(b, -1, bias.shape[1], s) + bias.unsqueeze(1)).view_as(scores)
    mixed = softmax(scores) @ values
    return mixed.view(b, heads, n // b, t, value.shape[-1]).transpose(1, 2).flatten(0, 1)


def attend_in_a_step(
    query: Float[Tensor, "n heads t d"],
    key: Float[Tensor, "b kv_heads s d"],
    value: Float[Tensor, "b kv_heads s d_v"],
    bias: Float[Tensor, "_ _ s"] | None = None,
) -> Float[Tensor, "n heads t d_v"]:
    """`plain_attention` of one position, as while writing, by the library that is faster with few queries."""
    queries = query.numel() // (query.shape[-1] * key.shape[0] * key.shape[1])  # of each key head
    if query.device.type != "cpu" or queries > FEW or torch.compiler.is_compiling():
        return plain_attention(query, key, value, bias)
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return plain_attention(query, key, value, bias)
    finally:
        torch.set_float32_matmul_precision(products)


def softmax(scores: Float[Tensor, "*b s"]) -> Float[Tensor, "*b s"]:
    """scores.softmax(-1); torch's own takes one number after the other where there are fewer than a vector holds."""
    missing = VECTOR - scores.shape[-1] if scores.device.type == "cpu" else 0
    if missing <= 0:
        return scores.softmax(-1)
    return F.pad(scores, (0, missing), value=-math.inf).softmax(-1)[..., :-missing]


def split_heads(x: Float[Tensor, "b t width"], heads: int) -> Float[Tensor, "b heads t d"]:
    """Give every head its own part of the width."""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(x: Float[Tensor, "b heads t d"]) -> Float[Tensor, "b t width"]:
    """Lay the heads side by side again."""
    return x.transpose(1, 2).flatten(-2)


class Packing:
    """Leaves the padding of a batch out of everything that works position by position.

    Packed, the b sequences lie one after the other as a single sequence of all n real positions; only attention, which
    has to tell the sequences apart, lays them out side by side again.

    A few places of padding come last, so that few different n occur: oneDNN writes a program for every size it
    multiplies, and a GPU's products like multiples of 8, too.

    Args:
        real: true where there is a token; what stands after a sequence's last one is padding.

    Attributes:
        filling: how many of the n positions are padding; what is computed there means nothing.
    """

    def __init__(self, real: Bool[Tensor, "b t"]) -> None:
        self.shape = real.shape
        places, padding = real.flatten().nonzero(), (~real).flatten().nonzero()
        filling = padding[: -len(places) % MULTIPLE]
        self.filling = len(filling)
        self.positions = torch.cat([places, filling]).squeeze(1)  # (n,) of b * t

    def pack(self, x: Float[Tensor, "b t width"]) -> Float[Tensor, "1 n width"]:
        """The n positions of x."""
        return x.flatten(0, 1).index_select(0, self.positions).unsqueeze(0)

    def unpack(self, x: Float[Tensor, "1 n width"]) -> Float[Tensor, "b t width"]:
        """x side by side again, zeros where there is padding."""
        padded = x.new_zeros(self.shape[0] * self.shape[1], x.shape[-1])
        return padded.index_copy(0, self.positions, x.squeeze(0)).view(*self.shape, -1)


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each over projections of its own (Vaswani et al. 2017, 3.2.2).

    A dot product needs equal sizes, so where d_q != d_k a bilinear map of shape (d_q, d_k) per head carries
    the query into key space. Scores are scaled by 1/sqrt(d_k). All weights start with variance 1 / fan-in, so
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

    def remember(
        self,
        key: Float[Tensor, "b s key_dim"],
        value: Float[Tensor, "b s value_dim"],
        mask: Bool[Tensor, "b s"] | None = None,
    ) -> Memory:
        """Project what is looked at into keys and values."""
        keys, values = split_heads(self.key(key), self.heads), split_heads(self.value(value), self.heads)
        return Memory(keys, values, mask)

    def queries(
        self, query: Float[Tensor, "_ _ query_dim"], packing: Packing | None = None
    ) -> Float[Tensor, "b heads t d_k"]:
        """Project what looks into queries, in key space."""
        projected = self.query(query)
        q = split_heads(projected if packing is None else packing.unpack(projected), self.heads)  # (b, heads, t, d_q)
        return q if self.bilinear is None else q @ self.bilinear  # (b, heads, t, d_k)

    def attend(
        self,
        query: Float[Tensor, "n t query_dim"],
        memory: Memory,
        causal: bool = False,
        packing: Packing | None = None,
    ) -> Float[Tensor, "n t d_model"]:
        """Look at a memory, each row of which serves n / len(memory) rows of the query (beams).

        Args:
            packing: how the query is packed; then its sequences are as many as the memory's rows.
        """
        # (b, t * n / b, query_dim), or packed
        shared = query.reshape(len(memory), -1, query.shape[-1]) if packing is None else query
        mask = None if memory.mask is None else memory.mask.unsqueeze(1)  # (b, 1, s)
        queries = self.queries(shared, packing)  # (b, heads, t, d_k)
        is_step = packing is None and shared.shape[1] == len(query) // len(memory)  # one position, as in writing
        if is_step:
            bias = None if mask is None else mask_bias(mask, queries.dtype)
            mixed = attend_in_a_step(queries, memory.key, memory.value, bias)
        else:
            mixed = scaled_dot_product_attention(queries, memory.key, memory.value, mask, causal)
        merged = merge_heads(mixed)  # (b, t * n / b, heads * d_v)
        out: Tensor = self.output(merged if packing is None else packing.pack(merged))
        if mask is not None and (is_step or self.output.bias is not None):
            # Nothing to look at: not even the bias is seen.
            seen = mask.any(-1, keepdim=True).to(out).expand(*merged.shape[:-1], 1)
            out = out * (seen if packing is None else packing.pack(seen))
        return out.view(*query.shape[:-1], -1)

    def weights(self, query: Float[Tensor, "b t query_dim"], memory: Memory) -> Float[Tensor, "b heads t s"]:
        """The attention map: how much each query looks at each remembered state."""
        mask = None if memory.mask is None else memory.mask[:, None, None, :]
        return attention_weights(self.queries(query), memory.key, mask)

    def forward(
        self,
        query: Float[Tensor, "b t query_dim"],
        key: Float[Tensor, "b s key_dim"],
        value: Float[Tensor, "b s value_dim"],
        mask: Bool[Tensor, "b s"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "b t d_model"]:
        """Let every query look at all keys that the mask allows (and, if causal, are not ahead of it)."""
        return self.attend(query, self.remember(key, value, mask), causal)


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence over itself: one fused projection, and rotary positions if wanted.

    Args:
        d_model: width of input and output; heads divide it, d_q = d_k = d_v = d_model / heads.
        heads, kv_heads: of queries, and of keys and values; fewer of the latter is grouped-query attention
            (Ainslie et al. 2023).
        qkv_bias, output_bias: whether the projections have one.
        rotary: turns queries and keys by their position.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None = None,
        qkv_bias: bool = True,
        output_bias: bool = True,
        rotary: RotaryPositions | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.d_head = d_model // heads
        self.query_key_value = nn.Linear(d_model, (heads + 2 * self.kv_heads) * self.d_head, bias=qkv_bias)
        self.output = nn.Linear(d_model, d_model, bias=output_bias)
        self.rotary = rotary

    def forward(
        self,
        x: Float[Tensor, "b t d_model"],
        mask: Bool[Tensor, "b t"] | None = None,
        causal: bool = False,
        cache: KeyValueCache | None = None,
        packing: Packing | None = None,
    ) -> Float[Tensor, "b t d_model"]:
        """Let every position look at all that the mask allows (and, if causal, at none ahead of it).

        Args:
            x: the sequence, or, with a cache, its next position.
            mask: true where there is a token; not together with a cache.
            cache: the past; x is added to it.
            packing: how x is packed; without a mask only if causal, where no token looks ahead at padding.
        """
        projected = self.query_key_value(x)
        parts = split_heads(projected if packing is None else packing.unpack(projected), self.heads + 2 * self.kv_heads)
        heads = [self.heads, self.kv_heads, self.kv_heads]
        query, key, value = torch.split(parts, heads, dim=1)  # (b, heads, t, d)
        if self.rotary is not None:
            start = 0 if cache is None else cache.ancestry.step
            query, key = self.rotary(query, start), self.rotary(key, start)
        if cache is None:
            rows = None if mask is None else mask.unsqueeze(1)  # (b, 1, t)
            mixed = scaled_dot_product_attention(query, key, value, rows, causal)
        else:
            mixed = attend_in_a_step(query, *cache.append(key, value))
        merged = merge_heads(mixed)
        return cast(Tensor, self.output(merged if packing is None else packing.pack(merged)))


class LockingMultiHeadAttention(nn.Module):
    """Cross-attention that is locked at birth: it has no parameters, yields zeros, and costs nothing.

    `attach` gives it parameters, `unlock` lets it look, `lock` stops it again. How it starts:

        zero_output   W_o = 0, the rest drawn                                (a LoRA-like start)
        tanh_gate     times tanh(g), g = 0                                   (Alayrac et al. 2022, Flamingo)
        rezero        times g, g = 0                                         (Bachlechner et al. 2020)
        layerscale    times g per channel, g = 0                             (Touvron et al. 2021, from 0)
        plain         as drawn, which disturbs the decoder at once; for comparison

    All but plain add exactly nothing until training moves W_o or the gate.

    Args:
        d_model: width of the decoder that looks.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.locked = True
        self.kind = "plain"
        self.attention: MultiHeadAttention | None = None
        self.gate: nn.Parameter | None = None

    def attach(self, config: CrossAttentionConfig, encoder_dim: int) -> None:
        """Draw fresh parameters (torch's global generator) for states of width encoder_dim; locked."""
        self.locked, self.kind = True, config.unlock
        self.attention = MultiHeadAttention(
            self.d_model,
            config.heads,
            config.d_q,
            config.d_k,
            config.d_v,
            key_dim=encoder_dim,
            value_dim=encoder_dim,
            bias=config.bias,
        )
        self.gate = None
        if config.unlock == "zero_output":
            nn.init.zeros_(self.attention.output.weight)
        elif config.unlock != "plain":
            self.gate = nn.Parameter(torch.zeros(self.d_model if config.unlock == "layerscale" else 1))

    def detach(self) -> None:
        """Drop the parameters; locked."""
        self.locked, self.attention, self.gate = True, None, None

    def lock(self) -> None:
        """Yield zeros again; the parameters stay."""
        self.locked = True

    def unlock(self) -> None:
        """Look at what is remembered from now on.

        Raises:
            LockdecError: nothing was attached, or gate and W_o are both zero, so neither gets a gradient.
        """
        attention = self._attention()
        if self.gate is not None and not self.gate.any() and not attention.output.weight.any():
            raise LockdecError(
                f"cross_attention.unlock={self.kind}: its gate and its output projection are both zero, so "
                "neither can ever learn: start one of them from something else (zero_output has no gate)"
            )
        self.locked = False

    def _attention(self) -> MultiHeadAttention:
        if self.attention is None:
            raise LockdecError("no cross-attention is attached: call attach(config, encoder_dim) first")
        return self.attention

    def remember(self, states: Float[Tensor, "b s encoder_dim"], mask: Bool[Tensor, "b s"]) -> Memory | None:
        """Keys and values of encoder states; None while locked."""
        return None if self.locked else self._attention().remember(states, states, mask)

    def forward(
        self, query: Float[Tensor, "b t d_model"], memory: Memory | None, packing: Packing | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """What the sequence sees in the memory, gated; zeros while locked."""
        if self.locked or memory is None:
            return torch.zeros_like(query)
        seen = self._attention().attend(query, memory, packing=packing)
        if self.gate is None:
            return seen
        return seen * (self.gate.tanh() if self.kind == "tanh_gate" else self.gate)

    def weights(self, query: Float[Tensor, "b t d_model"], memory: Memory) -> Float[Tensor, "b heads t s"]:
        """The attention map."""
        return self._attention().weights(query, memory)
