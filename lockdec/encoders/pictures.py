"""What image encoders share: reading pixels, and the positions of grid cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lockdec.data.captions import Input
from lockdec.errors import DataError

POSITION = 5  # channels of the position of a cell


def pixels(inputs: Sequence[Input], side: int, reader: str) -> UInt8[Tensor, "b 3 side side"]:
    """RGB pixels, resized to a square whatever their aspect ratio, in channels-last memory format.

    Args:
        inputs: RGB images.
        side: pixels along each side of the result.
        reader: the name of the encoder, for errors.

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
    """x, y, x^2, y^2 and xy of each cell, from -1 to 1."""
    along = torch.linspace(-1, 1, grid) if grid > 1 else torch.zeros(1)
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x, y, x * x, y * y, x * y], dim=-1)
