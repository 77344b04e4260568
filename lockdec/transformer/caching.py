"""What is computed once while a sequence is written, and how rows of it leave or change places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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


class Ancestry:
    """Which of the tokens written for an input each of its beams goes on from: no past is copied when beams fork.

    Args:
        beams: of each input; they write a token each in every step.
        max_len: how many steps there is room for.
        dtype: of the scores.

    Attributes:
        bias: of this step, for `plain_attention`, over the places there are or, where these are counted on the device,
            all there is room for.
    """

    bias: Float[Tensor, "b beams s"]

    def __init__(self, inputs: int, beams: int, max_len: int, device: torch.device, dtype: torch.dtype) -> None:
        self.beams, self._dtype = beams, dtype
        self._own = torch.eye(beams, dtype=torch.bool, device=device)
        self._seen = torch.zeros(inputs, beams, max_len, beams, dtype=torch.bool, device=device)

    def clear(self) -> None:
        """Have no beam see anything."""
        self._seen.zero_()

    def begin(self, step: int | Int[Tensor, ""]) -> None:
        """Have every beam see the token that it adds in this step."""
        if isinstance(step, int):
            self._seen[:, :, step] = self._own
            seen = self._seen[:, :, : step + 1]
        else:
            own = self._own.unsqueeze(1).expand(len(self._seen), -1, 1, -1)
            seen = self._seen.index_copy_(2, step.view(1), own)
        self.bias = mask_bias(seen.flatten(2), self._dtype)

    def select(self, parents: Int[Tensor, "b beams"], inputs: Rows | None) -> None:
        """Have each beam go on from another of the same input, and keep these inputs of the batch."""
        places = parents[:, :, None, None].expand_as(self._seen)
        self._seen.copy_(self._seen.gather(1, places))
        if inputs is not None:
            self._seen = inputs.move(self._seen)


def mask_bias(mask: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """What to add to scores so that softmax gives nothing to what is not in the mask, if anything is in it."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min / 2)


class Past(NamedTuple):
    """The keys and values of all tokens so far, and which of them each beam sees; without a bias all of them."""

    key: Float[Tensor, "b heads s d"]
    value: Float[Tensor, "b heads s d"]
    bias: Float[Tensor, "b beams s"] | None


class KeyValueCache:
    """The keys and values of the tokens so far, in a buffer of a fixed size that is written in place.

    Args:
        max_len: how many tokens of a row it has room for.
        ancestry: of the beams, where there are several; the tokens of all beams of an input then share a row.
    """

    def __init__(self, max_len: int, ancestry: Ancestry | None = None) -> None:
        self.length = 0
        self._max_len, self._ancestry = max_len, ancestry
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, key: Float[Tensor, "n heads t d"], value: Float[Tensor, "n heads t d"]) -> Past:
        """Add the next t tokens of every row or beam, and return all so far."""
        beams = 1 if self._ancestry is None else self._ancestry.beams
        key, value = side_by_side(key, beams), side_by_side(value, beams)
        if self._keys is None or self._values is None:
            rows, heads, _, d = key.shape
            self._keys = key.new_empty(rows, heads, self._max_len * beams, d)
            self._values = value.new_empty(rows, heads, self._max_len * beams, d)
        start = self.length * beams
        end = start + key.shape[2]
        self.length = end // beams
        self._keys[:, :, start:end] = key
        self._values[:, :, start:end] = value
        bias = None if self._ancestry is None else self._ancestry.bias
        return Past(self._keys[:, :, :end], self._values[:, :, :end], bias)

    def select(self, rows: Rows) -> None:
        """Keep these rows: what is finished leaves."""
        if self._keys is not None and self._values is not None:
            used = self.length * (1 if self._ancestry is None else self._ancestry.beams)
            self._keys = rows.move(self._keys, used)
            self._values = rows.move(self._values, used)


class FixedKeyValueCache:
    """The same for steps that are all alike, so that a GPU can repeat one of them by itself.

    How many tokens there are is counted on the device, and every step sees the whole buffer, where the ancestry hides
    what has not been written yet. All rows stay.

    Args:
        max_len: how many tokens of a row it has room for.
        ancestry: of the beams, be it one.
    """

    def __init__(self, max_len: int, ancestry: Ancestry, device: torch.device) -> None:
        self.length = torch.zeros((), dtype=torch.long, device=device)
        self._max_len, self._ancestry = max_len, ancestry
        self._places = torch.arange(ancestry.beams, device=device)
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, key: Float[Tensor, "n heads 1 d"], value: Float[Tensor, "n heads 1 d"]) -> Past:
        """Add the next token of every row or beam, and return all there is room for."""
        beams = self._ancestry.beams
        key, value = side_by_side(key, beams), side_by_side(value, beams)
        if self._keys is None or self._values is None:
            rows, heads, _, d = key.shape
            self._keys = key.new_zeros(rows, heads, self._max_len * beams, d)
            self._values = value.new_zeros(rows, heads, self._max_len * beams, d)
        places = self.length * beams + self._places
        self._keys.index_copy_(2, places, key)
        self._values.index_copy_(2, places, value)
        self.length += 1
        return Past(self._keys, self._values, self._ancestry.bias)


def side_by_side(x: Float[Tensor, "n heads t d"], beams: int) -> Float[Tensor, "b heads places d"]:
    """The t tokens of each beam of an input, as t * beams places of one row."""
    if beams == 1:
        return x
    rows, heads, t, d = x.shape
    return x.view(rows // beams, beams, heads, t, d).permute(0, 2, 3, 1, 4).flatten(2, 3)


class DecoderCache:
    """What decoding token by token keeps: each layer's past, and its memory of the encoded input.

    Args:
        memories: of each layer.
        inputs, beams: rows are beams of inputs, side by side.
        max_len: how many tokens of a row there is room for.
        like: any tensor where, and of the kind that, keys and values will be.
        fixed: whether all steps are alike, so that one can be recorded; then all inputs stay.
    """

    def __init__(
        self,
        memories: list[Memory | None],
        inputs: int,
        beams: int,
        max_len: int,
        like: Tensor,
        fixed: bool = False,
    ) -> None:
        self.memories = [memory and memory.laid_out() for memory in memories]
        self.fixed = fixed
        self._ancestry = Ancestry(inputs, beams, max_len, like.device, like.dtype) if fixed or beams > 1 else None
        self.past = [
            FixedKeyValueCache(max_len, self._ancestry, like.device)
            if fixed and self._ancestry is not None
            else KeyValueCache(max_len, self._ancestry)
            for _ in memories
        ]

    @property
    def length(self) -> int | Int[Tensor, ""]:
        """How many tokens of a row it holds."""
        return self.past[0].length

    def begin(self) -> None:
        """Get ready for the next token of every row."""
        if self._ancestry is not None:
            self._ancestry.begin(self.length)

    def restart(self) -> None:
        """Forget all tokens, where it is fixed."""
        for past in self.past:
            if isinstance(past, FixedKeyValueCache):
                past.length.zero_()
        if self._ancestry is not None:
            self._ancestry.clear()

    def select(self, inputs: Int[Tensor, " n"] | None, parents: Int[Tensor, "b beams"] | None = None) -> None:
        """Have beams go on from others, and let inputs leave.

        Args:
            inputs: that stay, in their new order; None where all do.
            parents: the beam of the same input that each beam goes on from, before any input leaves.
        """
        moves = None if inputs is None else Rows(inputs)
        if self._ancestry is not None and parents is not None:
            self._ancestry.select(parents, moves)
        if moves is not None:
            for past in self.past:
                if isinstance(past, KeyValueCache):
                    past.select(moves)
            self.memories = [memory and memory.select(moves) for memory in self.memories]
