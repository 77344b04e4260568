"""Pixels of pictures of any size and mode, and the positions of grid cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lockdec.encoders.pictures import POSITION, pixels, positions
from lockdec.errors import DataError


def test_pixels_of_the_right_size_are_the_pictures_own() -> None:
    values = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    batch = pixels([Image.fromarray(array) for array in values], 8, "Reader")
    assert batch.dtype == torch.uint8
    assert batch.permute(0, 2, 3, 1).numpy().tobytes() == values.tobytes()


def test_other_sizes_become_squares_and_other_modes_colours() -> None:
    wide = Image.new("RGB", (30, 10), (255, 0, 0))
    grey = Image.new("L", (5, 5), 51)
    batch = pixels([wide, grey], 8, "Reader")
    assert batch.shape == (2, 3, 8, 8)
    assert batch[0].flatten(1).float().mean(1).tolist() == [255, 0, 0]
    assert (batch[1] == 51).all()


def test_what_is_no_picture_is_refused_with_the_reader_named() -> None:
    with pytest.raises(DataError, match="Reader reads images, not str"):
        pixels([Image.new("RGB", (8, 8)), "a cat"], 8, "Reader")


def test_positions_are_x_y_and_their_products_from_corner_to_corner() -> None:
    grid = positions(3)
    assert grid.shape == (3, 3, POSITION)
    assert grid[0, 2].tolist() == [1, -1, 1, 1, -1]  # the top right corner
    assert grid[2, 1].tolist() == [0, 1, 0, 1, 0]  # the middle of the bottom row
    assert not grid[1, 1].any()
    assert not positions(1).any()
