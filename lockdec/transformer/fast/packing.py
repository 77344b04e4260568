"""Batches without their padding."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

MULTIPLE = 8  # the number of packed positions is a multiple of this


class Packing:
    """Leaves the padding of a batch out of everything that works position by position.

    Packed, the b sequences lie one after the other as a single sequence of all n real positions. Only attention, which
    has to tell the sequences apart, unpacks them.

    A few positions of padding are kept at the end, so that n takes few different values: oneDNN compiles a kernel for
    every size it multiplies, and the products of a GPU, too, are faster at multiples of 8.

    Args:
        real: true where there is a token; what follows a sequence's last one is padding.

    Attributes:
        filling: how many of the n positions are padding; what is computed there is meaningless.
    """

    def __init__(self, real: Bool[Tensor, "b t"]) -> None:
        self.shape = real.shape
        places, padding = real.flatten().nonzero(), (~real).flatten().nonzero()
        filling = padding[: -len(places) % MULTIPLE]
        self.filling = len(filling)
        self.positions = torch.cat([places, filling]).squeeze(1)  # (n,) of b * t

    def preceded(self, positions: int) -> Packing:
        """The same sequences, each after this many more real positions."""
        real = torch.zeros(self.shape, dtype=torch.bool, device=self.positions.device)
        real.view(-1)[self.positions] = True
        return Packing(F.pad(real, (positions, 0), value=True))

    def pack(self, x: Float[Tensor, "b t width"]) -> Float[Tensor, "1 n width"]:
        """The n positions of x."""
        return x.flatten(0, 1).index_select(0, self.positions).unsqueeze(0)

    def unpack(self, x: Float[Tensor, "1 n width"]) -> Float[Tensor, "b t width"]:
        """x as a batch of sequences again, zeros where there is padding."""
        padded = x.new_zeros(self.shape[0] * self.shape[1], x.shape[-1])
        return padded.index_copy(0, self.positions, x.squeeze(0)).view(*self.shape, -1)
