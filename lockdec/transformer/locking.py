"""Language models whose cross-attention is initially locked: a GPT until an encoder is attached and it is unlocked."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lockdec.errors import LockdecError
from lockdec.transformer.autoregressive import Prefix, StackedModel, require_width
from lockdec.transformer.bridge import Bridge
from lockdec.transformer.configuration import DecoderConfig
from lockdec.transformer.decoding.caching import DecoderCache
from lockdec.transformer.encoded import Encoded, PlugBatch, PlugRows
from lockdec.transformer.fast import undrawn
from lockdec.transformer.importing import read
from lockdec.transformer.layers import LockingDecoder
from lockdec.transformer.places import CrossAttentionMap
from lockdec.transformer.plugs import PluggableModel
from lockdec.transformer.positional import RotaryPositions, SinusoidalPositions, TokenEmbedding


class LockingModel(PluggableModel):
    """A language model with places for cross-attention, initially locked: what training and evaluation need of one.

    At first it has no cross-attention parameters. `attach` draws them, `unlock` lets it attend, and `lock` gives the
    language model back, bit for bit. Several plugs may be attached side by side:

        decoder.attach("drawings", CrossAttentionConfig(heads=8, d_q=8, d_k=8, d_v=32), encoder_dim=149)
        decoder.attach("music", CrossAttentionConfig(heads=8, d_q=4, d_k=4, d_v=8), encoder_dim=64)
        decoder.use("drawings")
        plug = decoder.detach("music")

    Only the parameters of the plug in use are the model's: they are trained, saved and counted. A batch may attend by
    several plugs at once; see `PlugBatch`.

    Beside cross-attention, or in its place, another `Bridge` can carry the states; it is locked and unlocked alike.

    Attributes:
        bridge: the one that is attached; None where cross-attention alone attends to the states.
    """

    bridge: Bridge | None

    def __init__(self) -> None:
        super().__init__()
        self.bridge = None
        self._bridging = False

    @abstractmethod
    def prefix(
        self, tokens: Int[Tensor, "b t"], layers: int, real: Bool[Tensor, "b t"] | None = None, shared: int = 0
    ) -> Prefix:
        """What the first layers make of tokens, at most `frozen_layers`, which attend to no encoder.

        Args:
            real: true where there is a token; what is returned at padding is meaningless. None: there is none.
            shared: how many tokens all rows begin with, where that is known.
        """

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
        return self.decoder.locked and not self._bridging

    @property
    def attached(self) -> bool:
        """Whether it has cross-attention or another bridge."""
        return self.decoder.attached or self.bridge is not None

    @property
    def attends(self) -> bool:
        """Whether one cross-attention attends to the encoder's own states, so that `attention_maps` says where."""
        if self.apart:
            return False
        own = self.bridge is None or type(self.bridge).states is Bridge.states
        return own and self.decoder.attached

    @property
    def encoder_dim(self) -> int | None:
        """The width of the states that its bridge, or else the plug in use, was made for."""
        return super().encoder_dim if self.bridge is None else self.bridge.encoder_dim

    @property
    def room(self) -> int:
        """How many tokens a sequence may have: max_len without the positions of a soft prompt."""
        return self.config.max_len - (0 if self.bridge is None else self.bridge.positions)

    @property
    def frozen_layers(self) -> int:
        """How many layers, from the lowest on, neither learn nor depend on the encoded input."""
        keeps = self.bridge is None or self.bridge.keeps_layers
        return self.decoder.below_cross_attention if keeps and not self.apart else 0

    def attach_bridge(self, bridge: Bridge | None) -> None:
        """Attach a bridge that has its weights, in the place of the one before it, or none; locked."""
        like = next(self.parameters())
        self.lock()
        precise = torch.promote_types(like.dtype, torch.float32)
        self.bridge = None if bridge is None else bridge.to(like.device, precise)

    def leaving_out(self, rows: Int[Tensor, " b"] | None) -> AbstractContextManager[None]:
        """As `Bridge.leaving_out`; nothing where no bridge remembers inputs."""
        return nullcontext() if self.bridge is None else self.bridge.leaving_out(rows)

    def unlock(self) -> None:
        """Let the input in; LockdecError if nothing is attached or what is attached can never learn."""
        if self.bridge is None or self.decoder.attached:
            self.decoder.unlock()
        if self.bridge is not None and not self._bridging:
            self.bridge.enter(self)
            self._bridging = True

    def lock(self) -> None:
        """Be the pretrained GPT again; all parameters stay."""
        self.decoder.lock()
        if self.bridge is not None and self._bridging:
            self.bridge.leave(self)
            self._bridging = False

    def bridge_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that finetuning trains, by their names in the state dict: all that is not the GPT's."""
        return {
            name: p
            for name, p in self.named_parameters(remove_duplicate=False)  # a bridge may lend the decoder its weights
            if ".cross_attention." in name or name.startswith("bridge.")
        }

    def cross_attention_parameters(self) -> dict[str, nn.Parameter]:
        """Those of the plug in use, by their names in the state dict."""
        return {name: p for name, p in self.named_parameters() if ".cross_attention." in name}

    def freeze_decoder(self) -> None:
        """Make only the parameters of cross-attention and of another bridge trainable."""
        self.requires_grad_(False)
        for parameter in self.bridge_parameters().values():
            parameter.requires_grad_(True)

    def admit(self, encoded: Encoded | PlugBatch | None) -> Encoded | PlugBatch | None:
        """The encoded input, or None while locked; LockdecError if it is missing or of another width."""
        if self.locked:
            return None
        if isinstance(encoded, PlugBatch):
            self._require_alone()
            encoded.require_rows()
            for part in encoded.parts:
                self._require(part.plug)
                require_width(part.encoded, self.plugs[part.plug].encoder_dim)
            return encoded
        found = self._fitting(encoded, "pass one, or call lock()")
        if self.apart:
            self._require_alone()
            rows = torch.arange(len(found), device=found.states.device)
            parts = zip(self.in_use, found.parted(self.apart), strict=True)
            return PlugBatch(len(found), tuple(PlugRows(plug, rows, own) for plug, own in parts))
        return found if self.bridge is None else self.bridge.states(found)

    def _require_alone(self) -> None:
        if self.bridge is not None:
            raise LockdecError(f"rows of several plugs need cross-attention alone, not {self.bridge.kind}")

    def soft_prompt(self, encoded: Encoded | PlugBatch | None) -> Float[Tensor, "b k d_model"] | None:
        """What the bridge puts before the tokens of each input; None while locked."""
        if self.bridge is None or not self._bridging or not isinstance(encoded, Encoded):
            return None
        return self.bridge.soft_prompt(encoded)

    @property
    def start(self) -> int:
        return self.bridge.start if self.bridge is not None and self._bridging else 0

    def require_attached(self) -> None:
        """Raise LockdecError if no encoder was ever attached."""
        if not self.attached:
            raise LockdecError("generation before attach(): call attach(CrossAttentionConfig(...), encoder_dim) first")

    def require_unlocked(self) -> None:
        """Raise LockdecError while locked."""
        if self.locked:
            raise LockdecError("a locked decoder attends to no encoder: call unlock() first")


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
    def from_huggingface(
        cls, source: nn.Module | str | Path, dtype: torch.dtype = torch.float32
    ) -> LockingDecoderModel:
        """A model with the weights of a `transformers` model, or of a local folder, GGUF file or hub id of one.

        It is locked, unless the source is a GPT-2 with cross-attention: then that is attached and unlocked.

        Args:
            dtype: of the weights, where they are from files.

        Raises:
            LockdecError: the checkpoint is of another family, is damaged, or has an option that is not supported.
        """
        checkpoint = read(source)
        model = cls.undrawn(checkpoint.config)
        if checkpoint.cross_attention is not None:
            with undrawn():
                model.attach(checkpoint.cross_attention, encoder_dim=checkpoint.config.d_model)
        kept = None if isinstance(source, nn.Module) else dtype
        weights = {
            name: tensor.detach().to(dtype=kept, copy=True).contiguous() for name, tensor in checkpoint.weights()
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
        self.require_unlocked()
        if self.apart:
            raise LockdecError(f"{len(self.in_use)} plugs are in use: use one alone to see what it attends to")
        self.admit(encoded)
        if (before := self.soft_prompt(encoded)) is not None:
            maps = self.decoder.attention_maps(self._after(before, tokens), encoded)
            return [found.after(before.shape[1]) for found in maps]
        below = self.prefix(tokens, 0) if prefix is None else prefix
        return self.decoder.attention_maps(below.hidden, encoded, below.layers)
