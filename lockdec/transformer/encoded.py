"""What an encoder hands to a decoder, whatever it encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lockdec.errors import LockdecError


@dataclass(frozen=True)
class Encoded:
    """A batch of encoded inputs: each a sequence, a grid, a set of codes or a single vector, as states.

    states: the encoder's outputs, padded to the longest row.
    mask: true where a state is real.
    """

    states: Float[Tensor, "b s d"]
    mask: Bool[Tensor, "b s"]

    @property
    def like(self) -> Tensor:
        """A tensor on the device and of the type of the states."""
        return self.states

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

    def parted(self, apart: Sequence[int]) -> list[Encoded]:
        """The states of several encoders, side by side, taken apart: those of each encoder in its own channels.

        Args:
            apart: how many channels each encoder has.
        """
        own, found = present(self.states, apart), list[Encoded]()
        pieces = zip(torch.split(self.states, list(apart), -1), torch.split(own, list(apart), -1), strict=True)
        for states, real in pieces:
            found.append(Encoded(states, self.mask & real[..., 0]).trimmed())
        return found

    def __len__(self) -> int:
        return len(self.states)


def present(states: Float[Tensor, "*b d"], apart: Sequence[int]) -> Bool[Tensor, "*b d"]:
    """Of states of several encoders side by side: which channels are those of the encoder that gave the state.

    A state whose channels are all zero belongs to none of them.

    Args:
        apart: how many channels each encoder has.
    """
    pieces = torch.split(states, list(apart), -1)
    return torch.cat([(piece != 0).any(-1, keepdim=True).expand(piece.shape) for piece in pieces], dim=-1)


class PlugRows(NamedTuple):
    """Some rows of a batch, and the encoded inputs that they attend to by one plug.

    plug: the name under which it is attached.
    rows: their places in the batch, each once.
    encoded: one input for each of these rows, of the width that the plug was made for.
    """

    plug: str
    rows: Int[Tensor, " n"]
    encoded: Encoded


@dataclass(frozen=True)
class PlugBatch:
    """A batch whose rows attend by different plugs of one decoder.

    A row that no part names attends to nothing, as in a locked decoder. A row that several parts name attends by each
    of these plugs, and what they add is summed.

    size: how many rows the batch has.
    parts: which rows attend by which plug, and to what.
    """

    size: int
    parts: tuple[PlugRows, ...]

    @property
    def like(self) -> Tensor:
        """A tensor on the device and of the type of the states."""
        return self.parts[0].encoded.states

    def require_rows(self) -> None:
        """Raise LockdecError unless each part has an encoded input for each of its rows, and these are of the batch."""
        if not self.parts:
            raise LockdecError("a PlugBatch without parts: give None where nothing is plugged")
        for plug, rows, encoded in self.parts:
            if len(rows) != len(encoded):
                raise LockdecError(f"rows of the plug {plug!r}: {len(rows)}, with {len(encoded)} encoded inputs; give "
                                   "one for each")  # fmt: skip
            numbers = rows.tolist()
            if odd := [row for row in numbers if not 0 <= row < self.size]:
                raise LockdecError(f"rows of the plug {plug!r}: the batch has no row {odd[0]}; it has {self.size}")
            if len(set(numbers)) < len(numbers):
                raise LockdecError(f"rows of the plug {plug!r}: {numbers} names a row twice")

    def index(self, rows: Int[Tensor, " n"]) -> PlugBatch:
        """These rows of the batch, in this order."""
        parts = []
        for plug, places, encoded in self.parts:
            new, old = occurrences(rows, places)
            parts.append(PlugRows(plug, new, encoded.index(old)))
        return PlugBatch(len(rows), tuple(parts))

    def __len__(self) -> int:
        return self.size


def occurrences(wanted: Int[Tensor, " n"], places: Int[Tensor, " m"]) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Where in `wanted` a number of `places` stands, and where in `places` that number does."""
    new, old = (wanted[:, None] == places).nonzero(as_tuple=True)
    return new, old
