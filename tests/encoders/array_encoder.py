"""A caption set of ragged arrays and an encoder that hands them on: states whose values a test can choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lockdec.data.captions import CaptionSet, Input, Modality
from lockdec.encoders.contract import Encoder
from lockdec.transformer.encoded import Encoded


class Arrays(CaptionSet):
    """The first rows train, then `held_out` val rows, then as many test rows."""

    def __init__(self, arrays: Sequence[NDArray[Any]], held_out: int = 2) -> None:
        self.arrays = list(arrays)
        rows = list(range(len(arrays)))
        super().__init__(
            ids=[f"row {row}" for row in rows],
            captions=[["caption"] for _ in rows],
            splits={
                "train": rows[: -2 * held_out],
                "val": rows[-2 * held_out : -held_out],
                "test": rows[-held_out:],
            },
            modality="array",
            inputs_fingerprint="arrays",
        )

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        return [self.arrays[row] for row in indices]


class Scaled(Encoder):
    """Each row of an array times a weight is a state. It forgets to freeze itself, as a user's may."""

    modality: Modality = "array"

    def __init__(self, dim: int, weight: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.dim, self.offset = dim, offset
        self.weight = nn.Parameter(torch.tensor(weight))
        self.dropout = nn.Dropout(0.5)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"offset": self.offset}

    def preprocess(self, inputs: Sequence[Input]) -> Tensor:
        rows = [torch.from_numpy(array) for array in inputs if isinstance(array, np.ndarray)]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=torch.nan)

    def forward(self, batch: Tensor) -> Encoded:
        mask = ~batch.isnan().all(dim=2)  # padding; a single NaN is a bad input
        return Encoded(self.dropout(batch.where(mask[:, :, None], 0) * self.weight + self.offset), mask)


class InDouble(Scaled):
    """Its network computes in double precision, and its preprocessing yields single precision."""

    def __init__(self) -> None:
        super().__init__(1)
        self.network = nn.Linear(1, 1, dtype=torch.float64)

    def preprocess(self, inputs: Sequence[Input]) -> Tensor:
        return torch.stack([torch.from_numpy(array[:100]) for array in inputs if isinstance(array, np.ndarray)])[
            ..., None
        ]

    def forward(self, batch: Tensor) -> Encoded:
        return Encoded(self.network(batch), torch.ones(batch.shape[:2], dtype=torch.bool))
