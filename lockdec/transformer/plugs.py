"""Plugs: the cross-attention of one encoder each, attached to a decoder by name, used in turn, and detached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor

from lockdec.errors import ConfigError, LockdecError
from lockdec.transformer.attention import Attachment
from lockdec.transformer.autoregressive import AutoregressiveModel
from lockdec.transformer.configuration import CrossAttentionConfig, DecoderConfig, HostedConfig
from lockdec.transformer.layers import LockingPlaces

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


class PluggableModel(AutoregressiveModel):
    """A decoder with places for cross-attention, to which plugs are attached; see `LockingModel`.

    Attributes:
        plugs: the sizes of each plug and the width of the states it was made for, by name.
        plug: the name of the one in use; None where there is none.
    """

    decoder: LockingPlaces

    def __init__(self) -> None:
        super().__init__()
        self.plugs: dict[str, tuple[CrossAttentionConfig, int]] = {}
        self.plug: str | None = None

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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PluggableModel:
        """Apply a change of device or type to the plugs that wait, too."""
        inherited: Any = super()
        inherited._apply(fn, recurse)
        for waiting in self.decoder.waiting():
            attention: Any = waiting.attention
            attention._apply(fn)
            if waiting.gate is not None:
                waiting.gate.data = fn(waiting.gate.data)
        return self
