"""Layers and stacks of them.

A layer has two or three sublayers, each added to its input and normalised: self-attention, cross-attention where there
is an encoder to attend to, and a feed-forward network. A stack is a sequence of layers:

    EncoderLayer          Encoder           self-attention, feed-forward
    DecoderLayer          Decoder           self-attention, cross-attention, feed-forward
    LockingDecoderLayer   LockingDecoder    the same, but the cross-attention is initially locked
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.errors import LockdecError
from lockdec.transformer.attention import Attachment, LockingMultiHeadAttention, MultiHeadAttention, SelfAttention
from lockdec.transformer.configuration import CrossAttentionConfig, TransformerConfig
from lockdec.transformer.decoding.caching import DecoderCache, KeyValueCache, Memory, PlugMemory
from lockdec.transformer.encoded import Encoded, PlugBatch
from lockdec.transformer.fast import Dropout, Packing
from lockdec.transformer.positional import RotaryPositions

Sublayer = Callable[[Tensor], Tensor]


def normalisation(config: TransformerConfig, affine: bool = True) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over d_model."""
    if config.norm_kind == "rms":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps, elementwise_affine=affine)
    return nn.LayerNorm(config.d_model, config.norm_eps, elementwise_affine=affine, bias=config.bias == "all")


class AddNorm(nn.Module):
    """Add the output of a sublayer to its input, and normalise.

    post: norm(x + sublayer(x))   (Vaswani et al. 2017, 3.1)
    pre:  x + sublayer(norm(x))   (GPT-2; Xiong et al. 2020); the stack then ends with a norm
    sandwich: x + after(sublayer(norm(x)))   (Gemma 3; Ding et al. 2021, 2.2), also with a norm at the end
    """

    after: nn.Module | None

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.pre = config.norm != "post"
        self.norm = normalisation(config)
        self.after = normalisation(config) if config.norm == "sandwich" else None
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "b t d_model"], sublayer: Sublayer, of: Tensor | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """Apply the sublayer to x; or to `of`, for which x only is what the result is added to."""
        if self.pre:
            added = sublayer(self.norm(x if of is None else of))
            return x + cast(Tensor, self.dropout(added if self.after is None else self.after(added)))
        return cast(Tensor, self.norm(x + self.dropout(sublayer(x))))


class LockingAddNorm(AddNorm):
    """Add-and-norm that returns its input exactly wherever the sublayer yields zeros.

    post: x + (norm(x + sublayer(x)) - norm(x))
    pre:  x + sublayer(norm(x))

    norm(x) alone would not return x, hence the difference. The norm has no parameters: all that
    cross-attention learns is in W_q, W_k, W_v and W_o, and W_q can express a scale before it.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.norm, self.after = normalisation(config, affine=False), None
        self.dropout = Dropout(0.0)

    def forward(
        self, x: Float[Tensor, "b t d_model"], sublayer: Sublayer, of: Tensor | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """Apply the sublayer to x."""
        if self.pre:
            return super().forward(x, sublayer)
        return x + cast(Tensor, self.norm(x + self.dropout(sublayer(x))) - self.norm(x))


class FeedForward(nn.Module):
    """The same network at every position: project up to d_ff, activate, project down to d_model.

    (Vaswani et al. 2017, 3.3.) swiglu activates by silu(gate) * up, where gate and up are two projections of width d_ff
    (Shazeer 2020), and geglu_tanh by gelu(gate) * up.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = config.activation
        width = 2 * config.d_ff if self.activation in ("swiglu", "geglu_tanh") else config.d_ff
        self.input = nn.Linear(config.d_model, width, bias=config.bias == "all")
        self.output = nn.Linear(config.d_ff, config.d_model, bias=config.bias == "all")

    def forward(self, x: Float[Tensor, "b t d_model"]) -> Float[Tensor, "b t d_model"]:
        """Apply it at every position."""
        return cast(Tensor, self.output(self._activate(self.input(x))))

    def _activate(self, wide: Tensor) -> Tensor:
        if self.activation == "swiglu":
            gate, up = wide.chunk(2, dim=-1)
            return F.silu(gate) * up
        if self.activation == "geglu_tanh":
            gate, up = wide.chunk(2, dim=-1)
            return F.gelu(gate, approximate="tanh") * up
        if self.activation == "relu":
            return F.relu(wide)
        return F.gelu(wide, approximate="tanh" if self.activation == "gelu_tanh" else "none")


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


@dataclass(frozen=True)
class CrossAttentionMap:
    """What one layer's cross-attention attends to, and how much it adds to the residual stream.

    weights: of each encoder state, for each position.
    cross_norm: the Euclidean norm of what is added.
    residual_norm: that of what it is added to.
    """

    weights: Float[Tensor, "b heads t s"]
    cross_norm: Float[Tensor, "b t"]
    residual_norm: Float[Tensor, "b t"]

    def after(self, positions: int) -> CrossAttentionMap:
        """The same without the first positions."""
        kept = slice(positions, None)
        return CrossAttentionMap(self.weights[:, :, kept], self.cross_norm[:, kept], self.residual_norm[:, kept])


class LockingPlace(nn.Module):
    """A place for cross-attention, with its add-and-norm: initially locked, without parameters."""

    cross_attention: LockingMultiHeadAttention
    cross_attention_norm: LockingAddNorm

    def attach(self, plug: str, config: CrossAttentionConfig, encoder_dim: int) -> None:
        """Draw fresh cross-attention parameters; the place is locked."""
        self.cross_attention.attach(plug, config, encoder_dim)
        self.cross_attention_norm.dropout.p = config.dropout

    def use(self, plug: str) -> None:
        """Attend by this plug from now on."""
        self.cross_attention.use(plug)
        self.cross_attention_norm.dropout.p = self.cross_attention.dropout

    def remember(self, encoded: Encoded | PlugBatch) -> Memory | PlugMemory[Attachment] | None:
        """The keys and values that this place attends to; None while locked."""
        return self.cross_attention.remember(encoded)

    def attended(
        self,
        x: Float[Tensor, "b t d_model"],
        memory: Memory | PlugMemory[Attachment],
        packing: Packing | None = None,
    ) -> Float[Tensor, "b t d_model"]:
        """Cross-attention, added and normalised, in the precision of its own weights; memory is of `remember`."""
        wide = x.to(self.cross_attention.dtype)
        return cast(Tensor, self.cross_attention_norm(wide, lambda y: self.cross_attention(y, memory, packing))).to(x)

    def mapped(self, x: Float[Tensor, "b t d_model"], memory: Memory) -> tuple[Tensor, CrossAttentionMap]:
        """`attended`, and what it attends to."""
        wide = x.to(self.cross_attention.dtype)
        query = self.cross_attention_norm.norm(wide) if self.cross_attention_norm.pre else wide
        after = self.attended(wide, memory)
        weights = self.cross_attention.weights(query, memory)
        return after.to(x), CrossAttentionMap(weights, (after - wide).norm(dim=-1), wide.norm(dim=-1))


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
    ) -> Float[Tensor, "b t d_model"]:
        """Apply the layers from `start` on to x, which may be packed; with a cache, x is the next position."""
        memories = self.remember(encoded) if cache is None else cache.memories
        past = [None] * len(memories) if cache is None else cache.past
        for layer, memory, layer_past in list(zip(self.layers, memories, past, strict=True))[start:]:
            x = layer(x, memory, layer_past, packing)
        return cast(Tensor, self.norm(x))


class Decoder(DecoderStack):
    """A sequence of decoder layers.

    Args:
        encoder_dim: width of the encoder's states.
    """

    def __init__(self, config: TransformerConfig, encoder_dim: int) -> None:
        super().__init__(config, (DecoderLayer(config, encoder_dim, rotary) for rotary in rotary_positions(config)))


class LockingPlaces(nn.Module):
    """The places for cross-attention of a whole decoder, attached, locked and unlocked together."""

    layers: nn.ModuleList

    def _places(self) -> list[LockingPlace]:
        return cast("list[LockingPlace]", list(self.layers))

    def _attached(self) -> list[LockingPlace]:
        return [place for place in self._places() if place.cross_attention.attention is not None]

    @property
    def attached(self) -> bool:
        """Whether any place has cross-attention parameters."""
        return bool(self._attached())

    @property
    def below_cross_attention(self) -> int:
        """How many layers are below the lowest one with cross-attention; 0 if there is none."""
        attached = [place.cross_attention.attention is not None for place in self._places()]
        return attached.index(True) if any(attached) else 0

    @property
    def locked(self) -> bool:
        """Whether no place attends to an encoder."""
        return all(place.cross_attention.locked for place in self._places())

    def attach(self, plug: str, config: CrossAttentionConfig, encoder_dim: int) -> None:
        """Draw fresh cross-attention parameters for the layers that the config names; in use, and locked."""
        chosen = config.layer_numbers(len(self.layers))
        for number, place in enumerate(self._places()):
            if number in chosen:
                place.attach(plug, config, encoder_dim)
            else:
                place.use(plug)

    def put(self, plug: str, attachments: Sequence[Attachment | None]) -> None:
        """Attach what `detach` returned; in use, and locked."""
        for place, attachment in zip(self._places(), attachments, strict=True):
            if attachment is not None:
                place.cross_attention.waiting[plug] = attachment
            place.use(plug)
            place.cross_attention.lock()

    def detach(self, plug: str) -> list[Attachment | None]:
        """Drop the parameters of a plug, and return those of each place."""
        return [place.cross_attention.detach(plug) for place in self._places()]

    def use(self, plug: str) -> None:
        """Attend by this plug from now on; unlocked where it was."""
        locked = self.locked
        for place in self._places():
            place.use(plug)
            place.cross_attention.locked = locked or place.cross_attention.attention is None

    def attachments(self, plug: str) -> list[Attachment]:
        """What a plug adds to the places where it adds something."""
        found = [place.cross_attention.attachment(plug) for place in self._places()]
        return [attachment for attachment in found if attachment is not None]

    def waiting(self) -> Iterator[Attachment]:
        """The attachments of all plugs that are not in use."""
        for place in self._places():
            yield from place.cross_attention.waiting.values()

    def unlock(self) -> None:
        """Let what is attached attend; LockdecError if nothing is attached or what is attached can never learn."""
        if not self.attached:
            raise LockdecError("unlock() before attach(): call attach(CrossAttentionConfig(...), encoder_dim) first")
        for place in self._attached():
            place.cross_attention.unlock()

    def lock(self) -> None:
        """Be the GPT again; the cross-attention parameters stay."""
        for place in self._places():
            place.cross_attention.lock()


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
