"""Masks: which positions a query may attend to. They are true where it may."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def look_ahead_mask(t: int, s: int, device: torch.device) -> Bool[Tensor, "t s"]:
    """The mask of a causal model: each of the last t of s positions attends to itself and to those before it."""
    return torch.ones(t, s, dtype=torch.bool, device=device).tril(s - t)


def causal_mask(mask: Bool[Tensor, "b _ s"] | None, t: int, s: int, device: torch.device) -> Bool[Tensor, "b t s"]:
    """The look-ahead mask of t queries and s keys, within another mask if there is one (otherwise b is 1)."""
    look_ahead = look_ahead_mask(t, s, device).unsqueeze(0)
    return look_ahead if mask is None else mask & look_ahead


def mask_bias(mask: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """The mask as numbers to be added to scores: 0 where it is true, and otherwise so low that softmax gives 0.

    The numbers are finite, so a query that may attend to nothing gets equal weights and not NaN.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min / 2)
