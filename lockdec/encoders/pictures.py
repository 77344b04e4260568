"""What encoders of pictures share: how pixels go in, and how a state says where its cell is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lockdec.data.captions import Input
from lockdec.errors import DataError

POSITION = 5  # channels that say where a cell is


def pixels(inputs: Sequence[Input], side: int, reader: str) -> UInt8[Tensor, "b 3 side side"]:
    """RGB pixels, resized (and squeezed where they are not square), laid out channels last.

    Args:
        reader: who reads them, for errors.

    Raises:
        DataError: an input is not an image.
    """
    arrays = []
    for image in inputs:
        if not isinstance(image, Image.Image):
            raise DataError(f"{reader} reads images, not {type(image).__name__}")
        image = image if image.mode == "RGB" else image.convert("RGB")
        square = image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BICUBIC)
        arrays.append(np.asarray(square))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def positions(grid: int) -> Float[Tensor, "grid grid channels"]:
    """Of each cell x, y, x^2, y^2 and xy, from -1 to 1."""
    along = torch.linspace(-1, 1, grid) if grid > 1 else torch.zeros(1)
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x, y, x * x, y * y, x * y], dim=-1)
