"""The size of a bridge by a number of parameters, so that rivals are compared at an equal budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from lockdec.errors import ConfigError
from lockdec.transformer.bridge import Bridge
from lockdec.transformer.fast import undrawn
from lockdec.transformer.locking import LockingModel
from lockdec.transformer.models import CrossAttentionConfig

BEYOND = 2**63  # more numbers than torch can count
TOLERANCE = 0.02  # by which share of the wanted number a bridge may have more or less


@dataclass(frozen=True)
class Size:
    """A size that was chosen by a number of parameters.

    Attributes:
        key: of the size in the config.
        value: the size.
        wanted, had: parameters.
        coarse: what to say where they differ by more than `TOLERANCE`, since sizes are whole numbers; else empty.
    """

    key: str
    value: int
    wanted: int
    had: int
    coarse: str = ""


def nearest_size(key: str, wanted: int, count: Callable[[int], int], most: int | None = None) -> Size:
    """The size whose number of parameters is nearest to the wanted one.

    Args:
        key: of the size in the config, for errors.
        count: the parameters at a size; grows with it.
        most: the largest size that is allowed; None for no limit.

    Raises:
        ConfigError: the smallest size has more than `TOLERANCE` too many, or the largest too few.
    """
    if (least := count(1)) > wanted * (1 + TOLERANCE):
        raise ConfigError(f"bridge.parameters={wanted}: with {key}=1, the smallest, there are {least} already")
    low, high = 1, 2 if most is None else most
    while most is None and count(high) < wanted:
        low, high = high, 2 * high
    if (largest := count(high)) < wanted * (1 - TOLERANCE):
        raise ConfigError(f"bridge.parameters={wanted}: with {key}={high}, the largest, there are only {largest}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= wanted else (middle, high)
    below, above = count(low), count(high)
    value, had = (low, below) if wanted - below <= above - wanted else (high, above)
    fits = abs(had - wanted) <= TOLERANCE * wanted
    coarse = f"{key}={low} gives {below}, {key}={high} gives {above}, and nothing is between them"
    return Size(key, value, wanted, had, "" if fits else coarse)


def sized(
    bridge: Bridge | None, config: CrossAttentionConfig, wanted: int, decoder: LockingModel, encoder_dim: int
) -> tuple[Bridge | None, CrossAttentionConfig, Size | None]:
    """A bridge and its cross-attention whose number of parameters is as close to the wanted one as a size allows.

    The size is what the bridge is sized by, or else the d_v of cross-attention; all other sizes stay.

    Args:
        bridge: None for cross-attention alone.
        config: of the cross-attention, where there is any.

    Returns:
        Bridge, cross-attention and the size; the first two as they were, and None, where no size can be chosen.

    Raises:
        ConfigError: no size comes close to this number.
    """

    def resized(value: int) -> tuple[Bridge | None, CrossAttentionConfig]:
        if bridge is not None and bridge.sized_by is not None:
            return replace(bridge, **{bridge.sized_by: value}), config
        return bridge, replace(config, d_v=value)

    def count(value: int) -> int:
        other, attention = resized(value)
        if other is None:
            return cross_attention_size(attention, decoder, encoder_dim)
        with undrawn():
            other.draw(decoder, encoder_dim)
        own = _size(other)
        return own if other.attended_dim is None else own + cross_attention_size(attention, decoder, other.attended_dim)

    key, most = "cross_attention.d_v", None
    if bridge is not None:
        probe, _ = resized(1)
        assert probe is not None
        with undrawn():
            probe.draw(decoder, encoder_dim)
        if bridge.sized_by is None and probe.attended_dim is None:
            return bridge, config, None
        if bridge.sized_by is not None:
            key, most = f"bridge.{bridge.sized_by}", probe.largest
    found = nearest_size(key, wanted, count, most)
    return *resized(found.value), found


def bridge_size(bridge: Bridge, decoder: LockingModel, encoder_dim: int) -> tuple[int, int | None]:
    """How many parameters a bridge has, and the width of what cross-attention attends to after it.

    A number beyond those of torch is `BEYOND`. 0 where the bridge draws in a way that needs values.
    """
    other = replace(bridge)
    try:
        with undrawn():
            other.draw(decoder, encoder_dim)
    except (RuntimeError, TypeError) as error:
        return (BEYOND if "overflow" in str(error).lower() else 0), None
    return _size(other), other.attended_dim


def cross_attention_size(config: CrossAttentionConfig, decoder: LockingModel, encoder_dim: int) -> int:
    """How many parameters cross-attention of these sizes has in a decoder."""
    with undrawn():
        places: Any = type(decoder.decoder)(decoder.config)
        before = _size(places)
        places.attach("counted", config, encoder_dim)
    return _size(places) - before


def _size(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
