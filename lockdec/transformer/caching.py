"""What is computed once while a sequence is written, and how rows of it leave or change places."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Rows:
    """Rows of a batch that are to be kept, in a new order; what already stands where it should is not copied.

    Args:
        kept: the old places of the rows, by their new ones.
    """

    def __init__(self, kept: Int[Tensor, " n"]) -> None:
        self._count = len(kept)
        self._to = (kept != torch.arange(len(kept), device=kept.device)).nonzero().squeeze(1)
        self._from = kept[self._to]

    def move(self, x: Tensor, used: int | None = None) -> Tensor:
        """The rows at their new places, which are the first of x itself.

        Args:
            x: (b, ...), overwritten.
            used: of the third dimension, how much is in use and has to be moved; all of it where not given.
        """
        moving = x if used is None else x[:, :, :used]
        moving[self._to] = moving[self._from]
        return x[: self._count]


@dataclass(frozen=True)
class Memory:
    """The keys and values of all that one attention may look at: computed once, looked at many times."""

    key: Float[Tensor, "b heads s d_k"]
    value: Float[Tensor, "b heads s d_v"]
    mask: Bool[Tensor, "b s"] | None  # true where there is something

    def laid_out(self) -> Memory:
        """The same for many short looks: each head's keys in one piece, and no mask where nothing is masked.

        Its rows may be moved, so what was remembered is not to be used any more.
        """
        mask = None if self.mask is None or bool(self.mask.all()) else self.mask.clone()
        return Memory(self.key.contiguous(), self.value.contiguous(), mask)

    def select(self, rows: Rows) -> Memory:
        """These rows of the batch, moved to its front; this memory is not to be used again."""
        mask = None if self.mask is None else rows.move(self.mask)
        return Memory(rows.move(self.key), rows.move(self.value), mask)

    def __len__(self) -> int:
        return len(self.key)


class KeyValueCache:
    """The keys and values of the tokens so far, in a buffer of a fixed size that is written in place.

    Args:
        max_len: how many tokens it has room for.
    """

    def __init__(self, max_len: int) -> None:
        self.length = 0
        self._max_len = max_len
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, key: Float[Tensor, "b heads t d"], value: Float[Tensor, "b heads t d"]) -> Memory:
        """Add the next t tokens and return all so far."""
        if self._keys is None or self._values is None:
            rows, heads, _, d = key.shape
            self._keys = key.new_empty(rows, heads, self._max_len, d)
            self._values = value.new_empty(rows, heads, self._max_len, d)
        start, self.length = self.length, self.length + key.shape[2]
        self._keys[:, :, start : self.length] = key
        self._values[:, :, start : self.length] = value
        return Memory(self._keys[:, :, : self.length], self._values[:, :, : self.length], None)

    def select(self, rows: Rows) -> None:
        """Keep these rows: beams change places, finished rows leave."""
        if self._keys is not None and self._values is not None:
            self._keys = rows.move(self._keys, self.length)
            self._values = rows.move(self._values, self.length)


class FixedKeyValueCache:
    """The same for steps that are all alike, so that one of them can be recorded and repeated by a GPU alone.

    How many tokens there are is counted on the device, every step sees the whole buffer, and a mask hides what has not
    been written yet. All rows stay, though they may change places.

    Args:
        max_len: how many tokens it has room for.
    """

    def __init__(self, max_len: int, device: torch.device) -> None:
        self.length = torch.zeros((), dtype=torch.long, device=device)
        self._places = torch.arange(max_len, device=device)
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, key: Float[Tensor, "b heads 1 d"], value: Float[Tensor, "b heads 1 d"]) -> Memory:
        """Add the next token and return all there is room for, with a mask that is true up to this token."""
        if self._keys is None or self._values is None:
            rows, heads, _, d = key.shape
            self._keys = key.new_zeros(rows, heads, len(self._places), d)
            self._values = value.new_zeros(rows, heads, len(self._places), d)
        place = self.length.view(1)
        self._keys.index_copy_(2, place, key)
        self._values.index_copy_(2, place, value)
        self.length += 1
        return Memory(self._keys, self._values, (self._places < self.length).expand(len(key), -1))

    def restart(self) -> None:
        """Forget all tokens."""
        self.length.zero_()

    def select(self, rows: Rows) -> None:
        """Give the rows these places."""
        if self._keys is not None and self._values is not None:
            rows.move(self._keys)
            rows.move(self._values)


class DecoderCache:
    """What decoding token by token keeps: each layer's past, and its memory of the encoded input.

    Args:
        memories: of each layer.
        max_len: how many tokens there is room for.
        fixed: where the tensors of a step that is recorded are: all rows then stay, in tensors of one shape.
    """

    def __init__(self, memories: list[Memory | None], max_len: int, fixed: torch.device | None = None) -> None:
        self.memories = [memory and memory.laid_out() for memory in memories]
        self.past = [KeyValueCache(max_len) if fixed is None else FixedKeyValueCache(max_len, fixed) for _ in memories]
        self.fixed = fixed is not None

    @property
    def length(self) -> int | Int[Tensor, ""]:
        """How many tokens it holds."""
        return self.past[0].length

    def restart(self) -> None:
        """Forget all tokens; only where it is fixed."""
        for past in self.past:
            if isinstance(past, FixedKeyValueCache):
                past.restart()

    def select(self, rows: Int[Tensor, " n"], inputs: Int[Tensor, " b"] | None = None) -> None:
        """Keep these rows, in this order, and, if not all are wanted any more, these inputs."""
        moves = Rows(rows)
        for past in self.past:
            past.select(moves)
        if inputs is not None:
            moves = Rows(inputs)
            self.memories = [memory and memory.select(moves) for memory in self.memories]
