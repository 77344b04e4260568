"""Pictures as bytes of one size in a memory-mapped file, and the batch of them that each training step sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from lockdec.console import track
from lockdec.data.captions import CaptionSet
from lockdec.encoders.pictures import pixels
from lockdec.training.batching import PinningDataModule, StepLoader, epoch_batches

PIXELS = "pixels.uint8"
_CHUNK = 64  # pictures read at a time

PixelBatch: TypeAlias = UInt8[Tensor, "b 3 side side"]


def write_pixels(path: Path, data: CaptionSet, rows: Sequence[int], side: int) -> NDArray[Any]:
    """Read the pictures of these rows once, into a file: data need not fit in memory.

    Returns:
        The file, memory-mapped: UInt8[n side side 3], from 0 to 255.

    Raises:
        DataError: a picture cannot be read.
    """
    starts = range(0, len(rows), _CHUNK)
    with path.open("wb") as file:  # not through the map: there a full disk would kill the process
        for start in track(starts, "reading pictures", total=len(starts)):
            read = pixels(data.inputs(rows[start : start + _CHUNK]), side, "an autoencoder")
            file.write(read.permute(0, 2, 3, 1).contiguous().numpy().data)
    return np.memmap(path, np.uint8, mode="r+", shape=(len(rows), side, side, 3))


class PixelDataModule(PinningDataModule):
    """Pictures in batches of `batch_size`, in another order each epoch.

    Args:
        train: what to train on, as `write_pixels` gives it.
        val: what to measure on; the same batches each time.
        steps: of the whole training.
        seed: draws the order.
    """

    def __init__(self, train: NDArray[Any], val: NDArray[Any], *, batch_size: int, steps: int, seed: int) -> None:
        super().__init__()
        self._train, self._val = train, val
        self._batch_size, self._steps, self._seed = batch_size, steps, seed

    def train_dataloader(self) -> StepLoader[PixelBatch]:
        alike = [1] * len(self._train)
        return StepLoader(
            lambda epoch: epoch_batches(alike, self._seed, epoch, max_rows=self._batch_size),
            lambda rows: batch_of(self._train, rows),
            self._steps,
        )

    def val_dataloader(self) -> StepLoader[PixelBatch]:
        rows = list(range(len(self._val)))
        batches = [rows[start : start + self._batch_size] for start in range(0, len(rows), self._batch_size)]
        return StepLoader(lambda _: batches, lambda chosen: batch_of(self._val, chosen), len(batches))


def batch_of(mapped: NDArray[Any], rows: Sequence[int]) -> PixelBatch:
    """These pictures, laid out channels last."""
    return torch.from_numpy(np.ascontiguousarray(mapped[list(rows)])).permute(0, 3, 1, 2)
