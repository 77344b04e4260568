"""Dropout (Srivastava et al. 2014), drawn fast on a CPU."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

STEPS = 2**16  # the resolution of the share of zeros
PER_DRAW = 4  # 16-bit numbers in a draw of 64 bits


class Dropout(nn.Dropout):
    """In training, sets a share p of the numbers to zero and multiplies the others by 1 / (1 - p).

    On a CPU torch draws for one number after the other, on a single thread (unless the CPU is Intel's). Here four
    numbers share a draw. The share is exact to 1/65,536, and the factor matches it.
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Drop some of x, at random by torch's global generator."""
        if not self.training or not self.p or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        dropped = min(round(self.p * STEPS), STEPS - 1)
        kept = keep(x.shape, dropped).to(x.dtype).mul_(STEPS / (STEPS - dropped))
        return x * kept


def keep(shape: torch.Size, dropped: int) -> Bool[Tensor, "*shape"]:
    """Independently for each element, false with probability dropped / 65,536."""
    count = shape.numel()
    draws = torch.empty(-(-count // PER_DRAW), dtype=torch.int64).random_(-(2**63), None)
    return (draws.view(torch.int16)[:count] >= dropped - STEPS // 2).view(shape)
