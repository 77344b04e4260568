"""Layers and stacks of them.

A layer has two or three sublayers, each added to its input and normalised: self-attention, cross-attention where there
is an encoder to attend to, and a feed-forward network. A stack is a sequence of layers:

    EncoderLayer          Encoder           self-attention, feed-forward
    DecoderLayer          Decoder           self-attention, cross-attention, feed-forward
    LockingDecoderLayer   LockingDecoder    the same, but the cross-attention is initially locked
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from jaxtyping import Bool, Float
from torch import Tensor, nn

from lockdec.transformer.attention import MultiHeadAttention, SelfAttention
from lockdec.transformer.configuration import TransformerConfig
from lockdec.transformer.cross_attention import Attachment, LockingMultiHeadAttention
from lockdec.transformer.decoding.caching import DecoderCache, KeyValueCache, Memory, PlugMemory
from lockdec.transformer.encoded import Encoded, PlugBatch
from lockdec.transformer.fast import Packing
from lockdec.transformer.places import CrossAttentionMap, LockingPlace, LockingPlaces
from lockdec.transformer.positional import RotaryPositions
from lockdec.transformer.sublayers import AddNorm, FeedForward, LockingAddNorm, normalisation

__all__ = [
    "AddNorm",
    "Decoder",
    "DecoderLayer",
    "DecoderStack",
    "Encoder",
    "EncoderLayer",
    "FeedForward",
    "LockingDecoder",
    "LockingDecoderLayer",
    "Stack",
    "TransformerLayer",
]


class TransformerLayer(nn.Module):
    """What all layers share: self-attention and a feed-forward network, each with its add-and-norm.

    Args:
        config: sizes and choices.
        rotary: rotates the queries and keys of self-attention, where position is rope.
    """

    def __init__(self, config: TransformerConfig, rotary: RotaryPositions | None = None) -> None:
        super().__init__()
        self.self_attention = SelfAttention(
            config.d_model,
            config.heads,
            config.key_heads,
            qkv_bias=config.bias != "none",
            output_bias=config.bias == "all",
            rotary=rotary,
            d_head=config.d_head,
            qk_norm_eps=config.norm_eps if config.qk_norm else None,
        )
        self.parallel = config.norm == "parallel"
        self.self_attention_norm = AddNorm(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = AddNorm(config)

    def attend(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KeyValueCache | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """Self-attention, added and normalised."""
        return cast(Tensor, self.self_attention_norm(x, lambda y: self.self_attention(y, mask, causal, cache, packing)))

    def transform(self, x: Tensor, before: Tensor) -> Tensor:
        """Feed-forward, added and normalised: of x, or in parallel layers of what the layer began with."""
        return cast(Tensor, self.feed_forward_norm(x, self.feed_forward, before if self.parallel else None))


class EncoderLayer(TransformerLayer):
    """Self-attention, feed-forward."""

    def forward(
        self, x: Float[Tensor, "b t d_model"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """Apply the layer; mask is true where there is a token."""
        return self.transform(self.attend(x, mask), x)


class DecoderLayer(TransformerLayer):
    """Causal self-attention, cross-attention over what an encoder yields, feed-forward.

    Args:
        encoder_dim: width of the encoder's states.
    """

    def __init__(self, config: TransformerConfig, encoder_dim: int, rotary: RotaryPositions | None = None) -> None:
        super().__init__(config, rotary)
        d_head, bias = config.d_head, config.bias == "all"
        self.cross_attention = MultiHeadAttention(
            config.d_model,
            config.heads,
            d_head,
            d_head,
            d_head,
            key_dim=encoder_dim,
            value_dim=encoder_dim,
            bias=bias,
        )
        self.cross_attention_norm = AddNorm(config)

    def remember(self, encoded: Encoded) -> Memory:
        """The keys and values that this layer attends to."""
        return self.cross_attention.remember(encoded.states, encoded.states, encoded.mask)

    def forward(
        self,
        x: Float[Tensor, "b t d_model"],
        memory: Memory,
        cache: KeyValueCache | None = None,
        packing: Packing | None = None,
    ) -> Float[Tensor, "b t d_model"]:
        """Apply the layer; memory is what `remember` returned."""
        before, x = x, self.attend(x, causal=True, cache=cache, packing=packing)
        x = self.cross_attention_norm(x, lambda y: self.cross_attention.attend(y, memory, packing))
        return self.transform(x, before)


class LockingDecoderLayer(TransformerLayer, LockingPlace):
    """Causal self-attention, cross-attention that is initially locked, feed-forward.

    Locked, it is a layer of GPT: it computes and stores nothing for cross-attention.
    """

    def __init__(self, config: TransformerConfig, rotary: RotaryPositions | None = None) -> None:
        super().__init__(config, rotary)
        self.cross_attention = LockingMultiHeadAttention(config.d_model)
        self.cross_attention_norm = LockingAddNorm(config)

    def forward(
        self,
        x: Float[Tensor, "b t d_model"],
        memory: Memory | PlugMemory[Attachment] | None = None,
        cache: KeyValueCache | None = None,
        packing: Packing | None = None,
    ) -> Float[Tensor, "b t d_model"]:
        """Apply the layer; memory is what `remember` returned."""
        before, x = x, self.attend(x, causal=True, cache=cache, packing=packing)
        return self.transform(x if memory is None else self.attended(x, memory, packing), before)

    def attention_map(self, x: Float[Tensor, "b t d_model"], memory: Memory) -> tuple[Tensor, CrossAttentionMap]:
        """Apply the layer, and also return what its cross-attention attends to."""
        after, attended = self.mapped(self.attend(x, causal=True), memory)
        return self.transform(after, x), attended


def rotary_positions(config: TransformerConfig) -> list[RotaryPositions | None]:
    """The rotation of each layer, shared by those that have the same; None unless position is rope."""
    thetas = [config.rope_theta] * config.layers if config.rope_thetas is None else config.rope_thetas
    shared = {
        theta: RotaryPositions(config.max_len, config.d_head, theta, config.rope_scaling, config.rope_share)
        for theta in dict.fromkeys(thetas)
        if theta and config.position == "rope"
    }
    return [shared.get(theta) for theta in thetas]


def final_normalisation(config: TransformerConfig) -> nn.Module:
    """The norm at the end of a stack of layers; post-norm layers need none."""
    return nn.Identity() if config.norm == "post" else normalisation(config)


def initialise(stack: nn.Module, layers: int) -> None:
    """Draw weights as GPT-2 does: standard deviation 0.02, divided by sqrt(2 layers) for outputs of sublayers."""
    for module in stack.modules():
        if isinstance(module, SelfAttention | FeedForward):
            first = module.query_key_value if isinstance(module, SelfAttention) else module.input
            for linear, std in ((first, 0.02), (module.output, 0.02 / (2 * layers) ** 0.5)):
                nn.init.normal_(linear.weight, std=std)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)


class Stack(nn.Module):
    """A sequence of layers, initialised together."""

    def __init__(self, config: TransformerConfig, layers: Iterable[TransformerLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = final_normalisation(config)
        initialise(self, config.layers)


class Encoder(Stack):
    """A sequence of encoder layers."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config, (EncoderLayer(config, rotary) for rotary in rotary_positions(config)))

    def forward(
        self, x: Float[Tensor, "b t d_model"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """Apply all layers; mask is true where there is a token."""
        for layer in self.layers:
            x = layer(x, mask)
        return cast(Tensor, self.norm(x))


class DecoderStack(Stack):
    """What both kinds of decoder share."""

    def remember(self, encoded: Encoded | PlugBatch | None) -> list[Memory | PlugMemory[Attachment] | None]:
        """Each layer's memory of the encoded input; only locking layers have one of a `PlugBatch`."""
        layers = cast("list[LockingDecoderLayer]", list(self.layers))
        return [None if encoded is None else layer.remember(encoded) for layer in layers]

    def forward(
        self,
        x: Float[Tensor, "b t d_model"],
        encoded: Encoded | PlugBatch | None = None,
        cache: DecoderCache | None = None,
        packing: Packing | None = None,
        start: int = 0,
    ) -> Float[Tensor, "_ t d_model"]:
        """Apply the layers from `start` on to x, which may be packed.

        With a cache, x is the next positions; a single row is those of all inputs, and stays one below the layers that
        attend to an input.
        """
        memories = self.remember(encoded) if cache is None else cache.memories
        past = [None] * len(memories) if cache is None else cache.past
        for layer, memory, layer_past in list(zip(self.layers, memories, past, strict=True))[start:]:
            if cache is not None and memory is not None and len(x) < len(memory):
                x = x.expand(len(memory), -1, -1)
            x = layer(x, memory, layer_past, packing)
        return cast(Tensor, self.norm(x))


class Decoder(DecoderStack):
    """A sequence of decoder layers.

    Args:
        encoder_dim: width of the encoder's states.
    """

    def __init__(self, config: TransformerConfig, encoder_dim: int) -> None:
        super().__init__(config, (DecoderLayer(config, encoder_dim, rotary) for rotary in rotary_positions(config)))


class LockingDecoder(DecoderStack, LockingPlaces):
    """A sequence of locking decoder layers: a GPT until cross-attention is attached and unlocked."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config, (LockingDecoderLayer(config, rotary) for rotary in rotary_positions(config)))

    def attention_maps(
        self, x: Float[Tensor, "b t d_model"], encoded: Encoded, start: int = 0
    ) -> list[CrossAttentionMap]:
        """What each layer that has cross-attention attends to; x enters the layer `start`."""
        maps = []
        layers = cast("list[LockingDecoderLayer]", list(self.layers))
        for layer, memory in list(zip(layers, self.remember(encoded), strict=True))[start:]:
            if memory is None:
                x = layer(x)
            elif isinstance(memory, Memory):
                x, attended = layer.attention_map(x, memory)
                maps.append(attended)
        return maps
