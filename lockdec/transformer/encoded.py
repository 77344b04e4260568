"""What an encoder hands to a decoder, whatever it encoded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """A batch of encoded inputs: each a sequence, a grid, a set of codes or a single vector, as states.

    states: the encoder's outputs, padded to the longest row.
    mask: true where a state is real.
    """

    states: Float[Tensor, "b s d"]
    mask: Bool[Tensor, "b s"]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Encoded:
        """The same on another device."""
        return Encoded(
            self.states.to(device, non_blocking=non_blocking), self.mask.to(device, non_blocking=non_blocking)
        )

    def pin_memory(self) -> Encoded:
        """The same in memory that a GPU can copy from by itself."""
        return Encoded(self.states.pin_memory(), self.mask.pin_memory())

    def index(self, rows: Int[Tensor, " n"]) -> Encoded:
        """These rows of the batch, in this order."""
        return Encoded(self.states[rows], self.mask[rows])

    def trimmed(self) -> Encoded:
        """The same states in the same order, cut to the length of the row with the most real ones."""
        b, s, d = self.states.shape
        width = max(1, int(self.mask.sum(1).max()))
        if width == s:
            return self
        kept = (~self.mask).byte().argsort(dim=1, stable=True)[:, :width]  # real ones first
        places = (kept + s * torch.arange(b, device=kept.device)[:, None]).flatten()
        states = self.states.flatten(0, 1).index_select(0, places).view(b, width, d)
        return Encoded(states, self.mask.gather(1, kept))

    def __len__(self) -> int:
        return len(self.states)
