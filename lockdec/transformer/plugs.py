"""Plugs: the cross-attention of one encoder each, attached to a decoder by name, used in turn, and detached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from lockdec.errors import ConfigError, LockdecError
from lockdec.transformer.autoregressive import AutoregressiveModel
from lockdec.transformer.configuration import CrossAttentionConfig, DecoderConfig, HostedConfig
from lockdec.transformer.cross_attention import Attachment
from lockdec.transformer.places import LockingPlaces

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


def require_width_given(encoder_dim: object) -> int:
    """The width of an encoder's states; ConfigError if there is none or it cannot be."""
    if not isinstance(encoder_dim, int) or encoder_dim < 1:
        raise ConfigError(f"encoder_dim={encoder_dim}: use the width of the encoder's states, at least 1")
    return encoder_dim


class PlugSizes(NamedTuple):
    """What is known of a plug without its parameters.

    Attributes:
        config: its sizes.
        encoder_dim: the width of the states it was made for.
    """

    config: CrossAttentionConfig
    encoder_dim: int


class PluggableModel(AutoregressiveModel):
    """A decoder with places for cross-attention, to which plugs are attached; see `LockingModel`.

    Attributes:
        plugs: the sizes of each plug and the width of the states it was made for, by name.
        in_use: the names of those in use: one; several, whose additions are summed; or none.
    """

    decoder: LockingPlaces

    def __init__(self) -> None:
        super().__init__()
        self.plugs: dict[str, PlugSizes] = {}
        self.in_use: tuple[str, ...] = ()

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
            width = require_width_given(encoder_dim if encoder_dim is not None else plug)
            for known in list(self.plugs):
                self.detach(known)
            self._draw(UNNAMED, name, width)
            return
        if name in self.plugs or not name:
            problem = "there is a plug of this name: detach it first, or choose another" if name else "it needs a name"
            raise LockdecError(f"attach({name!r}): {problem}")
        if isinstance(plug, Plug):
            plug.require_fit(self.config)
            self.decoder.put(name, plug.layers)
            self.plugs[name] = PlugSizes(plug.config, plug.encoder_dim)
            self.in_use = (name,)
            self._place()
        else:
            assert isinstance(plug, CrossAttentionConfig)
            plug.check()
            self._draw(name, plug, require_width_given(encoder_dim))

    def _draw(self, name: str, config: CrossAttentionConfig, encoder_dim: int) -> None:
        self.decoder.attach(name, config, encoder_dim)
        self._place()
        self.plugs[name] = PlugSizes(config, encoder_dim)
        self.in_use = (name,)

    def _place(self) -> None:
        """Bring the plug in use to the decoder's device, in float32 even where the decoder is of half precision."""
        like = next(weight for name, weight in self.named_parameters() if ".cross_attention." not in name)
        for layer in self.decoder.layers:
            layer.cross_attention.to(like.device, torch.promote_types(like.dtype, torch.float32))

    def use(self, *names: str) -> None:
        """Attend by the plug of this name from now on; locked or unlocked as before.

        Of several plugs, what each adds to a layer is summed, although they were trained apart. An encoded input then
        holds the states of all their encoders side by side, in the order of the names; see `Encoded.parted`. The
        parameters of the model are those of the first. Without a name, no plug is in use.

        Raises:
            LockdecError: there is no plug of such a name, or a name is given twice.
        """
        if len(set(names)) < len(names):
            raise LockdecError(f"use({', '.join(map(repr, names))}): a plug is named twice")
        for name in names:
            self._require(name)
        self.decoder.use(names[0] if names else "")
        self.in_use = names

    @property
    def plug(self) -> str | None:
        """The name of the plug in use, the first of several; None where there is none."""
        return self.in_use[0] if self.in_use else None

    @property
    def plug_parameters(self) -> int:
        """How many numbers the plugs in use have learned, all together."""
        found = [attachment for name in self.in_use for attachment in self.decoder.attachments(name)]
        gates = [attachment.gate for attachment in found if attachment.gate is not None]
        weights = [weight for attachment in found for weight in attachment.attention.parameters()]
        return sum(weight.numel() for weight in (*gates, *weights))

    @property
    def apart(self) -> tuple[int, ...]:
        """The channels of each encoder, where several plugs are in use; empty where one is."""
        return tuple(self.plugs[name].encoder_dim for name in self.in_use) if len(self.in_use) > 1 else ()

    def detach(self, name: str) -> Plug:
        """Remove a plug, and return it; `attach` puts it back as it was. If it was in use, none is, and all is locked.

        Raises:
            LockdecError: there is no plug of this name.
        """
        self._require(name)
        config, encoder_dim = self.plugs.pop(name)
        if name in self.in_use:
            self.in_use = ()
            self.decoder.lock()
        return Plug(config, encoder_dim, tuple(self.decoder.detach(name)), self.config.d_model)

    def _require(self, name: str) -> None:
        if name not in self.plugs:
            there = ", ".join(map(repr, self.plugs)) or "none"
            raise LockdecError(f"there is no plug {name!r} (attached: {there})")

    @property
    def encoder_dim(self) -> int | None:
        """The width of the states that the plugs in use were made for, all together."""
        return sum(self.plugs[name].encoder_dim for name in self.in_use) if self.in_use else None

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
