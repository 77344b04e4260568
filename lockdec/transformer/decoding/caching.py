"""What decoding computes once and keeps, and how the rows of it are moved when sequences finish or beams fork."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from lockdec.transformer.encoded import occurrences
from lockdec.transformer.masks import mask_bias

PIECE = 16  # a cache grows by so many places, since products and softmax are fast at few, round sizes


class Rows:
    """Rows of a batch to be kept, in a new order; those already in the right place are not copied.

    Args:
        kept: for each new row, its old place.

    Attributes:
        kept: the same.
    """

    def __init__(self, kept: Int[Tensor, " n"]) -> None:
        self.kept, self._count = kept, len(kept)
        self._to = (kept != torch.arange(len(kept), device=kept.device)).nonzero().squeeze(1)
        self._from = kept[self._to]

    def move(self, x: Tensor) -> Tensor:
        """Move the rows of x (b, ...) in place; returns the first n of x."""
        x[self._to] = x[self._from]
        return x[: self._count]


@dataclass(frozen=True)
class Memory:
    """The keys and values that a cross-attention attends to: computed once for all steps and beams."""

    key: Float[Tensor, "b heads s d_k"]
    value: Float[Tensor, "b heads s d_v"]
    mask: Bool[Tensor, "b s"] | None  # true where there is a state

    @property
    def query_mask(self) -> Bool[Tensor, "b 1 s"] | None:
        """The mask, the same for all queries of a row."""
        return None if self.mask is None else self.mask.unsqueeze(1)

    def for_steps(self) -> Memory:
        """The same for many short steps: contiguous keys and values, and no mask where nothing is masked.

        Its rows may be moved in place, so this memory must not be used any more.
        """
        mask = None if self.mask is None or bool(self.mask.all()) else self.mask.clone()
        return Memory(self.key.contiguous(), self.value.contiguous(), mask)

    def select(self, rows: Rows) -> Memory:
        """These rows of the batch, moved in place: this memory must not be used any more."""
        mask = None if self.mask is None else rows.move(self.mask)
        return Memory(rows.move(self.key), rows.move(self.value), mask)

    def __len__(self) -> int:
        return len(self.key)


Part = TypeVar("Part")


@dataclass(frozen=True)
class PlugMemory(Generic[Part]):
    """The memories of a batch whose rows attend by different plugs; see `lockdec.transformer.encoded.PlugBatch`.

    Attributes:
        size: rows of the batch.
        parts: of each plug: its cross-attention, the rows that attend by it, and the memory of these rows.
    """

    size: int
    parts: tuple[tuple[Part, Int[Tensor, " _"], Memory], ...]

    def for_steps(self) -> PlugMemory[Part]:
        """As `Memory.for_steps`."""
        return PlugMemory(self.size, tuple((part, rows, memory.for_steps()) for part, rows, memory in self.parts))

    def select(self, rows: Rows) -> PlugMemory[Part]:
        """These rows of the batch."""
        parts = []
        for part, places, memory in self.parts:
            new, old = occurrences(rows.kept, places)
            mask = None if memory.mask is None else memory.mask[old]
            parts.append((part, new, Memory(memory.key[old], memory.value[old], mask)))
        return PlugMemory(len(rows.kept), tuple(parts))

    def __len__(self) -> int:
        return self.size


class Ancestry:
    """Which cached tokens each beam descends from, so that no keys or values are copied when beams fork.

    All beams of an input share one row of places in the cache. A step fills `beams` neighbouring places, one for the
    token of each beam, and a beam attends to the places that it descends from. What all beams begin with, a prompt, may
    be added by steps before; each of its tokens has one place, and all beams descend from it.

    Args:
        inputs: rows of the batch.
        beams: of each input; every step adds a token to each.
        max_len: how many steps there is room for.
        dtype: of the scores.

    Attributes:
        step: the position of the tokens that the present step adds, or of the first of them; from 0.
        shared: how many tokens the present step adds for all beams together; 0 where each beam has its own.
        places: where its tokens go.
        until: how many places it attends to, a multiple of PIECE.
        bias: made by `mask_bias` over these places: true at the beam's ancestors and its own token; causal for shared
            tokens.
    """

    places: slice
    until: int
    bias: Float[Tensor, "_ _ s"]

    def __init__(self, inputs: int, beams: int, max_len: int, device: torch.device, dtype: torch.dtype) -> None:
        self.beams, self._dtype = beams, dtype
        self.step = self.shared = self._next = self._filled = 0
        self._own_token = torch.eye(beams, dtype=torch.bool, device=device)
        self._ancestors = torch.zeros(inputs, beams, whole_pieces(max_len * beams), dtype=torch.bool, device=device)

    @property
    def inputs(self) -> int:
        """Rows of the batch."""
        return len(self._ancestors)

    def begin(self, shared: int = 0) -> None:
        """Begin the next step, in which every beam also attends to the token that it adds.

        Args:
            shared: how many tokens to add that all beams share instead; only before any that they do not share.
        """
        start, self.shared = self._filled, shared
        self.step, self._next = self._next, self._next + (shared or 1)
        self._filled = start + (shared or self.beams)
        self.places, self.until = slice(start, self._filled), whole_pieces(self._filled)
        if shared:
            self._ancestors[:, :, self.places] = True
            seen = torch.ones(1, shared, self.until, dtype=torch.bool, device=self._ancestors.device).tril(start)
        else:
            self._ancestors[:, :, self.places] = self._own_token
            seen = self._ancestors[:, :, : self.until]
        self.bias = mask_bias(seen, self._dtype)

    def select(self, parents: Int[Tensor, "b beams"] | None, inputs: Rows | None) -> None:
        """Replace each beam by a continuation of another one of the same input, then keep these inputs."""
        if parents is not None and self.beams > 1:
            self._ancestors.copy_(self._ancestors.gather(1, parents.unsqueeze(2).expand_as(self._ancestors)))
        if inputs is not None:
            self._ancestors = inputs.move(self._ancestors)


def whole_pieces(places: int) -> int:
    """This number of places, rounded up to a multiple of PIECE."""
    return -(-places // PIECE) * PIECE


class Past(NamedTuple):
    """The keys and values of all places of a row, and the bias that says which of them each beam attends to."""

    key: Float[Tensor, "b heads s d"]
    value: Float[Tensor, "b heads s d"]
    bias: Float[Tensor, "_ _ s"]


class KeyValueCache:
    """One layer's keys and values of the tokens so far, updated in place.

    Args:
        ancestry: shared by all layers.
    """

    def __init__(self, ancestry: Ancestry) -> None:
        self.ancestry = ancestry
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, key: Float[Tensor, "n heads t d"], value: Float[Tensor, "n heads t d"]) -> Past:
        """Add the tokens of this step: one for each beam of each input, or those that its beams, or all inputs, share.

        Returns:
            All there is to attend to.
        """
        self._keys = self._updated(self._keys, key)
        self._values = self._updated(self._values, value)
        rows = len(key)  # one, where all inputs have had the same tokens so far; else at least as many as the cache
        return Past(self._keys[:rows], self._values[:rows], self.ancestry.bias)

    def _updated(self, cached: Float[Tensor, "b heads s d"] | None, new: Tensor) -> Float[Tensor, "b heads more d"]:
        """The cached places with the new tokens at theirs; places not yet filled are zero."""
        ancestry = self.ancestry
        tokens = new  # (b, heads, shared, d)
        if not ancestry.shared:
            tokens = new.view(-1, ancestry.beams, *new.shape[1:]).transpose(1, 2).squeeze(3)  # (b, heads, beams, d)
        if cached is None:
            cached = tokens.new_empty(ancestry.inputs, tokens.shape[1], 0, tokens.shape[3])
        if cached.shape[2] < ancestry.until:
            cached = F.pad(cached, (0, 0, 0, ancestry.until - cached.shape[2]))
        cached[:, :, ancestry.places] = tokens
        return cached

    def select(self, rows: Rows) -> None:
        """Keep these rows of the batch."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = rows.move(self._keys), rows.move(self._values)


@runtime_checkable
class StepCache(Protocol):
    """What a strategy needs of the cache of a decoder."""

    def select(self, inputs: Int[Tensor, " n"] | None, parents: Int[Tensor, "b beams"] | None = None) -> None:
        """Replace beams by continuations of others, and drop inputs that are finished.

        Args:
            inputs: those that stay, in their new order; None where all do.
            parents: for each beam, the beam of the same input that it continues; of all inputs, before any is dropped.
        """
        ...


class DecoderCache:
    """What decoding token by token keeps: each layer's past, and its memory of the encoded input.

    Args:
        memories: of each layer; None where it has no cross-attention or is locked.
        inputs, beams: the rows of a step are the beams of the inputs, side by side.
        max_len: how many tokens of a sequence there is room for.
        like: any tensor with the device and dtype of the keys and values.

    Attributes:
        unnumbered: how many of the first vectors are not counted where positions are added to tokens.
    """

    def __init__(
        self, memories: Sequence[Memory | PlugMemory[Any] | None], inputs: int, beams: int, max_len: int, like: Tensor
    ) -> None:
        self.unnumbered = 0
        self.memories: list[Memory | PlugMemory[Any] | None] = [memory and memory.for_steps() for memory in memories]
        self._ancestry = Ancestry(inputs, beams, max_len, like.device, like.dtype)
        self.past = [KeyValueCache(self._ancestry) for _ in memories]

    @property
    def inputs(self) -> int:
        """Those that are not finished."""
        return self._ancestry.inputs

    @property
    def step(self) -> int:
        """The position of the tokens that the present step adds, or of the first of them; from 0."""
        return self._ancestry.step

    def begin(self, shared: int = 0) -> None:
        """Begin the step that adds the next token of every row, or, before any of these, `shared` ones of all beams."""
        self._ancestry.begin(shared)

    def select(self, inputs: Int[Tensor, " n"] | None, parents: Int[Tensor, "b beams"] | None = None) -> None:
        """As `StepCache`."""
        kept = None if inputs is None else Rows(inputs)
        self._ancestry.select(parents, kept)
        if kept is not None:
            for past in self.past:
                past.select(kept)
            self.memories = [memory and memory.select(kept) for memory in self.memories]
