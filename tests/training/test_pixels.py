"""Pictures in a file of bytes: the same as the data has, and each once in an epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lockdec.data.openmoji import OpenMoji
from lockdec.training import pixels
from lockdec.training.pixels import PixelDataModule, batch_of, write_pixels


@pytest.mark.parametrize("chunk", [1, 64])
def test_the_file_holds_the_pictures_of_the_rows_in_their_order(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "_CHUNK", chunk)
    data, rows = OpenMoji(limit=32, resolution=16), [5, 0, 7]
    mapped = write_pixels(tmp_path / "pixels", data, rows, 16)
    assert mapped.shape == (3, 16, 16, 3)
    for found, picture in zip(mapped, data.inputs(rows), strict=True):
        assert np.array_equal(found, np.asarray(picture))
    assert (tmp_path / "pixels").stat().st_size == mapped.size, "a byte a value, and nothing else"
    batch = batch_of(mapped, [2, 0])
    assert batch.shape == (2, 3, 16, 16)
    assert torch.equal(batch[0].permute(1, 2, 0), torch.from_numpy(mapped[2]))


def test_every_epoch_sees_each_picture_once_in_another_order() -> None:
    """Each picture is all of one number."""
    pictures = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    module = PixelDataModule(pictures, pictures[:5], batch_size=2, steps=10, seed=0)
    seen = [int(number) for batch in module.train_dataloader() for number in batch[:, 0, 0, 0]]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    again = [int(number) for batch in module.train_dataloader() for number in batch[:, 0, 0, 0]]
    assert seen == again
    measured = [int(number) for batch in module.val_dataloader() for number in batch[:, 0, 0, 0]]
    assert measured == list(range(5))
