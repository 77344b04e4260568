"""Bridges that change the decoder itself, beside a soft prompt: by low-rank updates, or all of its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from lockdec.bridges.prefix import LinearPrefix, Prefix
from lockdec.errors import ConfigError
from lockdec.transformer.attention import SelfAttention
from lockdec.transformer.plugs import PluggableModel


class LowRankUpdate(nn.Module):
    """What is added to a linear map: x -> B A x, initially 0 (Hu et al. 2021, 4.1, with alpha = r).

    Several maps of one input that are computed as one, such as query, key and value, have an A and a B each.

    Args:
        inputs: width of the input.
        outputs: widths of the maps' outputs, which lie side by side.
        rank: r, of each product.
    """

    def __init__(self, inputs: int, outputs: Sequence[int], rank: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.down = nn.ParameterList(torch.empty(rank, inputs) for _ in outputs)
        self.up = nn.ParameterList(torch.empty(width, rank) for width in outputs)
        for down, up in zip(self.down, self.up, strict=True):
            nn.init.uniform_(down, -bound, bound)
            nn.init.zeros_(up)

    def forward(self, x: Float[Tensor, "*n inputs"]) -> Float[Tensor, "*n outputs"]:
        """What is added."""
        return torch.cat([F.linear(F.linear(x, a), b) for a, b in zip(self.down, self.up, strict=True)], dim=-1)

    def added(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The output of the linear map with what is added; a forward hook."""
        return output + cast(Tensor, self(inputs[0].to(self.down[0].dtype))).to(output)


@dataclass(eq=False, kw_only=True)
class LoRA(Prefix):
    """A linear soft prompt, and low-rank updates of the query, key, value and output projections of every layer.

    The updates are added to what the projections compute, so that the decoder's own weights never change.

    Attributes:
        prefix_rank: of the map to the soft prompt; None for a single matrix.
        rank: of every update.
    """

    kind: ClassVar[str] = "lora"
    sized_by: ClassVar[str | None] = "rank"
    prefix_rank: int | None = None
    rank: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ConfigError(f"bridge.rank={self.rank}: use at least 1")
        if self.prefix_rank is not None and self.prefix_rank < 1:
            raise ConfigError(f"bridge.prefix_rank={self.prefix_rank}: use at least 1, or null for a full matrix")
        self._hooks: list[RemovableHandle] = []
        self._narrowest = 0  # input or output of a projection

    @property
    def largest(self) -> int:
        return self._narrowest

    def mapping(self, inputs: int, outputs: int) -> nn.Module:
        return LinearPrefix(length=self.length, rank=self.prefix_rank).mapping(inputs, outputs)

    def draw(self, decoder: PluggableModel, encoder_dim: int) -> None:
        super().draw(decoder, encoder_dim)
        self.updates = nn.ModuleList()
        for attention in _self_attentions(decoder):
            width, heads = attention.d_head, [attention.heads, attention.kv_heads, attention.kv_heads]
            into, out, widths = attention.query_key_value, attention.output, [count * width for count in heads]
            first = LowRankUpdate(into.in_features, widths, self.rank)
            self.updates.append(nn.ModuleList([first, LowRankUpdate(out.in_features, [out.out_features], self.rank)]))
            self._narrowest = min(into.in_features, out.in_features, *widths)

    def enter(self, decoder: PluggableModel) -> None:
        for attention, updates in zip(_self_attentions(decoder), self.updates, strict=True):
            first, second = cast("list[LowRankUpdate]", updates)
            self._hooks.append(attention.query_key_value.register_forward_hook(first.added))
            self._hooks.append(attention.output.register_forward_hook(second.added))

    def leave(self, decoder: PluggableModel) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


@dataclass(eq=False, kw_only=True)
class Full(LinearPrefix):
    """A linear soft prompt, and all weights of the decoder: a copy of them learns, and the pretrained ones are kept.

    As the weights of every bridge, the copy is in float32, whatever the decoder is in, which then computes in float32.
    """

    kind: ClassVar[str] = "full"
    sized_by: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # The pretrained weights while others are in their place: in a list, since they are no parameters of the bridge.
        self._kept = [nn.ParameterDict()]

    def draw(self, decoder: PluggableModel, encoder_dim: int) -> None:
        super().draw(decoder, encoder_dim)
        own = {
            name.replace(".", "/"): weight.detach().clone()
            for name, weight in decoder.named_parameters()
            if ".cross_attention." not in name and not name.startswith("bridge.")
        }
        self.weights = nn.ParameterDict(own)

    def enter(self, decoder: PluggableModel) -> None:
        self._kept = [nn.ParameterDict({name: _exchanged(decoder, name, own) for name, own in self.weights.items()})]

    def leave(self, decoder: PluggableModel) -> None:
        for name, weight in self._kept[0].items():
            _exchanged(decoder, name, weight)
        self._kept = [nn.ParameterDict()]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Full:  # to a device or precision
        self._kept[0]._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _self_attentions(decoder: PluggableModel) -> list[SelfAttention]:
    layers: list[Any] = list(decoder.decoder.layers)
    return [layer.self_attention for layer in layers]


def _exchanged(decoder: nn.Module, name: str, weight: nn.Parameter) -> nn.Parameter:
    """Put another parameter in the place of one, by its name with slashes; returns that one."""
    path, _, last = name.replace("/", ".").rpartition(".")
    module = decoder.get_submodule(path)
    before = module.get_parameter(last)
    setattr(module, last, weight)
    return before
