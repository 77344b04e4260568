"""Dropout (Srivastava et al. 2014), drawn fast on a CPU."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

STEPS = 2**16  # in which the share of zeros is counted
PER_DRAW = 4  # numbers of 16 bits in one of 64


class Dropout(nn.Dropout):
    """In training, zeros in the place of a share p of the numbers, and the others times 1 / (1 - p).

    torch draws for one number after the other on a CPU, on one thread, unless the CPU is Intel's; four numbers share a
    draw here. The share is exact to 1/65,536, and the factor fits it.
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Drop some of x, by torch's global generator."""
        if not self.training or not self.p or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        dropped = min(round(self.p * STEPS), STEPS - 1)
        kept = keep(x.shape, dropped).to(x.dtype).mul_(STEPS / (STEPS - dropped))
        return x * kept


def keep(shape: torch.Size, dropped: int) -> Bool[Tensor, "*shape"]:
    """True in all places but a random `dropped` of 65,536."""
    count = shape.numel()
    draws = torch.empty(-(-count // PER_DRAW), dtype=torch.int64).random_(-(2**63), None)
    return (draws.view(torch.int16)[:count] >= dropped - STEPS // 2).view(shape)
