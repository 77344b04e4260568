"""The drawings and their names again, with inputs of another modality in place of the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lockdec.data.captions import Input
from lockdec.data.openmoji import OpenMoji, SplitKind


class _Arrays(OpenMoji):
    def __init__(
        self, split: SplitKind = "compositional", split_seed: int = 0, resolution: int = 8, limit: int | None = None
    ) -> None:
        super().__init__(split, split_seed, resolution, limit=limit)
        self.modality = "array"


class Sounds(_Arrays):
    """A short noise for each drawing, of a length and a timbre of its own."""

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        return [_noise(self.ids[row]) for row in indices]


class Ids(_Arrays):
    """The id of each drawing, under which another tool has left states."""

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        return [self.ids[row] for row in indices]


def _noise(name: str) -> Input:
    rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    return (rng.normal(size=int(rng.integers(300, 600))) * 0.1).astype(np.float32)
