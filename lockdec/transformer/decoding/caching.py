"""What is computed once while a sequence is written, and how rows of it leave or change places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

TOGETHER = 16  # places of the past: products and softmax are fast where vectors are full, and few sizes occur


class Rows:
    """Rows of a batch that are to be kept, in a new order; what already stands where it should is not copied.

    Args:
        kept: the old places of the rows, by their new ones.
    """

    def __init__(self, kept: Int[Tensor, " n"]) -> None:
        self._count = len(kept)
        self._to = (kept != torch.arange(len(kept), device=kept.device)).nonzero().squeeze(1)
        self._from = kept[self._to]

    def move(self, x: Tensor) -> Tensor:
        """The rows of x (b, ...) at their new places, which are the first of x itself."""
        x[self._to] = x[self._from]
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

    The tokens of all beams of an input share a row of places, those of a step side by side.

    Args:
        beams: of each input; they write a token each in every step.
        max_len: how many steps there is room for.
        dtype: of the scores.
        fixed: whether all steps are alike, so that a GPU can repeat one of them by itself: steps are counted on the
            device, and every step looks at all places. Otherwise it looks at the next multiple of TOGETHER.

    Attributes:
        step: the present one, from 0.
        places: where its tokens go.
        until: how many places it looks at.
        bias: for `plain_attention`, over these places: each beam sees the tokens that it goes on from, and its own.
    """

    places: slice | Int[Tensor, " beams"]
    until: int
    bias: Float[Tensor, "b beams s"]

    def __init__(
        self, inputs: int, beams: int, max_len: int, device: torch.device, dtype: torch.dtype, fixed: bool
    ) -> None:
        self.beams, self._dtype = beams, dtype
        self._room = whole_pieces(max_len * beams)
        self.step: int | Int[Tensor, ""] = torch.full((), -1, device=device) if fixed else -1
        self._own, self._beam = torch.eye(beams, dtype=torch.bool, device=device), torch.arange(beams, device=device)
        self._seen = torch.zeros(inputs, beams, self._room, dtype=torch.bool, device=device)

    def restart(self) -> None:
        """Go back to before the first step, where all steps are alike."""
        if isinstance(self.step, Tensor):
            self.step.fill_(-1)
        self._seen.zero_()

    def begin(self) -> None:
        """Go on to the next step, where every beam sees the token that it adds."""
        self.step += 1
        start = self.step * self.beams
        if isinstance(start, Tensor):
            self.places, self.until = start + self._beam, self._room
            self._seen.index_copy_(2, self.places, self._own.expand(len(self._seen), -1, -1))
        else:
            self.places, self.until = slice(start, start + self.beams), whole_pieces(start + self.beams)
            self._seen[:, :, self.places] = self._own
        self.bias = mask_bias(self._seen[:, :, : self.until], self._dtype)

    def select(self, parents: Int[Tensor, "b beams"] | None, inputs: Rows | None) -> None:
        """Have each beam go on from another of the same input, and keep these inputs of the batch."""
        if parents is not None and self.beams > 1:
            self._seen.copy_(self._seen.gather(1, parents.unsqueeze(2).expand_as(self._seen)))
        if inputs is not None:
            self._seen = inputs.move(self._seen)


def whole_pieces(places: int) -> int:
    """So many places, rounded up."""
    return -(-places // TOGETHER) * TOGETHER


def mask_bias(mask: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """What to add to scores so that softmax gives nothing to what is not in the mask, if anything is in it."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min / 2)


class Past(NamedTuple):
    """The keys and values of a row's places, and which of them each beam sees."""

    key: Float[Tensor, "b heads s d"]
    value: Float[Tensor, "b heads s d"]
    bias: Float[Tensor, "b beams s"]


class KeyValueCache:
    """One layer's keys and values of the tokens so far, written in place.

    Args:
        ancestry: which all layers share.
    """

    def __init__(self, ancestry: Ancestry) -> None:
        self.ancestry = ancestry
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, key: Float[Tensor, "n heads 1 d"], value: Float[Tensor, "n heads 1 d"]) -> Past:
        """Add this step's token of every row or beam, and return all there is to look at."""
        self._keys = self._with(self._keys, key)
        self._values = self._with(self._values, value)
        return Past(self._keys, self._values, self.ancestry.bias)

    def _with(self, kept: Float[Tensor, "b heads s d"] | None, new: Tensor) -> Float[Tensor, "b heads more d"]:
        """What was kept, with a step's tokens at their places, zeros where there is nothing yet."""
        past = self.ancestry
        beside = new.view(-1, past.beams, *new.shape[1:]).transpose(1, 2).squeeze(3)  # (b, heads, beams, d)
        if kept is None:
            kept = beside.new_empty(*beside.shape[:2], 0, beside.shape[3])
        if kept.shape[2] < past.until:
            kept = F.pad(kept, (0, 0, 0, past.until - kept.shape[2]))
        if isinstance(past.places, slice):
            kept[:, :, past.places] = beside
        else:
            kept.index_copy_(2, past.places, beside)
        return kept

    def select(self, rows: Rows) -> None:
        """Keep these rows: what is finished leaves."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = rows.move(self._keys), rows.move(self._values)


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
        self._ancestry = Ancestry(inputs, beams, max_len, like.device, like.dtype, fixed)
        self.past = [KeyValueCache(self._ancestry) for _ in memories]

    @property
    def step(self) -> int | Int[Tensor, ""]:
        """Which step it is, from 0: the position of the tokens that it adds."""
        return self._ancestry.step

    def begin(self) -> None:
        """Get ready for the next token of every row."""
        self._ancestry.begin()

    def restart(self) -> None:
        """Forget all tokens, where it is fixed."""
        self._ancestry.restart()

    def select(self, inputs: Int[Tensor, " n"] | None, parents: Int[Tensor, "b beams"] | None = None) -> None:
        """Have beams go on from others, and let inputs leave.

        Args:
            inputs: that stay, in their new order; None where all do.
            parents: the beam of the same input that each beam goes on from, before any input leaves.
        """
        moves = None if inputs is None else Rows(inputs)
        self._ancestry.select(parents, moves)
        if moves is not None:
            for past in self.past:
                past.select(moves)
            self.memories = [memory and memory.select(moves) for memory in self.memories]
