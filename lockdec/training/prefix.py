"""The hidden states that frozen layers give sequences which training repeats: computed once, read in every step.

Below the lowest layer that learns or attends to an encoder, the hidden states of a sequence depend on its tokens alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lockdec.console import track
from lockdec.data.tokenizer import pad
from lockdec.store.writing import PARTIAL, require_free_space
from lockdec.transformer.models import LockingModel

IN_MEMORY = 2**30  # bytes; hidden states that need more are memory-mapped
MAPPED = f".prefix{PARTIAL}"  # a name by which the store removes what a killed process has left
_TOKENS = 2048  # computed at a time
_WHOLE = 4096  # positions at a time, with those that sequences share: each row has keys and values of all of them
_WORTH = 4  # tokens that all sequences share, from which on they are computed once
_SHORT = 256  # tokens after those; of longer texts, the scores of attention would take more memory than is saved


class FrozenPrefix:
    """The hidden states of sequences below a layer.

    Equal to what the layers would compute in each step, except for the order of summation.

    Args:
        model: in evaluation mode; its layers below `layers` must not change as long as this is used.
        sequences: tokens; the last one of each predicts nothing and so needs no hidden state.
        layers: how many layers to run.
        folder: of the unfinished artifact; contains the hidden states if they do not fit into `IN_MEMORY`.
        precision: of the trainer, in which the steps compute.

    Attributes:
        layers: how many layers have been run.
        bytes: size of the hidden states.
        seconds: how long they took.

    Raises:
        StoreError: the disk has no room for them.
    """

    def __init__(
        self,
        model: LockingModel,
        sequences: Sequence[Sequence[int]],
        layers: int,
        folder: Path,
        precision: str = "32-true",
    ) -> None:
        started = time.monotonic()
        self.layers = layers
        self._lengths = [len(sequence) - 1 for sequence in sequences]
        self._ends = list(accumulate(self._lengths))
        self._file: Path | None = None
        weight = next(model.parameters())  # of the embedding
        shape = (self._ends[-1], model.config.d_model)
        self.bytes = shape[0] * shape[1] * weight.element_size()
        if self.bytes > IN_MEMORY:
            self._file = folder / MAPPED
            self._hidden = _mapped(self._file, self.bytes, weight.dtype).view(shape)
        else:
            self._hidden = torch.empty(shape, dtype=weight.dtype)
        shared = _beginning([sequence[:-2] for sequence in sequences])  # at least one token of each is not shared
        shared = shared if shared >= _WORTH and max(self._lengths) - shared <= _SHORT else 0
        with torch.no_grad(), _computing_in(precision, weight.device):
            for rows in track(list(self._batches(shared)), "running the frozen layers"):
                tokens = pad([sequences[row][:-1] for row in rows])
                real = torch.arange(tokens.shape[1]) < torch.tensor([[self._lengths[row]] for row in rows])
                found = model.prefix(tokens.to(weight.device), layers, real.to(weight.device), shared)
                for row, hidden in zip(rows, found.hidden.cpu(), strict=True):
                    self._of(row).copy_(hidden[: self._lengths[row]])
        self.seconds = time.monotonic() - started

    def batch(self, rows: Sequence[int]) -> Float[Tensor, "b t d_model"]:
        """The hidden states of some sequences, padded with zeros to the longest one."""
        padded = self._hidden.new_zeros(len(rows), max(self._lengths[row] for row in rows), self._hidden.shape[1])
        for place, row in zip(padded, rows, strict=True):
            place[: self._lengths[row]] = self._of(row)
        return padded

    @property
    def metrics(self) -> dict[str, float]:
        """What it has cost."""
        return {"prefix_layers": self.layers, "prefix_bytes": self.bytes, "prefix_seconds": round(self.seconds, 3)}

    def close(self) -> None:
        """Remove the file, if there is one."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _of(self, row: int) -> Tensor:
        return self._hidden[self._ends[row] - self._lengths[row] : self._ends[row]]

    def _batches(self, shared: int) -> Iterator[list[int]]:
        """Rows of similar length."""
        rows: list[int] = []
        for row in sorted(range(len(self._lengths)), key=self._lengths.__getitem__):
            length, count = self._lengths[row], len(rows) + 1
            if rows and (count * (length - shared) > _TOKENS or count * length > _WHOLE):
                yield rows
                rows = []
            rows.append(row)
        yield rows


def _computing_in(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """What a trainer of Lightning computes its steps in."""
    if not precision.endswith("-mixed"):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision.startswith("bf16") else torch.float16)


def _beginning(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with."""
    first, last = min(map(tuple, sequences)), max(map(tuple, sequences))  # any two others have as much in common
    alike = [one == other for one, other in zip(first, last, strict=False)]
    return alike.index(False) if False in alike else len(alike)


def _mapped(path: Path, size: int, dtype: torch.dtype) -> Tensor:
    require_free_space(path, size, "the hidden states of the frozen layers")
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)  # now, since a full disk would end the process when it is written
    return torch.from_file(str(path), shared=True, size=size // dtype.itemsize, dtype=dtype)
