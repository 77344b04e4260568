"""Whole models: tokens in, logits out.

    EncoderModel          reads a sequence in both directions
    MaskedLanguageModel   an encoder that predicts masked tokens
    DecoderModel          generates a sequence while it attends to an encoded input
    TransformerModel      the two joined: the book's translator
    LockingDecoderModel   a GPT that can be taught, later and cheaply, to attend to what any encoder encoded

Masks are true where there is a token. Sequences are padded on the right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lockdec.errors import ConfigError, LockdecError
from lockdec.transformer.attention import Attachment
from lockdec.transformer.configuration import (
    CrossAttentionConfig,
    DecoderConfig,
    EncoderConfig,
    GenerationConfig,
    HostedConfig,
)
from lockdec.transformer.decoding.caching import DecoderCache
from lockdec.transformer.decoding.generation import generate
from lockdec.transformer.decoding.tokens import SpecialTokens
from lockdec.transformer.encoded import Encoded, PlugBatch, PlugRows
from lockdec.transformer.fast import Packing, undrawn
from lockdec.transformer.importing import read
from lockdec.transformer.layers import (
    CrossAttentionMap,
    Decoder,
    DecoderStack,
    Encoder,
    LockingDecoder,
    LockingPlaces,
)
from lockdec.transformer.positional import RotaryPositions, SinusoidalPositions, TokenEmbedding

__all__ = [
    "CrossAttentionConfig",
    "CrossAttentionMap",
    "DecoderConfig",
    "DecoderModel",
    "Encoded",
    "EncoderConfig",
    "EncoderModel",
    "GenerationConfig",
    "LockingDecoderModel",
    "LockingModel",
    "MaskedLanguageModel",
    "Plug",
    "PlugBatch",
    "PlugRows",
    "TransformerModel",
]


class EncoderModel(nn.Module):
    """Tokens to states: every position attends to the whole sequence."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.embedding = TokenEmbedding(config)
        self.encoder = Encoder(config)

    def forward(
        self, tokens: Int[Tensor, "b s"], mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b s d_model"]:
        """The states of all positions; those of padding are meaningless."""
        states: Tensor = self.encoder(self.embedding(tokens), mask)
        return states

    def encode(self, tokens: Int[Tensor, "b s"], mask: Bool[Tensor, "b s"]) -> Encoded:
        """The states as a decoder takes them."""
        return Encoded(self(tokens, mask), mask)


class MaskedLanguageModel(nn.Module):
    """An encoder that predicts, at any position, the token that belongs there (Devlin et al. 2019)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.encoder = EncoderModel(config)

    def logits(self, states: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        """Predictions from any of the states, such as those of the masked tokens only."""
        return self.encoder.embedding.logits(states)

    def forward(
        self, tokens: Int[Tensor, "b s"], mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b s vocab"]:
        """Predictions at every position."""
        return self.logits(self.encoder(tokens, mask))


@dataclass(frozen=True)
class Prefix:
    """Hidden states after the first `layers` layers of a decoder; 0 layers give the embedded tokens."""

    hidden: Float[Tensor, "b t d_model"]
    layers: int


def require_width(encoded: Encoded, encoder_dim: int | None) -> None:
    """Raise LockdecError unless the states are as wide as cross-attention was made for."""
    if encoded.states.shape[-1] != encoder_dim:
        raise LockdecError(
            f"the encoder's states are {encoded.states.shape[-1]} wide, but cross-attention was made for "
            f"encoder_dim={encoder_dim}: make it for the width of this encoder"
        )


UNNAMED = "default"  # the name of a plug that is attached without one


@dataclass(frozen=True)
class Plug:
    """A plug that was detached: the cross-attention that one encoder needs, with its weights.

    Attributes:
        config: its sizes.
        encoder_dim: the width of the encoder's states.
        layers: what it adds to each layer of the decoder; None where it adds nothing.
        d_model: the width of the decoder.
    """

    config: CrossAttentionConfig
    encoder_dim: int
    layers: tuple[Attachment | None, ...]
    d_model: int

    def require_fit(self, config: DecoderConfig | HostedConfig) -> None:
        """Raise LockdecError unless it is of a decoder of these sizes."""
        if (len(self.layers), self.d_model) != (config.layers, config.d_model):
            raise LockdecError(
                f"the plug is of a decoder of {len(self.layers)} layers and d_model={self.d_model}, and this one has "
                f"{config.layers} and d_model={config.d_model}"
            )


class AutoregressiveModel(nn.Module, ABC):
    """A decoder over tokens, each predicted from those before it and from an encoded input.

    No position attends to later ones, so real positions ignore padding on the right without a mask; what is computed at
    padding itself is meaningless.
    """

    config: DecoderConfig | HostedConfig

    @property
    @abstractmethod
    def encoder_dim(self) -> int | None:
        """The width of the states that it attends to; None where it attends to none."""

    @abstractmethod
    def admit(self, encoded: Encoded | PlugBatch | None) -> Encoded | PlugBatch | None:
        """The encoded input that the layers attend to, if any; LockdecError if it is missing or does not fit."""

    @abstractmethod
    def hidden(
        self, tokens: Int[Tensor, "b t"], encoded: Encoded | PlugBatch | None = None, prefix: Prefix | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """The hidden states at every position; `logits` turns any of them into predictions.

        Args:
            prefix: of the same tokens, where it is known already.

        Raises:
            LockdecError: the sequence is longer than max_len; the encoded input is missing or does not fit.
        """

    @abstractmethod
    def real_hidden(
        self,
        tokens: Int[Tensor, "b t"],
        packing: Packing,
        encoded: Encoded | PlugBatch | None = None,
        prefix: Prefix | None = None,
    ) -> Float[Tensor, "n d_model"]:
        """`hidden` at the packed positions only, row by row.

        Raises:
            LockdecError: as `hidden`.
        """

    @abstractmethod
    def logits(self, hidden: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        """Predictions of the next token from hidden states."""

    @abstractmethod
    def cache(self, encoded: Encoded | PlugBatch, max_len: int, beams: int = 1) -> Any:
        """An empty cache for `step`: the memories of the encoded input, and room for max_len tokens of each beam."""

    @abstractmethod
    def prefill(self, tokens: Int[Tensor, "b t"], cache: Any) -> Float[Tensor, "b vocab"]:
        """Add what the sequences of every input begin with to the empty cache and predict the token after it.

        Args:
            tokens: of each input, equally many; its beams share them.
        """

    @abstractmethod
    def step(self, tokens: Int[Tensor, "b 1"], cache: Any) -> Float[Tensor, "b vocab"]:
        """Add the next token of every row to the cache and predict the one after it.

        Args:
            tokens: one for each beam of each input, side by side.
        """

    def _fitting(self, encoded: Encoded | None, otherwise: str) -> Encoded:
        if encoded is None:
            raise LockdecError(f"the decoder needs an encoded input: {otherwise}")
        require_width(encoded, self.encoder_dim)
        return encoded

    def forward(
        self, tokens: Int[Tensor, "b t"], encoded: Encoded | PlugBatch | None = None
    ) -> Float[Tensor, "b t vocab"]:
        """Predictions of the next token at every position."""
        return self.logits(self.hidden(tokens, encoded))

    def generate(
        self,
        encoded: Encoded | PlugBatch,
        *,
        bos_id: int,
        eos_id: int,
        pad_id: int,
        generator: torch.Generator | None = None,
        prompt: Sequence[int] = (),
        **options: Any,
    ) -> Int[Tensor, "b n"]:
        """Generate one sequence for every encoded input.

        Args:
            encoded: the inputs to attend to.
            bos_id, eos_id, pad_id: the tokens that begin a sequence, end it and pad what follows.
            generator: of the noise for nucleus and top_k; torch's global one where not given.
            prompt: tokens between bos and what is generated, the same for all; read in a single forward pass.
            options: strategy, max_new_tokens and the other fields of `GenerationConfig`.

        Returns:
            The new tokens, without bos and prompt and with eos where it was produced, padded to the longest sequence.

        Raises:
            LockdecError: an option is impossible, or sequences would be longer than max_len.
        """
        special = SpecialTokens(bos_id, eos_id, pad_id)
        return self._generated(encoded, special, GenerationConfig(**options), generator, prompt, 1)[:, 0]

    def generate_several(
        self,
        encoded: Encoded | PlugBatch,
        keep: int,
        *,
        bos_id: int,
        eos_id: int,
        pad_id: int,
        generator: torch.Generator | None = None,
        prompt: Sequence[int] = (),
        **options: Any,
    ) -> Int[Tensor, "b keep n"]:
        """Generate several sequences for every encoded input: the best of a beam search, or as many draws.

        Args:
            keep: how many; of a beam search at most `beams`.

        The others and what is raised are those of `generate`.
        """
        special = SpecialTokens(bos_id, eos_id, pad_id)
        return self._generated(encoded, special, GenerationConfig(**options), generator, prompt, keep)

    def _generated(
        self,
        encoded: Encoded | PlugBatch,
        special: SpecialTokens,
        config: GenerationConfig,
        generator: torch.Generator | None,
        prompt: Sequence[int],
        keep: int,
    ) -> Int[Tensor, "b keep n"]:
        config.check()
        if config.strategy == "beam" and keep > config.beams:
            raise LockdecError(f"generation.beams={config.beams}: too few to keep {keep} sequences of each input")
        with torch.inference_mode():
            tokens = generate(self, encoded, special, config, generator, prompt, keep)
        return tokens.clone()  # outside of inference mode, so that it may take part in training


class StackedModel(AutoregressiveModel):
    """An embedding of tokens and a stack of our own layers."""

    config: DecoderConfig
    embedding: TokenEmbedding
    decoder: DecoderStack

    def prefix(self, tokens: Int[Tensor, "b t"], layers: int) -> Prefix:
        """Apply the first layers, which attend to no encoded input; LockdecError as `hidden`."""
        x = self.embedding(tokens)
        for layer in self.decoder.layers[:layers]:
            x = layer(x)
        return Prefix(x, layers)

    def hidden(
        self, tokens: Int[Tensor, "b t"], encoded: Encoded | PlugBatch | None = None, prefix: Prefix | None = None
    ) -> Float[Tensor, "b t d_model"]:
        below = self.prefix(tokens, 0) if prefix is None else prefix
        hidden: Tensor = self.decoder(below.hidden, self.admit(encoded), start=below.layers)
        return hidden

    def real_hidden(
        self,
        tokens: Int[Tensor, "b t"],
        packing: Packing,
        encoded: Encoded | PlugBatch | None = None,
        prefix: Prefix | None = None,
    ) -> Float[Tensor, "n d_model"]:
        below = self.prefix(tokens, 0) if prefix is None else prefix
        x = packing.pack(below.hidden)  # (1, n, d_model); nothing is computed at the other positions
        hidden: Tensor = self.decoder(x, self.admit(encoded), packing=packing, start=below.layers)
        return hidden.squeeze(0)

    def logits(self, hidden: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        return self.embedding.logits(hidden)

    def cache(self, encoded: Encoded | PlugBatch, max_len: int, beams: int = 1) -> DecoderCache:
        self.embedding.require_room(max_len)
        memories = self.decoder.remember(self.admit(encoded))
        return DecoderCache(memories, len(encoded), beams, max_len, self.embedding.tokens.weight)

    def prefill(self, tokens: Int[Tensor, "b t"], cache: DecoderCache) -> Float[Tensor, "b vocab"]:
        cache.begin(shared=tokens.shape[1])
        hidden: Tensor = self.decoder(self.embedding(tokens, cache.step), cache=cache)
        return self.logits(hidden[:, -1])

    def step(self, tokens: Int[Tensor, "b 1"], cache: DecoderCache) -> Float[Tensor, "b vocab"]:
        cache.begin()
        hidden: Tensor = self.decoder(self.embedding(tokens, cache.step), cache=cache)
        return self.logits(hidden[:, -1])


class DecoderModel(StackedModel):
    """Generates a sequence while it attends to an encoded input.

    Args:
        encoder_dim: width of the encoder's states.
    """

    def __init__(self, config: DecoderConfig, encoder_dim: int) -> None:
        super().__init__()
        config.check()
        self.config = config
        self._encoder_dim = encoder_dim
        self.embedding = TokenEmbedding(config)
        self.decoder = Decoder(config, encoder_dim)

    @property
    def encoder_dim(self) -> int:
        """The width of the states that it attends to."""
        return self._encoder_dim

    def admit(self, encoded: Encoded | PlugBatch | None) -> Encoded:
        """The encoded input; LockdecError if it is missing or of another width, or a batch of several plugs."""
        if isinstance(encoded, PlugBatch):
            raise LockdecError("this decoder has no plugs: pass an Encoded")
        return self._fitting(encoded, "pass one")


class TransformerModel(nn.Module):
    """An encoder and a decoder joined, as in the book: a sequence in, a sequence out (Vaswani et al. 2017).

    The padding mask hides the source's padding from both; the look-ahead mask hides the target's future.

    Args:
        source, target: the encoder's and the decoder's sizes.
        pad_id: the token that pads the source.
    """

    def __init__(self, source: EncoderConfig, target: DecoderConfig, pad_id: int = 0) -> None:
        super().__init__()
        self.pad_id = pad_id
        self.encoder = EncoderModel(source)
        self.decoder = DecoderModel(target, source.d_model)

    def encode(self, source: Int[Tensor, "b s"]) -> Encoded:
        """The states of the source."""
        return self.encoder.encode(source, source != self.pad_id)

    def forward(self, source: Int[Tensor, "b s"], target: Int[Tensor, "b t"]) -> Float[Tensor, "b t vocab"]:
        """Predictions of the target's next token at every position."""
        logits: Tensor = self.decoder(target, self.encode(source))
        return logits

    def generate(self, source: Int[Tensor, "b s"], **options: Any) -> Int[Tensor, "b n"]:
        """Generate one sequence for every source; options as in `DecoderModel.generate`."""
        with torch.no_grad():
            encoded = self.encode(source)
        return self.decoder.generate(encoded, **options)


class LockingModel(AutoregressiveModel):
    """A language model with places for cross-attention, initially locked: what training and evaluation need of one.

    At first it has no cross-attention parameters. `attach` draws them, `unlock` lets it attend, and `lock` gives the
    language model back, bit for bit. Several plugs may be attached side by side:

        decoder.attach("drawings", CrossAttentionConfig(heads=8, d_q=8, d_k=8, d_v=32), encoder_dim=149)
        decoder.attach("music", CrossAttentionConfig(heads=8, d_q=4, d_k=4, d_v=8), encoder_dim=64)
        decoder.use("drawings")
        plug = decoder.detach("music")

    Only the parameters of the plug in use are the model's: they are trained, saved and counted. A batch may attend by
    several plugs at once; see `PlugBatch`.

    Attributes:
        plugs: the sizes of each plug and the width of the states it was made for, by name.
        plug: the name of the one in use; None where there is none.
    """

    decoder: LockingPlaces

    def __init__(self) -> None:
        super().__init__()
        self.plugs: dict[str, tuple[CrossAttentionConfig, int]] = {}
        self.plug: str | None = None

    @abstractmethod
    def prefix(self, tokens: Int[Tensor, "b t"], layers: int) -> Prefix | None:
        """What the first layers make of tokens, since they attend to no encoder; None where `hidden` takes none."""

    @abstractmethod
    def attention_maps(
        self, tokens: Int[Tensor, "b t"], encoded: Encoded, prefix: Prefix | None = None
    ) -> list[CrossAttentionMap]:
        """What each layer with cross-attention attends to at each of the tokens; LockdecError while locked.

        Args:
            prefix: of the same tokens, where it is known already.
        """

    @property
    def locked(self) -> bool:
        """Whether it ignores encoders, as a GPT does."""
        return self.decoder.locked

    @property
    def attached(self) -> bool:
        """Whether it has cross-attention parameters."""
        return self.decoder.attached

    @overload
    def attach(self, name: str, plug: CrossAttentionConfig, encoder_dim: int) -> None: ...

    @overload
    def attach(self, name: str, plug: Plug) -> None: ...

    @overload
    def attach(self, name: CrossAttentionConfig, plug: int, /) -> None: ...

    @overload
    def attach(self, name: CrossAttentionConfig, /, *, encoder_dim: int) -> None: ...

    def attach(
        self,
        name: str | CrossAttentionConfig,
        plug: CrossAttentionConfig | Plug | int | None = None,
        encoder_dim: int | None = None,
    ) -> None:
        """Attach a plug under a name: fresh parameters, or what `detach` returned. It is then in use, and locked.

        Without a name, what is attached is the only plug: it replaces all others.

        Args:
            name: by which `use` and `detach` know it.
            plug: its sizes, to draw fresh parameters from torch's global generator; or the plug itself.
            encoder_dim: the width of the encoder's states, where parameters are drawn.

        Raises:
            ConfigError: the config is impossible, or names a layer that is not there.
            LockdecError: there is a plug of this name, or the plug is of a decoder of other sizes.
        """
        if isinstance(name, CrossAttentionConfig):
            name.check()
            name.layer_numbers(self.config.layers)
            for known in list(self.plugs):
                self.detach(known)
            width = encoder_dim if encoder_dim is not None else plug
            assert isinstance(width, int)
            self._draw(UNNAMED, name, width)
            return
        if name in self.plugs or not name:
            problem = "there is a plug of this name: detach it first, or choose another" if name else "it needs a name"
            raise LockdecError(f"attach({name!r}): {problem}")
        if isinstance(plug, Plug):
            plug.require_fit(self.config)
            self.decoder.put(name, plug.layers)
            self.plugs[name] = (plug.config, plug.encoder_dim)
            self.plug = name
            self._place()
        else:
            assert isinstance(plug, CrossAttentionConfig)
            assert encoder_dim is not None
            self._draw(name, plug, encoder_dim)

    def _draw(self, name: str, config: CrossAttentionConfig, encoder_dim: int) -> None:
        config.check()
        if encoder_dim < 1:
            raise ConfigError(f"encoder_dim={encoder_dim}: use the width of the encoder's states, at least 1")
        self.decoder.attach(name, config, encoder_dim)
        self._place()
        self.plugs[name] = (config, encoder_dim)
        self.plug = name

    def _place(self) -> None:
        """Bring the plug in use to the decoder's device, in float32 even where the decoder is of half precision."""
        like = next(weight for name, weight in self.named_parameters() if ".cross_attention." not in name)
        for layer in self.decoder.layers:
            layer.cross_attention.to(like.device, torch.promote_types(like.dtype, torch.float32))

    def use(self, name: str) -> None:
        """Attend by the plug of this name from now on; locked or unlocked as before. LockdecError if there is none."""
        self._require(name)
        self.decoder.use(name)
        self.plug = name

    def detach(self, name: str) -> Plug:
        """Remove a plug, and return it; `attach` puts it back as it was. Locked if it was in use.

        Raises:
            LockdecError: there is no plug of this name.
        """
        self._require(name)
        config, encoder_dim = self.plugs.pop(name)
        if name == self.plug:
            self.plug = None
        return Plug(config, encoder_dim, tuple(self.decoder.detach(name)), self.config.d_model)

    def _require(self, name: str) -> None:
        if name not in self.plugs:
            there = ", ".join(map(repr, self.plugs)) or "none"
            raise LockdecError(f"there is no plug {name!r} (attached: {there})")

    @property
    def cross_attention_config(self) -> CrossAttentionConfig | None:
        """The sizes of the plug in use."""
        return self.plugs[self.plug][0] if self.plug is not None else None

    @property
    def encoder_dim(self) -> int | None:
        """The width of the states that the plug in use was made for."""
        return self.plugs[self.plug][1] if self.plug is not None else None

    def unlock(self) -> None:
        """Let the layers attend; LockdecError if nothing is attached or what is attached can never learn."""
        self.decoder.unlock()

    def lock(self) -> None:
        """Be the pretrained GPT again; the cross-attention parameters stay."""
        self.decoder.lock()

    def cross_attention_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that finetuning trains, by their names in the state dict."""
        return {name: p for name, p in self.named_parameters() if ".cross_attention." in name}

    def freeze_decoder(self) -> None:
        """Make only the cross-attention parameters trainable."""
        self.requires_grad_(False)
        for parameter in self.cross_attention_parameters().values():
            parameter.requires_grad_(True)

    def admit(self, encoded: Encoded | PlugBatch | None) -> Encoded | PlugBatch | None:
        """The encoded input, or None while locked; LockdecError if it is missing or of another width."""
        if self.locked:
            return None
        if isinstance(encoded, PlugBatch):
            for part in encoded.parts:
                self._require(part.plug)
                require_width(part.encoded, self.plugs[part.plug][1])
            return encoded
        return self._fitting(encoded, "pass one, or call lock()")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LockingModel:
        """Apply a change of device or type to the plugs that wait, too."""
        inherited: Any = super()
        inherited._apply(fn, recurse)
        for waiting in self.decoder.waiting():
            attention: Any = waiting.attention
            attention._apply(fn)
            if waiting.gate is not None:
                waiting.gate.data = fn(waiting.gate.data)
        return self

    def require_attached(self) -> None:
        """Raise LockdecError if no encoder was ever attached."""
        if not self.attached:
            raise LockdecError("generation before attach(): call attach(CrossAttentionConfig(...), encoder_dim) first")


class LockingDecoderModel(StackedModel, LockingModel):
    """A GPT each of whose layers has a place for cross-attention, which is initially locked; see `LockingModel`."""

    decoder: LockingDecoder

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.embedding = TokenEmbedding(config)
        self.decoder = LockingDecoder(config)

    @classmethod
    def undrawn(cls, config: DecoderConfig) -> LockingDecoderModel:
        """A model whose weights are on the meta device: without values, for `load_state_dict(..., assign=True)`."""
        with undrawn():
            model = cls(config)
        for module in model.modules():
            if isinstance(module, RotaryPositions | SinusoidalPositions):
                module.prepare()
        return model

    @classmethod
    def from_huggingface(cls, source: nn.Module | str | Path) -> LockingDecoderModel:
        """A model with the weights of a `transformers` model, or of a local folder, GGUF file or hub id of one.

        It is locked, unless the source is a GPT-2 with cross-attention: then that is attached and unlocked. Weights
        from files become float32.

        Raises:
            LockdecError: the checkpoint is of another family, is damaged, or has an option that is not supported.
        """
        checkpoint = read(source)
        model = cls.undrawn(checkpoint.config)
        if checkpoint.cross_attention is not None:
            with undrawn():
                model.attach(checkpoint.cross_attention, encoder_dim=checkpoint.config.d_model)
        dtype = None if isinstance(source, nn.Module) else torch.float32
        weights = {
            name: tensor.detach().to(dtype=dtype, copy=True).contiguous() for name, tensor in checkpoint.weights()
        }
        model.load_state_dict(weights, assign=True)
        if checkpoint.cross_attention is not None:
            model.unlock()
        return model

    def cache(self, encoded: Encoded | PlugBatch, max_len: int, beams: int = 1) -> DecoderCache:
        self.require_attached()
        return super().cache(encoded, max_len, beams)

    @torch.no_grad()
    def attention_maps(
        self, tokens: Int[Tensor, "b t"], encoded: Encoded, prefix: Prefix | None = None
    ) -> list[CrossAttentionMap]:
        if self.locked:
            raise LockdecError("a locked decoder attends to no encoder: call unlock() first")
        self.admit(encoded)
        below = self.prefix(tokens, 0) if prefix is None else prefix
        return self.decoder.attention_maps(below.hidden, encoded, below.layers)
